"""Dialing: in which order, how long left alone, what is thought of whole classes."""

from __future__ import annotations

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.backoff import Backoff
from p2pnet.swarm.black_hole import BlackHoles, Class, Outcome, State
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.ranking import Attempt, rank
from tests.specs.forms import Fields

PEER = PeerId(b"\x12\x20" + bytes(32))
ADDRESS = parse("/ip4/1.2.3.4/tcp/1")
SILENT = {Class.UDP: "/ip4/1.2.3.4/udp/1/quic-v1", Class.IPV6: "/ip6/2600::9/tcp/1"}


def ranked(given: Fields) -> list[Attempt]:
    return rank([parse(text) for text in given["rank"]], given.get("interfaces"))


def backoff(given: Fields) -> list[float]:
    return [seconds_after(failures) for failures in given["backoff"]]


def seconds_after(failures: int) -> float:
    memory = Backoff(SwarmConfig().max_backoffs)
    for _ in range(failures):
        memory.failed(PEER, ADDRESS, "refused", now=1000.0)
    refusal = memory.check(PEER, ADDRESS, now=1000.0)
    return refusal.seconds if refusal else 0.0


def black_holes() -> BlackHoles:
    config = SwarmConfig()
    return BlackHoles(window=config.black_hole_window, minimum=config.black_hole_minimum)


def several(texts: list[str]) -> tuple[Multiaddr, ...]:
    return tuple(map(parse, texts))


def thought_of(given: Fields) -> list[list[str]]:
    found = black_holes()
    thoughts = []
    for each in given["thought_of"]:
        outcome = Outcome(
            parse(each["winner"]) if "winner" in each else None,
            several(each.get("answered", [])),
            several(each.get("silent", [])),
        )
        for _ in range(each["dials"]):
            found.learn(outcome)
        thoughts.append([found.state(Class.UDP).value, found.state(Class.IPV6).value])
    return thoughts


def blocked(given: Fields) -> list[list[str]]:
    found = black_holes()
    for text in given["blocked"]:
        each = Class(text)
        for _ in range(100):
            found.learn(Outcome(ADDRESS, silent=several([SILENT[each]])))
        assert found.state(each) is State.BLOCKED
    addresses = several(given["addresses"])
    insisted = frozenset(several(given.get("insisted", [])))
    left_out = [
        [str(address) for address in found.screen(addresses, insisted)]
        for _ in range(max(given["dials"]))
    ]
    return [left_out[number - 1] for number in given["dials"]]


FORMS = {"rank": ranked, "backoff": backoff, "thought_of": thought_of, "blocked": blocked}
