"""aioquic's connection, taught to look for larger datagrams: it has no such thing itself.

A probe is a packet of its own, PING and PADDING. It goes into the books of what was sent, so
that its acknowledgement is recognised, but as what waits for no answer: its loss is no sign of
congestion, and arms no timer (Q27). When to probe, and for what, ``path_size.py`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet import (
    QuicFrameType,
    QuicPacketType,
    pull_quic_transport_parameters,
)
from aioquic.quic.packet_builder import (
    QuicDeliveryState,
    QuicPacketBuilder,
    QuicSentPacket,
)

from p2pnet.transports.quic.aioquic_pacer import Pacer
from p2pnet.transports.quic.aioquic_turns import TurnTakingConnection
from p2pnet.transports.quic.path_size import PathSize

PROBE_AFTER_BYTES = 65_536
"""Who sends less than that gains nothing by larger datagrams (Q26)."""

Datagrams = list[tuple[bytes, tuple[str, int]]]


class Reno(RenoCongestionControl):
    """The library's, which tells the path's size what becomes of packets."""

    def __init__(self, *, max_datagram_size: int, on_lost: Callable[[], None]) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._on_lost = on_lost
        self.path = PathSize(max_datagram_size, max_datagram_size)

    def set_datagram_size(self, size: int) -> None:
        self._max_datagram_size = size

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        super().on_packet_acked(now=now, packet=packet)
        self.path.packet_arrived(packet.packet_number, packet.sent_bytes)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        super().on_packets_lost(now=now, packets=packets)
        self._missed(packets, now)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        expired = list(packets)
        super().on_packets_expired(packets=expired)
        # Whatever has waited in vain for so long that it is sent again.
        self._missed(expired, max((packet.sent_time or 0.0 for packet in expired), default=0.0))

    def _missed(self, packets: Iterable[QuicSentPacket], now: float) -> None:
        self._on_lost()
        for packet in packets:
            self.path.packet_missed(packet.packet_number, packet.sent_bytes, now)


class ProbeBuilder(QuicPacketBuilder):
    """Builds a packet that counts neither as in flight nor as one that asks for an answer."""

    def flush(self) -> tuple[list[bytes], list[QuicSentPacket]]:
        datagrams, packets = super().flush()
        for packet in packets:
            packet.in_flight = packet.is_ack_eliciting = False
        return datagrams, packets


class ProbingConnection(TurnTakingConnection):
    """A connection whose datagrams grow to what the path carries."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        most: int,
        original_id: bytes | None,
        retry_id: bytes | None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_id,
            retry_source_connection_id=retry_id,
        )
        self._base = configuration.max_datagram_size
        self._most = most
        self._reno = Reno(max_datagram_size=self._base, on_lost=self.wake_all)
        self._pacer = Pacer(max_datagram_size=self._base)
        self._loss._cc = self._reno  # noqa: SLF001  # Nothing was sent so far.
        self._loss._pacer = self._pacer  # noqa: SLF001
        self._searched: tuple[str, int] | None = None

    @property
    def path(self) -> PathSize:
        return self._reno.path

    @property
    def bytes_in_flight(self) -> int:
        return self._loss.bytes_in_flight

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        taken = pull_quic_transport_parameters(Buffer(data=data)).max_udp_payload_size
        if taken is not None:
            self._most = min(self._most, taken)

    def datagrams_to_send(self, now: float) -> Datagrams:
        self._adopt_size()
        self._pacer.begin(self._max_datagram_size)
        sent = super().datagrams_to_send(now)
        if sent and self._handshake_confirmed and self._close_event is None:
            sent += self._probe(now)
        return sent

    def _adopt_size(self) -> None:
        way = self._network_paths[0].addr
        if self._handshake_confirmed and way != self._searched:
            self._searched = way  # Q28: of another path nothing is known.
            self._reno.path = PathSize(self._base, self._most)
        size = self.path.size
        if size != self._max_datagram_size:
            self._max_datagram_size = size
            self._reno.set_datagram_size(size)

    def _probe(self, now: float) -> Datagrams:
        way = self._network_paths[0]
        if way.bytes_sent < PROBE_AFTER_BYTES or not way.is_validated:
            return []
        size = self.path.probe(
            now,
            round_trip=self._loss._rtt_smoothed,  # noqa: SLF001
            timeout=self._loss.get_probe_timeout(),
        )
        if not size:
            return []
        builder = ProbeBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version or 1,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[tls.Epoch.ONE_RTT])
        frame = builder.start_frame(QuicFrameType.PING, 1, self._on_probe, (self.path, size))
        frame.push_bytes(bytes(builder.remaining_flight_space))
        return self._flush_builder(
            builder=builder, network_path=way, peer_cid=self._peer_cid.cid, now=now
        )

    def _on_probe(self, delivery: QuicDeliveryState, path: PathSize, size: int) -> None:
        if delivery is QuicDeliveryState.ACKED:
            path.acknowledged(size)
        else:
            path.lost(size)
