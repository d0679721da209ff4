"""V14 of specs/reachability.md: who is asked about the NAT, and when."""

from __future__ import annotations

import math

import pytest

from p2pnet.connectivity.probing.policy import (
    Agenda,
    Witness,
    jury,
    only_one,
    translated,
    witness_of,
)
from p2pnet.core.addresses import parse
from p2pnet.core.peer_id import PeerId

PEER = PeerId(b"\x12\x20" + bytes(32))


def agenda() -> Agenda:
    return Agenda(settle_seconds=1.0, retry_seconds=60.0, interval=3600.0, max_failures=4)


def test_v14_nothing_is_due_before_the_nat_shows() -> None:
    made = agenda()
    assert math.isinf(made.due)
    assert not made.is_busy(0.0)
    made.nat_shows(5.0)
    made.nat_shows(5.5)
    assert made.due == 6.0
    assert made.is_busy(5.5)


def test_v14_while_a_probe_is_under_way_none_is_due() -> None:
    made = agenda()
    made.nat_shows(0.0)
    made.begins()
    made.nat_shows(2.0)
    assert math.isinf(made.due)
    assert made.is_busy(3.0)
    made.ended(4.0, useful=True)
    made.nat_shows(5.0)
    assert made.due == 3604.0
    assert not made.is_busy(5.0)


def test_v14_what_tells_nothing_is_tried_a_few_times_and_then_rarely() -> None:
    made = agenda()
    made.nat_shows(0.0)
    waits = []
    for _ in range(5):
        made.begins()
        made.ended(0.0, useful=False)
        waits.append(made.due)
    assert waits == [60.0, 120.0, 240.0, 3600.0, 3600.0]
    made.nat_shows(1000.0)
    assert made.due == 3600.0
    made.restart()
    made.nat_shows(2000.0)
    assert made.due == 2001.0


def test_v14_that_strangers_get_through_is_a_reason_once() -> None:
    made = agenda()
    made.nat_shows(0.0)
    made.begins()
    made.ended(4.0, useful=True)
    made.opened(10.0)
    assert made.due == 11.0
    made.begins()
    made.ended(12.0, useful=True)
    made.opened(13.0)
    assert made.due == 3612.0


@pytest.mark.parametrize(
    ("connected_at", "dialled", "told", "addresses"),
    [
        ("/ip4/8.8.8.8/tcp/1", True, [], ["/ip4/8.8.8.8/tcp/1"]),
        ("/ip4/8.8.8.8/tcp/1", False, [], None),
        ("/ip4/8.8.8.8/tcp/1", False, ["/ip4/8.8.8.8/tcp/2"], ["/ip4/8.8.8.8/tcp/2"]),
        (
            "/ip4/8.8.8.8/tcp/1",
            True,
            ["/ip4/9.9.9.9/tcp/2", "/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/0"],
            ["/ip4/8.8.8.8/tcp/1"],
        ),
        ("/ip4/192.168.0.1/tcp/1", True, [], None),
        ("/ip6/2600::1/tcp/1", True, [], None),
        (f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}/p2p-circuit", True, [], None),
    ],
)
def test_v14_a_witness_is_asked_at_public_addresses_at_which_it_is(
    connected_at: str, dialled: bool, told: list[str], addresses: list[str] | None
) -> None:
    found = witness_of(
        PEER,
        "tcp",
        connected_at=parse(connected_at),
        dialled=dialled,
        told=map(parse, told),
    )
    assert (None if found is None else [str(a) for a in found.addresses]) == addresses


def test_v14_witnesses_of_one_network_are_one_and_the_one_with_two_ports_is_best() -> None:
    def witness(number: int, *addresses: str) -> Witness:
        peer_id = PeerId(b"\x12\x20" + bytes([number]) * 32)
        known = [parse(address) for address in addresses]
        made = witness_of(peer_id, "tcp", connected_at=known[0], dialled=True, told=known)
        assert made is not None
        return made

    one = witness(1, "/ip4/8.8.8.8/tcp/1")
    again = witness(2, "/ip4/8.8.8.8/tcp/2")
    other = witness(3, "/ip4/9.9.9.9/tcp/1")
    double = witness(4, "/ip4/8.8.8.8/tcp/3", "/ip4/8.8.8.8/tcp/4")
    assert jury([one, again], 8) == [one]
    assert jury([one, again, other], 8) == [one, other]
    assert jury([one, other, double], 8) == [double, other]
    assert jury([one, again, other], 1) == [one]


def test_v14_only_public_addresses_that_are_not_our_own_are_a_nats() -> None:
    given = [
        "/ip4/5.5.5.5/tcp/1",
        "/ip4/6.6.6.6/tcp/1",
        "/ip4/192.168.0.1/tcp/1",
        "/ip6/2600::1/tcp/1",
        "/dns4/a.example/tcp/1",
    ]
    found = translated(map(parse, given), ["6.6.6.6"])
    assert [str(address) for address in found] == ["/ip4/5.5.5.5/tcp/1"]


def test_v14_of_several_open_addresses_none_is_sure_to_be_open() -> None:
    one, same, other = map(
        parse, ["/ip4/5.5.5.5/tcp/1", "/ip4/5.5.5.5/tcp/1/ws", "/ip4/5.5.5.5/tcp/2"]
    )
    quic = parse("/ip4/5.5.5.5/udp/1/quic-v1")
    assert only_one([one, same, quic], "tcp") == same
    assert only_one([one, same, quic], "udp") == quic
    assert only_one([one, other], "tcp") is None
    assert only_one([quic], "tcp") is None
