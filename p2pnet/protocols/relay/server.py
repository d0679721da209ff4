"""RelayServer: lets peers be called through this host. Rules: specs/relay.md (R13 to R24).

A request is answered within fixed times and counted per peer from its first byte on, so that
whoever stalls, floods or sends nonsense costs a few tasks for a few seconds, and nothing else.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial

import trio

from p2pnet.core.bus import Subscription
from p2pnet.core.channel import MessageChannel
from p2pnet.core.complaints import complain
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, log_stopped
from p2pnet.core.watch import Watch
from p2pnet.errors import EventsMissed, describe
from p2pnet.events import (
    CircuitClosed,
    CircuitOpened,
    ConnectionClosed,
    RelayRefusedRequest,
    ReservationEnded,
    ReservationGranted,
)
from p2pnet.interfaces import CircuitLimit, Connection, Kit, ServiceHost, Stream
from p2pnet.protocols.relay.channels import direct_connection, hop_channel, stop_channel
from p2pnet.protocols.relay.dialogue import Refusal, offer, receive_request
from p2pnet.protocols.relay.messages import (
    HOP,
    STOP,
    HopConnect,
    HopMessage,
    HopStatus,
    Reservation,
    Reserve,
    Status,
    status_name,
)
from p2pnet.protocols.relay.policy import (
    MAX_DATA,
    MAX_DURATION,
    Circuits,
    Pending,
    Reservations,
    limit_on_wire,
    offered_addresses,
    prefix_of,
)
from p2pnet.protocols.relay.splice import Splice
from p2pnet.protocols.relay.voucher import Voucher, seal

logger = logging.getLogger("p2pnet.relay")

PROTECTED_AS = "reservation"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayServer:
    """Carries circuits for peers that nobody can dial. The defaults are go-libp2p's."""

    max_reservations: int = 128
    max_reservations_per_prefix: int = 8
    """Reservations from one IPv4 address, or one IPv6 /56."""
    reservation_seconds: float = 3600.0
    max_circuits: int = 1024
    max_circuits_per_peer: int = 16
    """Circuits that one peer may be an end of."""
    circuit_seconds: float | None = 120.0
    """How long a circuit may last; None or 0 is for ever."""
    circuit_bytes: int | None = 131_072
    """How many bytes a circuit carries in each direction; None or 0 is without limit."""
    max_pending_per_peer: int = 8
    """Requests of one peer that are being read or answered at the same time."""
    request_timeout: float = 15.0
    """Seconds for a request to arrive, and for an answer to leave."""
    stop_timeout: float = 30.0
    """Seconds for the target of a circuit to accept it."""
    buffer_bytes: int = 65_536
    """Most bytes held in memory for one direction of a circuit."""

    def __post_init__(self) -> None:
        counts = {
            "max_reservations": self.max_reservations,
            "max_reservations_per_prefix": self.max_reservations_per_prefix,
            "reservation_seconds": self.reservation_seconds,
            "max_circuits": self.max_circuits,
            "max_circuits_per_peer": self.max_circuits_per_peer,
            "max_pending_per_peer": self.max_pending_per_peer,
            "request_timeout": self.request_timeout,
            "stop_timeout": self.stop_timeout,
            "buffer_bytes": self.buffer_bytes,
        }
        for name, value in counts.items():
            if not 0 < value <= MAX_DURATION:
                raise ValueError(f"{name} must be positive and at most {MAX_DURATION}, not {value}")
        if not 0 <= (self.circuit_seconds or 0) <= MAX_DURATION:
            raise ValueError(f"circuit_seconds must be 0 to {MAX_DURATION}, or None")
        if not 0 <= (self.circuit_bytes or 0) <= MAX_DATA:
            raise ValueError(f"circuit_bytes must be 0 to {MAX_DATA}, or None")

    def build(self, kit: Kit) -> RelayServerService:
        return RelayServerService(self, kit)


