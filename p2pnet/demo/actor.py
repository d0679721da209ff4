"""One of the three programs of the demo: the relay, the receiver (B) or the sender (A).

Each runs on a host of its own, knows only its arguments, and prints what happens as JSON
lines: the director (``program.py``) puts them into words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial

import trio

from p2pnet import presets
from p2pnet.core.addresses import parse
from p2pnet.core.bus import Subscription
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import P2PError, describe
from p2pnet.events import (
    HolePunched,
    PeerIdentified,
    PunchAttemptFailed,
    PunchGivenUp,
    PunchStarted,
    ReservationAccepted,
)
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Connection, Stream
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.ping import Ping

FILE = "/p2pnet/demo/file/1.0.0"
FILE_BYTES = 20 * 1024 * 1024
CHUNK_BYTES = 262_144
LENGTH_BYTES = 8
DIRECT_SECONDS = 30.0
MEET_SECONDS = 20.0
TOLD = (
    ReservationAccepted,
    PeerIdentified,
    PunchStarted,
    PunchAttemptFailed,
    PunchGivenUp,
    HolePunched,
)


def tell(event: str, **fields: object) -> None:
    line = json.dumps({"event": event, **fields}) + "\n"
    with suppress(BrokenPipeError):  # The director is gone, and soon this actor is.
        os.write(sys.stdout.fileno(), line.encode())


async def on_stage(play: Callable[[], Awaitable[None]]) -> None:
    """Play a part until it is over, or until the director is gone, and stdin with him."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_director_gone, nursery.cancel_scope)
        await play()
        nursery.cancel_scope.cancel()


async def wait_director_gone(stage: trio.CancelScope) -> None:
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stdin:
        async for _ in stdin:
            pass
    stage.cancel()


async def play_relay(listen: str) -> None:
    async with open_host(presets.relay(listen=[listen])) as host:
        tell("listening", address=str(host.addresses.value[0]))
        await trio.sleep_forever()


async def play_receiver(listen: str, relay: str, same_machine: bool) -> None:
    async with told_of(edge(listen, relay, same_machine)) as host:
        host.handle(FILE, receive_file)
        await trio.sleep_forever()


async def play_sender(listen: str, relay: str, same_machine: bool, peer: str) -> None:
    async with told_of(edge(listen, relay, same_machine)) as host:
        with trio.fail_after(MEET_SECONDS):
            connection = await host.connect(peer)
        tell_connection(connection)
        await ping(host, connection)
        with trio.fail_after(DIRECT_SECONDS):
            direct = await host.wait_direct(peer)
        tell_connection(direct)
        await ping(host, direct)
        await send_file(await host.open_stream(peer, FILE, limited="refuse"))


def edge(listen: str, relay: str, same_machine: bool) -> HostConfig:
    """Return the edge preset; on loopback, addresses of this machine are worth dialling."""
    config = presets.edge(listen=[listen], relays=[relay])
    if not same_machine:
        return config
    services = [
        DCUtR(allow_private=True) if isinstance(part, DCUtR) else part for part in config.services
    ]
    return dataclasses.replace(config, services=services)


@asynccontextmanager
async def told_of(config: HostConfig) -> AsyncGenerator[Host, None]:
    """Run a host, and tell what happens to it from its first moment on."""
    heard: list[Subscription[object]] = []
    with ExitStack() as hearing:
        async with trio.open_nursery() as nursery:

            def hear(host: Host) -> None:
                heard.append(hearing.enter_context(host.subscribe(*TOLD)))

            async with open_host(config, before=hear) as host:
                tell("listening", address=str(host.addresses.value[0]), peer_id=str(host.peer_id))
                nursery.start_soon(tell_events, heard[0])
                yield host
                nursery.cancel_scope.cancel()


async def tell_events(events: Subscription[object]) -> None:
    async for event in events:
        tell_event(event)


