"""Homes behind a router that is a program, in network namespaces with real packets."""

from __future__ import annotations

import json
from typing import TypeAlias

import pytest

from interop.worlds import run_in_world

SECONDS = 240
OUTSIDE, LATER = "11.0.1.1", "11.0.1.9"
UNTRANSLATED = "11.0.3.2"
PUNCH_DELAY = ("--delay", "40ms")

Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | None"


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: plain sockets do here."""


class Seen:
    """What a trial observed."""

    def __init__(self, found: dict[str, Json]) -> None:
        self._found = found

    def __getitem__(self, name: str) -> Json:
        return self._found[name]

    def number(self, name: str) -> float:
        found = self._found[name]
        assert isinstance(found, float | int)
        return found

    def numbers(self, name: str) -> list[float]:
        found = self._found[name]
        assert isinstance(found, list)
        return [each for each in found if isinstance(each, float | int)]

    def count(self, name: str) -> float:
        counts = self._found["statistics"]
        assert isinstance(counts, dict)
        found = counts.get(name, 0)
        assert isinstance(found, float | int)
        return found


def observe(*words: str) -> Seen:
    done = run_in_world("fabric_trial", *words, seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    return Seen(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("port-restricted", OUTSIDE),
        ("symmetric", OUTSIDE),
        ("carrier", OUTSIDE),
        ("firewall", UNTRANSLATED),
        ("open", UNTRANSLATED),
    ],
)
def test_much_data_both_ways_stays_intact(kind: str, source: str) -> None:
    seen = observe("bulk", kind)
    assert seen["intact"] is True
    assert seen["source"] == source
    assert seen.count("sent outside") > 0
    assert seen.count("sent inside") > 0


def test_much_data_stays_intact_on_a_line_that_delays_and_loses() -> None:
    line = ("--delay", "5ms", "--jitter", "5ms", "--loss", "0.01")
    seen = observe("bulk", "port-restricted", *line)
    assert seen["intact"] is True
    assert seen.count("dropped: lost on the line") > 0


@pytest.mark.parametrize(
    ("kind", "stranger"),
    [("full-cone", True), ("address-restricted", False), ("port-restricted", False)],
)
def test_one_mapping_serves_all_destinations(kind: str, stranger: bool) -> None:
    seen = observe("mapping", kind)
    assert seen["first"] == seen["again"] == seen["second"] == [OUTSIDE, 5000]
    assert seen["answered"] is True
    assert seen["stranger"] is stranger


def test_a_symmetric_nat_shows_another_port_to_each_destination() -> None:
    seen = observe("mapping", "symmetric")
    assert seen["first"] == seen["again"]
    assert seen["first"] != seen["second"] is not None
    assert (seen["answered"], seen["stranger"]) == (True, False)


def test_the_seed_decides_which_ports_are_chosen() -> None:
    one, same, another = (
        observe("mapping", "symmetric", "--seed", seed) for seed in ("1", "1", "2")
    )
    assert one["first"] == same["first"] != another["first"]


def test_a_firewall_leaves_addresses_as_they_are() -> None:
    seen = observe("mapping", "firewall")
    assert seen["first"] == seen["second"] == [UNTRANSLATED, 5000]
    assert (seen["answered"], seen["stranger"]) == (True, False)


def test_a_router_behind_a_carrier_is_two_programs_or_one() -> None:
    apart, together = observe("in-a-row", "carrier"), observe("mapping", "carrier")
    assert apart["source"] == together["first"] == [OUTSIDE, 1024]
    assert apart["answered"] is True
    assert apart["mappings"] == [1, 1]


def test_each_way_takes_the_delay_that_is_set_last() -> None:
    seen = observe("delay", "port-restricted", "30ms", "0.08")
    for name in ("rounds", "connects"):
        short, long = seen.numbers(name)
        assert short >= 0.06
        assert long >= 0.16


def test_the_seed_decides_what_is_lost() -> None:
    options = ("full-cone", "--loss", "0.3", "--seed", "7")
    first, second = observe("loss", *options), observe("loss", *options)
    assert 100 < first.number("arrived") < 180
    assert first.count("dropped: lost on the line") == 200 - first.number("arrived")
    assert first["arrived"] == second["arrived"]


def test_an_unsolicited_syn_meets_silence() -> None:
    seen = observe("unsolicited", "port-restricted")
    assert seen["outcome"] == "TimeoutError"
    assert seen.count("dropped: no mapping") > 0


def test_an_unsolicited_syn_meets_a_reset_if_the_nat_is_of_that_kind() -> None:
    seen = observe("unsolicited", "port-restricted-reset")
    assert seen["outcome"] == "ConnectionRefusedError"
    assert seen.count("answered") == 1


def test_rebinding_changes_the_address_outside_and_ends_what_was() -> None:
    seen = observe("rebind", "port-restricted")
    before, after = seen["before"], seen["after"]
    assert isinstance(before, list)
    assert isinstance(after, list)
    assert (before[0], after[0]) == (OUTSIDE, LATER)
    assert (seen["old_works"], seen["new_works"]) == (False, True)
    assert seen["connection_survived"] is False


def test_a_reset_forgets_mappings() -> None:
    seen = observe("reset", "port-restricted")
    assert (seen["before"], seen["after"], seen["again"]) == (True, False, True)


def test_beyond_the_limit_of_mappings_nothing_new_gets_out() -> None:
    seen = observe("limit", "port-restricted", "--max-mappings", "2")
    assert seen["arrived"] == [True, True, False]
    assert seen["first_again"] is True
    assert seen.count("dropped: mapping table full") == 1
    assert seen.count("mappings") == 2


def test_two_homes_open_a_connection_at_once() -> None:
    seen = observe("simultaneous-open", "port-restricted", *PUNCH_DELAY)
    assert seen["outcomes"] == ["connected", "connected"]
    assert seen["greeting"] == "hello"


def test_simultaneous_open_can_be_refused() -> None:
    seen = observe("simultaneous-open", "no-simultaneous-open", *PUNCH_DELAY)
    assert seen["outcomes"] == ["TimeoutError", "TimeoutError"]
    assert seen.count("dropped: simultaneous open refused") > 0


@pytest.mark.parametrize(("kind", "source"), [("port-restricted", None), ("hairpinning", OUTSIDE)])
def test_only_some_routers_lead_back_inside(kind: str, source: str | None) -> None:
    seen = observe("hairpin", kind)
    assert seen["outside"] == [[OUTSIDE, 5000], [OUTSIDE, 5001]]
    assert seen["source"] == (None if source is None else [source, 5000])


def test_datagrams_that_the_kernel_hands_over_as_one_arrive_apart() -> None:
    assert observe("segmented", "port-restricted")["sizes"] == [1000] * 10 + [500]


def test_commands_are_answered_and_bad_ones_refused() -> None:
    seen = observe("commands", "full-cone", "dance", "delay -5", "delay 5ms", "rebind there")
    assert seen["answers"] == [
        {"refused": "dance: there is no such command"},
        {"refused": "delay -5: no line has Quality(delay=-5.0, jitter=0.0, loss=0.0)"},
        {"done": "delay 5ms"},
        {"refused": "rebind there: Expected 4 octets in 'there'"},
    ]
    assert seen["works"] is True


def test_the_program_ends_with_its_standard_input() -> None:
    given = ("--inside", "lan", "--outside", "wan", "--kind", "open", "--outside-address", LATER)
    seen = observe("program", *given)
    assert (seen["status"], seen["errors"]) == (0, "")
    assert seen["lines"] == [
        json.dumps({"ready": True, "outside": LATER}),
        json.dumps({"statistics": {"mappings": 0}}),
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("--outside", "nowhere", "--kind", "open"), "nowhere"),
        (("--outside", "wan", "--kind", "carrier", "--layer", "2"), "carrier has no layer 2"),
        (("--outside", "wan", "--kind", "open", "--loss", "2"), "no line has"),
    ],
)
def test_the_program_says_why_it_cannot_begin(given: list[str], reason: str) -> None:
    seen = observe("program", "--inside", "lan", *given)
    assert (seen["status"], seen["lines"]) == (1, [])
    assert reason in str(seen["errors"])
