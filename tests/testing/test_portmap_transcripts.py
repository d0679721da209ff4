"""Real clients asked this server over real sockets, and were content with what they got.

Each file of vectors/portmap holds what one of them sent, and what it was answered, by which
it then said that it had what it wanted, or the right error. Answers to port 5351 must be the
same bytes today; of UPnP what was found, the status and the values must be the same.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TypedDict

import pytest

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.portmap.router_service import PortMapping
from p2pnet.testing.portmap.settings import PortMapConfig, Protocol
from tests.testing.portmap_client import OUTSIDE, ROUTER, make_nat, read_http

VECTORS = sorted((Path(__file__).parent / "vectors" / "portmap").glob("*.json"))


class Exchange(TypedDict, total=False):
    at: float
    port: int
    # "from" and "in" are read by their names: they are keywords
    out: list[str]
    found: list[str]
    status: int
    values: dict[str, str]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_what_a_real_client_was_content_with_is_answered_still(path: Path) -> None:
    transcript = json.loads(path.read_text())
    protocols: list[Protocol] = transcript["protocols"]
    service = PortMapping(
        make_nat(),
        inside_address=ROUTER,
        outside_address=OUTSIDE,
        now=0.0,
        protocols=protocols,
        config=PortMapConfig(**transcript["config"]),
    )
    assert transcript["exchanges"]
    for exchange in transcript["exchanges"]:
        source = Endpoint(exchange["from"], 40_000)
        assert answers(service, source, exchange["in"], exchange) == expected(exchange)


def expected(exchange: Exchange) -> object:
    match exchange["port"]:
        case 5351:
            return exchange["out"]
        case 1900:
            return exchange["found"]
    return exchange["status"], exchange["values"]


def answers(service: PortMapping, source: Endpoint, data: str, exchange: Exchange) -> object:
    now = exchange["at"]
    match exchange["port"]:
        case 5351:
            sent = service.receive(5351, bytes.fromhex(data), source, now)
            return [outgoing.data.hex() for outgoing in sent]
        case 1900:
            sent = service.receive(1900, data.encode(), source, now)
            return re.findall(
                r"^ST: (.*)\r$", b"".join(o.data for o in sent).decode(), re.MULTILINE
            )
    connection = service.connect(source)
    answer = read_http(connection.receive(data.encode(), now))
    return answer.status, answer.values if "Envelope" in answer.body else {}


def test_the_transcripts_are_there() -> None:
    assert len(VECTORS) == 12
