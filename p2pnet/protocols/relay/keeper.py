"""Keeper: holds a reservation at one relay, for ever. Rules: specs/relay.md (R7 to R12, R38).

::

            +----------- wait: back-off ----------+
            v                                     |
         asking ---- refused, failed -------------+
            |  ^                                  |
         OK |  | 3/4 of the lifetime              | refused, expired, or the
            v  |                                  | relay disconnected
          holding --------------------------------+

While a renewal fails for another reason than a refusal, the reservation is still held, until
it expires. A wait ends early when the relay connects, or when this host is somewhere else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.bus import Subscription
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, close_at_once, log_stopped
from p2pnet.errors import DialError, EventsMissed, FailedAttempt, RelayRefused, describe
from p2pnet.events import (
    ConnectionClosed,
    ConnectionOpened,
    NetworkChanged,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
)
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.relay.channels import direct_connection, hop_channel
from p2pnet.protocols.relay.dialogue import reserve
from p2pnet.protocols.relay.messages import HOP, Reservation
from p2pnet.protocols.relay.policy import (
    MAX_SKEW_SECONDS,
    backoff,
    circuit_addresses,
    lifetime,
)
from p2pnet.protocols.relay.transport import reach_relay
from p2pnet.protocols.relay.vigil import Vigil
from p2pnet.protocols.relay.voucher import check, decode_untrusted

logger = logging.getLogger("p2pnet.relay")

E = TypeVar("E")
News = ConnectionOpened | NetworkChanged

PROTECTED_AS = "relay"
PROBE_SECONDS = 5.0
"""After a move, a relay has so long to answer over the old connection (R38)."""
RENEW_EARLIEST, RENEW_LATEST = 0.65, 0.75
"""When to renew, as parts of the lifetime; spread, lest all clients of a relay do it at once."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a keeper waits for a relay, and between attempts; in seconds."""

    reach_timeout: float
    reserve_timeout: float
    min_backoff: float
    max_backoff: float
    max_redial: float
    """As ``max_backoff``, for a relay that cannot be reached."""


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation, and the connection it came by: some relays bind it to that one."""

    connection: Connection
    since: float
    expires_at: float


class Keeper:
    """Reserves, renews, and reserves again."""

    def __init__(
        self,
        relay: PeerId,
        places: Sequence[Multiaddr],
        *,
        kit: Kit,
        patience: Patience,
        max_addresses: int,
        vigil: Vigil,
    ) -> None:
        self.relay = relay
        self.places = tuple(places)
        self._kit = kit
        self._patience = patience
        self._max_addresses = max_addresses
        self._vigil = vigil
        self._held: Held | None = None
        self._asking = False
        self._reached = False
        self._failures = 0
        """Attempts in a row that the relay knows of."""
        self._absences = 0
        """Attempts in a row in which it could not be reached."""
        self._in_doubt = False
        """This host is somewhere else: the connection may lead nowhere by now."""

    @property
    def failures(self) -> int:
        """How many attempts in a row came to nothing."""
        return self._failures + self._absences

    @property
    def held_by(self) -> Connection | None:
        """The connection that the reservation came by; None without one."""
        return None if self._held is None else self._held.connection

    @property
    def is_held(self) -> bool:
        return self._held is not None

    @property
    def is_trusted(self) -> bool:
        """True if the relay may offer circuits: it can do so before its answer is read (R26)."""
        return self._held is not None or self._asking

    async def run(self, host: ServiceHost) -> None:
        try:
            while True:
                wait = await self._try(host)
                await self._wait(host, wait)
        finally:
            host.unprotect(self.relay, PROTECTED_AS)

    def give_up(self, host: ServiceHost, reason: str) -> None:
        """Withdraw a reservation that is no longer wanted, after ``run`` was cancelled."""
        self._lose(host, reason)

    async def _try(self, host: ServiceHost) -> float:
        """Ask the relay once; return for how long there is nothing to do."""
        self._reached = False
        try:
            connection, reservation = await self._ask(host)
            return self._accept(host, connection, reservation)
        except EXPECTED as error:
            log_stopped(logger, f"reserving at {self.relay}", error, expected=logging.INFO)
            return self._fail(host, error)

    def _fail(self, host: ServiceHost, error: Exception) -> float:
        """Draw the conclusions from a failed attempt; return when to make another."""
        if self._reached:
            self._absences = 0
            self._failures += 1
        else:
            self._absences += 1
        pause = self._pause()
        if self._held is None:
            host.publish(ReservationFailed(self.relay, describe(error), pause, error))
        elif isinstance(error, RelayRefused):
            self._lose(host, describe(error))
        else:
            self._lose_if_over(host, hope=False)
        return pause

    async def _ask(self, host: ServiceHost) -> tuple[Connection, Reservation]:
        self._asking = True
        try:
            connection = await self.reach(host)
            self._reached = True
            doubt, self._in_doubt = self._in_doubt, False
            patience = min(self._patience.reserve_timeout, PROBE_SECONDS if doubt else math.inf)
            try:
                with trio.fail_after(patience):
                    return connection, await ask(connection)
            except trio.TooSlowError:
                if doubt:  # R38: it leads nowhere from here.
                    await close_at_once(connection)
                raise
        finally:
            self._asking = False

    async def reach(self, host: ServiceHost) -> Connection:
        """Return a direct connection to the relay.

        Raises:
            DialError: if there is none, and none can be made in time.
            AddressUnsupported: if it is itself behind a relay.
        """
        try:
            with trio.fail_after(self._patience.reach_timeout):
                return await reach_relay(host, self.relay, self.places, at_once=self._absences > 0)
        except trio.TooSlowError as error:
            attempts = [FailedAttempt(place, error) for place in self.places]
            raise DialError(self.relay, attempts) from None

    def _accept(self, host: ServiceHost, connection: Connection, reservation: Reservation) -> float:
        """Hold a granted reservation; return when to renew it, in seconds from now.

        Raises:
            ProtocolError: if there is something wrong with it.
        """
        wall, now = self._kit.env.wall_clock(), trio.current_time()
        seconds = lifetime(reservation.expire, wall)
        if reservation.voucher is not None:  # R9: rust-libp2p gives none
            voucher = decode_untrusted(reservation.voucher)
            check(
                voucher,
                relay=self.relay,
                peer_id=self._kit.peer_id,
                not_before=wall - MAX_SKEW_SECONDS,
            )
        reached_at = self.places if connection.is_inbound else (connection.remote_address,)
        addresses = circuit_addresses(
            reservation, self.relay, reached_at, maximum=self._max_addresses
        )
        renewal = self._held is not None
        since = now if self._held is None else self._held.since
        self._hold(Held(connection, since, now + seconds))
        self._absences = 0
        if renewal:
            self._failures = 0
        host.protect(self.relay, PROTECTED_AS)
        host.publish(ReservationAccepted(self.relay, addresses, seconds, renewal))
        logger.log(
            logging.DEBUG if renewal else logging.INFO,
            "relay %s will carry circuits here for %.0f s",
            self.relay,
            seconds,
        )
        return seconds * self._kit.env.jitter(RENEW_EARLIEST, RENEW_LATEST)

    def _hold(self, held: Held | None) -> None:
        """Hold a reservation, or none any more, and have an eye on what it hangs on (KA11)."""
        self._held = held
        self._vigil.hold(self.relay, self.held_by)

    async def _wait(self, host: ServiceHost, seconds: float) -> None:
        """Wait, but no longer than the reservation and its connection last."""
        if self._held is None:
            await self._rest(host, seconds)
            return
        since, expires_at = self._held.since, self._held.expires_at
        with trio.move_on_at(min(trio.current_time() + seconds, expires_at)):
            self._in_doubt = await wait_closed(host, self._held.connection)
        if self._lose_if_over(host, hope=True):
            # A relay that grants and then hangs up, again and again, counts as failing (R11).
            steady = trio.current_time() - since >= self._patience.max_backoff
            self._failures = 0 if steady else self._failures + 1
            await self._rest(host, self._pause())

    async def _rest(self, host: ServiceHost, seconds: float) -> None:
        """Wait between attempts, but not while there is news of the relay, or of here (R38)."""
        if self._absences and direct_connection(host, self.relay) is not None:
            seconds = min(seconds, self._patience.min_backoff)  # It came while we dialled it.
        kinds: tuple[type[News], ...] = (ConnectionOpened, NetworkChanged)
        with host.subscribe(*kinds) as news:
            with trio.move_on_after(seconds):
                await trio.sleep(min(seconds, self._patience.min_backoff / 2))
                heard = False
                while not heard:
                    event = await next_event(news)
                    heard = self._is_news(event)

    def _is_news(self, event: News | None) -> bool:
        match event:
            case ConnectionOpened(ref):
                return ref.peer_id == self.relay and not ref.is_relayed
            case NetworkChanged():
                self._absences = 0
                return True
            case None:
                return True

    def _pause(self) -> float:
        """Return how long to wait after this many failures, spread out (R11)."""
        patience = self._patience
        count, most = self._failures, patience.max_backoff
        if self._absences:
            count, most = self._absences, patience.max_redial
        longest = backoff(count, first=patience.min_backoff, most=most)
        return self._kit.env.jitter(longest / 2, longest)

    def _lose_if_over(self, host: ServiceHost, *, hope: bool) -> bool:
        """Give the reservation up if it ended (R12).

        When its own connection is gone but another to the relay lives, some relays keep it:
        then there is ``hope``, and the answer to the next renewal tells.
        """
        if self._held is None:
            return False
        if trio.current_time() >= self._held.expires_at:
            self._lose(host, "expired")
        elif self._held.connection.is_closed and not (
            hope and direct_connection(host, self.relay) is not None
        ):
            self._lose(host, "the relay disconnected")
        return self._held is None

    def _lose(self, host: ServiceHost, reason: str) -> None:
        if self._held is not None:
            self._hold(None)
            host.unprotect(self.relay, PROTECTED_AS)
            host.publish(ReservationLost(self.relay, reason))
            logger.info("lost the reservation at relay %s: %s", self.relay, reason)


async def ask(connection: Connection) -> Reservation:
    """Ask for a reservation over a connection; see ``dialogue.reserve``."""
    stream = await connection.open_stream(HOP)
    try:
        reservation, _ = await reserve(hop_channel(stream), connection.peer_id)
    except BaseException:
        stream.reset()
        raise
    await stream.aclose()
    return reservation


async def wait_closed(host: ServiceHost, connection: Connection) -> bool:
    """Wait until a connection has ended, or may lead nowhere; then return True."""
    with host.subscribe(ConnectionClosed, NetworkChanged) as events:
        while not connection.is_closed:
            if isinstance(await next_event(events), NetworkChanged):
                return True
    return False


async def next_event(events: Subscription[E]) -> E | None:
    """Wait for an event; None if some were missed."""
    try:
        return await anext(events)
    except EventsMissed:
        return None
