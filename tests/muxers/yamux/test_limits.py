"""The config of yamux."""

from __future__ import annotations

import math

import pytest

from p2pnet.muxers.yamux import Yamux


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_streams", 0),
        ("max_outbound_streams", 0),
        ("max_unacknowledged", 0),
        ("max_stream_window", 262_143),
        ("max_stream_window", 2**32),
        ("max_connection_window", -1),
        ("max_frame", 0),
        ("max_frame", 2**20 + 1),
        ("max_unsent", 0),
        ("max_control", 100),
        ("ping_interval", 0.0),
        ("ping_timeout", -1.0),
        ("ping_timeout", math.nan),
        ("max_ping_rate", 0.0),
        ("grace", -1.0),
        ("grace", math.inf),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Yamux(**{name: value})  # type: ignore[arg-type]


def test_pings_can_be_switched_off() -> None:
    assert Yamux(ping_interval=math.inf).ping_interval == math.inf
