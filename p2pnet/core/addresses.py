"""Everything asked of a multiaddr. Rules: specs/addresses.md.

The one door to py-multiaddr. That package parses lazily and accepts truncated values, so
nothing becomes a ``Multiaddr`` here before it was taken apart and put together again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Literal

from multiaddr import Multiaddr
from multiaddr.exceptions import StringParseError

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError

__all__ = [
    "Circuit",
    "Endpoint",
    "Multiaddr",
    "Place",
    "Scope",
    "circuit_address",
    "circuit_of",
    "components",
    "decode_untrusted",
    "dns_name",
    "encode",
    "from_endpoint",
    "ip_of",
    "is_relayed",
    "parse",
    "peer_id_of",
    "place_of",
    "quic_address",
    "quic_endpoint",
    "scope",
    "scope_of_ip",
    "tcp_endpoint",
    "with_host",
    "with_peer",
    "without_peer",
]

NAME = "multiaddr"
MAX_ADDRESS_BYTES = 1024
MAX_COMPONENTS = 16
KEPT = 1024
"""Answers remembered of one question: of most addresses the same is asked again and again."""
IP4_CODE, IP6_CODE, TCP_CODE = b"\x04", b"\x29", b"\x06"
DNS_KINDS = frozenset({"dns", "dns4", "dns6", "dnsaddr"})

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An IP address in text form and a port."""

    host: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_unspecified(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A port of an IP address, whatever is spoken there: what a NAT or a router knows of."""

    protocol: Literal["tcp", "udp"]
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Circuit:
    """A relayed address, taken apart: where the relay is, who it is, and who is behind it."""

    relay_address: Multiaddr | None
    relay: PeerId
    target: PeerId | None


class Scope(Enum):
    """From where an IP address or a name can be dialled."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"
    UNROUTABLE = "unroutable"


@lru_cache(maxsize=KEPT)
def parse(text: str) -> Multiaddr:
    """Read an address from text.

    Raises:
        ValueError: if it is not a multiaddr, with what is wrong.
    """
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not a multiaddr: it must begin with '/'")
    if len(text) > 4 * MAX_ADDRESS_BYTES:
        raise ValueError(f"a multiaddr of {len(text)} characters is too long")
    try:
        address = rebuilt(Multiaddr(text))
    except StringParseError as error:  # says the text twice, and less plainly
        raise ValueError(f"{text!r} is not a multiaddr: {error.message}") from None
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{text!r} is not a multiaddr: {error}") from None
    if len(address.to_bytes()) > MAX_ADDRESS_BYTES:
        raise ValueError(f"a multiaddr of {len(address.to_bytes())} bytes is too long")
    return address


def decode_untrusted(data: bytes) -> Multiaddr:
    """Read an address from the bytes of a remote.

    Raises:
        ProtocolError: if it is empty, too long, malformed or of an unknown protocol.
    """
    if not 0 < len(data) <= MAX_ADDRESS_BYTES:  # A1
        raise ProtocolError(NAME, f"address of {len(data)} bytes")
    try:
        address = rebuilt_of(bytes(data))
    except (ValueError, LookupError, TypeError, ArithmeticError):
        raise ProtocolError(NAME, "malformed address") from None
    if address.to_bytes() != data:  # A2: a truncated value is read as zeros
        raise ProtocolError(NAME, "malformed address")
    return address


@lru_cache(maxsize=KEPT)
def rebuilt_of(data: bytes) -> Multiaddr:
    return rebuilt(Multiaddr(data))


def decode_many_untrusted(addresses: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    """Read those addresses that can be read; one bad address does not spoil the others (A3)."""
    good = []
    for data in addresses:
        try:
            good.append(decode_untrusted(data))
        except ProtocolError:
            continue
    return tuple(dict.fromkeys(good))


def rebuilt(address: Multiaddr) -> Multiaddr:
    """Take an address apart and put it together again, so that all of it was looked at once.

    Raises:
        ValueError: if it is empty or too long, or holds a peer id that is none (A5).
    """
    parts = components(address)
    if not 0 < len(parts) <= MAX_COMPONENTS:  # A1
        raise ValueError(f"an address of {len(parts)} components")
    for name, value in parts:
        if name == "p2p":
            PeerId.parse(value)
    return join(parts)


def encode(address: Multiaddr) -> bytes:
    return address.to_bytes()


@lru_cache(maxsize=4 * KEPT)
def components(address: Multiaddr) -> tuple[tuple[str, str], ...]:
    """Take an address apart into (protocol name, value or empty text)."""
    return tuple((protocol.name, value or "") for protocol, value in address.items())


def join(parts: Iterable[tuple[str, str]]) -> Multiaddr:
    return _joined(tuple(parts))


@lru_cache(maxsize=KEPT)
def _joined(parts: tuple[tuple[str, str], ...]) -> Multiaddr:
    text = "".join(f"/{name}/{value.lstrip('/')}" if value else f"/{name}" for name, value in parts)
    return Multiaddr(text)


@lru_cache(maxsize=KEPT)
def peer_id_of(address: Multiaddr) -> PeerId | None:
    """Return the peer an address ends at: its last component, if that is ``/p2p``."""
    name, value = components(address)[-1]
    return PeerId.parse(value) if name == "p2p" else None


@lru_cache(maxsize=KEPT)
def with_peer(address: Multiaddr, peer_id: PeerId) -> Multiaddr:
    """Put ``/p2p/<peer_id>`` at the end, unless it is there already."""
    if peer_id_of(address) == peer_id:
        return address
    return address.encapsulate(Multiaddr(f"/p2p/{peer_id}"))


def without_peer(address: Multiaddr) -> Multiaddr:
    """Take the last ``/p2p`` off; an address of nothing else is returned as it is."""
    parts = components(address)
    if len(parts) < 2 or parts[-1][0] != "p2p":
        return address
    return join(parts[:-1])


@lru_cache(maxsize=KEPT)
def is_relayed(address: Multiaddr) -> bool:
    return any(name == "p2p-circuit" for name, _ in components(address))


def circuit_of(address: Multiaddr) -> Circuit:
    """Take a relayed address apart (A6).

    Raises:
        ValueError: if it is not ``[<relay address>]/p2p/<relay>/p2p-circuit[/p2p/<target>]``.
    """
    parts = components(address)
    names = [name for name, _ in parts]
    if names.count("p2p-circuit") != 1:
        raise ValueError(f"{address} does not hold exactly one /p2p-circuit")
    at = names.index("p2p-circuit")
    if at == 0 or names[at - 1] != "p2p":
        raise ValueError(f"{address} does not name its relay by /p2p/<peer id>")
    after = parts[at + 1 :]
    if len(after) > 1 or (after and after[0][0] != "p2p"):
        raise ValueError(f"{address} holds more than a peer id behind /p2p-circuit")
    return Circuit(
        relay_address=join(parts[: at - 1]) if at > 1 else None,
        relay=PeerId.parse(parts[at - 1][1]),
        target=PeerId.parse(after[0][1]) if after else None,
    )


@lru_cache(maxsize=KEPT)
def circuit_address(relay_address: Multiaddr, target: PeerId | None = None) -> Multiaddr:
    """Make a relayed address from the full address of a relay, ``/p2p/<relay>`` included."""
    tail = "/p2p-circuit" + (f"/p2p/{target}" if target else "")
    return relay_address.encapsulate(Multiaddr(tail))


@lru_cache(maxsize=KEPT)
def from_endpoint(endpoint: Endpoint) -> Multiaddr:
    return Multiaddr(_ip_bytes(endpoint.host) + TCP_CODE + endpoint.port.to_bytes(2))


@lru_cache(maxsize=KEPT)
def ip_from_text(text: str) -> IpAddress:
    """Read an IP, of which there are few even where ports are many. Raises ValueError."""
    return ipaddress.ip_address(text)


def _ip_bytes(host: str) -> bytes:
    """Encode an IP by hand: by its text it takes ten times as long, for each connection."""
    return (IP6_CODE if ":" in host else IP4_CODE) + ip_from_text(host).packed


@lru_cache(maxsize=KEPT)
def tcp_endpoint(address: Multiaddr) -> Endpoint | None:
    """Return the endpoint of a plain TCP address with an IP; None for every other kind."""
    parts = components(address)
    match [name for name, _ in parts]:
        case ["ip4" | "ip6", "tcp"] | ["ip4" | "ip6", "tcp", "p2p"]:
            return Endpoint(parts[0][1], int(parts[1][1]))
        case _:
            return None


@lru_cache(maxsize=KEPT)
def place_of(address: Multiaddr) -> Place | None:
    """Return where a direct address with an IP leads; None for names, and for relayed ones."""
    match components(address):
        case (("ip4" | "ip6", host), ("tcp", port), *_) if not is_relayed(address):
            return Place("tcp", Endpoint(host, int(port)))
        case (("ip4" | "ip6", host), ("udp", port), *_) if not is_relayed(address):
            return Place("udp", Endpoint(host, int(port)))
        case _:
            return None


@lru_cache(maxsize=KEPT)
def quic_endpoint(address: Multiaddr) -> Endpoint | None:
    """Return the endpoint of an address of QUIC with an IP; None for every other kind."""
    parts = components(address)
    match [name for name, _ in parts]:
        case ["ip4" | "ip6", "udp", "quic-v1"] | ["ip4" | "ip6", "udp", "quic-v1", "p2p"]:
            return Endpoint(parts[0][1], int(parts[1][1]))
        case _:
            return None


@lru_cache(maxsize=KEPT)
def quic_address(endpoint: Endpoint) -> Multiaddr:
    kind = "ip6" if endpoint.is_ipv6 else "ip4"
    return Multiaddr(f"/{kind}/{endpoint.host}/udp/{endpoint.port}/quic-v1")


def dns_name(address: Multiaddr) -> tuple[str, str] | None:
    """Return (kind, name) of an address that begins with a DNS name."""
    kind, name = components(address)[0]
    return (kind, name) if kind in DNS_KINDS else None


def with_host(address: Multiaddr, ip: str) -> Multiaddr:
    """Replace the first component (a name, or the unspecified address) by an IP address."""
    kind = "ip6" if ":" in ip else "ip4"
    return join([(kind, ip), *components(address)[1:]])


@lru_cache(maxsize=4 * KEPT)
def at_endpoint(address: Multiaddr, endpoint: Endpoint) -> Multiaddr:
    """Put another IP and port into a direct address with an IP; what is behind them stays."""
    (transport, _), *behind = components(address)[1:]
    kind = "ip6" if endpoint.is_ipv6 else "ip4"
    return join([(kind, endpoint.host), (transport, str(endpoint.port)), *behind])


@lru_cache(maxsize=KEPT)
def ip_of(address: Multiaddr) -> IpAddress | None:
    kind, value = components(address)[0]
    return ip_from_text(value) if kind in ("ip4", "ip6") else None


@lru_cache(maxsize=KEPT)
def scope(address: Multiaddr) -> Scope:
    """Tell from where the first hop of an address can be dialled."""
    kind, value = components(address)[0]
    if kind in ("ip4", "ip6"):
        return scope_of_ip(ip_from_text(value))
    if kind in DNS_KINDS:
        return scope_of_name(value)
    return Scope.UNROUTABLE


def scope_of_name(name: str) -> Scope:
    """Tell the scope of a DNS name by the reserved names of RFC 6761."""
    name = name.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return Scope.LOOPBACK
    if any(name == local or name.endswith("." + local) for local in LOCAL_NAMES):
        return Scope.PRIVATE
    return Scope.PUBLIC


def scope_of_ip(ip: IpAddress) -> Scope:
    """Tell the scope of an IP address, as go-multiaddr's ``net/private.go`` draws the lines."""
    ip = unwrapped(ip)
    if ip.is_loopback:
        return Scope.LOOPBACK
    if any(ip in net for net in PRIVATE):
        return Scope.PRIVATE
    if any(ip in net for net in UNROUTABLE):
        return Scope.UNROUTABLE
    if ip.version == 6 and not any(ip in net for net in PUBLIC_6):
        return Scope.UNROUTABLE
    return Scope.PUBLIC


def unwrapped(ip: IpAddress) -> IpAddress:
    """Return the IPv4 address inside a mapped, 6to4, Teredo or NAT64 one.

    Without this, a remote could smuggle a private target in IPv6 clothing (A4).
    """
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip


LOCAL_NAMES = (
    "in-addr.arpa",
    "ip6.arpa",
    "invalid",
    "home.arpa",
    "local",
    "test",
    "internal",
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
PRIVATE = tuple(
    ipaddress.ip_network(net)
    for net in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)
UNROUTABLE = tuple(
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8",
        "192.0.0.0/26",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "ff00::/8",
        "2001:db8::/32",
    )
)
PUBLIC_6 = tuple(ipaddress.ip_network(net) for net in ("2000::/3", "64:ff9b:1::/48"))
