"""Connections: from which port, in which order, how long left alone, which are closed."""

from __future__ import annotations

from dataclasses import replace

from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.backoff import Backoff
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.ranking import Attempt, rank
from p2pnet.swarm.trimming import Candidate, choose
from p2pnet.transports.tcp import source_endpoint
from tests.specs.forms import Fields

PEER = PeerId(b"\x12\x20" + bytes(32))
ADDRESS = parse("/ip4/1.2.3.4/tcp/1")


def source(given: Fields) -> list[str]:
    return [source_of(case["remote"], case["listening"]) for case in given["source"]]


def source_of(remote: str, listening: list[str]) -> str:
    chosen = source_endpoint(Endpoint(remote, 1), [Endpoint(host, 4001) for host in listening])
    return chosen.host if chosen else "any"


def ranked(given: Fields) -> list[Attempt]:
    return rank([parse(text) for text in given["rank"]])


def backoff(given: Fields) -> list[float]:
    return [seconds_after(failures) for failures in given["backoff"]]


def seconds_after(failures: int) -> float:
    memory = Backoff(SwarmConfig().max_backoffs)
    for _ in range(failures):
        memory.failed(PEER, ADDRESS, "refused", now=1000.0)
    refusal = memory.check(PEER, ADDRESS, now=1000.0)
    return refusal.seconds if refusal else 0.0


USUAL = Candidate(
    number=0, age=100.0, streams=0, is_protected=False, is_relayed=False, is_inbound=False
)


def trim(given: Fields) -> tuple[int, ...]:
    connections = [replace(USUAL, **fields) for fields in given["trim"]]
    grace = SwarmConfig().trim_grace
    return choose(connections, low=given["low"], high=given["high"], grace=grace)


FORMS = {"source": source, "rank": ranked, "backoff": backoff, "trim": trim}
