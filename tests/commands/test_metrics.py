"""Metrics of a relay, and those who ask for them: specs/relay.md R40, R41."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from p2pnet import presets
from p2pnet.commands.metrics import (
    CLIENT_SECONDS,
    MAX_CLIENTS,
    MAX_REQUEST_BYTES,
    Metric,
    exposition,
    serve_metrics,
)
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import ByteStream
from p2pnet.errors import P2PError
from p2pnet.host.host import Host
from p2pnet.swarm.config import SwarmConfig
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.scene import call, put_edge, say

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-relay.json"
SAMPLE = re.compile(r'([a-z0-9_]+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')


def read(text: str) -> dict[str, float]:
    """Read the text format, strictly; return each sample by its name and labels."""
    found: dict[str, float] = {}
    announced = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            announced, kind = line.split()[2:]
            assert kind == ("counter" if announced.endswith("_total") else "gauge")
        elif not line.startswith("# HELP "):
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == announced
            name = line.rpartition(" ")[0]
            assert name not in found
            found[name] = float(sample[3])
    return found


def test_r40_text_is_escaped_as_the_format_has_it() -> None:
    metric = Metric("a_total", "About.", [({"b": 'x"y\\z\n'}, 1.5), ({}, 2**40)])
    assert list(metric.lines()) == [
        "# HELP a_total About.",
        "# TYPE a_total counter",
        'a_total{b="x\\"y\\\\z\\n"} 1.5',
        "a_total 1099511627776",
    ]


async def serving(
    world: World, nursery: trio.Nursery, tell: Callable[[Host], str] = exposition
) -> tuple[Machine, Endpoint]:
    relay = await world.host(presets.relay(), "relay")
    local = Endpoint(relay.addresses[0], 9464)
    await nursery.start(partial(serve_metrics, relay.env.network, local, partial(tell, relay.host)))
    return relay, local


async def ask(client: Machine, at: Endpoint, request: bytes) -> tuple[str, bytes]:
    """Send a request; return the head and the body of the answer."""
    async with await client.env.network.dial_tcp(at) as stream:
        await stream.send_all(request)
        return await read_answer(stream)


async def read_answer(stream: ByteStream) -> tuple[str, bytes]:
    data = b""
    async for chunk in stream:
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode(), body


GET = b"GET /metrics HTTP/1.1\r\nHost: relay:9464\r\nAccept: */*\r\n\r\n"


async def test_r40_what_a_relay_does_is_told(world: World) -> None:
    async with trio.open_nursery() as nursery:
        relay, at = await serving(world, nursery)
        alice = await put_edge(world, "alice", relay.address, at="symmetric")
        bob = await put_edge(world, "bob", relay.address, at="symmetric")
        await call(alice, bob)
        await say(alice, bob)
        prometheus = world.machine("prometheus")
        head, body = await ask(prometheus, at, GET)
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "text/plain; version=0.0.4" in head
        assert f"Content-Length: {len(body)}\r\n" in head
        told = read(body.decode())
        assert told["p2pnet_relay_reservations"] == 2
        assert told["p2pnet_relay_circuits"] == 1
        assert told["p2pnet_relay_circuits_opened_total"] == 1
        assert told['p2pnet_relay_reservations_granted_total{renewal="false"}'] == 2
        assert told['p2pnet_relay_bytes_total{direction="forward"}'] > 4096
        assert told['p2pnet_relay_bytes_total{direction="backward"}'] > 4096
        assert told['p2pnet_relay_limit{name="circuit_bytes"}'] == 131_072
        await bob.stop()
        await trio.sleep(1)
        told = read((await ask(prometheus, at, GET))[1].decode())
        assert told["p2pnet_relay_reservations"] == 1
        assert told['p2pnet_relay_reservations_ended_total{reason="disconnected"}'] == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /metrics HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"\xff\xfe \x00 \xff\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"x" * (MAX_REQUEST_BYTES + 1), 431),
        (GET[:-2] + b"A: b\r\n" * 2000 + b"\r\n", 431),
    ],
)
async def test_r41_every_request_gets_its_answer(
    world: World, request_: bytes, status: int
) -> None:
    async with trio.open_nursery() as nursery:
        _, at = await serving(world, nursery)
        client = world.machine("client")
        head, body = await ask(client, at, request_)
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert (b"p2pnet_relay" in body) == (status == 200 and request_.startswith(b"GET"))
        assert (await ask(client, at, GET))[0].startswith("HTTP/1.1 200 ")
        nursery.cancel_scope.cancel()


async def send_slowly(stream: ByteStream) -> None:
    for _ in range(100):
        await stream.send_all(b"G")
        await trio.sleep(1)


async def test_r41_silent_and_slow_clients_are_few_and_for_a_short_time(world: World) -> None:
    async with trio.open_nursery() as nursery:
        _, at = await serving(world, nursery)
        client = world.machine("client")
        silent = [await client.env.network.dial_tcp(at) for _ in range(MAX_CLIENTS)]
        await trio.sleep(0.5)
        with pytest.raises((AssertionError, trio.BrokenResourceError)):
            assert (await ask(client, at, GET))[0]
        for stream in silent:
            with pytest.raises(trio.BrokenResourceError):
                await send_slowly(stream)
        started = trio.current_time()
        assert (await ask(client, at, GET))[0].startswith("HTTP/1.1 200 ")
        assert trio.current_time() - started < CLIENT_SECONDS
        for stream in silent:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_r41_a_client_that_never_reads_is_left_after_its_time(world: World) -> None:
    def endless(host: Host) -> str:
        return "x" * 50_000_000

    async with trio.open_nursery() as nursery:
        _, at = await serving(world, nursery, endless)
        stream = await world.machine("client").env.network.dial_tcp(at)
        await stream.send_all(GET)
        await trio.sleep(CLIENT_SECONDS + 1)
        got = 0
        with suppress(trio.BrokenResourceError):
            while chunk := await stream.receive_some():
                got += len(chunk)
        assert got < 50_000_000
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_s25_connections_that_found_no_room_are_told(world: World) -> None:
    swarm = SwarmConfig(max_connections=1, high_connections=1, low_connections=1)
    relay = await world.host(replace(presets.relay(), swarm=swarm), "relay")
    for name in ("alice", "bob"):
        client = await world.host(presets.minimal(), name)
        with suppress(P2PError):
            await client.host.connect(relay.address)
    await trio.sleep(1)
    told = read(exposition(relay.host))
    assert told['p2pnet_connections_refused_total{limit="max_connections"}'] == 1
    assert told['p2pnet_connections_refused_total{limit="max_inbound_per_prefix"}'] == 0
    assert told["p2pnet_connections_trimmed_total"] == 0


async def test_the_dashboard_shows_what_is_told(world: World) -> None:
    relay = await world.host(presets.relay(), "relay")
    told = set(re.findall(r"^# TYPE (\S+)", exposition(relay.host), re.MULTILINE))
    board = json.loads(DASHBOARD.read_text())
    shown = set()
    for panel in board["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            shown |= set(re.findall(r"\bp2pnet_\w+", target["expr"]))
    (query,) = [each["query"] for each in board["templating"]["list"] if each["type"] == "query"]
    shown |= set(re.findall(r"\bp2pnet_\w+", query["query"]))
    assert shown == told
    limits = set(re.findall(r'name="(\w+)"', DASHBOARD.read_text().replace('\\"', '"')))
    assert limits == {"max_reservations", "max_circuits"}
    assert all(f'name="{name}"' in exposition(relay.host) for name in limits)
