"""miniupnpd, a router's program, maps a port for a host in each protocol, in network namespaces."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from interop.conftest import unavailable
from interop.natlab.port_map_trial import MINIUPNPD, OUTSIDE, PATIENCE
from interop.worlds import run_in_world

SECONDS = 180


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: the other side is a router."""


@pytest.fixture(scope="module", autouse=True)
def miniupnpd() -> None:
    """Need the program, and the one of its kinds that the laboratory can use."""
    if not Path(MINIUPNPD).exists():
        unavailable("miniupnpd is not installed: apt install miniupnpd-nftables")
    version = subprocess.run([MINIUPNPD, "--version"], capture_output=True, text=True, check=True)
    if "nftables" not in version.stdout:
        unavailable("this miniupnpd does not use nftables: apt install miniupnpd-nftables")


@pytest.mark.parametrize(
    ("words", "protocol"),
    [
        (["pcp"], "pcp"),
        (["nat-pmp"], "nat-pmp"),
        (["upnp"], "upnp"),
        (["upnp", "-1"], "upnp"),
        (["upnp", "nat-pmp", "pcp"], "pcp"),
    ],
    ids=["pcp", "nat-pmp", "upnp-igd-2", "upnp-igd-1", "all"],
)
def test_miniupnpd_maps_a_port_forgets_it_and_removes_it(words: list[str], protocol: str) -> None:
    done = run_in_world("port_map_trial", *words, seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["event"], seen["protocol"]) == ("mapped", protocol)
    assert seen["address"].startswith(f"/ip4/{OUTSIDE}/tcp/4001/p2p/")
    assert seen["reached"] is True
    assert seen["forwards"] == 1
    assert seen["reached_without_router"] is False
    assert seen["seconds_until_back"] < PATIENCE
    # It left in good order, and not before the router was told.
    assert seen["exit_code"] == 0
    assert seen["forwards_at_the_end"] == []
    assert seen["reached_at_the_end"] is False
