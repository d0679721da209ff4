"""Rules A20, A21, A24, A25 and V13: which addresses others are told of, and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.connectivity.known import (
    Source,
    Sources,
    expand,
    known_addresses,
    worth_punching,
)
from p2pnet.connectivity.verdict import Status, Verdict
from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.events import Reachability

RELAY = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SEEN = parse("/ip4/5.5.5.5/tcp/4001")
CIRCUIT = parse(f"/ip4/6.6.6.6/tcp/1/p2p/{RELAY}/p2p-circuit")
PRIVATE = parse("/ip4/192.168.0.2/tcp/4001")


# ---- A20: interfaces ---------------------------------------------------------------------

INTERFACES = ("127.0.0.1", "192.168.0.2", "::1", "2600::2")


def expanded(*texts: str) -> list[str]:
    return [str(address) for address in expand([parse(text) for text in texts], INTERFACES)]


def test_a20_the_unspecified_address_becomes_those_of_its_family() -> None:
    assert expanded("/ip4/0.0.0.0/tcp/1") == ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.2/tcp/1"]
    assert expanded("/ip6/::/tcp/1") == ["/ip6/::1/tcp/1", "/ip6/2600::2/tcp/1"]


def test_a20_other_addresses_stay_and_none_comes_twice() -> None:
    assert expanded("/ip4/192.168.0.2/tcp/1", "/ip4/0.0.0.0/tcp/1", "/dns4/a.example/tcp/1") == [
        "/ip4/192.168.0.2/tcp/1",
        "/ip4/127.0.0.1/tcp/1",
        "/dns4/a.example/tcp/1",
    ]


@pytest.mark.parametrize(
    "suffix", ["tcp/1/ws", "tcp/1/tls/ws", "udp/1/quic-v1", "udp/1/quic-v1/webtransport"]
)
def test_a20_whatever_is_spoken_at_a_port_is_spoken_at_all_interfaces(suffix: str) -> None:
    assert expanded(f"/ip4/0.0.0.0/{suffix}", f"/ip6/::/{suffix}") == [
        f"/ip4/127.0.0.1/{suffix}",
        f"/ip4/192.168.0.2/{suffix}",
        f"/ip6/::1/{suffix}",
        f"/ip6/2600::2/{suffix}",
    ]


# ---- A21, A24 ----------------------------------------------------------------------------

texts = st.sampled_from(
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.0.2/tcp/1",
        "/ip4/5.5.5.5/tcp/1",
        "/ip6/2600::2/tcp/1",
        "/ip4/192.0.2.1/tcp/1",
        "/dns4/a.example/tcp/1",
        f"/ip4/6.6.6.6/tcp/1/p2p/{RELAY}/p2p-circuit",
    ]
)
some = st.lists(texts.map(parse), max_size=5)


@given(some, some, some, some)
def test_a21_all_is_advertised_once_and_relayed_addresses_last(
    listen: list[Multiaddr],
    announced: list[Multiaddr],
    observed: list[Multiaddr],
    circuits: list[Multiaddr],
) -> None:
    sources = Sources(
        listening=listen,
        announced=announced,
        observed=observed,
        confirmed=observed,
        circuits=circuits,
    )
    known = known_addresses(sources, {}, Reachability.UNKNOWN)
    told = [each.address for each in known if each.is_advertised]
    assert set(told) == {*listen, *announced, *observed, *circuits}
    assert len(set(told)) == len(told)
    relayed = ["p2p-circuit" in str(address) for address in told]
    assert relayed == sorted(relayed)


@given(some, some, some)
def test_a24_a_hole_is_punched_at_direct_public_or_seen_addresses(
    listen: list[Multiaddr], announced: list[Multiaddr], observed: list[Multiaddr]
) -> None:
    offered = worth_punching(Sources(listening=listen, announced=announced, observed=observed))
    for address in {*listen, *announced, *observed}:
        direct = "p2p-circuit" not in str(address)
        public = str(address).startswith(("/ip4/5.", "/ip6/2600", "/dns4"))
        assert (address in offered) is (direct and (public or address in observed))


def test_a24_the_likeliest_addresses_come_first() -> None:
    public = parse("/ip4/5.5.5.5/tcp/1")
    forwarded = parse("/ip4/5.5.5.5/tcp/443")
    sources = Sources(listening=[public], announced=[forwarded], observed=[SEEN])
    assert worth_punching(sources) == (forwarded, SEEN, public)


# ---- V13: verdicts -----------------------------------------------------------------------

EVERY = {"listening": Source.LISTENING, "mapped": Source.MAPPED, "observed": Source.OBSERVED}


@pytest.mark.parametrize("source", EVERY)
@pytest.mark.parametrize("status", Status)
def test_v13_what_strangers_cannot_dial_is_not_advertised(source: str, status: Status) -> None:
    sources = Sources(
        listening=[SEEN] if source == "listening" else [],
        mapped=[SEEN] if source == "mapped" else [],
        observed=[SEEN] if source == "observed" else [],
    )
    verdicts = {SEEN: Verdict(status)}
    (known,) = known_addresses(sources, verdicts, Reachability.UNKNOWN)
    assert known.source is EVERY[source]
    assert known.verdict.status is status
    likely = status is Status.UNKNOWN and source != "observed"
    assert known.is_advertised is (status is Status.REACHABLE or likely)
    assert known.because


def test_v13_what_the_configuration_announces_is_advertised_whatever_is_believed() -> None:
    verdicts = {SEEN: Verdict(Status.UNREACHABLE)}
    (known,) = known_addresses(Sources(announced=[SEEN]), verdicts, Reachability.PRIVATE)
    assert known.is_advertised


def test_v13_an_address_of_several_sources_is_known_once_by_the_one_that_says_most() -> None:
    sources = Sources(listening=[SEEN], observed=[SEEN], mapped=[SEEN])
    assert [each.source for each in known_addresses(sources, {}, Reachability.UNKNOWN)] == [
        Source.LISTENING
    ]


def test_v13_private_addresses_are_left_to_whom_they_are_told() -> None:
    (known,) = known_addresses(Sources(listening=[PRIVATE]), {}, Reachability.PRIVATE)
    assert known.is_advertised


@pytest.mark.parametrize("reachability", Reachability)
def test_a25_circuits_are_advertised_unless_the_host_is_public(reachability: Reachability) -> None:
    (known,) = known_addresses(Sources(circuits=[CIRCUIT]), {}, reachability)
    assert known.source is Source.RELAY
    assert known.is_advertised is (reachability is not Reachability.PUBLIC)
