"""Homes as rows of NAT boxes without time or links, and two hosts that punch through them."""

from __future__ import annotations

from collections import deque
from random import Random

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.kinds import Kind
from p2pnet.testing.nat import Hop, Nat, Side
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment, TransportName

SYN, ACK, RST = Flags.SYN, Flags.ACK, Flags.RST
OBSERVER = Endpoint("11.9.0.1", 4001)
ROUNDS = 3


class Home:
    """A host and the NATs in front of it, from the host outwards."""

    def __init__(self, kind: Kind, number: int) -> None:
        random = Random(number)
        self.nats = [
            Nat(nat, outside=[self._outside(number, level)], choose=random.randrange)
            for level, nat in enumerate(kind.nats)
        ]
        first = kind.nats[0] if kind.nats else None
        host = "192.168.1.2" if first and first.translates else f"11.{number}.0.2"
        self.inside = Endpoint(host, 4001)
        self.known_at: Endpoint | None = None
        """Where an observer sees the host."""
        self.syn_sent_to: list[Endpoint] = []
        self.is_connected = False

    def _outside(self, number: int, level: int) -> str:
        return f"11.{number}.{level}.1"

    def send(self, packet: Packet, now: float) -> Packet | None:
        for nat in self.nats:
            hop = nat.outbound(packet, now)
            if not isinstance(hop, Hop):
                return None
            packet = hop.packet
        return packet

    def deliver(self, packet: Packet, now: float) -> tuple[Packet, Side] | None:
        """Bring a packet in; or what a NAT answers instead goes out."""
        for nat in reversed(self.nats):
            hop = nat.inbound(packet, now)
            if not isinstance(hop, Hop):
                return None
            packet = hop.packet
            if hop.to is Side.OUTSIDE:
                return packet, Side.OUTSIDE
        return (packet, Side.INSIDE) if packet.destination == self.inside else None

    def hear(self, packet: Packet) -> list[Packet]:
        """Answer, as a host does that both dials and listens at one port."""
        match packet.payload:
            case Datagram(data=b"probe"):
                return [Packet(self.inside, packet.source, Datagram(b"answer"))]
            case Datagram():
                self.is_connected = True
            case Segment(flags=flags):
                return self._hear_segment(packet.source, flags)
        return []

    def _hear_segment(self, source: Endpoint, flags: Flags) -> list[Packet]:
        if RST in flags:
            self.syn_sent_to = [known for known in self.syn_sent_to if known != source]
        elif flags == SYN:
            return [Packet(self.inside, source, Segment(SYN | ACK, 0))]
        elif flags == SYN | ACK and source in self.syn_sent_to:
            self.is_connected = True
        return []


def observe(home: Home, transport: TransportName) -> None:
    """Let a third party see a home."""
    packet = home.send(opening(home.inside, OBSERVER, transport), 0.0)
    home.known_at = packet.source if packet else None


def opening(source: Endpoint, destination: Endpoint, transport: TransportName) -> Packet:
    payload = Datagram(b"probe") if transport == "udp" else Segment(SYN, 0)
    return Packet(source, destination, payload)


def punch(a: Kind, b: Kind, transport: TransportName) -> bool:
    """Let both send at one moment, several times, and tell whether one has got an answer."""
    one, other = Home(a, 1), Home(b, 2)
    for home in (one, other):
        observe(home, transport)
    pairs = {id(one): other, id(other): one}
    for turn in range(ROUNDS):
        under_way: deque[tuple[Packet, Home]] = deque()
        for home, peer in ((one, other), (other, one)):
            if peer.known_at is not None:
                home.syn_sent_to.append(peer.known_at)
                packet = home.send(opening(home.inside, peer.known_at, transport), turn + 1.0)
                under_way += [(packet, peer)] if packet else []
        while under_way:
            packet, home = under_way.popleft()
            arrived = home.deliver(packet, turn + 1.0)
            if arrived is None:
                continue
            answers = [arrived[0]]
            if arrived[1] is Side.INSIDE:
                said = [home.send(answer, turn + 1.0) for answer in home.hear(arrived[0])]
                answers = [answer for answer in said if answer is not None]
            under_way += [(answer, pairs[id(home)]) for answer in answers]
    return one.is_connected or other.is_connected
