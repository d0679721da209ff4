"""Attacks on the Noise handshake, and on the secured stream after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest
import trio

from p2pnet.core import varint
from p2pnet.core.env import Env
from p2pnet.core.keys import KeyType, PrivateKey
from p2pnet.host.opening import open_host
from p2pnet.muxers.yamux.messages import DATA
from p2pnet.security.noise.cipher import LENGTH, frame
from p2pnet.security.noise.machine import XXHandshake, private_key, public_bytes
from p2pnet.security.noise.messages import SIGNATURE_PREFIX, HandshakePayload
from tests.hostile.attacker import (
    GONE,
    PATIENCE,
    attacked,
    drain,
    lines,
    muxed,
    negotiate_noise,
    say,
    shake_hands,
    shout,
    victim,
    warnings,
)

pytestmark = pytest.mark.sockets

random_bytes = Env.system().random_bytes


def field(number: int, data: bytes) -> bytes:
    """Encode a bytes field of a protobuf."""
    return bytes([number << 3 | 2]) + varint.encode(len(data)) + data


def huge_rsa() -> bytes:
    """Encode a public key with an RSA modulus of 64 KiB bits, as far as one can say it."""
    number = b"\x02\x82\x20\x01\x00" + b"\xff" * 0x2000
    return b"\x08\x00" + field(2, b"\x30\x82\x20\x09" + number + b"\x02\x03\x01\x00\x01")


def another_key(static: bytes) -> bytes:
    return HandshakePayload.sign(PrivateKey.generate(), b"\x00" * 32).encode()


def wrong_type(static: bytes) -> bytes:
    key = PrivateKey.generate(KeyType.SECP256K1)
    said = b"\x08\x01" + key.public_key.encode()[2:]
    return field(1, said) + field(2, key.sign(SIGNATURE_PREFIX + static))


def unknown_type(static: bytes) -> bytes:
    return field(1, b"\x08\x63" + field(2, b"\x00" * 32)) + field(2, b"\x00" * 64)


PAYLOADS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "garbage": lambda _: b"\xff" * 200,
    "a signature over something else": another_key,
    "a key of another type than it says": wrong_type,
    "a key of an unknown type": unknown_type,
    "a huge RSA key": lambda _: field(1, huge_rsa()) + field(2, b"\x00" * 256),
    "no signature": lambda _: field(1, PrivateKey.generate().public_key.encode()),
    "a huge signature": lambda _: (
        field(1, PrivateKey.generate().public_key.encode()) + field(2, b"\x00" * 8000)
    ),
}


async def read_message(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while len(received) < 2 or len(received) < 2 + LENGTH.unpack_from(received)[0]:
        received += bytes(await stream.receive_some())
    return received[2:]


@dataclass
class Shaking:
    """A handshake of which two messages are done; the third is the attacker's."""

    noise: XXHandshake
    static: bytes
    stream: trio.SocketStream

    @classmethod
    async def begin(cls, stream: trio.SocketStream) -> Shaking:
        static = private_key(random_bytes(32))
        noise = XXHandshake(static=static, ephemeral=private_key(random_bytes(32)))
        await stream.send_all(frame(noise.write_first(b"")))
        noise.read_second(await read_message(stream))
        return cls(noise, public_bytes(static), stream)


@pytest.mark.parametrize("kind", PAYLOADS)
async def test_a_false_identity_is_refused_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host, await negotiate_noise(host) as stream:
        shaking = await Shaking.begin(stream)
        payload = PAYLOADS[kind](shaking.static)
        await stream.send_all(frame(shaking.noise.write_third(payload)))
        await drain(stream)
    (warning,) = warnings(caplog)
    assert "/ip4/127.0.0.1/tcp/" in warning
    assert len(warning) < 500


@pytest.mark.parametrize(
    "first",
    [
        b"\x00\x00",
        b"\x00\x01\x00",
        b"\x00\x20" + b"\x00" * 32,
        b"\xff\xff" + b"\x00" * 100,
        b"\x00\x30" + b"\x07" * 48,
    ],
    ids=["empty", "short", "small order", "oversized", "with early data"],
)
async def test_a_false_first_message_is_refused_and_told_once(
    first: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host, await negotiate_noise(host) as stream:
        await say(stream, first)
    assert len(warnings(caplog)) == 1


async def test_who_hangs_up_within_a_message_is_no_reason_to_warn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with attacked() as host, await negotiate_noise(host) as stream:
        await say(stream, b"\x00\x20" + b"\x07" * 10)
    assert warnings(caplog) == []


async def test_a_message_that_is_replayed_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with attacked() as host, await negotiate_noise(host) as stream:
        shaking = await Shaking.begin(stream)
        proof = HandshakePayload.sign(PrivateKey.generate(), shaking.static)
        third = frame(shaking.noise.write_third(proof.encode()))
        await stream.send_all(third + third)
        await drain(stream)
    assert len(warnings(caplog)) == 1


async def test_a_recorded_handshake_is_worth_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with attacked() as host:
        async with await negotiate_noise(host) as stream:
            shaking = await Shaking.begin(stream)
            proof = HandshakePayload.sign(PrivateKey.generate(), shaking.static)
            third = frame(shaking.noise.write_third(proof.encode()))
        async with await negotiate_noise(host) as stream:
            await Shaking.begin(stream)
            await stream.send_all(third)
            await drain(stream)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "sealed",
    [b"\x00\x00", b"\x00\x05hello", b"\x00\x20" + b"\x00" * 32, b"\xff\xff" + b"\x00" * 0xFFFF],
    ids=["empty", "shorter than its tag", "forged", "a whole one, forged"],
)
async def test_what_is_forged_after_the_handshake_ends_the_connection_and_is_told_once(
    sealed: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked() as host:
        stream = await negotiate_noise(host)
        await shake_hands(stream)
        async with stream:
            with suppress(*GONE):
                await stream.send_all(sealed)
            await drain(stream)
    (warning,) = warnings(caplog)
    assert "127.0.0.1" in warning


async def test_noise_messages_without_content_are_passed_over() -> None:
    with trio.fail_after(PATIENCE):
        async with open_host(victim()) as host, muxed(host) as yamux:
            sealer = yamux.stream._sealer._cipher  # type: ignore[attr-defined]
            below = yamux.stream._stream  # type: ignore[attr-defined]
            await below.send_all(b"".join(frame(sealer.seal(b"", None)) for _ in range(10_000)))
            await yamux.open(1, "/ipfs/ping/1.0.0")
            await yamux.wait_for(DATA, 1)


async def test_noise_that_was_not_asked_for_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with attacked() as host:
        await shout(host, b"\x00\x20" + b"\x07" * 32)
        await shout(host, lines("/multistream/1.0.0", "/plaintext/2.0.0"))
    assert len(warnings(caplog)) == 2
