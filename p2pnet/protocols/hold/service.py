"""The part and the service: has silences tried, and serves who tries. Rules: specs/keepalive.md."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial

import trio

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    ip_of,
    quic_endpoint,
    scope,
    without_peer,
)
from p2pnet.core.bus import Subscription
from p2pnet.core.env import Env
from p2pnet.core.keepalive import Hush, Pace
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.errors import EventsMissed, StreamReset
from p2pnet.events import NetworkChanged
from p2pnet.interfaces import Connection, Kit, Pulsing, ServiceHost, Stream
from p2pnet.protocols.hold.dialogue import (
    POKE,
    PROTOCOL_ID,
    SETTLE,
    ask,
    asked,
    hear,
    serve,
)
from p2pnet.protocols.hold.policy import Ladder
from p2pnet.swarm.arrivals import prefix_of

logger = logging.getLogger("p2pnet.hold")

WARM_UP = 3.0
"""Seconds from the handshake to a request: routers keep longer what still talks after two (KA8)."""
GRACE = 5.0
"""Seconds for the word after a silence, sent again by QUIC if it was lost ..."""
POKE_SECONDS = 10.0
"""... and for it to come after all, through a mapping that was opened again."""
MAX_ASKED = 3
"""Peers, if one after the other cannot be dialled, or tells nothing."""
ANSWER_SECONDS = 10.0
"""For a request to be sent, or answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Learns over QUIC how long the NAT lets a connection be silent; needs ``Identify``.

    Asks public peers that serve ``/p2pnet/hold``, and serves it.
    """

    settle_seconds: float = 60.0
    """Seconds in a network, or up to twice as many, before the first trial."""
    interval: float = 3600.0
    """Seconds from one look at the NAT to the next."""
    retry_seconds: float = 120.0
    """The same if nobody was there to ask, or nothing was to be told."""
    max_served: int = 64
    """Silences kept for others at once; beyond that they are told to come later. 0 serves none:
    for those who cannot be dialled anyway."""
    max_served_per_prefix: int = 4
    """The same for those who come from one public IPv4 address or IPv6 /56."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0 and not (value == 0 and setting.name == "max_served"):
                raise ValueError(f"{setting.name} must be positive, not {value}")

    def build(self, kit: Kit) -> HoldService:
        return HoldService(self, kit.env, kit.pace)


class HoldService:
    """Made by the part ``Hold``; works on its own: connections go by what it learns."""

    def __init__(self, config: Hold, env: Env, pace: Pace) -> None:
        self._config = config
        self._env = env
        self._pace = pace
        self._served: Counter[str | None] = Counter()

    def silence(self, *, is_ipv6: bool = False) -> float | None:
        """Return how many seconds connections may be silent here; None if that is not known."""
        return self._pace.learned(is_ipv6=is_ipv6)

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        if self._config.max_served:
            host.handle(PROTOCOL_ID, self._serve)
        with host.subscribe(NetworkChanged) as events:
            task_status.started()
            while True:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._learn, host)
                    await moved(events)
                    nursery.cancel_scope.cancel()
                self._pace.forget()  # KA10

    # ---- the side that asks --------------------------------------------------------------

    async def _learn(self, host: ServiceHost) -> None:
        settle = self._config.settle_seconds
        await trio.sleep(self._env.jitter(settle, 2 * settle))
        async with trio.open_nursery() as nursery:
            for is_ipv6 in (False, True):
                nursery.start_soon(self._keep_learning, host, is_ipv6)

    async def _keep_learning(self, host: ServiceHost, is_ipv6: bool) -> None:
        """Learn of one family; what is known of the other is nothing to it (KA10)."""
        while True:
            is_known = await self._learn_family(host, is_ipv6=is_ipv6)
            await trio.sleep(self._config.interval if is_known else self._config.retry_seconds)

    async def _learn_family(self, host: ServiceHost, *, is_ipv6: bool) -> bool:
        """Have silences tried with one peer after the other; tell if all is known that can be."""
        ladder = Ladder()
        for peer_id, address in find_servers(host, is_ipv6=is_ipv6):
            with boundary(logger, f"trials of the NAT with {peer_id}"):
                async with host.apart(stranger=True) as apart:  # KA8
                    connection = await apart.dial(peer_id, address)
                    await trio.sleep(WARM_UP)
                    await self._climb(ladder, connection, is_ipv6=is_ipv6)
                    await connection.aclose()
            if ladder.trial is None:
                logger.info("connections may be silent for %.1f s in this network", ladder.kept)
                return True
        return False

    async def _climb(self, ladder: Ladder, connection: Connection, *, is_ipv6: bool) -> None:
        """Try one silence after the other, as long as that tells something."""
        while (seconds := ladder.trial) is not None:
            lived = await survives(connection, seconds)
            if lived is None:
                return
            ladder.tell(lived=lived)
            self._pace.learn(ladder.kept, is_ipv6=is_ipv6)

    # ---- the side that serves ------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        channel = HoldChannel(stream)
        with trio.fail_after(ANSWER_SECONDS):
            seconds = await asked(channel) + 2 * SETTLE
        prefix = prefix_of(stream.connection.remote_address)
        if not self._admits(stream.connection, prefix, seconds):
            await serve(channel, None)
            return
        self._served[prefix] += 1
        try:
            await serve(channel, partial(trio.sleep, seconds))
        finally:
            self._served[prefix] -= 1
            if not self._served[prefix]:
                del self._served[prefix]

    def _admits(self, connection: Connection, prefix: str | None, seconds: float) -> bool:
        config = self._config
        of_prefix = 0 if prefix is None else self._served[prefix]
        if self._served.total() >= config.max_served or of_prefix >= config.max_served_per_prefix:
            return False  # KA9
        return hush(connection, seconds) is not None


