"""Length-prefixed messages, whatever the chunking. Rules: specs/framing.md."""

from __future__ import annotations

from p2pnet.core import varint


def encode_frame(payload: bytes) -> bytes:
    return varint.encode(len(payload)) + payload


class FrameDecoder:
    """Cuts a byte stream into messages of at most ``max_bytes`` each.

    What follows a message may belong to another layer, so whoever reads from a stream asks
    ``wanted`` how much. A decoder that raised stays broken and raises again.
    """

    def __init__(self, max_bytes: int, protocol_id: str) -> None:
        self._max_bytes = max_bytes
        self._protocol_id = protocol_id
        self._buffer = bytearray()
        self._found: tuple[int, int] | None = None
        """Where the body of the current message begins and ends, once it is known."""

    @property
    def is_empty(self) -> bool:
        """True if no byte of a message waits in here."""
        return not self._buffer

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Take the next message out; None while it is incomplete.

        Raises:
            ProtocolError: if it is larger than ``max_bytes``, or its length is malformed.
        """
        bounds = self._bounds()
        if bounds is None or len(self._buffer) < bounds[1]:
            return None
        start, end = bounds
        frame = bytes(self._buffer[start:end])
        del self._buffer[:end]
        self._found = None
        return frame

    def wanted(self) -> int:
        """Tell how many bytes may be read now without reading past the current message.

        It is 1 while the length is incomplete, and 0 while a whole message waits in here.

        Raises:
            ProtocolError: if the message is larger than ``max_bytes``, or its length is malformed.
        """
        bounds = self._bounds()
        return 1 if bounds is None else max(0, bounds[1] - len(self._buffer))

    def _bounds(self) -> tuple[int, int] | None:
        """Find where the body of the current message begins and ends."""
        if self._found is None:
            # F3: the length is held against the maximum before anything of the body is awaited.
            length = varint.decode_untrusted(
                self._buffer, max_value=self._max_bytes, protocol_id=self._protocol_id
            )
            self._found = None if length is None else (length[1], length[1] + length[0])
        return self._found
