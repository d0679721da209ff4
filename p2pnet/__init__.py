"""A modular peer-to-peer networking stack on trio, wire-compatible with libp2p.

Begin with `open_host` and `presets`. What is public can be imported from here and from
`p2pnet.presets`, `p2pnet.events`, `p2pnet.errors` and `p2pnet.interfaces`, and nothing else is.
"""

import logging
from typing import TYPE_CHECKING

from p2pnet.core.lazy import lazily

if TYPE_CHECKING:
    from p2pnet import errors, events, interfaces, presets
    from p2pnet.connectivity.portmap import PortMapping
    from p2pnet.core.addresses import Multiaddr
    from p2pnet.core.env import Env
    from p2pnet.core.keys import PrivateKey, PublicKey
    from p2pnet.core.peer_id import PeerId
    from p2pnet.core.watch import Watch
    from p2pnet.events import Reachability
    from p2pnet.host.config import HostConfig
    from p2pnet.host.host import Host
    from p2pnet.host.opening import open_host
    from p2pnet.interfaces import Connection, Stream
    from p2pnet.muxers.yamux import Yamux
    from p2pnet.protocols.autonat import AutoNAT, AutoNATServer
    from p2pnet.protocols.autonat_v1 import AutoNATv1, AutoNATv1Server
    from p2pnet.protocols.dcutr import DCUtR
    from p2pnet.protocols.identify import Identify
    from p2pnet.protocols.perf import Perf
    from p2pnet.protocols.ping import Ping
    from p2pnet.protocols.relay import RelayClient, RelayServer
    from p2pnet.protocols.resume import Resume
    from p2pnet.security.noise import Noise
    from p2pnet.security.pnet import PreSharedKey
    from p2pnet.security.tls import TLS
    from p2pnet.swarm.config import SwarmConfig
    from p2pnet.transports.quic import QUIC
    from p2pnet.transports.tcp import TCP
    from p2pnet.transports.websocket import WebSocket

HOMES = {
    "PortMapping": "p2pnet.connectivity.portmap",
    "AutoNATv1Server": "p2pnet.protocols.autonat_v1",
    "AutoNATv1": "p2pnet.protocols.autonat_v1",
    "AutoNATServer": "p2pnet.protocols.autonat",
    "AutoNAT": "p2pnet.protocols.autonat",
    "QUIC": "p2pnet.transports.quic",
    "TCP": "p2pnet.transports.tcp",
    "TLS": "p2pnet.security.tls",
    "Connection": "p2pnet.interfaces",
    "DCUtR": "p2pnet.protocols.dcutr",
    "Env": "p2pnet.core.env",
    "Host": "p2pnet.host.host",
    "HostConfig": "p2pnet.host.config",
    "Identify": "p2pnet.protocols.identify",
    "Multiaddr": "p2pnet.core.addresses",
    "Noise": "p2pnet.security.noise",
    "PeerId": "p2pnet.core.peer_id",
    "Perf": "p2pnet.protocols.perf",
    "Ping": "p2pnet.protocols.ping",
    "PreSharedKey": "p2pnet.security.pnet",
    "PrivateKey": "p2pnet.core.keys",
    "PublicKey": "p2pnet.core.keys",
    "Reachability": "p2pnet.events",
    "RelayClient": "p2pnet.protocols.relay",
    "RelayServer": "p2pnet.protocols.relay",
    "Resume": "p2pnet.protocols.resume",
    "Stream": "p2pnet.interfaces",
    "SwarmConfig": "p2pnet.swarm.config",
    "Watch": "p2pnet.core.watch",
    "WebSocket": "p2pnet.transports.websocket",
    "Yamux": "p2pnet.muxers.yamux",
    "errors": "p2pnet.errors",
    "events": "p2pnet.events",
    "interfaces": "p2pnet.interfaces",
    "open_host": "p2pnet.host.opening",
    "presets": "p2pnet.presets",
}

__all__ = [
    "QUIC",
    "TCP",
    "TLS",
    "AutoNAT",
    "AutoNATServer",
    "AutoNATv1",
    "AutoNATv1Server",
    "Connection",
    "DCUtR",
    "Env",
    "Host",
    "HostConfig",
    "Identify",
    "Multiaddr",
    "Noise",
    "PeerId",
    "Perf",
    "Ping",
    "PortMapping",
    "PreSharedKey",
    "PrivateKey",
    "PublicKey",
    "Reachability",
    "RelayClient",
    "RelayServer",
    "Resume",
    "Stream",
    "SwarmConfig",
    "Watch",
    "WebSocket",
    "Yamux",
    "errors",
    "events",
    "interfaces",
    "open_host",
    "presets",
]

if not TYPE_CHECKING:  # Who checks types is told of each name above.
    __getattr__ = lazily(__name__, HOMES)

# A library does not print: who wants its log configures the logger "p2pnet".
logging.getLogger("p2pnet").addHandler(logging.NullHandler())
