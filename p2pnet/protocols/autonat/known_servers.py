"""Which connected peers can be asked to dial this host. Rules: specs/autonat.md (AN25)."""

from __future__ import annotations

from p2pnet.core.addresses import Multiaddr, Scope, ip_of, scope, without_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.events import ConnectionClosed, PeerIdentified
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.autonat.messages import DIAL_REQUEST
from p2pnet.protocols.autonat.policy import network_of, port_of
from p2pnet.protocols.autonat.schedule import Server

PUBLIC = frozenset({Scope.PUBLIC})
ANY = frozenset({Scope.PUBLIC, Scope.PRIVATE, Scope.LOOPBACK})


class KnownServers:
    """Looks at the connections of a host."""

    def __init__(self, host: ServiceHost, *, allow_private: bool) -> None:
        self._host = host
        self.scopes = ANY if allow_private else PUBLIC
        self._serving: set[int] = set()
        """Connections whose peer says there that it serves."""

    def hear(self, event: PeerIdentified | ConnectionClosed) -> None:
        """Take what a peer says on a connection, or that there is no such connection any more."""
        number = event.connection.number
        match event:
            case PeerIdentified(protocols=protocols) if DIAL_REQUEST in protocols:
                self._serving.add(number)
            case _:
                self._serving.discard(number)

    def forget_closed(self) -> None:
        """Forget connections that are no more, as their end may have been missed."""
        self._serving &= {connection.ref.number for connection in self._host.connections()}

    def connection(self, peer_id: PeerId) -> Connection | None:
        """Return the connection on which to ask a peer.

        One that this host opened, if there is one: on others, rust-libp2p does not serve.
        """
        usable = [c for c in self._host.connections(peer_id) if self._is_usable(c)]
        return min(usable, key=lambda c: c.is_inbound, default=None)

    def _is_usable(self, connection: Connection) -> bool:
        if connection.is_relayed or connection.is_limited or connection.is_closed:
            return False
        # Somebody behind the same NAT as we are cannot tell what comes through it.
        remote = connection.remote_address
        return ip_of(remote) is not None and scope(remote) in self.scopes

    def _is_server(self, peer_id: PeerId) -> bool:
        """Tell if a peer says that it serves: at last, or on a connection that is still there.

        On a connection that it has dialled, such as a dial-back, rust-libp2p does not say so.
        """
        if DIAL_REQUEST in (self._host.peers.protocols(peer_id) or ()):
            return True
        return any(c.ref.number in self._serving for c in self._host.connections(peer_id))

    def all(self) -> tuple[Server, ...]:
        """Return who can be asked now."""
        peers = dict.fromkeys(connection.peer_id for connection in self._host.connections())
        found = []
        for peer_id in peers:
            connection = self.connection(peer_id)
            if connection is not None and self._is_server(peer_id):
                remote = connection.remote_address
                ip = ip_of(remote)
                is_ipv6 = ip is not None and ip.version == 6
                found.append(Server(peer_id, network_of(remote), is_ipv6))
        return tuple(found)

    def place(self, peer_id: PeerId, transport: str) -> Multiaddr | None:
        """Return where to dial a server over ``tcp`` or ``udp``, at the IP it is connected from."""
        connection = self.connection(peer_id)
        if connection is None:
            return None
        ip = ip_of(connection.remote_address)
        told = self._host.peers.addresses(peer_id)
        known = told if connection.is_inbound else [connection.remote_address, *told]
        for address in map(without_peer, known):
            port = port_of(address)
            if port is None or port[0] != transport or ip_of(address) != ip:
                continue
            if self._host.can_dial(address):
                return address
        return None
