"""A NAT as a pure function of packets and time. Rules: specs/nat.md.

The words are those of RFC 4787 (UDP), 5382 (TCP) and 7857 (timers)::

       inside                        Nat                            outside
                    outbound   +---------------+
     host:port  -------------> | mapping: which|  ------------->  remote
                               | outside port  |
                    inbound    +---------------+
     host:port  <------------- | filtering: who|  <-------------  remote
                               | may come in   |
                               +---------------+

What comes out is a ``Hop``, the packet as it goes on and to which side, or ``Dropped``. There is
no clock in here and no chance: both come in as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.bindings import FORWARD, Binding, Bindings, Handshake, Remotes, Session
from p2pnet.testing.nat_kind import HIGHEST_PORT, Dependence, NatKind, PortChoice, narrowed
from p2pnet.testing.packet import Flags, Packet, Segment, TransportName

__all__ = ["Dependence", "Dropped", "Hop", "Mapping", "Nat", "NatKind", "PortChoice", "Side"]


class Side(Enum):
    INSIDE = "inside"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Hop:
    """A packet as it leaves the NAT, and where to."""

    packet: Packet
    to: Side


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing leaves the NAT."""

    reason: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping as it is now; ``expires`` is infinite for a forward that nothing ends."""

    transport: TransportName
    inside: Endpoint
    outside: Endpoint
    expires: float


UDP_BLOCKED = Dropped("udp blocked")
NO_MAPPING = Dropped("no mapping")
NO_SESSION = Dropped("no session")
FILTERED = Dropped("filtered")
SIMULTANEOUS_OPEN = Dropped("simultaneous open refused")
NO_HAIRPINNING = Dropped("no hairpinning")
NO_ADDRESS = Dropped("no outside address")
NO_PORT = Dropped("no free port")
MAPPINGS_FULL = Dropped("mapping table full")
SESSIONS_FULL = Dropped("session table full")


class Nat:
    """One NAT box, or a stateful firewall.

    Args:
        kind: how it behaves.
        outside: its public addresses. IPv4 is translated to them; IPv6 never is (NT15).
        choose: gives a number in ``range(n)``; the only chance there is.
    """

    def __init__(
        self, kind: NatKind, *, outside: Sequence[str], choose: Callable[[int], int]
    ) -> None:
        self.kind = kind
        self._outside = tuple(outside)
        self._choose = choose
        self._bindings = Bindings()
        self._last_given: dict[tuple[TransportName, str], int] = {}

    # ---- packets ---------------------------------------------------------------------

    def outbound(self, packet: Packet, now: float) -> Hop | Dropped:
        """Take a packet from inside."""
        self._bindings.expire(now)
        if self.kind.udp_blocked and packet.transport == "udp":  # NT17
            return UDP_BLOCKED
        is_hairpin = self._translates(packet) and packet.destination.host in self._outside
        if is_hairpin and not self.kind.hairpinning:  # NT13
            return NO_HAIRPINNING
        sent = self._sent(packet, now)
        if isinstance(sent, Dropped):
            return sent
        outside = replace(packet, source=sent)
        return self._hairpin(outside, now) if is_hairpin else Hop(outside, Side.OUTSIDE)

    def inbound(self, packet: Packet, now: float) -> Hop | Dropped:
        """Take a packet from outside."""
        self._bindings.expire(now)
        if self.kind.udp_blocked and packet.transport == "udp":  # NT17
            return UDP_BLOCKED
        return self._received(packet, now)

    def _hairpin(self, packet: Packet, now: float) -> Hop | Dropped:
        """Bring a packet in that has the outside address of its sender already (NT13)."""
        received = self._received(packet, now)
        if isinstance(received, Hop) and received.to is Side.OUTSIDE:
            return self._received(received.packet, now)  # A reset, for who has sent.
        return received

    def _translates(self, packet: Packet) -> bool:
        return self.kind.translates and not packet.destination.is_ipv6  # NT15

    # ---- from inside -----------------------------------------------------------------

    def _sent(self, packet: Packet, now: float) -> Endpoint | Dropped:
        """Note a packet from inside, and return the endpoint that its sender has outside."""
        session = self._bindings.flow(packet.transport, packet.source, packet.destination)  # NT12
        if session is None:
            begun = self._begin(packet, now)
            if isinstance(begun, Dropped):
                return begun
            session = begun
        session.binding.note_sent(session)
        if isinstance(packet.payload, Segment):
            self._see(session, packet.payload, now, outbound=True)
        else:
            session.binding.until = now + self.kind.udp_seconds  # NT5
            self._bindings.keep(session, session.binding.until)
        return session.binding.outside

    def _begin(self, packet: Packet, now: float) -> Session | Dropped:
        """Begin a session for a packet from inside, with a new mapping if there is none."""
        binding = self._binding_for(packet)
        if isinstance(packet.payload, Segment) and not is_first(packet.payload):  # NT7
            return NO_MAPPING if binding is None else NO_SESSION
        if self._bindings.sessions >= self.kind.max_sessions:  # NT14
            return SESSIONS_FULL
        if binding is None:
            if len(self._bindings) >= self.kind.max_mappings:  # NT14
                return MAPPINGS_FULL
            outside = self._outside_of(packet)
            if isinstance(outside, Dropped):
                return outside
            binding = Binding(packet.transport, packet.source, outside, self._towards(packet))
            self._bindings.add(binding)
        return self._bindings.begin(binding, packet.destination, now + self._shortest(packet))

    def _shortest(self, packet: Packet) -> float:
        """Return how long a session lasts that begins."""
        is_tcp = packet.transport == "tcp"
        return self.kind.tcp_transitory_seconds if is_tcp else self.kind.udp_seconds

    def _binding_for(self, packet: Packet) -> Binding | None:
        """Return the binding that a new session from inside goes by, if there is one."""
        forward = self._bindings.forward_of(packet.transport, packet.source)  # NT16
        if forward is not None:
            return forward
        return self._bindings.towards(packet.transport, packet.source, self._towards(packet))

    def _towards(self, packet: Packet) -> Remotes:
        return narrowed(packet.destination, self.kind.mapping) if self._translates(packet) else ""

    def _see(self, session: Session, segment: Segment, now: float, *, outbound: bool) -> None:
        """Follow a TCP connection: how long its session lasts depends on how far it is (NT8)."""
        if session.handshake.is_over and is_first(segment):
            session.handshake = Handshake()
        handshake = session.handshake
        handshake.see(segment.flags, outbound=outbound)
        if Flags.RST in segment.flags and not handshake.is_open:  # NT9
            self._bindings.end(session)
        elif handshake.is_open and not handshake.is_over:
            self._bindings.keep(session, now + self.kind.tcp_seconds)
        else:
            self._bindings.keep(session, now + self.kind.tcp_transitory_seconds)

    # ---- from outside ----------------------------------------------------------------

    def _received(self, packet: Packet, now: float) -> Hop | Dropped:
        binding = self._bindings.at(packet.transport, packet.destination)
        if binding is None:
            return self._refused(packet, NO_MAPPING)
        refusal = self._admit(packet, binding, now)
        if refusal is not None:
            return self._refused(packet, refusal)
        return Hop(replace(packet, destination=binding.inside), Side.INSIDE)

    def _admit(self, packet: Packet, binding: Binding, now: float) -> Dropped | None:
        """Let a packet from outside in and note that, or return why not."""
        session = binding.sessions.get(packet.source)
        if not self._lets_in(binding, packet.source, session):  # NT6
            return FILTERED
        segment = packet.payload
        if session is None:
            if isinstance(segment, Segment) and not is_first(segment):  # NT7
                return NO_SESSION
            if self._bindings.sessions >= self.kind.max_sessions:  # NT14
                return SESSIONS_FULL
            until = self._until(packet, binding, now)
            session = self._bindings.begin(binding, packet.source, until)
        elif isinstance(segment, Segment) and self._is_simultaneous(session, segment):  # NT11
            return SIMULTANEOUS_OPEN
        if isinstance(segment, Segment):
            self._see(session, segment, now, outbound=False)
        elif self.kind.refresh_inbound:  # NT5
            self._bindings.keep(session, now + self.kind.udp_seconds)
        return None

    def _until(self, packet: Packet, binding: Binding, now: float) -> float:
        """Return the end of a session that begins from outside: UDP does not keep a mapping."""
        if packet.transport == "udp" and not binding.is_forwarded:
            return binding.until
        return now + self._shortest(packet)

    def _lets_in(self, binding: Binding, source: Endpoint, session: Session | None) -> bool:
        if self._lets_anyone_in(binding) or (session is not None and session.has_sent):
            return True
        return self.kind.filtering is Dependence.ADDRESS and source.host in binding.contacts

    def _lets_anyone_in(self, binding: Binding) -> bool:
        return self.kind.filtering is Dependence.ENDPOINT_INDEPENDENT or binding.is_forwarded

    def _is_simultaneous(self, session: Session, segment: Segment) -> bool:
        return (
            self.kind.refuses_simultaneous_open
            and is_first(segment)
            and session.handshake.is_unanswered
        )

    def _refused(self, packet: Packet, refusal: Dropped) -> Hop | Dropped:
        """Say nothing, or to a SYN that the port is closed (NT10)."""
        segment = packet.payload
        if self.kind.answers_reset and isinstance(segment, Segment) and is_first(segment):
            return Hop(reset_for(packet, segment), Side.OUTSIDE)
        return refusal

    # ---- outside endpoints -----------------------------------------------------------

    def _outside_of(self, packet: Packet) -> Endpoint | Dropped:
        """Choose the outside endpoint of a new mapping."""
        if not self._translates(packet):
            return packet.source
        host = self._address_for(packet.source.host)
        if host is None:
            return NO_ADDRESS
        port = self._free_port(packet.transport, host, packet.source.port)
        return NO_PORT if port is None else Endpoint(host, port)

    def _address_for(self, inside_host: str) -> str | None:
        """Return the one address that a host inside has as long as it has mappings (NT4)."""
        addresses = [host for host in self._outside if ":" not in host]
        if not addresses:
            return None
        paired = self._bindings.paired(inside_host)
        return addresses[self._choose(len(addresses))] if paired is None else paired

    def _free_port(self, transport: TransportName, host: str, wanted: int) -> int | None:
        """Choose a port that no other mapping of the transport has (NT2, NT3)."""
        first, last = self.kind.first_port, self.kind.last_port
        free = self._bindings.free_port
        match self.kind.ports:
            case PortChoice.PRESERVING:
                if free(transport, host, wanted, wanted) is not None:
                    return wanted
                start = wanted + 1
            case PortChoice.SEQUENTIAL:
                start = self._last_given.get((transport, host), first - 1) + 1
            case PortChoice.RANDOM:
                start = first + self._choose(last - first + 1)
        start = start if first <= start <= last else first
        port = free(transport, host, start, last)
        if port is None:
            port = free(transport, host, first, start - 1)
        if port is not None:
            self._last_given[transport, host] = port
        return port

    # ---- forwards (NT16) -------------------------------------------------------------

    def map_port(
        self,
        transport: TransportName,
        inside: Endpoint,
        outside_port: int,
        *,
        seconds: float | None,
        now: float,
    ) -> Endpoint | None:
        """Let anyone come in at an outside port, for some seconds or until it is unmapped.

        Mapping it again changes the time. For port 0 the NAT chooses. A firewall can only open the
        port that the endpoint has inside.

        Returns:
            The outside endpoint, or None if it is another's or there is no room.

        Raises:
            ValueError: for what is no port, or no time.
        """
        if not 0 <= outside_port <= HIGHEST_PORT or (seconds is not None and seconds <= 0):
            raise ValueError(f"cannot map port {outside_port} for {seconds} s")
        self._bindings.expire(now)
        outside = self._forward_endpoint(transport, inside, outside_port)
        binding = None if outside is None else self._forward(transport, inside, outside)
        if binding is None:
            return None
        until = math.inf if seconds is None else now + seconds
        session = binding.sessions.get(FORWARD)
        if session is None:
            self._bindings.begin(binding, FORWARD, until)
        else:
            self._bindings.keep(session, until)
        return binding.outside

    def _forward_endpoint(
        self, transport: TransportName, inside: Endpoint, port: int
    ) -> Endpoint | None:
        if not self.kind.translates or inside.is_ipv6:
            return inside if port in (0, inside.port) else None
        host = self._address_for(inside.host)
        if host is None:
            return None
        chosen = port or self._free_port(transport, host, inside.port)
        return None if chosen is None else Endpoint(host, chosen)

    def _forward(
        self, transport: TransportName, inside: Endpoint, outside: Endpoint
    ) -> Binding | None:
        """Return the binding for a forward: the one that is there, if it is of this inside."""
        binding = self._bindings.at(transport, outside)
        is_renewal = binding is not None and binding.is_forwarded
        if not is_renewal and self._bindings.sessions >= self.kind.max_sessions:  # NT14
            return None
        if binding is not None:
            return binding if binding.inside == inside else None
        if len(self._bindings) >= self.kind.max_mappings:
            return None
        binding = Binding(transport, inside, outside, FORWARD)
        self._bindings.add(binding)
        return binding

    def unmap_port(
        self, transport: TransportName, outside_port: int, *, inside: Endpoint | None = None
    ) -> bool:
        """Take a forward back; what came in by it goes on. False if there is none.

        Args:
            transport: its transport.
            outside_port: the port that was mapped.
            inside: only if it leads there.
        """
        for binding in self._bindings:
            if (
                (binding.transport, binding.outside.port) == (transport, outside_port)
                and binding.is_forwarded
                and inside in (None, binding.inside)
            ):
                self._bindings.end(binding.sessions[FORWARD])
                return True
        return False

    # ---- the box itself --------------------------------------------------------------

    def reset(self) -> None:
        """Reboot: mappings and forwards are lost (NT18)."""
        self._bindings = Bindings()
        self._last_given = {}

    def set_outside(self, addresses: Sequence[str]) -> None:
        """Change the outside addresses: mappings and forwards are lost (NT18)."""
        self._outside = tuple(addresses)
        self.reset()

    def mappings(self, now: float) -> tuple[Mapping, ...]:
        """Return the live mappings, the oldest first."""
        self._bindings.expire(now)
        return tuple(
            Mapping(binding.transport, binding.inside, binding.outside, binding.expires)
            for binding in self._bindings
        )

    def expires(self) -> float | None:
        """Return when the last mapping will be gone, or None if there is none."""
        return max((binding.expires for binding in self._bindings), default=None)


def is_first(segment: Segment) -> bool:
    """Tell whether a segment asks for a new connection."""
    return Flags.SYN in segment.flags and not segment.flags & (Flags.ACK | Flags.RST)


def reset_for(packet: Packet, segment: Segment) -> Packet:
    """Answer a SYN as a closed port does (RFC 9293, section 3.10.7.1)."""
    acknowledged = (segment.sequence + 1 + len(segment.data)) % 2**32
    answer = Segment(Flags.RST | Flags.ACK, 0, acknowledged)
    return Packet(packet.destination, packet.source, answer)
