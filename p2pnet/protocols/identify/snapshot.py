"""What this host tells of itself, made anew only when it changed. Rules: specs/identify.md."""

from __future__ import annotations

from dataclasses import replace

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.envelope import PeerRecord, seal_peer_record
from p2pnet.interfaces import Connection, Kit, ServiceHost
from p2pnet.protocols.identify.messages import IdentifyMessage
from p2pnet.protocols.identify.policy import next_sequence, observed_by_us, own_addresses

Basis = tuple[tuple[Multiaddr, ...], tuple[str, ...]]
"""What a snapshot is made of: the advertised addresses, and the protocols served."""


class Snapshot:
    """Makes the message to peers, and signs a record whenever addresses or protocols changed."""

    def __init__(
        self, kit: Kit, *, agent_version: str, protocol_version: str, max_address_bytes: int
    ) -> None:
        self._kit = kit
        self._max_address_bytes = max_address_bytes
        self._sequence = 0
        self._basis: Basis | None = None
        self._message = IdentifyMessage(
            public_key=kit.key.public_key.encode(),
            protocol_version=protocol_version,
            agent_version=agent_version,
        )

    def message_for(self, host: ServiceHost, connection: Connection) -> IdentifyMessage:
        """Return what to tell the peer on a connection."""
        basis = basis_of(host)
        if basis != self._basis:
            self._basis = basis
            self._message = self._renewed(*basis)
        return replace(
            self._message,
            observed_address=observed_by_us(connection.remote_address, connection.peer_id),
        )

    def _renewed(
        self, advertised: tuple[Multiaddr, ...], protocols: tuple[str, ...]
    ) -> IdentifyMessage:
        own_id = self._kit.peer_id
        addresses = own_addresses(advertised, own_id=own_id, max_bytes=self._max_address_bytes)
        self._sequence = next_sequence(self._kit.env.wall_clock(), self._sequence)
        record = PeerRecord(own_id, self._sequence, addresses)
        return replace(
            self._message,
            addresses=addresses,
            protocols=protocols,
            signed_record=seal_peer_record(self._kit.key, record),
        )


def basis_of(host: ServiceHost) -> Basis:
    return host.addresses.value, host.protocols.value
