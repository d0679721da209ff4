"""The secured stream: T12, T13 and updates of keys (T9) of specs/tls.md, and trio's own rules."""

from __future__ import annotations

import hashlib
import hmac

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from p2pnet.errors import (
    ConnectionLost,
    StreamTampered,
)
from p2pnet.interfaces import Role
from p2pnet.security.tls.stream import BATCH_BYTES, LAST_WORD_SECONDS
from tests.security.tls.strangers import (
    ALICE_ID,
    BOB,
    Stranger,
    Tap,
    secure_both,
    security_of,
    stranger_context,
    tapped_pair,
)

OURS = security_of(BOB)


# ---- the stream --------------------------------------------------------------------------


async def make_memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.memory_stream_pair())
    return ends[0].stream, ends[1].stream


async def make_lockstep_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.lockstep_stream_pair())
    return ends[0].stream, ends[1].stream


async def test_the_secured_stream_behaves_as_every_trio_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await trio.testing.check_two_way_stream(make_memory_pair, None)
    await trio.testing.check_two_way_stream(make_lockstep_pair, make_lockstep_pair)


@pytest.mark.parametrize("size", [1, 16_384, 16_385, BATCH_BYTES, BATCH_BYTES + 1])
async def test_any_amount_arrives_whole_and_in_few_sends(size: int) -> None:
    sender, tap, receiver, _ = await tapped_pair()
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await sender.send_all(data)
    assert len(tap.sent) == -(-size // BATCH_BYTES)
    received = bytearray()
    while len(received) < size:
        received += await receiver.receive_some()
    assert received == data


async def test_all_whole_records_of_a_chunk_are_handed_out_at_once() -> None:
    sender, _, receiver, _ = await tapped_pair()
    for text in (b"one", b"two", b"three"):
        await sender.send_all(text)
    assert await receiver.receive_some() == b"onetwothree"
    await sender.send_all(b"abcdefgh")
    assert await receiver.receive_some(3) == b"abc"
    assert await receiver.receive_some(4) == b"defg"
    assert await receiver.receive_some() == b"h"


async def test_who_closes_says_so_and_what_it_sent_before_arrives() -> None:
    """T12."""
    sender, tap, receiver, _ = await tapped_pair()
    await sender.send_all(b"last")
    await sender.aclose()
    assert tap.is_closed
    assert await receiver.receive_some() == b"last"
    assert await receiver.receive_some() == b""
    assert await receiver.receive_some() == b""


@pytest.mark.parametrize("left", [0, 1, 20])
async def test_an_end_that_nobody_spoke_of_is_a_loss(left: int) -> None:
    """T12: before, between and within records."""
    sender, tap, receiver, other = await tapped_pair()
    other.change = lambda data: data[:left] if data else data
    await sender.send_all(b"first")
    await tap._stream.aclose()
    with pytest.raises(ConnectionLost):
        await receiver.receive_some()
    with pytest.raises(ConnectionLost):
        await receiver.send_all(b"x")


async def test_closing_waits_but_a_second_for_room_on_the_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """T12."""
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    await sender.aclose()
    assert tap.is_closed
    assert trio.current_time() == pytest.approx(LAST_WORD_SECONDS)


async def test_closing_in_the_middle_of_a_send_ends_both_at_once() -> None:
    """T12."""
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sender.send_all(b"y")
        await sender.aclose()
        assert tap.is_closed
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await sender.send_all(b"z")


async def test_an_interrupted_send_is_never_taken_up_again() -> None:
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    with trio.CancelScope() as scope:
        scope.cancel()
        await sender.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError, match="interrupted"):
        await sender.send_all(b"y")


async def test_tampering_ends_both_directions_and_closes_the_connection() -> None:
    """T13."""
    sender, _, receiver, other = await tapped_pair()
    other.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    await sender.send_all(b"hello")
    for _ in range(2):
        with pytest.raises(StreamTampered):
            await receiver.receive_some()
    with pytest.raises(StreamTampered):
        await receiver.send_all(b"x")
    assert other.is_closed


