"""What the peers on trio have in common: the lines of the contract, and the works. See README.md.

This file runs in the virtual environments of others, too, and imports nothing but trio.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

ECHO = "/p2pnet/echo/1.0.0"
SINK = "/p2pnet/bench/sink/1.0.0"
SOURCE = "/p2pnet/bench/source/1.0.0"
BLOCK = bytes(256 * 1024)
SMALL = BLOCK[:32]


class Channel(Protocol):
    """A stream, the way the works use it."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self) -> bytes:
        """Return some bytes; none at the end."""
        ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


class Node(Protocol):
    """A host, the way the works use it."""

    async def connect(self, address: str) -> None:
        """Have a connection, and know from identify what the other end is."""
        ...

    async def open(self, address: str, protocol: str) -> Channel: ...

    async def disconnect(self, address: str) -> None: ...


async def serve_echo(channel: Channel) -> None:
    while data := await channel.receive_some():
        await channel.send_all(data)
    await channel.send_eof()


async def serve_sink(channel: Channel) -> None:
    total = 0
    while data := await channel.receive_some():
        total += len(data)
    await channel.send_all(total.to_bytes(8, "big"))
    await channel.send_eof()


async def serve_source(channel: Channel) -> None:
    await send_zeros(channel, int.from_bytes(await receive_exactly(channel, 8), "big"))
    await channel.send_eof()


HANDLERS = {ECHO: serve_echo, SINK: serve_sink, SOURCE: serve_source}


async def send_zeros(channel: Channel, count: int) -> None:
    for _ in range(count // len(BLOCK)):
        await channel.send_all(BLOCK)
    if rest := count % len(BLOCK):
        await channel.send_all(BLOCK[:rest])


async def receive_exactly(channel: Channel, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await channel.receive_some()
        if not more:
            raise EOFError(f"the stream ended after {len(data)} of {count} bytes")
        data += more
    return data


async def send_up(channel: Channel, count: int) -> None:
    await send_zeros(channel, count)
    await channel.send_eof()
    told = int.from_bytes(await receive_exactly(channel, 8), "big")
    if told != count:
        raise EOFError(f"{told} of {count} bytes arrived")


async def take_down(channel: Channel, count: int) -> None:
    await channel.send_all(count.to_bytes(8, "big"))
    received = 0
    while data := await channel.receive_some():
        received += len(data)
    if received != count:
        raise EOFError(f"{received} of {count} bytes arrived")


class Driver:
    """Does the works, with the first of its hosts or with all."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._node = nodes[0]
        self._held: list[tuple[Node, str]] = []

    async def do(self, request: dict) -> dict:
        if request["work"] == "release":
            return await self._release()
        if request["work"] == "collect":
            gc.collect()
            return {"seconds": 0.0}
        if request["work"] == "hold":
            return await self._hold(request["addresses"])
        address, amount = request["address"], request["amount"]
        if request["work"] == "dial":
            await self._node.disconnect(address)
            return await self._dial(address, amount)
        await self._node.connect(address)
        if request["work"] == "echo":
            return await self._echo(address, amount)
        if request["work"] == "streams":
            return await self._streams(address, amount, request["streams"])
        return await self._bulk(request)

    async def _bulk(self, request: dict) -> dict:
        ways = {"upload": [SINK], "download": [SOURCE], "both": [SINK, SOURCE]}[request["work"]]
        protocols = ways * request.get("streams", 1)
        share = request["amount"] // len(protocols)
        channels = [await self._node.open(request["address"], each) for each in protocols]
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for protocol, channel in zip(protocols, channels, strict=True):
                nursery.start_soon(send_up if protocol == SINK else take_down, channel, share)
        seconds = time.perf_counter() - began
        for channel in channels:
            await channel.aclose()
        return {"seconds": seconds}

    async def _echo(self, address: str, amount: int) -> dict:
        channel = await self._node.open(address, ECHO)
        times = []
        for _ in range(amount):
            began = time.perf_counter()
            await channel.send_all(SMALL)
            await receive_exactly(channel, len(SMALL))
            times.append(time.perf_counter() - began)
        await channel.send_eof()
        await channel.aclose()
        return {"seconds": sum(times), "times": times}

    async def _streams(self, address: str, amount: int, at_once: int) -> dict:
        turns = iter(range(amount))

        async def take_turns() -> None:
            for _ in turns:
                channel = await self._node.open(address, ECHO)
                await channel.send_all(SMALL)
                await receive_exactly(channel, len(SMALL))
                await channel.aclose()

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(take_turns)
        return {"seconds": time.perf_counter() - began}

    async def _dial(self, address: str, amount: int) -> dict:
        times = []
        for _ in range(amount):
            began = time.perf_counter()
            await self._node.connect(address)
            times.append(time.perf_counter() - began)
            await self._node.disconnect(address)
        return {"seconds": sum(times), "times": times}

    async def _hold(self, addresses: list[str]) -> dict:
        began = time.perf_counter()
        for node in self._nodes:
            for address in addresses:
                await node.connect(address)
                self._held.append((node, address))
        return {"seconds": time.perf_counter() - began}

    async def _release(self) -> dict:
        began = time.perf_counter()
        while self._held:
            node, address = self._held.pop()
            await node.disconnect(address)
        return {"seconds": time.perf_counter() - began}


async def answer_lines(nodes: Sequence[Node], version: str, addresses: list[str]) -> None:
    """Print that all is ready, then do what stdin asks for until it ends."""
    print(json.dumps({"version": version, "addresses": addresses}), flush=True)
    driver = Driver(nodes)
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        answer = await reporting(driver.do, json.loads(line))
        print(json.dumps(answer), flush=True)


async def reporting(do: Callable[[dict], Awaitable[dict]], request: dict) -> dict:
    answer: dict = {}
    try:
        answer = await do(request)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other side is to know
        answer = {"error": describe(error)}
    return answer


def describe(error: BaseException) -> str:
    inner = getattr(error, "exceptions", ())
    if inner:
        return "; ".join(map(describe, inner))
    return f"{type(error).__name__}: {error}"[:500]
