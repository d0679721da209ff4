"""Circuits as connections: dials ``/p2p-circuit`` addresses, takes in those that relays offer.

Rules: specs/relay.md (R25 to R28).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr, circuit_address, circuit_of, with_peer, without_peer
from p2pnet.core.foreword import Foreword
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported, NegotiationFailed, NotARelay
from p2pnet.interfaces import (
    CapableConnection,
    CircuitLimit,
    Connection,
    Ends,
    Listener,
    Role,
    ServiceHost,
    Stream,
    Upgrader,
)
from p2pnet.protocols.relay.channels import direct_connection, hop_channel
from p2pnet.protocols.relay.dialogue import connect
from p2pnet.protocols.relay.messages import HOP
from p2pnet.protocols.relay.meter import CircuitStream, Meter
from p2pnet.protocols.relay.policy import circuit_limit


class CircuitTransport:
    """Reaches peers behind a relay."""

    def __init__(
        self, host: ServiceHost, upgrader: Upgrader, meter: Meter, foreword: Foreword
    ) -> None:
        self._host = host
        self._foreword = foreword
        self._upgrader = upgrader
        self._meter = meter

    def can_dial(self, address: Multiaddr) -> bool:
        try:
            return circuit_of(address).target is None
        except ValueError:
            return False

    def can_listen(self, address: Multiaddr) -> bool:
        return False

    async def listen(self, address: Multiaddr) -> Listener:
        await trio.lowlevel.checkpoint()
        raise AddressUnsupported(address, "name the relay in RelayClient(relays=[...]) instead")

    async def dial(
        self,
        address: Multiaddr,
        *,
        peer_id: PeerId,
        role: Role = Role.DIALER,
        any_port: bool = False,
    ) -> CapableConnection:
        if not self.can_dial(address):
            raise AddressUnsupported(address)
        relay = circuit_of(address).relay
        told = [address, *map(without_peer, self._host.peers.addresses(peer_id))]
        connection = await reach_relay(self._host, relay, self._places(relay, told))
        try:
            stream, limit = await open_circuit(connection, peer_id)
        except NegotiationFailed:
            raise NotARelay(address, "the relay in it is none: it serves no hop") from None
        ends = replace(ends_of(connection, limit), foreword=partial(self._foreword.to, peer_id))
        metered = self._meter.watch(stream, peer_id, limit)
        return await self._upgrader.upgrade(metered, role, ends=ends, expected=peer_id)

    def _places(self, relay: PeerId, told: Sequence[Multiaddr]) -> tuple[Multiaddr, ...]:
        """Return where a relay is, by the addresses of who is behind it (R25)."""
        circuits = [circuit_of(address) for address in told if self.can_dial(address)]
        at = [each.relay_address for each in circuits if each.relay == relay]
        return tuple(dict.fromkeys(place for place in at if place is not None))[:MAX_PLACES]


async def reach_relay(
    host: ServiceHost, relay: PeerId, places: Sequence[Multiaddr], *, at_once: bool = False
) -> Connection:
    """Return a direct connection to a relay; dial it if there is none (R25).

    With ``at_once`` all places are dialled at the same moment, whatever the back-off; else
    they are ranked, and only the first is dialled in spite of it.

    Raises:
        DialError: if it cannot be reached.
        AddressUnsupported: if it is itself behind a relay.
    """
    connection = direct_connection(host, relay)
    if connection is not None:
        return connection
    if places and (at_once or host.connections(relay)):
        # ``connect`` would be content with the relayed connection that is there.
        connection = await host.dial(relay, places)
    elif places:
        host.peers.add_addresses(relay, places, seconds=PLACE_SECONDS)
        connection = await host.connect(with_peer(places[0], relay))
    else:
        connection = await host.connect(relay)
    if connection.is_relayed:
        raise AddressUnsupported(f"/p2p/{relay}", "this relay is itself behind a relay")
    return connection


MAX_PLACES = 8
"""Of one relay, as the addresses of one peer behind it name them."""
PLACE_SECONDS = 30.0
"""How long the addresses of a relay are remembered that nobody has proved yet: for the dial.
The one that worked is remembered with the connection."""


async def open_circuit(
    connection: Connection, target: PeerId
) -> tuple[Stream, CircuitLimit | None]:
    """Ask the relay at the other end of a connection for a circuit.

    Raises:
        RelayRefused: if it says no.
        NegotiationFailed: if it is no relay.
        ProtocolError, StreamReset, ConnectionLost: see there.
    """
    stream = await connection.open_stream(HOP)
    try:
        limit = await connect(hop_channel(stream), connection.peer_id, target)
    except BaseException:
        stream.reset()
        raise
    return stream, circuit_limit(limit)


def ends_of(connection: Connection, limit: CircuitLimit | None) -> Ends:
    """Say where a circuit runs: both its ends are known by the place of the relay (R28)."""
    place = circuit_address(with_peer(connection.remote_address, connection.peer_id))
    return Ends(local=place, remote=place, limit=limit)


class PendingCircuit:
    """An inbound circuit: the relay says who calls, the caller has yet to prove it (R27)."""

    def __init__(self, circuit: CircuitStream, upgrader: Upgrader, *, ends: Ends) -> None:
        self._stream = circuit
        self._upgrader = upgrader
        self._ends = ends

    @property
    def remote_address(self) -> Multiaddr:
        return self._ends.remote

    async def upgrade(self, *, patience: float | None = None) -> CapableConnection:
        return await self._upgrader.upgrade(
            self._stream,
            Role.LISTENER,
            ends=self._ends,
            expected=self._stream.peer_id,
            patience=patience,
        )

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def wait_closed(self) -> None:
        """Wait until the circuit is over, however that comes about."""
        await self._stream.closed.wait()
