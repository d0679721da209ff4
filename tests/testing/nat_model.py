"""A slow and obvious NAT: flat lists that are searched from the beginning for each packet.

It does not choose ports: it is told which one the real NAT has chosen, and checks that it might.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Dependence, Dropped, Hop, NatKind, PortChoice, Side
from p2pnet.testing.packet import Flags, Packet, Segment

OUTSIDE = "11.0.0.1"


@dataclass(eq=False)
class Mapped:
    transport: str
    inside: Endpoint
    outside: Endpoint
    towards: object
    forward_until: float = 0.0
    forward_number: int = 0
    udp_until: float = 0.0


@dataclass(eq=False)
class Talk:
    """A session: all that was said in it, since its last SYN."""

    mapped: Mapped
    remote: Endpoint
    leads: bool
    expires: float
    said: list[tuple[bool, Flags]] = field(default_factory=list)
    inside_spoke: bool = False

    def was(self, flag: Flags, outbound: bool) -> bool:
        return any(
            flag in flags and way is outbound and Flags.RST not in flags for way, flags in self.said
        )

    @property
    def is_open(self) -> bool:
        return all(self.was(flag, way) for flag in (Flags.SYN, Flags.ACK) for way in (True, False))

    @property
    def is_over(self) -> bool:
        was_reset = any(Flags.RST in flags for _, flags in self.said)
        return was_reset or (self.was(Flags.FIN, True) and self.was(Flags.FIN, False))


def part(endpoint: Endpoint, dependence: Dependence) -> object:
    return {
        Dependence.ENDPOINT_INDEPENDENT: "any",
        Dependence.ADDRESS: endpoint.host,
        Dependence.ADDRESS_AND_PORT: endpoint,
    }[dependence]


def is_syn(packet: Packet) -> bool:
    return isinstance(packet.payload, Segment) and packet.payload.flags & ~Flags.FIN == Flags.SYN


class ModelNat:
    def __init__(self, kind: NatKind) -> None:
        self.kind = kind
        self.mapped: list[Mapped] = []
        self.talks: list[Talk] = []
        self.forwards = 0

    # ---- what is live ------------------------------------------------------------------

    def forget(self, now: float) -> None:
        self.talks = [talk for talk in self.talks if now < talk.expires]
        self.mapped = [
            mapped
            for mapped in self.mapped
            if now < mapped.forward_until or any(talk.mapped is mapped for talk in self.talks)
        ]

    def sessions(self, now: float) -> int:
        return len(self.talks) + sum(now < mapped.forward_until for mapped in self.mapped)

    def at(self, transport: str, outside: Endpoint) -> Mapped | None:
        found = [m for m in self.mapped if (m.transport, m.outside) == (transport, outside)]
        assert len(found) < 2, "NT3"
        return found[0] if found else None

    def forward_of(self, packet: Packet, now: float) -> Mapped | None:
        found = [
            m
            for m in self.mapped
            if (m.transport, m.inside) == (packet.transport, packet.source)
            and now < m.forward_until
        ]
        return min(found, key=lambda m: m.forward_number, default=None)

    def own(self, packet: Packet) -> Mapped | None:
        key = (packet.transport, packet.source, self.towards(packet))
        found = [m for m in self.mapped if (m.transport, m.inside, m.towards) == key]
        assert len(found) < 2
        return found[0] if found else None

    def towards(self, packet: Packet) -> object:
        if not self.kind.translates:
            return "any"
        return part(packet.destination, self.kind.mapping)

    # ---- packets -----------------------------------------------------------------------

    def outbound(self, packet: Packet, now: float, got: Hop | Dropped) -> Hop | Dropped:
        self.forget(now)
        if self.kind.udp_blocked and packet.transport == "udp":
            return Dropped("udp blocked")
        turns_back = self.kind.translates and packet.destination.host == OUTSIDE
        if turns_back and not self.kind.hairpinning:
            return Dropped("no hairpinning")
        talk = self.talk_for(packet, now, got, turns_back)
        if isinstance(talk, Dropped):
            return talk
        talk.inside_spoke = True
        source = talk.mapped.outside
        self.say(talk, packet, now, outbound=True)
        outside = replace(packet, source=source)
        if not turns_back:
            return Hop(outside, Side.OUTSIDE)
        hop = self.inbound(outside, now)
        if isinstance(hop, Hop) and hop.to is Side.OUTSIDE:
            return self.inbound(hop.packet, now)
        return hop

    def talk_for(
        self, packet: Packet, now: float, got: Hop | Dropped, turns_back: bool
    ) -> Talk | Dropped:
        for talk in self.talks:
            if talk.leads and (talk.mapped.transport, talk.mapped.inside, talk.remote) == (
                packet.transport,
                packet.source,
                packet.destination,
            ):
                return talk
        mapped = self.forward_of(packet, now) or self.own(packet)
        if packet.transport == "tcp" and not is_syn(packet):
            return Dropped("no session" if mapped else "no mapping")
        if self.sessions(now) >= self.kind.max_sessions:
            return Dropped("session table full")
        if mapped is None:
            if len(self.mapped) >= self.kind.max_mappings:
                return Dropped("mapping table full")
            outside = self.given(packet, got, turns_back)
            if outside is None:
                return Dropped("no free port")
            mapped = Mapped(packet.transport, packet.source, outside, self.towards(packet))
            self.mapped.append(mapped)
        return self.begin(mapped, packet.destination, now + self.first_life(packet))

    def given(self, packet: Packet, got: Hop | Dropped, turns_back: bool) -> Endpoint | None:
        """Take the outside endpoint that was given, if it might be."""
        if not self.kind.translates:
            return packet.source
        ports = {*range(self.kind.first_port, self.kind.last_port + 1)}
        if self.kind.ports is PortChoice.PRESERVING:
            ports.add(packet.source.port)
        free = sorted(
            port for port in ports if self.at(packet.transport, Endpoint(OUTSIDE, port)) is None
        )
        if not free:
            return None
        keeps = self.kind.ports is PortChoice.PRESERVING and packet.source.port in free
        if turns_back or isinstance(got, Dropped):
            # It is not seen what was chosen, unless it could be nothing else.
            assert keeps or len(free) == 1, "the test must not ask this"
        if keeps:
            return Endpoint(OUTSIDE, packet.source.port)
        if len(free) == 1:
            return Endpoint(OUTSIDE, free[0])
        assert isinstance(got, Hop)
        assert got.packet.source.host == OUTSIDE
        assert got.packet.source.port in free
        return got.packet.source

    def inbound(self, packet: Packet, now: float) -> Hop | Dropped:
        self.forget(now)
        if self.kind.udp_blocked and packet.transport == "udp":
            return Dropped("udp blocked")
        mapped = self.at(packet.transport, packet.destination)
        refusal = "no mapping" if mapped is None else self.admit(mapped, packet, now)
        if mapped is not None and not refusal:
            return Hop(replace(packet, destination=mapped.inside), Side.INSIDE)
        if self.kind.answers_reset and is_syn(packet):
            assert isinstance(packet.payload, Segment)
            reset = Segment(Flags.RST | Flags.ACK, 0, packet.payload.sequence + 1)
            return Hop(Packet(packet.destination, packet.source, reset), Side.OUTSIDE)
        return Dropped(refusal)

    def admit(self, mapped: Mapped, packet: Packet, now: float) -> str:
        talks = [talk for talk in self.talks if talk.mapped is mapped]
        needed = part(packet.source, self.kind.filtering)
        spoken_to = [part(talk.remote, self.kind.filtering) for talk in talks if talk.inside_spoke]
        is_open = self.kind.filtering is Dependence.ENDPOINT_INDEPENDENT
        is_forward = now < mapped.forward_until
        # Whom the inside has spoken to by a session that lives on comes in, whoever asks.
        if not (is_open or is_forward or needed in spoken_to):
            return "filtered"
        talk = next((talk for talk in talks if talk.remote == packet.source), None)
        if talk is None:
            if packet.transport == "tcp" and not is_syn(packet):
                return "no session"
            if self.sessions(now) >= self.kind.max_sessions:
                return "session table full"
            expires = now + self.first_life(packet)
            if packet.transport == "udp" and not is_forward:
                expires = mapped.udp_until
            talk = self.begin(mapped, packet.source, expires)
        elif (
            self.kind.refuses_simultaneous_open
            and is_syn(packet)
            and talk.was(Flags.SYN, True)
            and not talk.was(Flags.SYN, False)
        ):
            return "simultaneous open refused"
        self.say(talk, packet, now, outbound=False)
        return ""

    def begin(self, mapped: Mapped, remote: Endpoint, expires: float) -> Talk:
        leads = not any(
            talk.leads
            and (talk.mapped.transport, talk.mapped.inside, talk.remote)
            == (mapped.transport, mapped.inside, remote)
            for talk in self.talks
        )
        talk = Talk(mapped, remote, leads, expires)
        self.talks.append(talk)
        return talk

    def say(self, talk: Talk, packet: Packet, now: float, *, outbound: bool) -> None:
        if not isinstance(packet.payload, Segment):
            if outbound:
                talk.mapped.udp_until = now + self.kind.udp_seconds
            if outbound or self.kind.refresh_inbound:
                talk.expires = now + self.kind.udp_seconds
            return
        if talk.is_over and is_syn(packet):
            talk.said.clear()
        talk.said.append((outbound, packet.payload.flags))
        if Flags.RST in packet.payload.flags and not talk.is_open:
            self.talks.remove(talk)
            self.forget(now)
        elif talk.is_open and not talk.is_over:
            talk.expires = now + self.kind.tcp_seconds
        else:
            talk.expires = now + self.kind.tcp_transitory_seconds

    def first_life(self, packet: Packet) -> float:
        is_tcp = packet.transport == "tcp"
        return self.kind.tcp_transitory_seconds if is_tcp else self.kind.udp_seconds

    # ---- forwards ----------------------------------------------------------------------

    def map_port(
        self, transport: str, inside: Endpoint, port: int, seconds: float | None, now: float
    ) -> Endpoint | None:
        self.forget(now)
        outside = Endpoint(OUTSIDE, port) if self.kind.translates else inside
        if outside.port != port:
            return None
        mapped = self.at(transport, outside)
        is_renewal = mapped is not None and now < mapped.forward_until
        if mapped is not None and mapped.inside != inside:
            return None
        if not is_renewal and self.sessions(now) >= self.kind.max_sessions:
            return None
        if mapped is None:
            if len(self.mapped) >= self.kind.max_mappings:
                return None
            mapped = Mapped(transport, inside, outside, "forward")
            self.mapped.append(mapped)
        if not is_renewal:
            self.forwards += 1
            mapped.forward_number = self.forwards
        mapped.forward_until = math.inf if seconds is None else now + seconds
        return outside

    def unmap_port(self, transport: str, port: int, now: float) -> bool:
        for mapped in self.mapped:
            is_meant = (mapped.transport, mapped.outside.port) == (transport, port)
            if is_meant and now < mapped.forward_until:
                mapped.forward_until = 0.0
                self.forget(now)
                return True
        return False

    def expires(self, mapped: Mapped) -> float:
        ends = [talk.expires for talk in self.talks if talk.mapped is mapped]
        return max([mapped.forward_until, *ends])