def tell_event(event: object) -> None:
    match event:
        case ReservationAccepted(relay, addresses, seconds):
            tell("reserved", relay=str(relay), address=str(addresses[0]), seconds=seconds)
        case PeerIdentified(connection, observed_address=observed) if observed:
            tell("observed", by=str(connection.peer_id), address=str(observed))
        case PunchStarted(peer, attempt, initiator, addresses, round_trip):
            tell(
                "punching",
                peer=str(peer),
                attempt=attempt,
                initiator=initiator,
                addresses=[str(address) for address in addresses],
                round_trip=round_trip,
            )
        case PunchAttemptFailed(peer, attempt, reason):
            tell("punch_failed", peer=str(peer), attempt=attempt, reason=reason)
        case PunchGivenUp(peer, reasons):
            tell("given_up", peer=str(peer), reasons=reasons)
        case HolePunched(peer, address, attempt, seconds):
            tell("punched", peer=str(peer), address=str(address), attempt=attempt, seconds=seconds)
        case _:
            return


def tell_connection(connection: Connection) -> None:
    tell(
        "connected",
        peer=str(connection.peer_id),
        address=str(connection.remote_address),
        relayed=connection.is_relayed,
    )


async def ping(host: Host, connection: Connection) -> None:
    seconds = await host.service(Ping).ping(connection)
    tell("ping", rtt_ms=seconds * 1000, relayed=connection.is_relayed)


async def send_file(stream: Stream) -> None:
    """Send 20 MiB, tell how far it is, and compare the checksum that comes back."""
    content = os.urandom(CHUNK_BYTES)
    digest = hashlib.sha256()
    began = trio.current_time()
    async with stream:
        await stream.send_all(FILE_BYTES.to_bytes(LENGTH_BYTES, "big"))
        for sent in range(0, FILE_BYTES, CHUNK_BYTES):
            digest.update(content)
            await stream.send_all(content)
            tell("progress", sent=sent + CHUNK_BYTES, total=FILE_BYTES)
        await stream.send_eof()
        theirs = b"".join([bytes(chunk) async for chunk in stream])
    tell(
        "sent",
        total=FILE_BYTES,
        seconds=trio.current_time() - began,
        sha256=digest.hexdigest(),
        same=theirs == digest.digest(),
        relayed=stream.connection.is_relayed,
    )


async def receive_file(stream: Stream) -> None:
    """Read a file and answer with its checksum."""
    expected = bytearray()
    while len(expected) < LENGTH_BYTES:
        expected += await read(stream, LENGTH_BYTES - len(expected))
    left = int.from_bytes(expected, "big")
    digest = hashlib.sha256()
    while left:
        chunk = await read(stream, min(left, CHUNK_BYTES))
        digest.update(chunk)
        left -= len(chunk)
    tell("received", sha256=digest.hexdigest(), relayed=stream.connection.is_relayed)
    await stream.send_all(digest.digest())
    await stream.send_eof()


async def read(stream: Stream, max_bytes: int) -> bytes:
    data = bytes(await stream.receive_some(max_bytes))
    if not data:
        raise EOFError("the file ended early")
    return data


def main(arguments: list[str]) -> int:
    try:
        with bare_exceptions():
            trio.run(on_stage, part(arguments))
    except trio.TooSlowError:
        tell("failed", reason=f"the {arguments[0]} waited for too long")
        return 1
    except (P2PError, OSError, EOFError) as error:
        tell("failed", reason=f"the {arguments[0]}: {describe(error)}")
        return 1
    return 0


def part(arguments: list[str]) -> Callable[[], Awaitable[None]]:
    """Find out which part to play."""
    match arguments:
        case ["relay", listen]:
            return partial(play_relay, str(parse(listen)))
        case ["receiver", listen, relay, where]:
            return partial(play_receiver, listen, relay, where == "loopback")
        case ["sender", listen, relay, where, peer]:
            return partial(play_sender, listen, relay, where == "loopback", peer)
        case _:
            sys.exit(f"unknown role: {arguments}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
