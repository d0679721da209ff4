"""The headers of TLS records in a handshake: what no key protects, and OpenSSL passes over. Pure.

A record is a type, a version, a length in two bytes, and so many bytes. What its version says
means nothing any more; but what it has to say is written, so a change on the way shows.
"""

from __future__ import annotations

from p2pnet.errors import SecurityError

RECORD_BYTES = 16_384
"""Most plaintext in one record."""
HEADER_BYTES = 5
HANDSHAKE = 22
VERSION = b"\x03\x03"
FIRST_VERSION = b"\x03\x01"
"""What a ClientHello may have, for old machines on the way."""


CLIENT_HELLO = 1


def begins_with_client_hello(opening: bytes) -> bool:
    """Tell if a remote begins as a dialer does; False while that is not known yet."""
    return opening[:1] == bytes([HANDSHAKE]) and opening[HEADER_BYTES:][:1] == bytes([CLIENT_HELLO])


class RecordHeaders:
    """Looks at each header that comes by, whatever the chunking."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0

    def check(self, data: bytes) -> None:
        """Look at the next bytes of the remote.

        Raises:
            SecurityError: if a version is none that a sender may write.
        """
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(HEADER_BYTES - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) == HEADER_BYTES:
                    self._finish_header()
            at += step

    def _finish_header(self) -> None:
        version = bytes(self._header[1:3])
        may_be_first = version == FIRST_VERSION and self._header[0] == HANDSHAKE
        if version != VERSION and not may_be_first:  # T13
            raise SecurityError(f"a TLS record of version {version.hex()}")
        self._left = int.from_bytes(self._header[3:])
        self._header.clear()
