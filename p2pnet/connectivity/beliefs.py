"""All that a host believes of its addresses: facts go in, decisions come out. Pure.

Rules: specs/reachability.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnet.connectivity.contacts import Contacts
from p2pnet.connectivity.known import KnownAddress, Sources, known_addresses, worth_punching
from p2pnet.connectivity.nat import NatClass, Nats, NatTests, mapping_of
from p2pnet.connectivity.observations import Observations, network_of, read_observation
from p2pnet.connectivity.verdict import Cases, DialBack, Verdict, Weights, reduce
from p2pnet.core.addresses import Multiaddr, Scope, ip_of, is_relayed, place_of, scope
from p2pnet.core.peer_id import PeerId
from p2pnet.events import (
    AddressObserved,
    AddressTested,
    ConnectionRef,
    FilteringTested,
    HairpinTested,
    MappingTested,
    PortMapped,
    Reachability,
)


@dataclass(frozen=True, slots=True)
class Conclusions:
    """What follows from all facts so far."""

    known: tuple[KnownAddress, ...]
    reachability: Reachability
    nat: Nats

    @property
    def advertised(self) -> tuple[Multiaddr, ...]:
        return tuple(each.address for each in self.known if each.is_advertised)


@dataclass(slots=True)
class Beliefs:
    """Facts, and what they add up to."""

    confirming_observers: int
    weights: Weights = field(default_factory=Weights)
    announced: tuple[Multiaddr, ...] = ()
    listening: tuple[Multiaddr, ...] = ()
    interfaces: tuple[str, ...] = ()
    observations: Observations = field(default_factory=Observations)
    circuits: dict[PeerId, tuple[Multiaddr, ...]] = field(default_factory=dict)
    mapped: dict[tuple[str, Multiaddr], Multiaddr] = field(default_factory=dict)
    """By protocol and by what is listened on."""
    contacts: Contacts = field(default_factory=Contacts)
    nat_tests: dict[str, NatTests] = field(init=False)
    """By transport."""
    cases: Cases = field(init=False)

    def __post_init__(self) -> None:
        self.cases = Cases(self.weights)
        self.nat_tests = no_tests()

    # ---- facts ---------------------------------------------------------------------------

    def opened(self, ref: ConnectionRef, now: float) -> None:
        """Take that a connection is there; who was dialled is no stranger from now on (V10)."""
        ip = ip_of(ref.remote_address)
        if ip is not None and not ref.is_relayed and not ref.is_inbound:
            self.contacts.spoke_to(str(ip), now)

    def knocked_at(self, address: Multiaddr, now: float) -> None:
        """Take that this host sends to an address, as it does in a hole punch."""
        ip = ip_of(address)
        if ip is not None:
            self.contacts.spoke_to(str(ip), now)

    def observed(self, fact: AddressObserved, now: float) -> None:
        """Take what a peer said of where it sees this host."""
        ref = fact.connection
        observation = read_observation(
            time=now, local=ref.local_address, remote=ref.remote_address, address=fact.address
        )
        if observation is None:
            return
        self.observations.record(ref.number, observation)
        if ref.is_inbound and self.contacts.is_stranger(observation.observer.host, now):
            # It dialled there, as it says, and nothing had been sent to it before.
            for address in observation.outside(self.listening):
                self.cases.record_stranger(address, observation.network, now)

    def tested(self, fact: AddressTested, now: float) -> None:
        """Take the result of a dial-back."""
        test = DialBack(now, network_of(fact.server_address), fact.reached, str(fact.server))
        self.cases.record(fact.address, test)

    def filtering_tested(self, fact: FilteringTested) -> None:
        """Take whether somebody got through to a fresh port."""
        filtering = self.nat_tests[fact.transport].filtering
        filtering.record(str(fact.server), by_stranger=fact.by_stranger, reached=fact.reached)

    def hairpin_tested(self, fact: HairpinTested) -> None:
        """Take whether this host got through to itself, at an outside address."""
        hairpins = self.nat_tests[fact.transport].hairpins
        hairpins.record(is_fresh=fact.is_fresh, reached=fact.reached)

    def mapping_tested(self, fact: MappingTested) -> None:
        """Take whether a peer saw a port of ours alike from two of its own."""
        self.nat_tests[fact.transport].pairs.record(str(fact.server), same=fact.same)

    def port_mapped(self, fact: PortMapped) -> None:
        self.mapped[fact.protocol, fact.listen_address] = fact.outside_address

    def port_unmapped(self, protocol: str, listen_address: Multiaddr) -> None:
        self.mapped.pop((protocol, listen_address), None)

    def moved(self) -> None:
        """Begin anew: this host is in another network, or its router is another one (V12)."""
        self.cases.forget()
        self.nat_tests = no_tests()
        self.contacts = Contacts()

    # ---- conclusions ---------------------------------------------------------------------

    def sources(self) -> Sources:
        """Return all addresses, by where they come from."""
        return Sources(
            announced=self.announced,
            listening=self.listening,
            mapped=tuple(self.mapped.values()),
            observed=self.observations.seen(observers=1, listening=self.listening),
            confirmed=self.observations.seen(
                observers=self.confirming_observers, listening=self.listening
            ),
            circuits=tuple(address for held in self.circuits.values() for address in held),
        )

    def punch_addresses(self) -> tuple[Multiaddr, ...]:
        """Return the direct addresses worth dialling in a hole punch, or worth a test."""
        return worth_punching(self.sources())

    def nat(self) -> Nats:
        """Return what kind of NAT there is."""
        return Nats(tcp=self._nat_of("tcp"), udp=self._nat_of("udp"))

    def _nat_of(self, transport: str) -> NatClass:
        words = self.observations.by_connection.values()
        told = mapping_of((w for w in words if w.transport == transport), self.interfaces)
        return self.nat_tests[transport].add_to(told)

    def conclude(self, configured: Reachability, now: float) -> Conclusions:
        """Draw the conclusions, as of now; what is ``configured`` is not called into question."""
        sources, nat = self.sources(), self.nat()
        candidates = [address for address in sources.by_address() if is_public(address)]
        self.cases.keep_only(candidates)
        verdicts = {
            address: self.cases.judge(address, nat.of(transport_of(address)), now)
            for address in candidates
        }
        reachability = configured
        if configured is Reachability.UNKNOWN:
            reachability = self._reachability(verdicts, nat)
        return Conclusions(known_addresses(sources, verdicts, reachability), reachability, nat)

    def _reachability(self, verdicts: dict[Multiaddr, Verdict], nat: Nats) -> Reachability:
        found = reduce(verdicts)
        has_own = any(is_public(address) for address in (*self.listening, *self.announced))
        if found is Reachability.UNKNOWN and nat.is_symmetric and not has_own and not self.mapped:
            # V11: nobody can test what has another port for everybody who looks.
            return Reachability.PRIVATE
        return found


def is_public(address: Multiaddr) -> bool:
    direct = ip_of(address) is not None and not is_relayed(address)
    return direct and scope(address) is Scope.PUBLIC


def transport_of(address: Multiaddr) -> str:
    place = place_of(address)
    return "tcp" if place is None else place.protocol


def no_tests() -> dict[str, NatTests]:
    return {"tcp": NatTests(), "udp": NatTests()}
