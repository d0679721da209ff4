"""Birthday punching through the kernel's NATs: one has random ports, and the other keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from interop.worlds import run_in_world
from p2pnet.connectivity.causes import Cause
from p2pnet.protocols.dcutr.birthday import MAX_PROBES

SECONDS = 150
HARD, EASY = "symmetric", "port-restricted"
MAX_FLOWS = 300
"""Of the NAT with random ports, at once; 256 are those of sockets that look for the other side."""
OTHER_FLOWS = 16
"""Of the other NAT, beside those of the probes."""

Fields = dict[str, Any]


@pytest.fixture(autouse=True)
def peers() -> None:
    """Need no peers: all are p2pnet."""


def meet(caller: str, called: str, *options: str) -> tuple[list[Fields], dict[str, Fields]]:
    """Return what the caller told, and what both homes have seen, by kind."""
    done = run_in_world("birthday_trial", caller, called, "1", *options, seconds=SECONDS)
    assert done.stdout, done.stderr
    meeting = json.loads(done.stdout)
    return meeting["events"], {home["kind"]: home for home in meeting["homes"]}


@pytest.mark.parametrize(("caller", "called"), [(HARD, EASY), (EASY, HARD)])
def test_a_random_port_is_found(caller: str, called: str) -> None:
    """D21 D22 D23."""
    events, homes = meet(caller, called, "--birthday")
    assert events[-1]["direct"] is True
    (punched,) = (event for event in events if event["event"] == "punched")
    assert punched["attempt"] == 2
    assert str(punched["address"]).endswith("/quic-v1")
    assert homes[HARD]["flows"] <= MAX_FLOWS
    assert homes[EASY]["flows"] <= MAX_PROBES + OTHER_FLOWS


def test_without_the_switch_they_stay_relayed_and_say_why() -> None:
    events, homes = meet(HARD, EASY)
    verdict = events[-1]
    assert (verdict["connected"], verdict["direct"]) == (True, False)
    assert verdict["findings"][0]["cause"] == Cause.OWN_SYMMETRIC.name.lower()
    for home in homes.values():
        assert home["flows"] <= OTHER_FLOWS
