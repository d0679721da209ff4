"""The TLS of the web around a WebSocket: certificates by authorities, for names.

It hides that this is libp2p, and lets proxies and browsers in; who the peer is, only the
security inside says. Rules: specs/websocket.md (W14 to W16).
"""

from __future__ import annotations

import logging
import os
import ssl
import tempfile
from pathlib import Path

import trio

from p2pnet.errors import HandshakeCut, SecurityError
from p2pnet.security.tls.stream import TLSStream, say_last
from p2pnet.transports.websocket.config import Pem
from p2pnet.transports.websocket.outer_engine import OuterEngine

logger = logging.getLogger("p2pnet.websocket")

ALPN = ["http/1.1"]
RELOAD_SECONDS = 10.0

MAX_HANDSHAKE_BYTES = 131_072
"""Bounds what is read of a remote's handshake; the chains of the web have 3 to 10 KiB (W15)."""
CHUNK_BYTES = 16_384

Stamp = tuple[int, int]


def client_context(authorities: Pem | None) -> ssl.SSLContext:
    """Trust the authorities of the system, and further ones (W14).

    Raises:
        OSError, ValueError: if these cannot be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # W15
    context.set_alpn_protocols(ALPN)
    if isinstance(authorities, bytes):
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    elif authorities is not None:
        context.load_verify_locations(cafile=authorities)
    return context


class ServerIdentity:
    """A server's certificate and key, as fresh as their files (W16)."""

    def __init__(self, certificate: Pem, key: Pem) -> None:
        self._pems = (certificate, key)
        self._stamps = stamps_of(self._pems)
        self._context = server_context(certificate, key)
        self._looked_at = trio.current_time()
        self._complaint = ""
        """What was wrong with the files, and was told once."""

    def context(self) -> ssl.SSLContext:
        """Return the context for the next arrival."""
        now = trio.current_time()
        if now >= self._looked_at + RELOAD_SECONDS:
            self._looked_at = now
            self._look_again()
        return self._context

    def _look_again(self) -> None:
        try:
            stamps = stamps_of(self._pems)
            if stamps != self._stamps:
                self._context = server_context(*self._pems)
                self._stamps = stamps
                self._complaint = ""
        except (OSError, ValueError) as error:
            # Half of a renewal: the certificate and the key do not fit yet. Look again soon.
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.warning("the certificate of WebSocket stays as it was: %s", error)


def stamps_of(pems: tuple[Pem, ...]) -> tuple[Stamp, ...]:
    """Tell by what the files can be known to have changed."""
    found = [os.stat(pem) for pem in pems if not isinstance(pem, bytes)]
    return tuple((each.st_mtime_ns, each.st_ino) for each in found)


def server_context(certificate: Pem, key: Pem) -> ssl.SSLContext:
    """Make a context that shows a certificate.

    Raises:
        OSError: if it cannot be read, or does not fit the key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # W15
    context.set_alpn_protocols(ALPN)
    # The standard library takes certificates from files only.
    with tempfile.TemporaryDirectory(prefix="p2pnet-") as folder:
        context.load_cert_chain(
            in_file(certificate, Path(folder, "certificate.pem")),
            in_file(key, Path(folder, "key.pem")),
            password=no_password,
        )
    return context


def in_file(pem: Pem, path: Path) -> str | os.PathLike[str]:
    """Return a path to what is in a file, or was put there for a moment, for no other user."""
    if not isinstance(pem, bytes):
        return pem
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return path


def no_password() -> str:
    """Refuse a key that needs a password, instead of asking for it at the terminal."""
    raise ValueError("the key of the certificate is encrypted: decrypt it first")


async def secure_as_client(
    stream: trio.abc.Stream, context: ssl.SSLContext, server_name: str
) -> TLSStream:
    """Do the handshake as a client; the certificate must be for ``server_name``, or that IP.

    Raises:
        SecurityError: if it is not, or if the server does not speak TLS.
        HandshakeCut, trio.BrokenResourceError: if the connection breaks.
    """
    try:
        engine = OuterEngine(context, server_name=server_name)
    except (ssl.SSLError, ValueError) as error:  # a name that no certificate could be for
        raise SecurityError(f"TLS with {server_name!r}: {error}") from None
    return await shake_hands(stream, engine, f"TLS with {server_name}")


async def secure_as_server(stream: trio.abc.Stream, context: ssl.SSLContext) -> TLSStream:
    """Do the handshake as a server.

    Raises:
        SecurityError: if the client does not trust the certificate, or does not speak TLS.
        HandshakeCut, trio.BrokenResourceError: if the connection breaks.
    """
    return await shake_hands(stream, OuterEngine(context), "TLS")


async def shake_hands(stream: trio.abc.Stream, engine: OuterEngine, what: str) -> TLSStream:
    left = MAX_HANDSHAKE_BYTES
    try:
        while not engine.shake_hands():
            if data := engine.data_to_send():
                await stream.send_all(data)
            if not left:  # W15
                raise SecurityError("the handshake has no end")
            data = bytes(await stream.receive_some(min(left, CHUNK_BYTES)))
            if not data:
                raise HandshakeCut(f"the remote hung up during the handshake of {what}")
            left -= len(data)
            engine.feed(data)
    except HandshakeCut:
        raise
    except SecurityError as error:
        await say_last(stream, engine.data_to_send())
        raise SecurityError(f"{what}: {error}") from None
    if data := engine.data_to_send():
        await stream.send_all(data)
    return TLSStream(stream, engine)
