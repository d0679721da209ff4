"""Servers, clients and liars of AutoNAT v1 in a simulated internet."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from p2pnet import presets
from p2pnet.core.framing import encode_frame
from p2pnet.events import AddressTested
from p2pnet.interfaces import Connection, Part, Service, Stream
from p2pnet.protocols.autonat_v1 import AutoNATv1, AutoNATv1Server
from p2pnet.protocols.autonat_v1.messages import (
    PROTOCOL_ID,
    Dial,
    DialResponse,
    Message,
    encode_message,
)
from p2pnet.protocols.autonat_v1.server import AutoNATv1ServerService, channel_on
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY, Site
from p2pnet.testing.world import World

NEAR = Quality(latency=0.02)
PORT = 4001
LISTEN = (f"/ip4/0.0.0.0/tcp/{PORT}",)


async def put_peer(
    world: World, name: str = "", *services: Part[Service], at: Site | None = None
) -> Machine:
    """Start a peer that listens on a known port."""
    plain = presets.minimal(listen=LISTEN)
    config = replace(plain, services=[*plain.services, *services])
    return await world.host(config, name, at=at, link=NEAR, families=IPV4_ONLY)


async def put_server(
    world: World, name: str = "server", config: AutoNATv1Server | None = None
) -> Machine:
    return await put_peer(world, name, config or AutoNATv1Server())


async def put_servers(world: World, count: int) -> list[Machine]:
    return [await put_server(world, f"server {number}") for number in range(count)]


async def put_client(
    world: World, *, at: Site | None = None, config: AutoNATv1 | None = None
) -> Machine:
    return await put_peer(world, "client", config or AutoNATv1(), at=at)


Answer = Callable[[Dial, Stream], Awaitable[DialResponse]]


async def put_liar(world: World, name: str, answer: Answer, *, at: Site | None = None) -> Machine:
    """Start a server that answers as it likes."""
    machine = await put_peer(world, name, at=at)
    serve_as(machine, answer)
    return machine


def serve_as(machine: Machine, answer: Answer) -> None:
    async def serve(stream: Stream) -> None:
        channel = channel_on(stream)
        request = await channel.receive()
        assert isinstance(request, Dial)
        await channel.send(await answer(request, stream))

    machine.host.handle(PROTOCOL_ID, serve)


def always(response: DialResponse) -> Answer:
    async def answer(request: Dial, stream: Stream) -> DialResponse:
        await trio.lowlevel.checkpoint()
        return response

    return answer


async def connect(one: Machine, *others: Machine) -> list[Connection]:
    return [await one.host.connect(other.address) for other in others]


async def learned_by(client: Machine, seconds: float) -> list[AddressTested]:
    """Return what a client publishes in so many seconds."""
    found: list[AddressTested] = []
    with client.host.subscribe(AddressTested) as events:
        with trio.move_on_after(seconds):
            async for event in events:
                found.append(event)  # noqa: PERF401
    return found


async def ask(connection: Connection, request: Message | bytes) -> DialResponse:
    """Send a request, or any bytes in its place, and return the answer."""
    async with asking(connection, request) as stream:
        answer = await channel_on(stream).receive()
        assert isinstance(answer, DialResponse)
        return answer


@asynccontextmanager
async def asking(connection: Connection, request: Message | bytes) -> AsyncGenerator[Stream]:
    """Send a request and do not wait for the answer."""
    data = request if isinstance(request, bytes) else encode_frame(encode_message(request))
    stream = await connection.open_stream(PROTOCOL_ID)
    async with stream:
        await stream.send_all(data)
        yield stream


def service_of(machine: Machine) -> AutoNATv1ServerService:
    service = machine.host.service(AutoNATv1Server)
    assert isinstance(service, AutoNATv1ServerService)
    return service


def destinations(world: World, machine: Machine) -> set[str]:
    """Return all IP addresses that a machine has sent anything to."""
    return {
        hop.packet.destination.host
        for hop in world.trace._hops
        if not isinstance(hop, str) and hop.sender == machine.name
    }
