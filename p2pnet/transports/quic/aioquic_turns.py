"""aioquic's connection, taught to look at its streams less often (Q25), and to acknowledge along.

The library asks each stream for a frame, for each packet: those that have nothing to send, and
those that come after the one that has filled the packet. What the streams get is the same here,
a packet each in turn, but a full packet ends the round, and who has nothing sleeps::

    a frame about it, a call of ours, any loss --> woken --> the library's queue --+
                                                                                   |
                              asleep <-- nothing to say, as seen before a flight --+

And for each packet it compares the credit of each stream with what the remote was told of it.
Here it gets to see those alone of which there is something to tell.
"""

from __future__ import annotations

from collections.abc import ValuesView

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicNetworkPath
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch

SMALLEST_FRAME_BYTES = 4
"""Type, stream and length."""


class PacketFull(Exception):
    """The next stream's turn comes with the next packet."""


class Streams(dict[int, QuicStream]):
    """All streams; but those that are walked over are only the ones with news of their credit."""

    def __init__(self, due: dict[int, QuicStream]) -> None:
        super().__init__()
        self._due = due

    def values(self) -> ValuesView[QuicStream]:  # type: ignore[override]
        return dict(self._due).values()


class TurnTakingConnection(QuicConnection):
    """A connection whose work for a packet doesn't grow with the number of its streams."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        original_destination_connection_id: bytes | None,
        retry_source_connection_id: bytes | None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._due: dict[int, QuicStream] = {}
        self._streams = Streams(self._due)
        self._asleep: dict[int, QuicStream] = {}
        self._woken: list[QuicStream] = []
        self._gone: list[int] = []

    def take_gone(self) -> list[int]:
        """Return the streams that are over since this was last asked."""
        gone, self._gone = self._gone, []
        return gone

    # ---- who is looked at ----------------------------------------------------------------

    def _wake(self, number: int) -> None:
        stream = self._asleep.pop(number, None)
        if stream is not None:
            self._woken.append(stream)

    def wake_all(self) -> None:
        """Look at all streams: something was lost, and the library tells only them."""
        self._woken += self._asleep.values()
        self._asleep.clear()
        for number, stream in self._streams.items():
            if stream.max_stream_data_local_sent != stream.max_stream_data_local:
                self._due[number] = stream

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        self._wake(stream_id)  # Each frame about a stream passes here.
        return super()._get_or_create_stream(frame_type, stream_id)

    def _get_or_create_stream_for_send(self, stream_id: int) -> QuicStream:
        self._wake(stream_id)
        return super()._get_or_create_stream_for_send(stream_id)

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        self._wake(stream_id)
        super().stop_stream(stream_id, error_code)

    def _queue_up(self) -> None:
        """Queue those who have something to say, and let the others sleep."""
        awake = self._woken + self._streams_queue
        self._woken, self._streams_queue = [], []
        for stream in awake:
            if not is_idle(stream):
                self._streams_queue.append(stream)
            elif is_ending(stream):
                self._woken.append(stream)
            else:
                self._asleep[stream.stream_id or 0] = stream

    # ---- credit --------------------------------------------------------------------------

    def raise_limit(self, number: int, limit: int) -> None:
        """Let the remote send so much on a stream, counted from its beginning (Q13)."""
        stream = self._streams[number]
        stream.max_stream_data_local = limit
        self._due[number] = stream

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        if not receiver.is_finished:
            # The library would raise the limit by what has arrived, read or not: it sees nothing.
            highest, receiver.highest_offset = receiver.highest_offset, 0
            try:
                super()._write_stream_limits(builder, space, stream)
            finally:
                receiver.highest_offset = highest
        self._due.pop(stream.stream_id or 0, None)

    # ---- a packet ------------------------------------------------------------------------

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        self._queue_up()
        queued = self._streams_queue
        if queued:
            self._acknowledge_along(now)
        try:
            while not self._write_until_full(builder, network_path, now):
                self._loss._pacer.update_after_send(now=now)  # noqa: SLF001
        finally:
            numbers = [stream.stream_id or 0 for stream in queued]
            self._gone += [number for number in numbers if number not in self._streams]

    def _acknowledge_along(self, now: float) -> None:
        """Acknowledge with what is about to be sent, not alone a little later (RFC 9000, 13.2)."""
        space = self._spaces[Epoch.ONE_RTT]
        if space.ack_at is not None:
            space.ack_at = min(space.ack_at, now)

    def _write_until_full(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> bool:
        try:
            super()._write_application(builder, network_path, now)
        except PacketFull:
            return False
        return True

    def _write_stream_frame(
        self,
        builder: QuicPacketBuilder,
        space: QuicPacketSpace,
        stream: QuicStream,
        max_offset: int,
    ) -> int:
        if builder.remaining_flight_space < SMALLEST_FRAME_BYTES and not builder.packet_is_empty:
            raise PacketFull
        return super()._write_stream_frame(builder, space, stream, max_offset)


def is_idle(stream: QuicStream) -> bool:
    """Return True if a stream has nothing to say, and is not over."""
    sender = stream.sender
    return (
        sender.buffer_is_empty
        and not sender.reset_pending
        and not stream.receiver.stop_pending
        and not stream.is_finished
    )


def is_ending(stream: QuicStream) -> bool:
    """Return True if an acknowledgement may end a stream, of which only the stream is told."""
    sender = stream.sender
    has_ended = sender._buffer_fin is not None or sender._reset_error_code is not None  # noqa: SLF001
    return has_ended and stream.receiver.is_finished
