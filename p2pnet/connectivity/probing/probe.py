"""One look at the NAT, with two ports that nobody else knows.

Theory of operation: each port learns from a witness of its own where it is seen outside. Then
door B knocks at A's outside endpoint, and A dials B at B's. A connection that comes of it is one
from this host to itself, as only it has its key; it went out to the NAT, and back in::

    this host                       NAT                    witnesses
    door A (a stranger's key) ---> A' -------------------> one: "you are A'"
    door B (the host's key)   ---> B' -------------------> another: "you are B'"
    door B -- knock ------------> | B' --> A'    opens B' for A', if the filter is narrow
    door A -- dial -------------> | A' --> B' --> door B   the NAT hairpins

A witness that has two ports is dialled at both from the same door. If it sees that door at two
endpoints, the mapping depends on its port, too.

Of one witness nothing more is asked: its word alone must not make this host dial anybody else.

The knock is over before the dial begins: two that meet would be a simultaneous open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import trio

from p2pnet.connectivity.probing.policy import Witness, place_outside
from p2pnet.core.addresses import Endpoint, Multiaddr, at_endpoint, parse, place_of, without_peer
from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import P2PError, describe
from p2pnet.events import HairpinTested, MappingTested
from p2pnet.interfaces import Apart, Connection, ServiceHost

logger = logging.getLogger("p2pnet.probing")

ANYWHERE = {"tcp": parse("/ip4/0.0.0.0/tcp/0"), "udp": parse("/ip4/0.0.0.0/udp/0/quic-v1")}

MAX_PORTS = 3
"""Ports of a witness that are dialled."""

Tell = Callable[[object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the parts of a probe may take, in seconds."""

    witness: float
    knock: float
    dial: float


@dataclass(frozen=True, slots=True)
class Door:
    """A port, and what a witness says of it."""

    apart: Apart
    listening: Multiaddr
    connection: Connection
    outside: Multiaddr


class Probe:
    """A probe of one transport."""

    def __init__(
        self, host: ServiceHost, transport: str, own: Sequence[str], patience: Patience, tell: Tell
    ) -> None:
        self._host = host
        self._transport = transport
        self._own = own
        self._patience = patience
        self._tell = tell

    async def run(self, witnesses: Sequence[Witness], is_open: Multiaddr | None) -> None:
        """Look, and tell; ``witnesses`` are of different networks, the best first.

        Nobody else than a witness is dialled on the word of one: it could name anybody (V14).

        Raises:
            P2PError, OSError, trio.TooSlowError: if nothing can be told, or nothing more.
        """
        async with AsyncExitStack() as stack:
            door_a = await stack.enter_async_context(self._host.apart(stranger=True))
            a = await self._open(door_a, witnesses[0])
            if host_of(a.outside) in self._own:
                raise P2PError(f"seen at {a.outside}, which is an own address")
            await self._compare(a, witnesses[0])
            if len(witnesses) < 2:
                raise P2PError(f"nobody else than {witnesses[0].network} says {a.outside}")
            door_b = await stack.enter_async_context(self._host.apart(stranger=False))
            b = await self._open(door_b, witnesses[1])
            if host_of(a.outside) != host_of(b.outside):
                # One of the witnesses lies, or the NAT has several addresses: an address that
                # is somebody else's must not be dialled.
                raise P2PError(f"seen at {a.outside} and at {b.outside}")
            if is_open is not None and host_of(is_open) != host_of(a.outside):
                is_open = None
            await self._hairpin(a, b, is_open)

    async def _open(self, apart: Apart, witness: Witness) -> Door:
        """Open a port, and have a witness tell where it is seen.

        Raises:
            P2PError, trio.TooSlowError: if that cannot be.
        """
        listening = await apart.listen(ANYWHERE[self._transport])
        with trio.fail_after(self._patience.witness):
            connection = await apart.dial(witness.peer_id, witness.addresses[0])
            outside = await self._seen(connection, listening)
        return Door(apart, listening, connection, outside)

    async def _seen(self, connection: Connection, listening: Multiaddr) -> Multiaddr:
        """Return where the peer at the other end of a connection sees a port of ours."""
        if endpoint_of(connection.local_address).port != endpoint_of(listening).port:
            raise P2PError("the dial has not left from the port that it was to leave from")
        seen = await self._host.observe(connection)
        place = place_outside(seen, self._transport)
        if place is None:
            raise P2PError(f"{connection.peer_id} sees this host at {seen}")
        return at_endpoint(listening, place.endpoint)

    # ---- mapping -------------------------------------------------------------------------

    async def _compare(self, door: Door, witness: Witness) -> None:
        """Have a witness that has two ports tell if it sees a door alike from both."""
        for address in witness.addresses[1:MAX_PORTS]:
            with trio.move_on_after(self._patience.witness):
                try:
                    connection = await door.apart.dial(witness.peer_id, address)
                    outside = await self._seen(connection, door.listening)
                except EXPECTED as error:
                    logger.debug("no second look from %s: %s", address, describe(error))
                    continue
                same = outside == door.outside
                self._tell(MappingTested(self._transport, same, witness.peer_id))
                return

    # ---- hairpinning ---------------------------------------------------------------------

    async def _hairpin(self, a: Door, b: Door, is_open: Multiaddr | None) -> None:
        await self._reaches(b.apart, a.outside, self._patience.knock)
        reached = await self._reaches(a.apart, b.outside, self._patience.dial)
        self._tell(HairpinTested(self._transport, b.outside, is_fresh=True, reached=reached))
        if not reached and is_open is not None:
            reached = await self._reaches(a.apart, is_open, self._patience.dial)
            self._tell(HairpinTested(self._transport, is_open, is_fresh=False, reached=reached))

    async def _reaches(self, apart: Apart, address: Multiaddr, seconds: float) -> bool:
        """Dial this host; nobody else has its key."""
        with trio.move_on_after(seconds):
            try:
                connection = await apart.dial(self._host.peer_id, without_peer(address))
            except EXPECTED as error:
                logger.debug("this host is not at %s: %s", address, describe(error))
                return False
            await connection.aclose()
            return True
        return False


def host_of(address: Multiaddr) -> str:
    return endpoint_of(address).host


def endpoint_of(address: Multiaddr) -> Endpoint:
    """Return where a direct address leads. Raises P2PError for others."""
    place = place_of(address)
    if place is None:
        raise P2PError(f"{address} is no address of a port")
    return place.endpoint
