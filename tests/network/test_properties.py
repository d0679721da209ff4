"""Whatever happens to a network, some things hold: Hypothesis draws plays, see ``plays.py``.

The same plays are drawn in each run. For others, and more of them::

    P2PNET_WORLD_EXAMPLES=1000 nice pytest tests/network/test_properties.py -s

A play that fails is shrunk, and shown as JSON. Put it into ``seeds.json`` with a word on what
was wrong, as ``{"found": "...", "play": {...}}``: ``test_found_once`` plays it for ever.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from p2pnet.testing.kinds import ALL_KINDS
from tests.network.plays import DEEDS, EVENTS, FAMILIES, QUALITIES, Place, Play, Step, perform

CAMPAIGN = os.environ.get("P2PNET_WORLD_EXAMPLES", "")
EXAMPLES = int(CAMPAIGN or 20)
MAX_HOSTS = 6
MAX_STEPS = 20
FOUND = json.loads(Path(__file__).with_name("seeds.json").read_text())

PLACES = st.builds(
    Place,
    kind=st.sampled_from(sorted(ALL_KINDS)),
    families=st.sampled_from(sorted(FAMILIES)),
    quality=st.sampled_from(sorted(QUALITIES)),
)


@st.composite
def plays(draw: st.DrawFn) -> Play:
    homes = draw(st.lists(PLACES, min_size=1, max_size=4))
    home = st.integers(0, len(homes) - 1)
    hosts = draw(st.lists(home, min_size=2, max_size=MAX_HOSTS))
    return Play(
        seed=draw(st.integers(0, 2**16)),
        homes=tuple(homes),
        hosts=tuple(hosts),
        steps=tuple(draw(st.lists(steps(len(hosts), len(homes)), max_size=MAX_STEPS))),
    )


def steps(hosts: int, homes: int) -> st.SearchStrategy[Step]:
    host, home = st.integers(0, hosts - 1), st.integers(0, homes - 1)
    machine = st.integers(0, hosts)  # or the relay
    size = st.sampled_from([0, 1, 1000, 20_000, 100_000])
    seconds = st.sampled_from([1, 3, 10, 40, 120])
    words = st.just
    return st.one_of(
        st.tuples(words("connect"), host, host),
        st.tuples(words("send"), host, host, size),
        st.tuples(words("send"), host, host, size),
        st.tuples(words("close"), host, host),
        st.tuples(words("wait"), seconds),
        st.tuples(words("wait"), seconds),
        st.tuples(st.sampled_from(["cut", "uncut", "partition"]), machine),
        st.tuples(st.sampled_from(["kill", "stop", "restart"]), machine),
        st.tuples(st.sampled_from(["reboot", "renumber"]), host),
        st.tuples(words("move"), host, home),
        st.tuples(words("heal")),
    )


@settings(
    max_examples=EXAMPLES,
    derandomize=not CAMPAIGN,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(plays())
def test_data_is_whole_and_all_meet_again_whatever_happens(play: Play) -> None:
    note(play.to_json())
    perform(play)


@pytest.mark.parametrize("found", FOUND, ids=[entry["found"] for entry in FOUND])
def test_found_once(found: dict[str, object]) -> None:
    perform(Play.from_json(json.dumps(found["play"])))


def test_the_first_seed_has_each_kind_of_step() -> None:
    assert {step[0] for step in FOUND[0]["play"]["steps"]} == {*DEEDS, *EVENTS}


def test_a_play_is_the_same_each_time_and_after_a_way_through_json() -> None:
    play = Play(
        seed=5,
        homes=(Place("port-restricted", quality="messy"), Place("symmetric", "46", "lossy")),
        hosts=(0, 1, 1),
        steps=(("connect", 0, 1), ("wait", 3), ("kill", 3), ("send", 1, 2, 20_000), ("reboot", 0)),
    )
    assert Play.from_json(play.to_json()) == play
    assert perform(play) == perform(play)