async def test_two_receivers_are_one_too_many() -> None:
    _, _, receiver, _ = await tapped_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await receiver.receive_some()
        nursery.cancel_scope.cancel()


# ---- an update of keys -------------------------------------------------------------------


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, 7.1, for what fits into one block."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2) + bytes([len(name)]) + name + b"\x00"
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)[:size]


class Records:
    """One direction of a connection, by hand: TLS_AES_128_GCM_SHA256."""

    def __init__(self, secret: bytes, number: int = 0) -> None:
        self.secret = secret
        self.number = number

    def updated(self) -> Records:
        return Records(expand(self.secret, "traffic upd", 32))

    def seal(self, content: bytes, kind: int) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        cipher, nonce = self._next()
        return header + cipher.encrypt(nonce, content + bytes([kind]), header)

    def open(self, record: bytes) -> tuple[bytes, int]:
        cipher, nonce = self._next()
        inner = cipher.decrypt(nonce, record[5:], record[:5])
        return inner[:-1], inner[-1]

    def _next(self) -> tuple[AESGCM, bytes]:
        iv = int.from_bytes(expand(self.secret, "iv", 12))
        nonce = (iv ^ self.number).to_bytes(12)
        self.number += 1
        return AESGCM(expand(self.secret, "key", 16)), nonce


def cut(records: bytes) -> list[bytes]:
    found = []
    while records:
        size = 5 + int.from_bytes(records[3:5])
        found.append(records[:size])
        records = records[size:]
    return found


KEY_UPDATE_REQUESTED, KEY_UPDATE = b"\x18\x00\x00\x01\x01", b"\x18\x00\x00\x01\x00"
HANDSHAKE, DATA = 22, 23


async def by_hand() -> tuple[trio.abc.Stream, trio.abc.SendStream, Records, Records, Tap]:
    """Return a dialer's stream, the other end, and both directions by hand."""
    one, other = trio.testing.memory_stream_pair()
    tap = Tap(one)
    secrets: dict[str, bytes] = {}

    def remember(_: SSL.Connection, line: bytes) -> None:
        name, _client, secret = line.decode().split()
        secrets[name] = bytes.fromhex(secret)

    context = stranger_context()
    context.set_keylog_callback(remember)
    stranger = Stranger(context, other, Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.shake_hands)
        found = await OURS.secure(tap, Role.DIALER, expected=ALICE_ID, muxers=())
    assert stranger.tls.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    # OpenSSL's two tickets came before.
    theirs = Records(secrets["SERVER_TRAFFIC_SECRET_0"], 2)
    return found.stream, other, theirs, Records(secrets["CLIENT_TRAFFIC_SECRET_0"]), tap


async def test_an_update_of_keys_is_answered_by_the_next_sender_and_not_by_the_receiver() -> None:
    stream, other, theirs, old, tap = await by_hand()
    for _ in range(3):
        await other.send_all(theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE))
        theirs = theirs.updated()
    await other.send_all(theirs.seal(b"news", DATA))
    assert await stream.receive_some() == b"news"
    assert len(tap.sent) == 2
    await stream.send_all(b"answer")
    *answers, data = cut(tap.sent[2])
    assert 1 <= len(answers) <= 3
    for answer in answers:
        assert old.open(answer) == (KEY_UPDATE, HANDSHAKE)
        old = old.updated()
    assert old.open(data) == (b"answer", DATA)


async def test_a_remote_that_does_nothing_but_update_its_keys_is_cut_off() -> None:
    """T9: the answers that wait do not pile up."""
    stream, other, theirs, _, _ = await by_hand()
    flood = bytearray()
    while len(flood) < 1 << 16:
        flood += theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE)
        theirs = theirs.updated()
    await other.send_all(flood)
    with pytest.raises(ConnectionLost, match="update its keys"):
        await stream.receive_some()
