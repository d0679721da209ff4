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

from p2pnet.errors import SecurityError
from p2pnet.transports.websocket.config import Pem

logger = logging.getLogger("p2pnet.websocket")

ALPN = ["http/1.1"]
RELOAD_SECONDS = 10.0

OuterTls = trio.SSLStream[trio.abc.Stream]
Stamp = tuple[int, int]


def client_context(authorities: Pem | None) -> ssl.SSLContext:
    """Trust the authorities of the system, and further ones (W14).

    Raises:
        OSError, ValueError: if these cannot be read.
    """
    context = ssl.create_default_context()
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
) -> OuterTls:
    """Do the handshake as a client; the certificate must be for ``server_name``, or that IP.

    Raises:
        SecurityError: if it is not, or if the server does not speak TLS.
        trio.BrokenResourceError: if the connection breaks.
    """
    try:
        secured = trio.SSLStream(
            stream, context, server_hostname=server_name, https_compatible=True
        )
    except (ssl.SSLError, ValueError) as error:  # a name that no certificate could be for
        raise SecurityError(f"TLS with {server_name!r}: {error}") from None
    await shake_hands(secured, f"TLS with {server_name}")
    return secured


async def secure_as_server(stream: trio.abc.Stream, context: ssl.SSLContext) -> OuterTls:
    """Do the handshake as a server.

    Raises:
        SecurityError: if the client does not trust the certificate, or does not speak TLS.
        trio.BrokenResourceError: if the connection breaks.
    """
    secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
    await shake_hands(secured, "TLS")
    return secured


async def shake_hands(secured: OuterTls, what: str) -> None:
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        match error.__cause__:
            case ssl.SSLCertVerificationError() as refused:  # W14
                raise SecurityError(f"{what}: {refused.verify_message}") from None
            case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
                raise
            case ssl.SSLError() as failed:
                raise SecurityError(f"{what}: {failed.reason or failed}") from None
            case _:
                raise
