"""Frames on their way out: one buffer for the whole connection, in order."""

from __future__ import annotations

from p2pnet.muxers.yamux.messages import DATA, HEADER_BYTES, encode

PATIENCE_BYTES = 1024
"""Frames that can wait for company wait no longer once this many bytes are ready."""


class Outgoing:
    """Collects frames until somebody takes them all to send.

    Data is bounded by who writes it: nobody does while the buffer ``is_full``. Control frames
    are small and answer what the remote did, so only a remote that does not read can make the
    buffer ``is_overflowing``.
    """

    def __init__(self, *, max_unsent: int, max_control: int) -> None:
        self._buffer = bytearray()
        self._max_unsent = max_unsent
        self._max_control = max_control
        self._control_bytes = 0
        self._urgent = False

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    @property
    def is_urgent(self) -> bool:
        """True if something here should not wait for other frames to travel with."""
        return self._urgent or len(self._buffer) >= PATIENCE_BYTES

    @property
    def is_full(self) -> bool:
        return len(self._buffer) >= self._max_unsent

    @property
    def is_overflowing(self) -> bool:
        return self._control_bytes > self._max_control

    def control(
        self, kind: int, flags: int, stream_id: int, length: int, *, urgent: bool = True
    ) -> None:
        self._buffer += encode(kind, flags, stream_id, length)
        self._control_bytes += HEADER_BYTES
        self._urgent = self._urgent or urgent

    def data(
        self, stream_id: int, payload: bytes | bytearray | memoryview, start: int, end: int
    ) -> None:
        """Add a Data frame with ``payload[start:end]``."""
        self._buffer += encode(DATA, 0, stream_id, end - start)
        if end - start == len(payload):
            self._buffer += payload
        else:
            with memoryview(payload) as view, view[start:end] as part:
                self._buffer += part
        self._urgent = True

    def take(self) -> bytearray:
        """Hand out all bytes; whoever takes them sends them before taking more."""
        taken, self._buffer = self._buffer, bytearray()
        self._control_bytes = 0
        self._urgent = False
        return taken
