"""Connections: from which port, and which are closed."""

from __future__ import annotations

from dataclasses import replace

from p2pnet.core.addresses import Endpoint, parse
from p2pnet.swarm.arrivals import prefix_of
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.trimming import Candidate, choose
from p2pnet.transports.tcp_ports import source_endpoint
from tests.specs.forms import Fields


def source(given: Fields) -> list[str]:
    return [source_of(case["remote"], case["listening"]) for case in given["source"]]


def source_of(remote: str, listening: list[str]) -> str:
    chosen = source_endpoint(Endpoint(remote, 1), [Endpoint(host, 4001) for host in listening])
    return chosen.host if chosen else "any"


USUAL = Candidate(
    number=0, age=100.0, streams=0, is_protected=False, is_relayed=False, is_inbound=False
)


def trim(given: Fields) -> tuple[int, ...]:
    connections = [replace(USUAL, **fields) for fields in given["trim"]]
    grace = SwarmConfig().trim_grace
    return choose(connections, low=given["low"], high=given["high"], grace=grace)


def prefix(given: Fields) -> str:
    return prefix_of(parse(given["prefix"])) or ""


FORMS = {"source": source, "trim": trim, "prefix": prefix}
