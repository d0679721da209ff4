"""Theory against the table that was measured, against the boxes, and on its page."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest

from p2pnet.testing.kinds import ALL_KINDS, KINDS, MATRIX, Kind
from p2pnet.testing.nat import Dependence, NatKind, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.theory import can_punch, chained, outcome_table
from tests.specs.pages import SPECS
from tests.testing.nat_chains import punch

INDEPENDENT = Dependence.ENDPOINT_INDEPENDENT
ADDRESS = Dependence.ADDRESS
PORT = Dependence.ADDRESS_AND_PORT
TRANSPORTS: tuple[TransportName, ...] = ("udp", "tcp")

EASY = {"open", "full-cone", "address-restricted"}
STRICT = {
    "firewall",
    "port-restricted",
    "port-restricted-reset",
    "port-restricted-random",
    "carrier",
}
SYMMETRIC = {"address-symmetric", "symmetric", "symmetric-sequential", "carrier-symmetric"}

SINGLE = tuple(
    Kind(f"{mapping.value}, {filtering.value}", (NatKind(mapping=mapping, filtering=filtering),))
    for mapping, filtering in product(Dependence, Dependence)
)


def home(*nats: NatKind) -> Kind:
    return Kind("a home", nats)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_twelve_kinds_end_as_they_were_measured(transport: TransportName) -> None:
    """NT23: works unless one side is symmetric and the other asks for ports, or both are."""
    assert set(KINDS) == EASY | STRICT | SYMMETRIC
    for a, b in product(KINDS, KINDS):
        measured = a in EASY or b in EASY or (a in STRICT and b in STRICT)
        verdict = can_punch(KINDS[a], KINDS[b], transport)
        assert verdict.direct is measured, (a, b, verdict.reason)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ALL_KINDS)
def test_the_boxes_do_what_theory_says_of_named_kinds(name: str, transport: TransportName) -> None:
    """NT21 to NT26: packets through real boxes, all at one moment."""
    resetting = {"port-restricted-reset", "symmetric-reset"}
    kinds = [kind for kind in ALL_KINDS.values() if kind.name not in resetting]
    if name in resetting:
        kinds = [ALL_KINDS["open"], ALL_KINDS["port-restricted"], ALL_KINDS["symmetric"]]
    for other in kinds:
        verdict = can_punch(ALL_KINDS[name], other, transport)
        assert punch(ALL_KINDS[name], other, transport) is verdict.direct, other.name


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("ports", PortChoice)
def test_the_boxes_do_what_theory_says_of_all_mappings_and_filters(
    transport: TransportName, ports: PortChoice
) -> None:
    """NT23 NT24: single NATs, each with each, also where one refuses simultaneous open."""
    for a, b in product(SINGLE, SINGLE):
        one = home(replace(a.nats[0], ports=ports))
        for refuses in ((False, False), (True, False), (True, True)):
            first, second = (
                home(replace(kind.nats[0], ports=ports, refuses_simultaneous_open=refuse))
                for kind, refuse in zip((one, b), refuses, strict=True)
            )
            verdict = can_punch(first, second, transport)
            assert punch(first, second, transport) is verdict.direct, (a.name, b.name, refuses)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_boxes_do_what_theory_says_of_double_nats(transport: TransportName) -> None:
    """NT22: the most dependent decides, wherever it stands."""
    firewalls = [home(NatKind(translates=False, filtering=filtering)) for filtering in Dependence]
    boxes = (*SINGLE, *firewalls)
    doubles = [home(inner.nats[0], outer.nats[0]) for inner, outer in product(boxes, boxes)]
    judges = [KINDS[name] for name in ("open", "address-restricted", "firewall", "symmetric")]
    for double, judge in product(doubles, judges):
        verdict = can_punch(double, judge, transport)
        assert punch(double, judge, transport) is verdict.direct, (double, judge.name)
        assert punch(judge, double, transport) is verdict.direct, (judge.name, double)


def test_it_does_not_matter_who_is_who() -> None:
    for a, b in product(ALL_KINDS.values(), ALL_KINDS.values()):
        for transport in TRANSPORTS:
            for predicts in (False, True):
                there = can_punch(a, b, transport, predicts_ports=predicts)
                back = can_punch(b, a, transport, predicts_ports=predicts)
                assert there.direct is back.direct, (a.name, b.name)


def test_the_reason_names_who_hides_and_who_asks() -> None:
    """NT23."""
    reasons = {
        can_punch(KINDS[a], KINDS[b], "tcp").reason
        for a, b in (("symmetric", "port-restricted"), ("port-restricted", "symmetric"))
    }
    assert reasons == {
        "the mapping of symmetric depends on the destination, and port-restricted lets in only "
        "a port it has sent to"
    }
    assert can_punch(KINDS["carrier-symmetric"], KINDS["symmetric"], "udp").reason == (
        "both mappings depend on the destination: neither side can know the other's port"
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_strangers_come_in_where_they_saw_the_host_if_the_filter_is_open(
    transport: TransportName,
) -> None:
    """NT24: two symmetric homes meet by that, but not one with a filter of ports."""
    door = home(NatKind(), NatKind(mapping=PORT, filtering=INDEPENDENT))
    assert not can_punch(door, KINDS["symmetric"], transport).direct, "the home filters ports"
    door = home(NatKind(filtering=ADDRESS), NatKind(mapping=PORT, filtering=INDEPENDENT))
    verdict = can_punch(KINDS["symmetric"], door, transport)
    assert (verdict.direct, verdict.reason) == (True, "a home lets anyone in where it was seen")
    assert not can_punch(door, KINDS["port-restricted"], transport).direct
    shut = home(*door.nats, NatKind(translates=False, filtering=ADDRESS))
    assert not can_punch(KINDS["symmetric"], shut, transport).direct


def test_blocked_udp_means_nothing_for_tcp() -> None:
    """NT26: and it may be on either side."""
    blocked = ALL_KINDS["udp-blocked"]
    for other in KINDS.values():
        for pair in ((blocked, other), (other, blocked)):
            verdict = can_punch(*pair, "udp")
            assert (verdict.direct, verdict.reason) == (False, "udp-blocked blocks UDP")
            usual = can_punch(KINDS["port-restricted"], other, "tcp")
            assert can_punch(*pair, "tcp").direct is usual.direct


def test_refused_simultaneous_open_hurts_only_two_of_them_and_only_over_tcp() -> None:
    """NT25."""
    refusing = ALL_KINDS["no-simultaneous-open"]
    for other in KINDS.values():
        usual = can_punch(KINDS["port-restricted"], other, "tcp")
        assert can_punch(refusing, other, "tcp").direct is usual.direct
    assert can_punch(refusing, refusing, "tcp").reason == "both refuse simultaneous open"
    assert can_punch(refusing, refusing, "udp").direct


@pytest.mark.parametrize(
    ("nats", "is_guessable"),
    [
        ((NatKind(mapping=PORT, ports=PortChoice.SEQUENTIAL),), True),
        ((NatKind(mapping=ADDRESS, ports=PortChoice.PRESERVING),), True),
        ((NatKind(mapping=PORT, ports=PortChoice.RANDOM),), False),
        ((NatKind(ports=PortChoice.RANDOM), NatKind(mapping=PORT)), True),
        ((NatKind(mapping=PORT), NatKind(ports=PortChoice.RANDOM)), False),
        (
            (NatKind(mapping=PORT), NatKind(translates=False, ports=PortChoice.RANDOM)),
            True,
        ),
    ],
)
def test_ports_are_guessed_from_the_first_dependent_nat_outwards(
    nats: tuple[NatKind, ...], is_guessable: bool
) -> None:
    """NT27."""
    assert chained(home(*nats)).is_guessable is is_guessable
    strict = KINDS["port-restricted"]
    assert can_punch(home(*nats), strict, "udp", predicts_ports=True).direct is is_guessable
    assert not can_punch(home(*nats), strict, "udp").direct


def test_guessing_needs_a_mapping_that_stays_or_that_can_be_guessed_as_well() -> None:
    """NT27: an address-dependent one stays."""
    by_port, by_address, by_chance = (
        home(NatKind(mapping=mapping, ports=ports))
        for mapping, ports in (
            (PORT, PortChoice.SEQUENTIAL),
            (ADDRESS, PortChoice.SEQUENTIAL),
            (PORT, PortChoice.RANDOM),
        )
    )
    for one, other in product((by_port, by_address), (by_port, by_address)):
        assert can_punch(one, other, "udp", predicts_ports=True).direct
        assert not can_punch(one, other, "udp").direct
    for guessable in (by_port, by_address):
        assert not can_punch(guessable, by_chance, "udp", predicts_ports=True).direct


def test_the_page_shows_the_table_that_theory_gives() -> None:
    page = (SPECS / "nat.md").read_text(encoding="utf-8")
    assert outcome_table("udp") in page
    assert outcome_table("tcp") in page
    assert len(re.findall(r"^\| \d+ ", page, re.MULTILINE)) == 2 * len(MATRIX)


def test_new_kinds_are_like_those_that_they_resemble() -> None:
    """NT22: neither ports, nor RST, nor a second NAT of the same sort changes an outcome."""
    alike = {
        "symmetric-reset": "symmetric",
        "port-restricted-sequential": "port-restricted",
        "double-nat": "port-restricted",
    }
    for (name, like), other, transport in product(alike.items(), MATRIX.values(), TRANSPORTS):
        verdict = can_punch(ALL_KINDS[name], other, transport)
        assert verdict.direct is can_punch(KINDS[like], other, transport).direct, (name, other.name)
