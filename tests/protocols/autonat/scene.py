"""What the tests of AutoNAT in the simulated world share: servers, clients, and liars."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from p2pnet import presets
from p2pnet.core.addresses import Endpoint, Multiaddr, encode, parse
from p2pnet.core.bus import Subscription
from p2pnet.core.changes import Changes
from p2pnet.core.channel import read_frame
from p2pnet.core.env import ByteStream, DatagramSocket, Network, RecordKind, StreamListener
from p2pnet.errors import P2PError
from p2pnet.events import AddressTested, FilteringTested
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Connection, Part, Service, Stream
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat.channels import (
    Conversation,
    dial_back_channel,
    request_channel,
)
from p2pnet.protocols.autonat.dialogue import ask, deliver, receive_request
from p2pnet.protocols.autonat.messages import (
    DIAL_BACK,
    DIAL_REQUEST,
    DialRequest,
    DialResponse,
    Message,
    decode_dial_back_untrusted,
)
from p2pnet.protocols.identify.messages import IDENTIFY, IdentifyMessage, frames
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY, Families, Site
from p2pnet.testing.world import World

PORT = "/ip4/0.0.0.0/tcp/4001"
NEAR = Quality(latency=0.02)


def peer(*services: Part[Service], listen: Sequence[str] = (PORT,)) -> HostConfig:
    """Describe a host with nothing but identify, ping and these."""
    config = presets.minimal(listen=listen)
    return replace(config, services=[*config.services, *services])


async def put_server(
    world: World,
    name: str,
    part: AutoNATServer | None = None,
    *,
    at: Site | None = None,
    families: Families = IPV4_ONLY,
    listen: Sequence[str] = (PORT,),
) -> Machine:
    config = peer(part or AutoNATServer(), listen=listen)
    return await world.host(config, name, at=at, link=NEAR, families=families)


async def put_servers(world: World, count: int) -> list[Machine]:
    return [await put_server(world, f"server {number}") for number in range(count)]


async def put_client(
    world: World,
    kind: str = "open",
    part: AutoNAT | None = None,
    *,
    name: str = "client",
    families: Families = IPV4_ONLY,
    listen: Sequence[str] = (PORT,),
) -> Machine:
    home = world.home(kind, f"home of {name}", link=NEAR)
    link = NEAR if home is world.internet else Quality(latency=0.0)
    config = peer(part or AutoNAT(), listen=listen)
    return await world.host(config, name, at=home, link=link, families=families)


async def connect(client: Machine, *servers: Machine) -> None:
    for server in servers:
        await client.host.connect(server.address)


Result = AddressTested | FilteringTested
RESULTS: tuple[type[Result], ...] = (AddressTested, FilteringTested)


@dataclass
class Heard:
    """The results that a client publishes."""

    events: Subscription[Result]
    tested: list[tuple[float, AddressTested]] = field(default_factory=list)
    filtering: list[tuple[float, FilteringTested]] = field(default_factory=list)

    async def listen(self, seconds: float) -> None:
        """Collect for some time."""
        with trio.move_on_after(seconds):
            async for event in self.events:
                if isinstance(event, AddressTested):
                    self.tested.append((trio.current_time(), event))
                else:
                    self.filtering.append((trio.current_time(), event))

    def verdicts(self, address: Multiaddr | str) -> list[bool]:
        wanted = parse(address) if isinstance(address, str) else address
        return [event.reached for _, event in self.tested if event.address == wanted]


@asynccontextmanager
async def hearing(client: Machine) -> AsyncGenerator[Heard]:
    with client.host.subscribe(*RESULTS) as events:
        yield Heard(events)


async def heard_from(client: Machine, *servers: Machine, seconds: float = 100.0) -> Heard:
    async with hearing(client) as heard:
        await connect(client, *servers)
        await heard.listen(seconds)
    return heard


def results(heard: Heard) -> list[bool]:
    return [event.reached for _, event in heard.tested]


# ---- clients that a test plays -----------------------------------------------------------


class Player:
    """A host that asks by hand, and keeps what it is told when it is dialled."""

    def __init__(self, machine: Machine, *, answers: bytes | None = b"\x00") -> None:
        self.machine = machine
        self.nonces: list[int] = []
        self.dialled_by: list[Connection] = []
        self.paid = 0
        self._answers = answers
        machine.host.handle(DIAL_BACK, self._hear)

    @classmethod
    async def put(
        cls,
        world: World,
        *,
        kind: str = "open",
        name: str = "client",
        answers: bytes | None = b"\x00",
        families: Families = IPV4_ONLY,
    ) -> Player:
        home = world.home(kind, f"home of {name}", link=NEAR)
        link = NEAR if home is world.internet else Quality(latency=0.0)
        machine = await world.host(peer(), name, at=home, link=link, families=families)
        return cls(machine, answers=answers)

    async def _hear(self, stream: Stream) -> None:
        self.dialled_by.append(stream.connection)
        frame = await read_frame(stream, max_bytes=10, protocol_id=DIAL_BACK)
        self.nonces.append(decode_dial_back_untrusted(frame).nonce)
        if self._answers is None:
            await trio.sleep_forever()
        await stream.send_all(self._answers or b"")

    @property
    def address(self) -> str:
        return f"/ip4/{self.machine.addresses[0]}/tcp/4001"

    async def open(self, server: Machine) -> Stream:
        return await self.machine.host.open_stream(server.address, DIAL_REQUEST)

    async def ask(
        self, server: Machine, *addresses: str, nonce: int = 7, padding: int = 0
    ) -> DialResponse:
        offered = tuple(parse(text) if text else None for text in addresses)
        request = DialRequest(offered, nonce, padding)
        stream = await self.open(server)
        async with stream:
            return await ask(Conversation(stream), request, self._pay)

    def _pay(self, num_bytes: int) -> None:
        self.paid += num_bytes


# ---- servers that a test plays -----------------------------------------------------------


class Request:
    """A request as a scripted server has it before it."""

    def __init__(self, machine: Machine, stream: Stream, request: DialRequest) -> None:
        self.machine = machine
        self.stream = stream
        self.nonce, self.padding = request.nonce, request.padding
        (address,) = request.addresses
        assert address is not None
        self.address = address

    async def answer(self, status: int, dial_status: int = 0, *, index: int = 0) -> None:
        await self.send(DialResponse(status, index, dial_status))

    async def send(self, message: Message) -> None:
        await request_channel(self.stream).send(message)

    async def reach(self, *, times: int = 1) -> list[bool]:
        """Dial as asked, and say the nonce; return whether it was acknowledged."""
        async with self.machine.host.apart(stranger=True) as apart:
            connection = await apart.dial(self.stream.peer_id, self.address)
            return [await say_nonce(connection, self.nonce) for _ in range(times)]


async def say_nonce(connection: Connection, nonce: int) -> bool:
    stream = await connection.open_stream(DIAL_BACK)
    try:
        await deliver(dial_back_channel(stream, is_server=True), nonce)
    except (P2PError, trio.BrokenResourceError):
        return False
    finally:
        stream.reset()
    return True


async def put_liar(
    world: World, name: str, play: Callable[[Request], Awaitable[None]]
) -> tuple[Machine, list[float]]:
    """Start a server that reads requests and then does as a test wants; tell when it was asked."""
    asked: list[float] = []

    async def handle(stream: Stream) -> None:
        asked.append(trio.current_time())
        request = await receive_request(request_channel(stream))
        await play(Request(machine, stream, request))

    machine = await world.host(peer(), name, link=NEAR, families=IPV4_ONLY)
    machine.host.handle(DIAL_REQUEST, handle)
    return machine, asked


def lie_of_fresh_ports(server: Machine, told: Multiaddr | None) -> None:
    """Let a server tell the truth of where it sees port 4001, and of others what a test wants."""

    async def answer(stream: Stream) -> None:
        remote = stream.connection.remote_address
        seen = remote if str(remote).endswith("/tcp/4001") else told
        observed = None if seen is None else encode(seen)
        message = IdentifyMessage(protocols=(DIAL_REQUEST,), observed_address=observed)
        await stream.send_all(frames(message))

    server.host.unhandle(IDENTIFY)
    server.host.handle(IDENTIFY, answer)


def say_so_on_inbound_connections_only(server: Machine) -> None:
    """Let a server say that it is one as rust-libp2p does, whose handlers go by connection."""

    async def answer(stream: Stream) -> None:
        protocols = (DIAL_REQUEST,) if stream.connection.is_inbound else ()
        observed = encode(stream.connection.remote_address)
        message = IdentifyMessage(protocols=protocols, observed_address=observed)
        await stream.send_all(frames(message))

    server.host.unhandle(IDENTIFY)
    server.host.handle(IDENTIFY, answer)


class Sockless:
    """A network in which nobody can dial any more."""

    def __init__(self, network: Network, *, dials: bool = False) -> None:
        self.network = network
        self.dials = dials
        self.looks = True

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        if self.dials:
            return await self.network.dial_tcp(remote, local=local)
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "too many open files")

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        return await self.network.listen_tcp(local)

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        return await self.network.bind_udp(local)

    def interface_addresses(self) -> tuple[str, ...]:
        if not self.looks:
            raise OSError(errno.EMFILE, "too many open files")
        return self.network.interface_addresses()

    def gateways(self) -> tuple[str, ...]:
        return ()

    def changes(self) -> Changes:
        return self.network.changes()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        return await self.network.lookup(name, kind)
