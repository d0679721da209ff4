"""How much all peers together can have this host dial at one place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.protocols.dcutr.budget import MAX_TARGETS, REFILL_SECONDS, TargetBudget

PLACE = parse("/ip4/11.0.0.1/tcp/1")


@given(st.lists(st.floats(min_value=0, max_value=30), max_size=200), st.integers(1, 20))
def test_no_rhythm_of_dials_gets_more_than_the_budget(pauses: list[float], size: int) -> None:
    """D25."""
    budget = TargetBudget(per_ip=size, per_prefix=1000)
    now, begun = 0.0, 0
    for pause in pauses:
        now += pause
        begun += budget.take(PLACE, now)
    assert begun <= size + now * size / REFILL_SECONDS + 1e-6


def test_ports_and_transports_of_an_ip_share_its_budget() -> None:
    """D25."""
    budget = TargetBudget(per_ip=2, per_prefix=10)
    assert budget.take(PLACE, 0.0)
    assert budget.take(parse("/ip4/11.0.0.1/udp/9/quic-v1"), 0.0)
    assert not budget.take(parse("/ip4/11.0.0.1/tcp/2"), 0.0)
    assert budget.take(parse("/ip4/11.0.0.2/tcp/2"), 0.0)


def test_an_ipv6_network_shares_a_budget() -> None:
    """D25."""
    budget = TargetBudget(per_ip=2, per_prefix=2)
    assert budget.take(parse("/ip6/2a00:1:2:3::1/tcp/1"), 0.0)
    assert budget.take(parse("/ip6/2a00:1:2:4::1/tcp/1"), 0.0)
    assert not budget.take(parse("/ip6/2a00:1:2:5::1/tcp/1"), 0.0)
    assert budget.take(parse("/ip6/2a00:1:3:5::1/tcp/1"), 0.0)


def test_one_target_that_is_used_up_keeps_no_room_taken_for_others() -> None:
    """D25: else one of 512 dials and 1,023 of one each would leave none for a minute."""
    budget = TargetBudget(per_ip=60, per_prefix=60)
    places = [parse(f"/ip4/11.{n // 250}.{n % 250}.1/tcp/1") for n in range(MAX_TARGETS + 1)]
    assert all(budget.take(places[0], 0.0) for _ in range(60))
    assert all(budget.take(place, 0.0) for place in places[1:-1])
    assert not budget.take(places[-1], 0.5)
    assert budget.take(places[-1], 1.5)
    assert len(budget) == 4
    assert budget.take(places[0], 1.5)
    assert not budget.take(places[0], 1.5)


def test_what_is_remembered_is_bounded_and_forgotten_in_time() -> None:
    """D25."""
    budget = TargetBudget(per_ip=60, per_prefix=60)
    places = [parse(f"/ip4/11.{n // 250}.{n % 250}.1/tcp/1") for n in range(MAX_TARGETS + 1)]
    taken = [budget.take(place, 0.0) for place in places]
    assert taken == [True] * MAX_TARGETS + [False]
    assert len(budget) == 2 * MAX_TARGETS
    # One dial comes back after a second.
    assert budget.take(places[-1], 1.5)
    assert len(budget) == 2
