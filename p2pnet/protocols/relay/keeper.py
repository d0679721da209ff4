"""Keeper: holds a reservation at one relay, for ever. Rules: specs/relay.md (R7 to R12).

::

            +----------- wait: back-off ----------+
            v                                     |
         asking ---- refused, failed -------------+
            |  ^                                  |
         OK |  | 3/4 of the lifetime              | refused, expired, or the
            v  |                                  | relay disconnected
          holding --------------------------------+

While a renewal fails for another reason than a refusal, the reservation is still held, until
it expires.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, log_stopped
from p2pnet.errors import EventsMissed, RelayRefused, describe
from p2pnet.events import (
    ConnectionClosed,
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
from p2pnet.protocols.relay.voucher import check, decode_untrusted

logger = logging.getLogger("p2pnet.relay")

PROTECTED_AS = "relay"
RENEW_EARLIEST, RENEW_LATEST = 0.65, 0.75
"""When to renew, as parts of the lifetime; spread, lest all clients of a relay do it at once."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a keeper waits for a relay, and between attempts; in seconds."""

    reserve_timeout: float
    min_backoff: float
    max_backoff: float


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
    ) -> None:
        self.relay = relay
        self.places = tuple(places)
        self._kit = kit
        self._patience = patience
        self._max_addresses = max_addresses
        self._held: Held | None = None
        self._asking = False
        self._failures = 0

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

    async def _try(self, host: ServiceHost) -> float:
        """Ask the relay once; return for how long there is nothing to do."""
        try:
            with trio.fail_after(self._patience.reserve_timeout):
                connection, reservation = await self._ask(host)
            return self._accept(host, connection, reservation)
        except EXPECTED as error:
            log_stopped(logger, f"reserving at {self.relay}", error, expected=logging.INFO)
            self._failures += 1
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
            connection = await reach_relay(host, self.relay, self.places, first=self._failures)
            stream = await connection.open_stream(HOP)
            try:
                reservation, _ = await reserve(hop_channel(stream), self.relay)
            except BaseException:
                stream.reset()
                raise
            await stream.aclose()
            return connection, reservation
        finally:
            self._asking = False

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
        self._held = Held(connection, since, now + seconds)
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

    async def _wait(self, host: ServiceHost, seconds: float) -> None:
        """Wait, but no longer than the reservation and its connection last."""
        if self._held is None:
            await trio.sleep(seconds)
            return
        since, expires_at = self._held.since, self._held.expires_at
        with trio.move_on_at(min(trio.current_time() + seconds, expires_at)):
            await wait_closed(host, self._held.connection)
        if self._lose_if_over(host, hope=True):
            # A relay that grants and then hangs up, again and again, counts as failing (R11).
            steady = trio.current_time() - since >= self._patience.max_backoff
            self._failures = 0 if steady else self._failures + 1
            await trio.sleep(self._pause())

    def _pause(self) -> float:
        """Return how long to wait after this many failures, spread out (R11)."""
        patience = self._patience
        longest = backoff(self._failures, first=patience.min_backoff, most=patience.max_backoff)
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
            self._held = None
            host.unprotect(self.relay, PROTECTED_AS)
            host.publish(ReservationLost(self.relay, reason))
            logger.info("lost the reservation at relay %s: %s", self.relay, reason)


async def wait_closed(host: ServiceHost, connection: Connection) -> None:
    """Wait until a connection has ended."""
    with host.subscribe(ConnectionClosed) as closings:
        while not connection.is_closed:
            try:
                await anext(closings)
            except EventsMissed:
                continue
