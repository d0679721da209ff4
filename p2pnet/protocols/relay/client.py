"""RelayClient: keeps reservations at relays, dials circuits and takes them in.

Rules: specs/relay.md (R7 to R12, R26, R27, R34 to R39, R42).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from p2pnet.core.addresses import (
    Multiaddr,
    circuit_address,
    is_relayed,
    parse,
    peer_id_of,
    with_peer,
    without_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.events import CircuitOffered
from p2pnet.interfaces import Kit, ServiceHost, Stream
from p2pnet.protocols.relay.channels import stop_channel
from p2pnet.protocols.relay.choice import Candidate
from p2pnet.protocols.relay.dialogue import Refusal, receive_offer
from p2pnet.protocols.relay.finder import Finder, PeerSource, Search
from p2pnet.protocols.relay.keeper import Keeper, Patience
from p2pnet.protocols.relay.messages import STOP, Status, StopConnect, StopStatus
from p2pnet.protocols.relay.meter import Meter
from p2pnet.protocols.relay.policy import circuit_limit
from p2pnet.protocols.relay.transport import CircuitTransport, PendingCircuit, ends_of
from p2pnet.protocols.relay.vigil import Vigil

logger = logging.getLogger("p2pnet.relay")

FOUND_RELAY_SECONDS = 10.0
"""A relay that was found, not named, has so long to answer: there may be better ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayClient:
    """Lets this host be called through relays, and call others through any relay."""

    relays: Sequence[str] = ()
    """Where to reserve: addresses that end in ``/p2p/<id>``; several may be of one relay."""
    reserve: bool = True
    """Reserve there at all. Who only calls others needs no reservation: then the named relays
    are merely connected to, once, and none is looked for."""
    find_relays: bool | None = None
    """Look for relays among peers, too; None does so if none is named, or a source is given."""
    wanted_relays: int = 2
    """Reservations that are enough: relays are looked for while there are fewer."""
    peer_source: PeerSource | None = None
    """Asked for peers that may relay, when too few of those that are connected do."""
    source_interval: float = 30.0
    """Seconds between questions to the peer source; it has as long to answer."""
    max_candidates: int = 20
    """Peers taken from the source, and relays compared, at a time."""
    reach_timeout: float = 11.0
    """Seconds to reach a relay. A SYN goes out after 0, 1, 3, 7 and 15 of them: who is back
    must not wait for the last."""
    reserve_timeout: float = 30.0
    """Seconds to hear the answer of a relay."""
    min_backoff: float = 1.0
    max_backoff: float = 60.0
    """Seconds between attempts to reserve: doubled with each failure, up to the maximum."""
    max_redial: float = 5.0
    """As ``max_backoff``, for relays that cannot be reached."""
    max_addresses: int = 8
    """Circuit addresses advertised for each relay."""
    max_inbound_circuits: int = 128
    """In all; one relay of several hands over no more than its share."""
    stop_timeout: float = 15.0
    """Seconds for a relay to say who is calling, and to hear that this host accepts."""

    def __post_init__(self) -> None:
        read_relays(self.relays)
        for name, value in {
            "wanted_relays": self.wanted_relays,
            "source_interval": self.source_interval,
            "max_candidates": self.max_candidates,
            "reach_timeout": self.reach_timeout,
            "reserve_timeout": self.reserve_timeout,
            "min_backoff": self.min_backoff,
            "max_addresses": self.max_addresses,
            "stop_timeout": self.stop_timeout,
        }.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.max_inbound_circuits < 0:
            raise ValueError("max_inbound_circuits must not be negative")
        if min(self.max_backoff, self.max_redial) < self.min_backoff:
            raise ValueError("max_backoff and max_redial must not be less than min_backoff")

    @property
    def finds_relays(self) -> bool:
        """Tell whether relays are looked for that are not named (R34)."""
        if not self.reserve:
            return False
        if self.find_relays is None:
            return not self.relays or self.peer_source is not None
        return self.find_relays

    def build(self, kit: Kit) -> RelayClientService:
        return RelayClientService(self, kit)


def read_relays(relays: Sequence[str]) -> dict[PeerId, tuple[Multiaddr, ...]]:
    """Read where the relays are: by peer ID, without ``/p2p``.

    Raises:
        ValueError: if one of the addresses does not say who is there, or where.
    """
    if isinstance(relays, str):
        raise ValueError("relays is a sequence of addresses, not one text")
    found: dict[PeerId, tuple[Multiaddr, ...]] = {}
    for text in relays:
        address = parse(text)
        relay = peer_id_of(address)
        if relay is None:
            raise ValueError(f"relay address {text} must end in /p2p/<peer id of the relay>")
        place = without_peer(address)
        if place == address or is_relayed(address):
            raise ValueError(f"relay address {text} must say where to dial the relay directly")
        found[relay] = (*found.get(relay, ()), place)
    return found


async def meet(keeper: Keeper, host: ServiceHost) -> None:
    """Connect to a relay that is not asked for a reservation (R42)."""
    with boundary(logger, f"reaching relay {keeper.relay}", expected=logging.INFO):
        await keeper.reach(host)


