"""RelayServer: lets peers be called through this host.

Rules: specs/relay.md (R13 to R24, R29 to R33, R43).

A request is answered within fixed times and counted per peer from its first byte on, so that
whoever stalls, floods or sends nonsense costs a few tasks for a few seconds, and nothing else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr
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
from p2pnet.protocols.relay.limits import RelayLimits
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
    Call,
    Circuits,
    Pending,
    Reservations,
    exceeded,
    limit_on_wire,
    offered_addresses,
    prefix_of,
)
from p2pnet.protocols.relay.rates import Allowances, Pace
from p2pnet.protocols.relay.splice import Means, Splice
from p2pnet.protocols.relay.tally import Refused, RelayStatistics, Tally, statistics_of
from p2pnet.protocols.relay.voucher import Voucher, seal

logger = logging.getLogger("p2pnet.relay")

PROTECTED_AS = "reservation"
IN_CIRCUIT = "circuit"


MayReserve = Callable[[PeerId, Multiaddr], bool]
"""May this peer, connected from this address, have a reservation?"""
MayConnect = Callable[[PeerId, Multiaddr, PeerId], bool]
"""May this peer, connected from this address, have a circuit to that one?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayServer(RelayLimits):
    """Carries circuits for peers that nobody can dial, within its limits."""

    may_reserve: MayReserve | None = None
    """Asked before each reservation and renewal; None lets everybody."""
    may_connect: MayConnect | None = None
    """Asked before each circuit; None lets everybody."""

    def build(self, kit: Kit) -> RelayServerService:
        return RelayServerService(self, kit)