class HoldChannel:
    """The stream, as the dialogue sees it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting = b""
        self.send = stream.send_all

    async def receive(self, count: int, /) -> bytes:
        while len(self._waiting) < count:
            data = await self._stream.receive_some(count - len(self._waiting))
            if not data:
                raise StreamReset("the stream ended too early")
            self._waiting += data
        taken, self._waiting = self._waiting, b""
        return taken


async def moved(events: Subscription[NetworkChanged]) -> None:
    """Wait until this host is in another network."""
    with suppress(EventsMissed):
        await anext(events)


def hush(connection: Connection, seconds: float) -> Hush | None:
    """Keep a connection from pinging; None if it cannot be, or would not live so long."""
    return connection.hush(seconds) if isinstance(connection, Pulsing) else None


def find_servers(host: ServiceHost, *, is_ipv6: bool) -> list[tuple[PeerId, Multiaddr]]:
    """Return who can be asked, and where to dial him over QUIC for that (KA8)."""
    found: dict[PeerId, Multiaddr] = {}
    for connection in host.connections():
        peer_id = connection.peer_id
        if connection.is_relayed or PROTOCOL_ID not in (host.peers.protocols(peer_id) or ()):
            continue
        known = host.peers.addresses(peer_id)
        if not connection.is_inbound:
            known = (connection.remote_address, *known)
        for address in map(without_peer, known):
            endpoint = quic_endpoint(address)
            if endpoint is None or scope(address) is not Scope.PUBLIC:
                continue
            # Nobody is dialled at an IP address that is not the peer's own.
            if endpoint.is_ipv6 is is_ipv6 and ip_of(address) == ip_of(connection.remote_address):
                found.setdefault(peer_id, address)
    return list(found.items())[:MAX_ASKED]


async def survives(connection: Connection, seconds: int) -> bool | None:
    """Try whether a mapping outlives a silence; None if that was not to be told (KA8)."""
    stream = await connection.open_stream(PROTOCOL_ID)
    try:
        lived = await tried(connection, HoldChannel(stream), seconds)
        await stream.aclose()
        return lived
    except BaseException:
        stream.reset()
        raise


async def tried(connection: Connection, channel: HoldChannel, seconds: int) -> bool | None:
    with trio.fail_after(ANSWER_SECONDS):
        if not await ask(channel, seconds):
            return None
    await trio.sleep(SETTLE)
    silent_until = trio.current_time() + seconds
    silence = hush(connection, seconds + SETTLE + GRACE)
    if silence is None:
        return None
    with trio.move_on_at(silence.until):
        await hear(channel)
        return True if silence.broken_at >= silent_until else None
    if silence.broken_at < silent_until:
        return None
    with trio.move_on_after(POKE_SECONDS):
        await channel.send(POKE)
        await hear(channel)
        return False
    return None