class RelayClientService:
    """The running client: one keeper a relay, one transport, one handler of inbound circuits."""

    def __init__(self, config: RelayClient, kit: Kit) -> None:
        places = read_relays(config.relays)
        if kit.peer_id in places:
            raise ValueError(f"{kit.peer_id} is this host itself, it cannot be its own relay")
        self._config = config
        self._kit = kit
        self._inbound = Counter[PeerId]()
        """By relay."""
        self._patience = Patience(
            reach_timeout=config.reach_timeout,
            reserve_timeout=config.reserve_timeout,
            min_backoff=config.min_backoff,
            max_backoff=config.max_backoff,
            max_redial=config.max_redial,
        )
        self._named = frozenset(places)
        self._vigil = Vigil()
        self._keepers = {
            relay: self._keeper(relay, at, self._patience) for relay, at in places.items()
        }

    def _keeper(self, relay: PeerId, places: Sequence[Multiaddr], patience: Patience) -> Keeper:
        return Keeper(
            relay,
            places,
            kit=self._kit,
            patience=patience,
            max_addresses=self._config.max_addresses,
            vigil=self._vigil,
        )

    def _keeper_of_found(self, candidate: Candidate) -> Keeper:
        """Keep a relay that was not named; others may be better, so it is waited for less."""
        seconds = min(self._patience.reserve_timeout, FOUND_RELAY_SECONDS)
        patience = replace(self._patience, reserve_timeout=seconds)
        return self._keeper(candidate.relay, candidate.places, patience)

    def _finder(self) -> Finder:
        config = self._config
        search = Search(
            wanted=config.wanted_relays,
            source=config.peer_source,
            source_interval=config.source_interval,
            max_candidates=config.max_candidates,
            connect_timeout=config.reserve_timeout,
        )
        return Finder(search, self._kit, keepers=self._keepers, make_keeper=self._keeper_of_found)

    @property
    def relays(self) -> tuple[PeerId, ...]:
        """The relays at which this host has a reservation now."""
        return tuple(relay for relay, keeper in self._keepers.items() if keeper.is_held)

    @property
    def inbound_circuits(self) -> int:
        """How many inbound circuits are open or being opened."""
        return self._inbound.total()

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            meter = Meter(host, nursery)
            kit = self._kit
            host.add_transport(CircuitTransport(host, kit.upgrader, meter, kit.foreword))
            host.add_finder(self.find)
            if self._config.reserve:
                host.handle(STOP, partial(self._serve, host, meter))
            for keeper in list(self._keepers.values()):
                work = keeper.run if self._config.reserve else partial(meet, keeper)
                nursery.start_soon(work, host)
            if self._config.finds_relays:
                nursery.start_soon(self._finder().run, host)
            task_status.started()
            await trio.sleep_forever()

    def find(self, peer_id: PeerId) -> tuple[Multiaddr, ...]:
        """Guess that a peer is behind one of our relays: those with a reservation first."""
        if peer_id in self._keepers:
            return ()
        likely = [k for k in self._keepers.values() if k.is_held or k.relay in self._named]
        keepers = sorted(likely, key=lambda keeper: not keeper.is_held)
        return tuple(
            circuit_address(with_peer(keeper.places[0], keeper.relay)) for keeper in keepers
        )

    # ---- inbound circuits ----------------------------------------------------------------

    async def _serve(self, host: ServiceHost, meter: Meter, stream: Stream) -> None:
        """Take in a circuit that a relay offers; stay until it is over (R27)."""
        channel = stop_channel(stream)
        with trio.fail_after(self._config.stop_timeout):
            call = self._judge(stream, await receive_offer(channel))
            if isinstance(call, Refusal):
                logger.info("refused a circuit from relay %s: %s", stream.peer_id, call.reason)
                await channel.send(StopStatus(call.status))
                return
        self._inbound[stream.peer_id] += 1
        host.publish(CircuitOffered(call.peer_id, stream.peer_id))
        try:
            with trio.fail_after(self._config.stop_timeout):
                await channel.send(StopStatus(Status.OK))
            limit = circuit_limit(call.limit)
            circuit = meter.watch(stream, call.peer_id, limit)
            ends = ends_of(stream.connection, limit)
            pending = PendingCircuit(circuit, self._kit.upgrader, ends=ends)
            host.accept(pending)
            await pending.wait_closed()
        finally:
            self._inbound[stream.peer_id] -= 1
            self._inbound += Counter()  # Forgets the relays of which there is none.

    def _share(self) -> int:
        """Return how many circuits one relay may hand over: no other starves by it (R26)."""
        config = self._config
        relays = max(len(self._keepers), config.wanted_relays if config.finds_relays else 1)
        return -(-config.max_inbound_circuits // relays)

    def _judge(self, stream: Stream, call: StopConnect | Refusal) -> StopConnect | Refusal:
        """Decide whether to let a relay hand us a caller (R26)."""
        keeper = self._keepers.get(stream.peer_id)
        if stream.connection.is_relayed:
            return Refusal(Status.PERMISSION_DENIED, "it came over a relayed connection")
        if keeper is None or not keeper.is_trusted:
            return Refusal(Status.NO_RESERVATION, "no reservation is held there")
        if isinstance(call, Refusal):
            return call
        if call.peer_id == self._kit.peer_id:
            return Refusal(Status.PERMISSION_DENIED, "the caller is this host itself")
        maximum = self._config.max_inbound_circuits
        share = self._share()
        if self._inbound[stream.peer_id] >= share < maximum:
            reason = f"{share} circuits, the share of one relay in max_inbound_circuits, reached"
            return Refusal(Status.RESOURCE_LIMIT_EXCEEDED, reason)
        if self.inbound_circuits >= maximum:
            reason = f"max_inbound_circuits = {maximum} reached"
            return Refusal(Status.RESOURCE_LIMIT_EXCEEDED, reason)
        return call
