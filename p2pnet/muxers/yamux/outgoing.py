"""Frames on their way out: those without payload first, then the streams by turns.

Each stream has a queue of its own, of chunks that are whole frames::

    control:   SYN ACK credit pings     ---+
    stream 1:  [Data][Data][Data]       ---+--->  take(): all control frames, then a chunk of
    stream 7:  [Data Data FIN]          ---+      each stream in turn until there is enough
    last:      GoAway                   ---+

A stream's FIN and RST go behind its data, and a goodbye behind everything (Y19, Y20).
"""

from __future__ import annotations

from collections import deque

from p2pnet.muxers.yamux.messages import DATA, FIN, GO_AWAY, HEADER_BYTES, RST, encode

PATIENCE_BYTES = 1024
"""Frames that can wait for company wait no longer once this many bytes are ready."""
OWN_BYTES = 32_768
"""What each stream may have here, however much others have; a 16th of the limit at most."""
MIN_TURN = 16_384
MAX_TURN = 262_144


class Queue:
    """What one stream has to send."""

    __slots__ = ("chunks", "controls", "size")

    def __init__(self) -> None:
        self.chunks: deque[bytearray] = deque()
        self.size = 0
        self.controls = 0
        """Bytes of frames without payload among them."""

    def last(self, wanted: int, most: int) -> bytearray:
        """Return a chunk that takes ``wanted`` bytes more; of ``most`` bytes, or of one frame."""
        if not self.chunks or len(self.chunks[-1]) + wanted > most:
            self.chunks.append(bytearray())
        self.size += wanted
        return self.chunks[-1]


class Outgoing:
    """Collects frames until somebody takes them to send.

    Data is bounded by who writes it: a stream does not while ``has_room_for`` it is False.
    Control frames are small and answer what the remote did, so only a remote that does not
    read can make the buffer ``is_overflowing``.
    """

    def __init__(self, *, max_unsent: int, max_control: int) -> None:
        self.turn = MIN_TURN
        """Most bytes of a stream before it is another's turn, but for a frame that is larger."""
        self._control = bytearray()
        self._last = bytearray()
        self._queues: dict[int, Queue] = {}
        self._max_unsent = max_unsent
        self._max_control = max_control
        self._own = min(OWN_BYTES, max_unsent // 16)
        self._size = 0
        self._control_bytes = 0
        self._urgent = False

    def __len__(self) -> int:
        return self._size

    @property
    def is_empty(self) -> bool:
        return not self._size

    @property
    def is_urgent(self) -> bool:
        """True if something here should not wait for other frames to travel with."""
        return self._urgent or self._size >= PATIENCE_BYTES

    @property
    def has_room(self) -> bool:
        """False while not even a stream that has nothing here may add to it."""
        return self._size < 2 * self._max_unsent

    def has_room_for(self, stream_id: int) -> bool:
        """Tell whether a stream may add data (Y21)."""
        if self._size < self._max_unsent:
            return True
        queue = self._queues.get(stream_id)
        return self.has_room and (queue is None or queue.size < self._own)

    @property
    def is_overflowing(self) -> bool:
        return self._control_bytes > self._max_control

    def control(
        self, kind: int, flags: int, stream_id: int, length: int, *, urgent: bool = True
    ) -> None:
        """Add a frame without payload."""
        frame = encode(kind, flags, stream_id, length)
        queue = self._queues.get(stream_id) if flags & (FIN | RST) else None
        if queue is not None:
            buffer = queue.last(HEADER_BYTES, self.turn)
            queue.controls += HEADER_BYTES
        else:
            buffer = self._last if kind == GO_AWAY else self._control
        buffer += frame
        self._size += HEADER_BYTES
        self._control_bytes += HEADER_BYTES
        self._urgent = self._urgent or urgent

    def data(
        self,
        stream_id: int,
        payload: bytes | bytearray | memoryview,
        start: int,
        end: int,
        *,
        urgent: bool = True,
    ) -> None:
        """Add a Data frame with ``payload[start:end]``."""
        queue = self._queues.get(stream_id)
        if queue is None:
            queue = self._queues[stream_id] = Queue()
        size = HEADER_BYTES + end - start
        buffer = queue.last(size, self.turn)
        buffer += encode(DATA, 0, stream_id, end - start)
        if end - start == len(payload):
            buffer += payload
        else:
            with memoryview(payload) as view, view[start:end] as part:
                buffer += part
        self._size += size
        self._urgent = self._urgent or urgent

    def take(self, most: int | None = None) -> bytearray:
        """Hand out about ``most`` bytes, or all; whoever takes them sends them before more."""
        taken, self._control = self._control, bytearray()
        self._control_bytes -= len(taken)
        chunks = [taken] if taken else []
        size = len(taken)
        while self._queues and (most is None or size < most):
            chunk = self._take_turn()
            chunks.append(chunk)
            size += len(chunk)
        if not self._queues and self._last:
            chunks.append(self._last)
            size += len(self._last)
            self._control_bytes -= len(self._last)
            self._last = bytearray()
        self._size -= size
        self._urgent = bool(self._size)
        return chunks[0] if len(chunks) == 1 else bytearray().join(chunks)

    def _take_turn(self) -> bytearray:
        """Take a chunk of the stream whose turn it is; it is then last in the row (Y20)."""
        stream_id = next(iter(self._queues))
        queue = self._queues.pop(stream_id)
        chunk = queue.chunks.popleft()
        queue.size -= len(chunk)
        if queue.chunks:
            self._queues[stream_id] = queue
        else:
            self._control_bytes -= queue.controls
        return chunk
