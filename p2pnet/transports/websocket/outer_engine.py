"""The TLS of the web without I/O: the standard library's, over buffers in memory.

    remote's bytes --> feed --> [ OuterEngine ] --> read --> plaintext
    plaintext ------> write --> [ OuterEngine ] --> data_to_send --> bytes for the remote

Its stream is that of libp2p's TLS. Other than there, a connection that ends without TLS's word
for it has ended well: on the web this is usual, and what is inside has words of its own.
Rules: specs/websocket.md (W14, W15).
"""

from __future__ import annotations

import ssl

from p2pnet.errors import ConnectionLost, SecurityError
from p2pnet.security.tls.records import RECORD_BYTES

MAX_UNSENT_BYTES = 65_536
"""Of what TLS itself wants to say, as answers to updates of keys, and waits for our next write."""


class OuterEngine:
    """One end of one TLS connection."""

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        """Begin as a client that asks for ``server_name``; without one as a server.

        Raises:
            ssl.SSLError, ValueError: if no certificate could be for such a name.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
        )
        self._is_ended = False

    def shake_hands(self) -> bool:
        """Go on with the handshake; return True when it is over.

        Raises:
            SecurityError: if it fails. There may be something left to send, the reason.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as refused:  # W14
            raise SecurityError(refused.verify_message) from None
        except ssl.SSLError as error:
            raise SecurityError(reason_of(error)) from None
        return True

    # ---- bytes of the wire ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray) -> None:
        self._incoming.write(data)

    def data_to_send(self) -> bytes:
        """Take what must be sent now; empty if nothing."""
        return self._outgoing.read()

    # ---- plaintext, as Sealing in p2pnet.security.tls.stream has it -----------------------------

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    def read(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while not self._is_ended:
                piece = self._tls.read(RECORD_BYTES)
                pieces.append(piece)
                self._is_ended = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_ended = True
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS failed: {reason_of(error)}") from None
        if self._outgoing.pending > MAX_UNSENT_BYTES:
            raise ConnectionLost("the remote does nothing but update its keys")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: memoryview) -> bytes:
        try:
            at = 0
            while at < len(data):  # A record at a time.
                at += self._tls.write(data[at : at + RECORD_BYTES])
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS failed: {reason_of(error)}") from None
        return self._outgoing.read()

    def say_goodbye(self) -> bytes:
        try:
            self._tls.unwrap()
        except ssl.SSLError:  # It wants the remote's goodbye, which nobody waits for.
            return self._outgoing.read()
        return self._outgoing.read()

    def cut(self) -> None:
        """See Sealing.cut: that is how connections of the web end."""


def reason_of(error: ssl.SSLError) -> str:
    return error.reason or str(error)
