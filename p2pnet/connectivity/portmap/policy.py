"""Which ports are to be mapped, and which router is asked for each. Pure. Rules PM19, PM20."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from p2pnet.connectivity.portmap.asking import Place, TransportName
from p2pnet.core.addresses import Endpoint, Multiaddr, components, join, without_peer

PRIVATE_NETWORKS = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
"""Where routers are that translate; the last is of carriers."""
UDP_PROTOCOLS = ("quic-v1", "quic", "webrtc-direct")


@dataclass(frozen=True, slots=True)
class Target:
    """A port of this host, and all the addresses that are at it, without ``/p2p``."""

    transport: TransportName
    inside: Endpoint
    addresses: tuple[Multiaddr, ...]


def plan(
    addresses: Iterable[Multiaddr],
    interfaces: Sequence[str],
    gateways: Sequence[str],
    *,
    max_ports: int,
) -> dict[Place, tuple[Target, ...]]:
    """Decide which router is asked for which ports.

    ``addresses`` are those of this host that others are told of, ``interfaces`` its own IPs.
    """
    found: dict[tuple[TransportName, Endpoint], list[Multiaddr]] = {}
    for address in dict.fromkeys(map(without_peer, addresses)):
        port = port_of(address)
        if port is not None and port[1].host in interfaces and network_of(port[1].host):
            found.setdefault(port, []).append(address)
    targets = [Target(*port, tuple(listed)) for port, listed in sorted(found.items())]
    planned: dict[Place, tuple[Target, ...]] = {}
    taken: set[str] = set()
    for gateway in gateways:
        own = nearest(gateway, [host for host in hosts_of(targets) if host not in taken])
        if own is not None:
            taken.add(own)
            own_targets = tuple(target for target in targets if target.inside.host == own)
            planned[Place(gateway, own)] = own_targets[:max_ports]
            max_ports = max(0, max_ports - len(own_targets))
    return planned


def hosts_of(targets: Iterable[Target]) -> Iterable[str]:
    return dict.fromkeys(target.inside.host for target in targets)


def port_of(address: Multiaddr) -> tuple[TransportName, Endpoint] | None:
    """Return the port that an address is at; None for what is no direct IPv4 address."""
    match components(address):
        case (("ip4", host), ("tcp", port), *rest) if not is_circuit(rest):
            return "tcp", Endpoint(host, int(port))
        case (("ip4", host), ("udp", port), (name, _), *rest) if (
            name in UDP_PROTOCOLS and not is_circuit(rest)
        ):
            return "udp", Endpoint(host, int(port))
        case _:
            return None


def is_circuit(parts: Iterable[tuple[str, str]]) -> bool:
    return any(name == "p2p-circuit" for name, _ in parts)


def outside_address(address: Multiaddr, outside: Endpoint) -> Multiaddr:
    """Return what becomes of an address behind a port that is forwarded to it."""
    (_, _), (transport, _), *rest = components(address)
    return join([("ip4", outside.host), (transport, str(outside.port)), *rest])


def nearest(gateway: str, hosts: Iterable[str]) -> str | None:
    """Return the host that shares most with a gateway's address: it is in its network."""
    network = network_of(gateway)
    if network is None:
        return None
    near = [host for host in hosts if IPv4Address(host) in network and host != gateway]
    return min(near, key=lambda host: distance(gateway, host), default=None)


def distance(one: str, other: str) -> int:
    return (int(IPv4Address(one)) ^ int(IPv4Address(other))).bit_length()


def network_of(host: str) -> IPv4Network | None:
    """Return the private block that an address is in."""
    try:
        ip = IPv4Address(host)
    except AddressValueError:
        return None
    return next((network for network in PRIVATE_NETWORKS if ip in network), None)


def may_be_asked(host: str, place: Place) -> bool:
    """Tell whether what answers to a search is the router, or can be one in our network (PM13)."""
    if host == place.gateway:
        return True
    network = network_of(host)
    return network is not None and network == network_of(place.own) and host != place.own
