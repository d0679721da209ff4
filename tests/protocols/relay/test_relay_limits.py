"""The limits of a relay, all in one place, and room for them: specs/relay.md R33, R44."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.limits import OPTIONAL, RelayLimits, room_for
from p2pnet.swarm.config import SwarmConfig


def test_r33_every_limit_is_told_by_its_name() -> None:
    limits = RelayServer(max_reservations=7, circuit_bytes=None)
    told = dict(limits.items())
    assert set(told) == {field.name for field in fields(RelayLimits)}
    assert told["max_reservations"] == 7
    assert told["circuit_bytes"] is None


@pytest.mark.parametrize("name", [field.name for field in fields(RelayLimits)])
@pytest.mark.parametrize("value", [-1, 2**70, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name if value == value else "."):
        RelayServer(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in fields(RelayLimits)])
def test_only_some_limits_may_be_absent(name: str) -> None:
    for nothing in (0, None):
        if name in OPTIONAL:
            RelayServer(**{name: nothing})  # type: ignore[arg-type]
        else:
            with pytest.raises(ValueError, match=name):
                RelayServer(**{name: nothing})  # type: ignore[arg-type]


def test_a_count_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match="max_circuits must be a whole number"):
        RelayServer(max_circuits=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "in_all", "of_prefix"),
    [
        (RelayLimits(), 128 + 2 * 1024, 8 + 2 * 128),
        (RelayLimits(max_reservations=1000, max_circuits=200), 1400, 8 + 2 * 128),
        (RelayLimits(max_reservations=5, max_circuits=7), 5 + 2 * 7, 5 + 2 * 7),
        (RelayLimits(max_reservations_per_prefix=50, max_circuits_per_prefix=3), 2176, 56),
    ],
    ids=["default", "many reservations", "no prefix has more than all", "large prefixes"],
)
def test_r44_there_is_room_for_what_the_limits_allow_beside_that_of_any_host(
    limits: RelayLimits, in_all: int, of_prefix: int
) -> None:
    usual = SwarmConfig()
    assert room_for(limits) == replace(
        usual,
        max_connections=512 + in_all,
        max_inbound_per_prefix=64 + of_prefix,
    )


def test_r44_the_largest_limits_have_room() -> None:
    most = {name: 2**32 - 1 for name, _ in RelayLimits().items() if name.startswith("max_")}
    assert room_for(RelayLimits(**most)).max_connections == 512 + 3 * (2**32 - 1)
    whole = room_for(RelayLimits(max_reservations=7.0))  # type: ignore[arg-type]
    assert isinstance(whole.max_connections, int)
    assert isinstance(whole.max_inbound_per_prefix, int)
