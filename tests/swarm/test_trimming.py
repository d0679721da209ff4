"""Rule S20."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.swarm.trimming import Candidate, choose

IDLE = Candidate(
    number=0, age=100.0, streams=0, is_protected=False, is_relayed=False, is_inbound=False
)

candidates = st.lists(
    st.builds(
        Candidate,
        number=st.integers(0, 1000),
        age=st.floats(0, 200),
        streams=st.integers(0, 3),
        is_protected=st.booleans(),
        is_relayed=st.booleans(),
        is_inbound=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda candidate: candidate.number,
)


def trim(connections: list[Candidate], low: int, high: int) -> tuple[int, ...]:
    return choose(connections, low=low, high=high, grace=60.0)


def test_s20_nothing_is_closed_up_to_the_high_mark() -> None:
    connections = [replace(IDLE, number=n) for n in range(4)]
    assert trim(connections, 2, 4) == ()
    assert len(trim([*connections, replace(IDLE, number=4)], 2, 4)) == 3


@given(candidates, st.integers(0, 10), st.integers(0, 10))
def test_s20_what_is_closed_may_be_and_is_no_more_than_needed(
    connections: list[Candidate], low: int, above: int
) -> None:
    closed = trim(connections, low, low + above)
    by_number = {candidate.number: candidate for candidate in connections}
    assert len(set(closed)) == len(closed)
    assert not any(by_number[n].is_protected or by_number[n].age < 60.0 for n in closed)
    counted = [c for c in connections if not c.is_protected]
    if len(counted) <= low + above:
        assert closed == ()
    else:
        expendable = [c for c in counted if c.age >= 60.0]
        assert len(closed) == min(len(expendable), len(counted) - low)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (replace(IDLE, streams=0), replace(IDLE, streams=1, is_relayed=True)),
        (replace(IDLE, is_relayed=True), replace(IDLE, is_inbound=True)),
        (replace(IDLE, is_inbound=True, age=200.0), replace(IDLE, age=100.0)),
        (replace(IDLE, age=100.0), replace(IDLE, age=200.0)),
        (replace(IDLE, age=100.0), replace(IDLE, age=59.9)),
    ],
)
def test_s20_first_go_the_idle_the_relayed_the_inbound_and_the_young(
    first: Candidate, second: Candidate
) -> None:
    one, two = replace(first, number=1), replace(second, number=2)
    assert trim([one, two], 1, 1) == (1,)
    assert trim([two, one], 1, 1) == (1,)
