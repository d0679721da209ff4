"""Ready recipes for hosts. Change one with ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from p2pnet.connectivity.portmap import PortMapping
from p2pnet.connectivity.probing import NatProbing
from p2pnet.core.keys import PrivateKey
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Part, Service, Transport
from p2pnet.muxers.yamux import Yamux
from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
from p2pnet.protocols.autonat_v1 import AutoNATv1, AutoNATv1Server
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.hold import Hold
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.relay import RelayClient, RelayServer
from p2pnet.protocols.relay.limits import room_for
from p2pnet.protocols.resume import Resume
from p2pnet.security.noise import Noise
from p2pnet.transports.tcp import TCP

TRANSPORTS: tuple[Part[Transport], ...] = (TCP(),)
"""What every host has. QUIC and WebSocket are extras: ``transports=[QUIC(), TCP()]``."""
RELAY_PORT = 4001


@runtime_checkable
class Listening(Protocol):
    """A transport that a host listens by unless it is told where."""

    def anywhere(self, port: int) -> Sequence[str]:
        """Return the addresses that are all addresses of this machine; port 0 is a free one."""
        ...


def anywhere(
    transports: Sequence[Part[Transport]] = TRANSPORTS, *, port: int = 0
) -> tuple[str, ...]:
    """Return where to listen by ``transports``: all addresses, the same port of TCP and UDP.

    Port 0 is a free one for each. By WebSocket a host listens only if it is told where.
    """
    parts = [part for part in transports if isinstance(part, Listening)]
    return tuple(address for part in parts for address in part.anywhere(port))


ANYWHERE = anywhere()
RELAY_PORTS = anywhere(port=RELAY_PORT)


def with_ones_own(
    preset: Sequence[Part[Service]], services: Sequence[Part[Service]]
) -> list[Part[Service]]:
    """Add services to those of a preset, or put them in the place of those of the same kind."""
    kinds = set(map(type, services))
    return [*(part for part in preset if type(part) not in kinds), *services]


def edge(
    *,
    key: PrivateKey | None = None,
    listen: Sequence[str] | None = None,
    relays: Sequence[str] = (),
    port_mapping: bool = True,
    transports: Sequence[Part[Transport]] = TRANSPORTS,
    services: Sequence[Part[Service]] = (),
) -> HostConfig:
    """Describe a peer that sits anywhere, behind a NAT for example.

    It keeps a reservation at each of ``relays`` (multiaddrs that end in ``/p2p``), can be
    reached and reaches others through them, and turns relayed connections into direct ones.
    It has its peers test who can dial it, and with ``port_mapping`` asks its router to forward
    its ports. A stream that it opens over a relay moves to the direct connection by itself, if
    the peer can do that, too. ``services`` are added to its own, and take the place of those of
    the same kind: ``services=[DCUtR(birthday=Birthday())]`` allows birthday punching.

    Unless ``listen`` says where, it listens at a free port of each transport: with QUIC among
    the ``transports``, holes are punched by UDP as well.
    """
    own: list[Part[Service]] = [
        Identify(),
        Ping(),
        RelayClient(relays=tuple(relays)),
        DCUtR(),
        AutoNAT(),
        AutoNATv1(),
        NatProbing(),
        Hold(max_served=0),
    ]
    if port_mapping:
        own.append(PortMapping())
    own.append(Resume(direct=False))
    return HostConfig(
        key=key,
        listen=anywhere(transports) if listen is None else listen,
        transports=transports,
        security=[Noise()],
        muxers=[Yamux()],
        services=with_ones_own(own, services),
    )


def relay(
    *,
    key: PrivateKey | None = None,
    listen: Sequence[str] | None = None,
    limits: RelayServer | None = None,
    transports: Sequence[Part[Transport]] = TRANSPORTS,
    services: Sequence[Part[Service]] = (),
) -> HostConfig:
    """Describe a peer that others can dial, and that carries circuits for those they cannot.

    It dials back those who want to know if they can be dialled, and has itself tested, too. Unless
    ``listen`` says where, it listens at port 4001, of UDP too with QUIC among the ``transports``.
    ``services`` are as in ``edge``. It has room for as many connections as the limits need (R44):
    bounds of your own, by ``dataclasses.replace(…, swarm=…)``, may be too small for them.
    """
    given = [part for part in services if isinstance(part, RelayServer)]
    server = (given or [limits or RelayServer()])[-1]
    own: list[Part[Service]] = [
        Identify(),
        Ping(),
        server,
        AutoNAT(),
        AutoNATServer(),
        AutoNATv1Server(),
        Hold(),
    ]
    return HostConfig(
        key=key,
        listen=anywhere(transports, port=RELAY_PORT) if listen is None else listen,
        transports=transports,
        security=[Noise()],
        muxers=[Yamux()],
        services=with_ones_own(own, services),
        swarm=room_for(server),
    )


def minimal(
    *,
    key: PrivateKey | None = None,
    listen: Sequence[str] = (),
    transports: Sequence[Part[Transport]] = TRANSPORTS,
) -> HostConfig:
    """Describe a peer that dials, identifies itself and answers pings, and no more."""
    return HostConfig(
        key=key,
        listen=listen,
        transports=transports,
        security=[Noise()],
        muxers=[Yamux()],
        services=[Identify(), Ping()],
    )