@dataclass(frozen=True, slots=True)
class Joined:
    """A circuit whose both ends have agreed: how it is counted, and the stream to its target."""

    call: Call
    stop: Stream


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
            max_total=config.max_circuits,
            max_per_peer=config.max_circuits_per_peer,
            max_per_prefix=config.max_circuits_per_prefix,
        )
        self._tally = Tally()
        self._means = Means(
            config.buffer_bytes,
            config.window_bytes,
            config.circuit_bytes_per_second,
            Pace(config.bytes_per_second),
            self._tally,
        )
        self._per_peer = Allowances(config.requests_per_minute_per_peer)
        self._per_prefix = Allowances(config.requests_per_minute_per_prefix)
        self._pending = Pending(config.max_pending_per_peer)
        self._refusing = Pending(config.max_pending_per_peer)
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

    @property
    def limits(self) -> RelayLimits:
        return self._config

    def statistics(self) -> RelayStatistics:
        """Return what it carries now, and what it has done since it began."""
        return statistics_of(
            self._tally, reservations=len(self._reservations), circuits=len(self._circuits)
        )

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
        refusal = self._check_pace(stream)
        if refusal is None and not self._pending.begin(source):  # R24
            refusal = exceeded("max_pending_per_peer", self._config.max_pending_per_peer)
        if refusal is not None:
            await self._refuse_unread(host, stream, channel, refusal)
            return
        try:
            joined = await self._answer(host, stream, channel)
        finally:
            self._pending.end(source)
        if joined is not None:
            await self._carry(host, stream, joined)

    async def _refuse_unread(
        self, host: ServiceHost, stream: Stream, channel: MessageChannel[HopMessage], why: Refusal
    ) -> None:
        """Refuse a request that was not read; reset it if too many take no refusal (R24)."""
        source = stream.peer_id
        if not self._refusing.begin(source):
            self._tally.refused[Refused("request", why.status.name, why.limit)] += 1
            stream.reset()
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._refuse(host, channel, source, "request", why)
        finally:
            self._refusing.end(source)

    def _check_pace(self, stream: Stream) -> Refusal | None:
        """Count a request that has not been read yet; refuse it if there were too many (R29)."""
        now, config = trio.current_time(), self._config
        if not self._per_peer.spend(str(stream.peer_id), now):
            return exceeded("requests_per_minute_per_peer", config.requests_per_minute_per_peer)
        prefix = prefix_of(stream.connection.remote_address)
        if prefix is not None and not self._per_prefix.spend(prefix, now):
            return exceeded("requests_per_minute_per_prefix", config.requests_per_minute_per_prefix)
        return None

    async def _answer(
        self, host: ServiceHost, stream: Stream, channel: MessageChannel[HopMessage]
    ) -> Joined | None:
        """Read and answer a request; return the circuit, if it made one."""
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
        status, limit = refusal.status.name, refusal.limit
        self._tally.refused[Refused(request, status, limit)] += 1
        host.publish(RelayRefusedRequest(peer_id, request, status, refusal.reason, limit))  # R33
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
        may_reserve = self._config.may_reserve
        if may_reserve is not None and not may_reserve(peer_id, connection.remote_address):  # R31
            return Refusal(Status.PERMISSION_DENIED, "may_reserve says no")
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
        self._tally.granted += not renewal
        self._tally.renewed += renewal
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
        self._tally.ended[reason] += 1
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
    ) -> Joined | None:
        """Join the asking peer with another; return the circuit.

        It is counted from here until ``_carry`` ends (R18).
        """
        connection = self._admit(stream, target) or self._target(host, target)
        if isinstance(connection, Refusal):
            await self._refuse(host, channel, stream.peer_id, "CONNECT", connection)
            return None
        ends = (stream.connection.remote_address, connection.remote_address)
        prefixes = frozenset(prefix for prefix in map(prefix_of, ends) if prefix is not None)
        call = Call(stream.peer_id, target, prefixes)
        refusal = self._open(host, call)
        if refusal is not None:
            await self._refuse(host, channel, stream.peer_id, "CONNECT", refusal)
            return None
        stop = None
        try:
            stop = await self._join(host, channel, stream.peer_id, connection)
        finally:
            if stop is None:
                self._close(host, call)
        return None if stop is None else Joined(call, stop)

    def _open(self, host: ServiceHost, call: Call) -> Refusal | None:
        """Count a circuit, if there is room; what it needs is not trimmed (R43)."""
        refusal = self._circuits.open(call)
        if refusal is None:
            host.protect(call.source, IN_CIRCUIT)
            host.protect(call.target, IN_CIRCUIT)
        return refusal

    def _close(self, host: ServiceHost, call: Call) -> None:
        for peer_id in self._circuits.close(call):
            host.unprotect(peer_id, IN_CIRCUIT)

    def _admit(self, stream: Stream, target: PeerId) -> Refusal | None:
        """Decide whether a peer may ask for a circuit at all (R18)."""
        source, connection = stream.peer_id, stream.connection
        if connection.is_relayed:  # R13
            return Refusal(Status.PERMISSION_DENIED, "asked over a relayed connection")
        if target == source:
            return Refusal(Status.PERMISSION_DENIED, "a peer asked for a circuit to itself")
        may_connect = self._config.may_connect
        if may_connect is not None and not may_connect(source, connection.remote_address, target):
            return Refusal(Status.PERMISSION_DENIED, "may_connect says no")  # R31
        return None

    def _target(self, host: ServiceHost, target: PeerId) -> Connection | Refusal:
        """Return the connection over which to offer a circuit to its target (R18, R19)."""
        if not self._reservations.holds(target, trio.current_time()):
            return Refusal(Status.NO_RESERVATION, f"{target} has no reservation")
        came_by = self._came_by[target]
        connection = direct_connection(host, target) if came_by.is_closed else came_by
        if connection is None:
            return Refusal(Status.NO_RESERVATION, f"{target} has just disconnected")
        return connection

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
            with trio.move_on_after(self._config.stop_timeout) as time:
                stop = await connection.open_stream(STOP)
                status = await offer(stop_channel(stop), source, limit_on_wire(self._limit))
        except EXPECTED as error:
            what = f"circuit from {source} to {connection.peer_id}"
            log_stopped(logger, what, error, expected=logging.DEBUG)
            return Refusal(Status.CONNECTION_FAILED, describe(error))
        finally:
            if stop is not None and status != Status.OK:
                stop.reset()
        if time.cancelled_caught:
            maximum = self._config.stop_timeout
            return exceeded("stop_timeout", maximum, Status.CONNECTION_FAILED)
        if stop is None or status != Status.OK:
            return Refusal(Status.CONNECTION_FAILED, f"the target said {status_name(status)}")
        return stop

    async def _carry(self, host: ServiceHost, stream: Stream, joined: Joined) -> None:
        source, target, stop = joined.call.source, joined.call.target, joined.stop
        splice = Splice(stream, stop, limit=self._limit, means=self._means)
        self._tally.opened += 1
        host.publish(CircuitOpened(source, target))
        logger.debug("circuit from %s to %s", source, target)
        try:
            await splice.run()
            await stop.aclose()
        finally:
            self._close(host, joined.call)
            self._tally.closed[splice.cause] += 1
            closed = CircuitClosed(
                source, target, splice.forward.carried, splice.backward.carried, splice.reason
            )
            host.publish(closed)
            logger.debug("%s", closed)
