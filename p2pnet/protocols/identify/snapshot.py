"""What this host tells of itself, made anew only when it changed. Rules: specs/identify.md."""

from __future__ import annotations

from dataclasses import replace

from p2pnet.core.addresses import Multiaddr, Scope
from p2pnet.core.envelope import PeerRecord, seal_peer_record
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.identify.messages import IdentifyMessage
from p2pnet.protocols.identify.policy import next_sequence, observed_by_us, own_addresses

Basis = tuple[tuple[Multiaddr, ...], tuple[str, ...]]
"""What a snapshot is made of: the advertised addresses, and the protocols served."""


class Snapshot:
    """Makes the messages to peers, and signs records whenever addresses or protocols changed."""

    def __init__(
        self, kit: Kit, *, agent_version: str, protocol_version: str, max_address_bytes: int
    ) -> None:
        self._kit = kit
        self._max_address_bytes = max_address_bytes
        self._sequence = 0
        self._basis: Basis | None = None
        self._told: dict[Scope, IdentifyMessage] = {}
        """What peers of each kind of place are told, as long as the basis is the same."""
        self._nothing = IdentifyMessage(
            public_key=kit.key.public_key.encode(),
            protocol_version=protocol_version,
            agent_version=agent_version,
        )

    def message_for(
        self, host: ServiceHost, connection: Connection, told_to: Scope
    ) -> IdentifyMessage:
        """Return what to tell the peer on a connection, who is in such a place (I17)."""
        basis = basis_of(host)
        if basis != self._basis:
            self._basis = basis
            self._told.clear()
        if told_to not in self._told:
            self._told[told_to] = self._made(*basis, told_to=told_to)
        return replace(
            self._told[told_to],
            observed_address=observed_by_us(connection.remote_address, connection.peer_id),
        )

    def _made(
        self, advertised: tuple[Multiaddr, ...], protocols: tuple[str, ...], *, told_to: Scope
    ) -> IdentifyMessage:
        own_id, maximum = self._kit.peer_id, self._max_address_bytes
        addresses = own_addresses(advertised, own_id=own_id, told_to=told_to, max_bytes=maximum)
        self._sequence = next_sequence(self._kit.env.wall_clock(), self._sequence)
        record = PeerRecord(own_id, self._sequence, addresses)
        return replace(
            self._nothing,
            addresses=addresses,
            protocols=protocols,
            signed_record=seal_peer_record(self._kit.key, record),
        )


def basis_of(host: ServiceHost) -> Basis:
    return host.addresses.value, host.protocols.value
