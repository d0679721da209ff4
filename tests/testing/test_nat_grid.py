"""Every mapping, filter and choice of ports shows from outside as what it was configured as.

The classifier asks as RFC 5780 does: it sends to several servers and looks at where they see it,
and lets others answer than the one it has sent to.
"""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, PortChoice, Side
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment, TransportName

GRID = tuple(product(Dependence, Dependence, PortChoice))
SERVER = Endpoint("11.1.0.1", 3478)
OTHER_PORT = Endpoint("11.1.0.1", 3479)
OTHER_ADDRESS = Endpoint("11.2.0.1", 3478)
HOST = "192.168.1.2"


class Classifier:
    """Finds out what a NAT is, with fresh ports for each question."""

    def __init__(self, kind: NatKind, transport: TransportName, random: Random) -> None:
        self._nat = Nat(kind, outside=["11.0.0.1"], choose=random.randrange)
        self._transport = transport
        self._random = random
        self._used: set[int] = set()

    def mapping(self) -> Dependence:
        host = self._fresh()
        first, port, address = (
            self._seen_at(host, server) for server in (SERVER, OTHER_PORT, OTHER_ADDRESS)
        )
        if first == port == address:
            return Dependence.ENDPOINT_INDEPENDENT
        return Dependence.ADDRESS if first == port else Dependence.ADDRESS_AND_PORT

    def filtering(self) -> Dependence:
        outside = self._seen_at(self._fresh(), SERVER)
        if self._gets_in(OTHER_ADDRESS, outside):
            return Dependence.ENDPOINT_INDEPENDENT
        if self._gets_in(OTHER_PORT, outside):
            return Dependence.ADDRESS
        assert self._gets_in(SERVER, outside)
        return Dependence.ADDRESS_AND_PORT

    def ports(self) -> PortChoice:
        hosts = [self._fresh() for _ in range(4)]
        seen = [self._seen_at(host, SERVER).port for host in hosts]
        if seen == [host.port for host in hosts]:
            return PortChoice.PRESERVING
        if seen == list(range(seen[0], seen[0] + len(seen))):
            return PortChoice.SEQUENTIAL
        return PortChoice.RANDOM

    def hairpinning(self) -> bool:
        one, two = self._fresh(), self._fresh()
        at_one, at_two = self._seen_at(one, SERVER), self._seen_at(two, SERVER)
        hops = [
            self._nat.outbound(self._packet(source, destination), 0.0)
            for source, destination in ((one, at_two), (two, at_one), (one, at_two))
        ]
        return any(isinstance(hop, Hop) and hop.to is Side.INSIDE for hop in hops)

    def lifetime(self) -> float:
        """Search for the age at which a mapping is gone, as a prober would: by waiting."""
        low, high = 0.0, 10_000.0
        while high - low > 0.5:
            age = (low + high) / 2
            self._nat.reset()
            outside = self._seen_at(self._fresh(), SERVER)
            hop = self._nat.inbound(self._packet(SERVER, outside), age)
            low, high = (low, age) if isinstance(hop, Dropped) else (age, high)
        return low

    def _fresh(self) -> Endpoint:
        port = self._random.choice([p for p in range(20_000, 60_000, 7) if p not in self._used])
        self._used.add(port)
        return Endpoint(HOST, port)

    def _packet(self, source: Endpoint, destination: Endpoint) -> Packet:
        payload = Datagram(b"") if self._transport == "udp" else Segment(Flags.SYN, 0)
        return Packet(source, destination, payload)

    def _seen_at(self, host: Endpoint, server: Endpoint) -> Endpoint:
        hop = self._nat.outbound(self._packet(host, server), 0.0)
        assert isinstance(hop, Hop)
        return hop.packet.source

    def _gets_in(self, server: Endpoint, outside: Endpoint) -> bool:
        hop = self._nat.inbound(self._packet(server, outside), 0.0)
        return isinstance(hop, Hop) and hop.to is Side.INSIDE


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(("mapping", "filtering", "ports"), GRID)
def test_a_nat_is_seen_as_what_it_is(
    mapping: Dependence, filtering: Dependence, ports: PortChoice, transport: TransportName
) -> None:
    """NT1 NT2 NT6 NT13: and hairpinning is seen as well."""
    for hairpinning in (False, True):
        kind = NatKind(mapping=mapping, filtering=filtering, ports=ports, hairpinning=hairpinning)
        found = Classifier(kind, transport, Random(5))
        assert found.mapping() is mapping
        assert found.filtering() is filtering
        assert found.ports() is ports
        # Two dependent mappings of one home meet no more than those of two.
        if mapping is Dependence.ENDPOINT_INDEPENDENT:
            assert found.hairpinning() is hairpinning


@pytest.mark.parametrize("seconds", [20.0, 30.0, 60.0, 120.0, 300.0])
def test_a_lifetime_is_measured_as_configured(seconds: float) -> None:
    """NT5 NT8."""
    udp = Classifier(NatKind(udp_seconds=seconds), "udp", Random(5))
    assert udp.lifetime() == pytest.approx(seconds, abs=0.5)
    tcp = Classifier(NatKind(tcp_transitory_seconds=seconds), "tcp", Random(5))
    assert tcp.lifetime() == pytest.approx(seconds, abs=0.5)
