"""aioquic's connection, taught to look at its streams less often (Q25), and to acknowledge along.

The library asks each stream for a frame, for each packet: those that have nothing to send, and
those that come after the one that has filled the packet. What the streams get is the same here,
a packet each in turn, but a full packet ends the round, and who has nothing is not asked.
"""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection, QuicNetworkPath
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch

SMALLEST_FRAME_BYTES = 4
"""Type, stream and length."""


class PacketFull(Exception):
    """The next stream's turn comes with the next packet."""


class TurnTakingConnection(QuicConnection):
    """A connection whose work for a packet doesn't grow with the number of its streams."""

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        idle = [stream for stream in self._streams_queue if is_idle(stream)]
        if idle:
            self._streams_queue = [each for each in self._streams_queue if not is_idle(each)]
        if self._streams_queue:
            self._acknowledge_along(now)
        try:
            while not self._write_until_full(builder, network_path, now):
                self._loss._pacer.update_after_send(now=now)  # noqa: SLF001
        finally:
            if idle:
                self._streams_queue = idle + self._streams_queue

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
