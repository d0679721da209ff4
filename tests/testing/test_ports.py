"""Taken ports against a set that is searched one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.testing.ports import TakenPorts

PORTS = st.integers(1, 20)


@given(st.sets(PORTS), st.sets(PORTS), PORTS, PORTS)
def test_the_free_port_is_the_lowest_that_nobody_has(
    taken: set[int], given_back: set[int], first: int, last: int
) -> None:
    ports = TakenPorts()
    for port in taken:
        ports.add(port)
    for port in taken & given_back:
        ports.remove(port)
    left = taken - given_back
    free = [port for port in range(first, last + 1) if port not in left]
    assert ports.free_in(first, last) == (free[0] if free else None)
    assert len(ports) == len(left)
