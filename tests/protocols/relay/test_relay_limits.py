"""The limits of a relay, all in one place: specs/relay.md R33."""

from __future__ import annotations

from dataclasses import fields

import pytest

from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.limits import OPTIONAL, RelayLimits


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
