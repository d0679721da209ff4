"""Attacks on the TLS handshake of a host, and on the secured stream after it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Role
from p2pnet.negotiation.driver import select_one
from p2pnet.security.noise import Noise
from p2pnet.security.tls import TLS
from p2pnet.security.tls.certificate import NOT_AFTER, NOT_BEFORE, OwnCertificate
from tests.hostile.attacker import GONE, attacked, dial, drain, victim, warnings
from tests.security.tls.strangers import CERTIFICATE, Stranger, stranger_context

pytestmark = pytest.mark.sockets


def of_some_authority(*, bulk: int = 0) -> OwnCertificate:
    """Make a certificate as the web has them: nothing in it speaks of libp2p."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "example.org")])
    builder = (
        x509.CertificateBuilder()
        .serial_number(1)
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .public_key(key.public_key())
    )
    if bulk:
        filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(bulk))
        builder = builder.add_extension(filler, critical=False)
    made = builder.sign(key, None)
    return OwnCertificate(made.public_bytes(Encoding.DER), key)


STRANGERS: dict[str, Callable[[], SSL.Context]] = {
    "no certificate": lambda: stranger_context(None),
    "two certificates": lambda: stranger_context(extra=[CERTIFICATE.certificate]),
    "a certificate of the web": lambda: stranger_context(of_some_authority()),
    "a certificate of 32 KiB": lambda: stranger_context(of_some_authority(bulk=32_768)),
    "a certificate of 1 MiB": lambda: stranger_context(of_some_authority(bulk=1 << 20)),
    "TLS 1.2": lambda: stranger_context(newest=SSL.TLS1_2_VERSION),
    "no ALPN": lambda: stranger_context(alpn=[]),
    "another ALPN": lambda: stranger_context(alpn=[b"h2"]),
}


def both() -> HostConfig:
    return replace(victim(), security=[TLS(), Noise()])


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_is_refused_and_told_once(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked(both()) as host:
        async with await dial(host) as stream:
            await select_one(stream, ["/tls/1.0.0"])
            stranger = Stranger(STRANGERS[kind](), stream, Role.DIALER)
            with pytest.raises((SSL.Error, *GONE)):
                await converse(stranger)
        assert host.connections() == ()
    (warning,) = warnings(caplog)
    assert "/ip4/127.0.0.1/tcp/" in warning
    assert len(warning) < 500


async def converse(stranger: Stranger) -> None:
    await stranger.shake_hands()
    while True:
        await stranger.receive()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 4096,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff" * 20_000,
    ],
    ids=["zeros", "a record too long", "an alert", "HTTP", "a message of 16 MiB"],
)
async def test_garbage_is_refused_and_told_once(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked(both()) as host, await dial(host) as stream:
        await select_one(stream, ["/tls/1.0.0"])
        with suppress(*GONE):
            await stream.send_all(garbage)
        await drain(stream)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("forged", [b"\x17\x03\x03\x00\x20" + b"\x07" * 32, b"\x00" * 50])
async def test_what_is_forged_after_the_handshake_ends_the_connection(
    forged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked(both()) as host, await dial(host) as stream:
        await select_one(stream, ["/tls/1.0.0"])
        stranger = Stranger(stranger_context(), stream, Role.DIALER)
        await stranger.shake_hands()
        with suppress(*GONE):
            await stream.send_all(forged)
        await drain(stream)
    (warning,) = warnings(caplog)
    assert "127.0.0.1" in warning