class RelayServerService:
    """The running relay. ``reservations`` and ``circuits`` tell how much it carries."""

    def __init__(self, config: RelayServer, kit: Kit) -> None:
        self._config = config
        self._kit = kit
        self._limit = CircuitLimit(
            seconds=config.circuit_seconds or None, data_bytes=config.circuit_bytes or None
        )
        self._reservations = Reservations(
            max_total=config.max_reservations,
            max_per_prefix=config.max_reservations_per_prefix,
            seconds=config.reservation_seconds,
        )
        self._circuits = Circuits(
            max_total=config.max_circuits, max_per_peer=config.max_circuits_per_peer
        )
        self._pending = Pending(config.max_pending_per_peer)
        self._came_by: dict[PeerId, Connection] = {}
        self._next_expiry = Watch(math.inf)

    @property
    def reservations(self) -> int:
        """How many peers can be called through this relay now."""
        return len(self._reservations)

    @property
    def circuits(self) -> int:
        """How many circuits are open or being opened."""
        return len(self._circuits)

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        with host.subscribe(ConnectionClosed) as closings:
            host.handle(HOP, partial(self._serve, host))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_closings, host, closings)
                nursery.start_soon(self._watch_expiry, host)
                task_status.started()

    # ---- requests ------------------------------------------------------------------------

    async def _serve(self, host: ServiceHost, stream: Stream) -> None:
        """Answer one request; then, if it made a circuit, carry it."""
        source = stream.peer_id
        channel = hop_channel(stream)
        if not self._pending.begin(source):  # R24
            limit = f"max_pending_per_peer = {self._config.max_pending_per_peer} reached"
            refusal = Refusal(Status.RESOURCE_LIMIT_EXCEEDED, limit)
            await self._refuse(host, channel, source, "request", refusal)
            return
        try:
            joined = await self._answer(host, stream, channel)
        finally:
            self._pending.end(source)
        if joined is not None:
            await self._carry(host, stream, joined)

    async def _answer(
        self, host: ServiceHost, stream: Stream, channel: MessageChannel[HopMessage]
    ) -> Stream | None:
        """Read and answer a request; return the stream to the target, if it made a circuit."""
        with trio.fail_after(self._config.request_timeout):
            request = await receive_request(channel)
        match request:
            case Refusal(_, reason):
                complain(logger, f"{stream.peer_id}: {HOP}: {reason}")
                await self._refuse(host, channel, stream.peer_id, "request", request)
            case Reserve():
                await self._reserve(host, stream, channel)
            case HopConnect(target):
                return await self._connect(host, stream, channel, target=target)
        return None

    async def _refuse(
        self,
        host: ServiceHost,
        channel: MessageChannel[HopMessage],
        peer_id: PeerId,
        request: str,
        refusal: Refusal,
    ) -> None:
        logger.debug("refused %s of %s: %s", request, peer_id, refusal.reason)
        host.publish(RelayRefusedRequest(peer_id, request, refusal.status.name, refusal.reason))
        with trio.fail_after(self._config.request_timeout):
            await channel.send(HopStatus(refusal.status))

    # ---- reservations --------------------------------------------------------------------

    async def _reserve(
        self, host: ServiceHost, stream: Stream, channel: MessageChannel[HopMessage]
    ) -> None:
        granted = self._grant(host, stream)
        if isinstance(granted, Refusal):
            await self._refuse(host, channel, stream.peer_id, "RESERVE", granted)
            return
        with trio.fail_after(self._config.request_timeout):
            await channel.send(granted)

    def _grant(self, host: ServiceHost, stream: Stream) -> HopStatus | Refusal:
        """Decide on a reservation, and enter it.

        Nothing is awaited between the look at the connection and the entry: a connection that
        closes later will be heard of later, and takes the reservation with it (R16).
        """
        peer_id, connection = stream.peer_id, stream.connection
        if connection.is_relayed:  # R13
            return Refusal(Status.PERMISSION_DENIED, "asked over a relayed connection")
        if connection.is_closed:
            return Refusal(Status.RESERVATION_REFUSED, "the connection has ended")
        now = trio.current_time()
        renewal = self._reservations.holds(peer_id, now)
        refusal = self._reservations.reserve(peer_id, prefix_of(connection.remote_address), now)
        if refusal is not None:
            return refusal
        self._came_by[peer_id] = connection
        self._next_expiry.set(self._reservations.next_expiry())
        host.protect(peer_id, PROTECTED_AS)
        seconds = self._config.reservation_seconds
        host.publish(ReservationGranted(peer_id, seconds, renewal))
        logger.debug("reservation for %s%s", peer_id, " renewed" if renewal else "")
        return self._promise(host, peer_id, connection)

    def _promise(self, host: ServiceHost, peer_id: PeerId, connection: Connection) -> HopStatus:
        """Put a granted reservation into words (R17)."""
        relay = host.peer_id
        expire = int(self._kit.env.wall_clock() + self._config.reservation_seconds)
        reservation = Reservation(
            expire=expire,
            addresses=offered_addresses(host.addresses.value, connection.local_address, relay),
            voucher=seal(Voucher(relay, peer_id, expire), self._kit.key),
        )
        return HopStatus(Status.OK, reservation, limit_on_wire(self._limit))

    async def _watch_closings(
        self, host: ServiceHost, closings: Subscription[ConnectionClosed]
    ) -> None:
        """End the reservation of a peer when its last direct connection closes (R16)."""
        while True:
            try:
                gone = [(await anext(closings)).connection.peer_id]
            except EventsMissed:
                gone = list(self._reservations.peers())
            for peer_id in gone:
                if direct_connection(host, peer_id) is None:
                    self._end(host, peer_id, "disconnected")

    async def _watch_expiry(self, host: ServiceHost) -> None:
        while True:
            await self._next_expiry.wait_for(lambda at: at < math.inf)
            await trio.sleep_until(self._next_expiry.value)
            self._end_expired(host)

    def _end_expired(self, host: ServiceHost) -> None:
        for peer_id in self._reservations.drop_expired(trio.current_time()):
            self._tell_end(host, peer_id, "expired")
        self._next_expiry.set(self._reservations.next_expiry())

    def _end(self, host: ServiceHost, peer_id: PeerId, reason: str) -> None:
        if self._reservations.drop(peer_id):
            self._tell_end(host, peer_id, reason)
            self._next_expiry.set(self._reservations.next_expiry())

    def _tell_end(self, host: ServiceHost, peer_id: PeerId, reason: str) -> None:
        del self._came_by[peer_id]
        host.unprotect(peer_id, PROTECTED_AS)
        host.publish(ReservationEnded(peer_id, reason))
        logger.debug("reservation of %s ended: %s", peer_id, reason)

    # ---- circuits ------------------------------------------------------------------------

    async def _connect(
        self,
        host: ServiceHost,
        stream: Stream,
        channel: MessageChannel[HopMessage],
        *,
        target: PeerId,
    ) -> Stream | None:
        """Join the asking peer with another; return the stream to that one.

        The circuit is counted from here until ``_carry`` ends (R18).
        """
        connection = self._admit(host, stream, target)
        if isinstance(connection, Refusal):
            await self._refuse(host, channel, stream.peer_id, "CONNECT", connection)
            return None
        stop = None
        try:
            stop = await self._join(host, channel, stream.peer_id, connection)
        finally:
            if stop is None:
                self._circuits.close(stream.peer_id, target)
        return stop

    def _admit(self, host: ServiceHost, stream: Stream, target: PeerId) -> Connection | Refusal:
        """Decide on a circuit, and count it; return the connection to its target (R18)."""
        if stream.connection.is_relayed:  # R13
            return Refusal(Status.PERMISSION_DENIED, "asked over a relayed connection")
        if target == stream.peer_id:
            return Refusal(Status.PERMISSION_DENIED, "a peer asked for a circuit to itself")
        if not self._reservations.holds(target, trio.current_time()):
            return Refusal(Status.NO_RESERVATION, f"{target} has no reservation")
        came_by = self._came_by[target]  # R19
        connection = direct_connection(host, target) if came_by.is_closed else came_by
        if connection is None:
            return Refusal(Status.NO_RESERVATION, f"{target} has just disconnected")
        return self._circuits.open(stream.peer_id, target) or connection

    async def _join(
        self,
        host: ServiceHost,
        channel: MessageChannel[HopMessage],
        source: PeerId,
        connection: Connection,
    ) -> Stream | None:
        """Get the consent of the target; only then tell the source (R20)."""
        stop = await self._reach(connection, source)
        if isinstance(stop, Refusal):
            await self._refuse(host, channel, source, "CONNECT", stop)
            return None
        try:
            with trio.fail_after(self._config.request_timeout):
                await channel.send(HopStatus(Status.OK, limit=limit_on_wire(self._limit)))
        except BaseException:
            stop.reset()
            raise
        return stop

    async def _reach(self, connection: Connection, source: PeerId) -> Stream | Refusal:
        """Offer the circuit to its target, on the connection that is there (R19)."""
        stop, status = None, int(Status.UNUSED)
        try:
            with trio.fail_after(self._config.stop_timeout):
                stop = await connection.open_stream(STOP)
                status = await offer(stop_channel(stop), source, limit_on_wire(self._limit))
        except EXPECTED as error:
            what = f"circuit from {source} to {connection.peer_id}"
            log_stopped(logger, what, error, expected=logging.DEBUG)
            return Refusal(Status.CONNECTION_FAILED, describe(error))
        finally:
            if stop is not None and status != Status.OK:
                stop.reset()
        if status != Status.OK:
            return Refusal(Status.CONNECTION_FAILED, f"the target said {status_name(status)}")
        return stop

    async def _carry(self, host: ServiceHost, stream: Stream, stop: Stream) -> None:
        source, target = stream.peer_id, stop.peer_id
        splice = Splice(stream, stop, limit=self._limit, buffer_bytes=self._config.buffer_bytes)
        host.publish(CircuitOpened(source, target))
        logger.debug("circuit from %s to %s", source, target)
        try:
            await splice.run()
            await stop.aclose()
        finally:
            self._circuits.close(source, target)
            closed = CircuitClosed(
                source, target, splice.forward.carried, splice.backward.carried, splice.reason
            )
            host.publish(closed)
            logger.debug("%s", closed)
