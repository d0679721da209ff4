"""The table of leases: what the gate has the last word on, and what it is never asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import TransportName
from p2pnet.testing.portmap.leases import Gate, Lease, Leases, Refusal, Wish, later
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import ANN, BOB, OUTSIDE, make_nat

WISH = Wish(transport="udp", inside=Endpoint(ANN, 4001), port=5001, seconds=60, protocol="nat-pmp")


@dataclass(frozen=True)
class Forwarded:
    transport: TransportName
    inside: Endpoint
    outside: Endpoint


@dataclass
class StubGate:
    """Maps what it is told to, and counts."""

    gives: Endpoint | None = None
    forwards: list[Forwarded] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def map_port(
        self,
        transport: TransportName,
        inside: Endpoint,
        outside_port: int,
        *,
        seconds: float | None,
        now: float,
    ) -> Endpoint | None:
        self.asked.append(outside_port)
        if self.gives is not None:
            self.forwards.append(Forwarded(transport, inside, self.gives))
        return self.gives

    def unmap_port(
        self, transport: TransportName, outside_port: int, *, inside: Endpoint | None = None
    ) -> bool:
        return False

    def mappings(self, now: float) -> Sequence[Forwarded]:
        return self.forwards


def table(gate: Gate, config: PortMapConfig | None = None) -> Leases:
    return Leases(gate, config or PortMapConfig(), outside_address=OUTSIDE, now=0.0)


def granted(outcome: Lease | Refusal) -> Lease:
    assert isinstance(outcome, Lease)
    return outcome


def test_the_simulated_nat_is_a_gate() -> None:
    lease = granted(table(make_nat()).grant_endpoint(WISH, 0.0))
    assert (lease.outside, lease.expires) == (Endpoint(OUTSIDE, 5001), 60.0)


def test_a_gate_without_a_free_port_is_not_asked_for_ever() -> None:
    gate = StubGate()
    leases = table(gate, PortMapConfig(max_port_tries=5))
    assert leases.grant_endpoint(WISH, 0.0) is Refusal.NO_PORT
    assert gate.asked == [5001, 4001, 5002, 5003, 5004]


def test_the_search_for_a_port_goes_on_at_the_first_after_the_last() -> None:
    gate = StubGate()
    config = PortMapConfig(first_port=4001, last_port=4003)
    table(gate, config).grant_endpoint(replace(WISH, port=4003), 0.0)
    assert gate.asked == [4003, 4001, 4002]


def test_a_gate_that_gives_another_port_gives_none() -> None:
    gate = StubGate(gives=Endpoint(OUTSIDE, 7))
    leases = table(gate, PortMapConfig(max_port_tries=1))
    assert leases.grant_endpoint(WISH, 0.0) is Refusal.NO_PORT


def test_a_gate_that_will_not_renew_lets_the_lease_run_out() -> None:
    gate = StubGate(gives=Endpoint(OUTSIDE, 5001))
    leases = table(gate)
    granted(leases.grant_endpoint(WISH, 0.0))
    gate.gives = None
    assert leases.grant_endpoint(WISH, 30.0) is Refusal.NO_PORT
    assert [lease.expires for lease in leases.live(59.0)] == [60.0]
    assert not leases.live(60.0)


def test_a_lease_whose_forward_leads_elsewhere_is_gone() -> None:
    gate = StubGate(gives=Endpoint(OUTSIDE, 5001))
    leases = table(gate)
    granted(leases.grant_endpoint(WISH, 0.0))
    gate.forwards[0] = Forwarded("udp", Endpoint(BOB, 4001), Endpoint(OUTSIDE, 5001))
    assert leases.at("udp", 5001, 1.0) is None


@pytest.mark.parametrize(("now", "left"), [(0.0, 60), (0.1, 60), (59.0, 1), (59.9, 1)])
def test_what_is_left_is_rounded_up_so_that_it_is_never_nothing(now: float, left: int) -> None:
    lease = granted(table(make_nat()).grant_endpoint(WISH, 0.0))
    assert lease.seconds_left(now) == left


def test_never_is_later_than_any_time() -> None:
    assert later(1.0, 2.0) == 2.0
    assert later(None, 2.0) is None
    assert later(1.0, None) is None
