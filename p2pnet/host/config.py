"""HostConfig: the recipe of a host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.events import Reachability
from p2pnet.interfaces import Muxer, Part, Security, Service, Transport
from p2pnet.security.pnet import PreSharedKey
from p2pnet.swarm.config import SwarmConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """What a host is made of. The order of a sequence is the order of preference."""

    key: PrivateKey | None = field(default=None, repr=False)
    """Who the host is; None makes a new Ed25519 key."""
    listen: Sequence[str] = ()
    """Multiaddrs to listen at; none for a host that only dials."""
    announce: Sequence[str] = ()
    """Further addresses at which others can dial this host: forwarded ports, DNS names."""
    transports: Sequence[Part[Transport]] = ()
    security: Sequence[Part[Security]] = ()
    muxers: Sequence[Part[Muxer]] = ()
    services: Sequence[Part[Service]] = ()
    """Started in this order."""
    swarm: SwarmConfig = field(default_factory=SwarmConfig)
    private_network: PreSharedKey | None = field(default=None, repr=False)
    """What all peers of this host know: it speaks to nobody else. Needs ``p2pnet[psk]``."""
    reachability: Reachability = Reachability.UNKNOWN
    """What is known beforehand. PUBLIC stops the advertising of relayed addresses."""
    confirming_observers: int = 2
    """An observed address is advertised once so many peers, in different networks, saw it."""
    interface_interval: float = 30.0
    """Seconds between looks at the addresses of this machine, if the system tells of no change."""
    env: Env | None = field(default=None, repr=False)
    """The outside world; None is the real one."""

    def __post_init__(self) -> None:
        if not self.transports or not self.security or not self.muxers:
            raise ValueError("a host needs at least one transport, one security and one muxer")
        if self.confirming_observers < 1 or self.interface_interval <= 0:
            raise ValueError("confirming_observers and interface_interval must be positive")
