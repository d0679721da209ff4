"""Sites: places where machines can be, the public internet or a network behind a router.

A site gives addresses away and takes them back. A router is plugged into an outer site, and
is a site itself; so homes stand behind carriers, and carriers on the internet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import count

import trio

from p2pnet.testing.ground import Ground
from p2pnet.testing.internet import Plug, Realm, is_multicast
from p2pnet.testing.kernel import Kernel
from p2pnet.testing.links import Link, Quality
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, Side
from p2pnet.testing.nat64 import Nat64
from p2pnet.testing.packet import Packet
from p2pnet.testing.portmap.settings import PortMapConfig, Protocol
from p2pnet.testing.trace import Hop as TracedHop

INSTANT = Quality(latency=0.0)
HOME_LAN = IPv4Network("192.168.1.0/24")
"""That of every home: two that are equal must not be mixed up."""
CARRIER_LAN = IPv4Network("100.64.0.0/10")
IPV6_FIREWALL = NatKind(translates=False, filtering=Dependence.ADDRESS_AND_PORT)
"""What home routers do with IPv6 (RFC 6092)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """Which kinds of IP addresses the machines of a site get."""

    ipv4: bool = True
    ipv6: bool = False
    nat64: bool = False
    """The router translates 64:ff9b::/96, and its name server makes such addresses up."""

    def __post_init__(self) -> None:
        if self.nat64 and not self.ipv6:
            raise ValueError("NAT64 is for sites with IPv6")
        if not (self.ipv4 or self.ipv6):
            raise ValueError("a site needs IPv4 or IPv6")


IPV4_ONLY = Families()
DUAL_STACK = Families(ipv6=True)
IPV6 = Families(ipv4=False, ipv6=True)
IPV6_WITH_NAT64 = Families(ipv4=False, ipv6=True, nat64=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSetup:
    """What a router is, apart from its NAT."""

    link: Quality = field(default_factory=Quality)
    """Its way to the outer site."""
    families: Families = IPV4_ONLY
    lan: IPv4Network = HOME_LAN
    port_mapping: tuple[Protocol, ...] = ()
    """In which protocols hosts inside can ask for a port."""
    port_map_config: PortMapConfig | None = None


class Site:
    """The public internet, where every address can be had."""

    def __init__(self, realm: Realm, families: Families) -> None:
        self.realm = realm
        self.families = families
        self._numbers = count(1)
        self.gateways: tuple[str, ...] = ()
        """The routers that its machines know of, by their inside addresses."""

    def allocate(self, plug: Plug, families: Families) -> list[str]:
        """Give fresh addresses to a plug, of those families that both sides have."""
        found: list[str] = []
        if families.ipv4 and self.families.ipv4:
            found.append(self._allocate_ipv4(plug))
        if families.ipv6 and self.families.ipv6:
            found.append(self._allocate_ipv6(plug))
        for address in found:
            self.realm.assign(address, plug)
        return found

    def release(self, addresses: Sequence[str]) -> None:
        """Take addresses back."""
        for address in addresses:
            self.realm.release(address)

    def _allocate_ipv4(self, plug: Plug) -> str:
        # One network after the other, as peers trust observers only from different ones.
        number = next(self._numbers)
        return f"11.{number % 256}.{number // 256 % 256}.{1 + number // 65_536}"

    def _allocate_ipv6(self, plug: Plug) -> str:
        return f"2a00:{next(self._numbers):x}::1"


class Router(Site):
    """Stands between two realms, translates or only filters, and serves its own site."""

    def __init__(
        self, name: str, outer: Site, ground: Ground, *, nat: NatKind, setup: RouterSetup
    ) -> None:
        super().__init__(Realm(f"inside of {name}", ground), setup.families)
        chance = ground.chance(name)
        self.name = name
        self.setup = setup
        self.when_rebooted: Callable[[], None] = nothing
        self.when_renumbered: Callable[[], None] = nothing
        self.outer = outer
        self.link = Link(setup.link, chance)
        self.outside = Plug(name, outer.realm, self.link, self._from_outside)
        self.inside = Plug(name, self.realm, Link(INSTANT, chance), self._from_inside)
        self.outside_addresses = outer.allocate(self.outside, IPV4_ONLY)
        self.nat = Nat(nat, outside=self.outside_addresses, choose=chance.randrange)
        self._translates = nat.translates
        self._firewall = Nat(IPV6_FIREWALL, outside=(), choose=chance.randrange)
        self._nat64 = Nat64(self.nat) if setup.families.nat64 else None
        self._trace = ground.trace
        self._lan = setup.lan.hosts()
        self.address = str(next(self._lan))
        """Its own, inside: where port mapping is asked for."""
        self.gateways = (self.address,)
        self.realm.assign(self.address, self.inside)
        self.realm.gateway = self.inside
        self.kernel = Kernel(ground, chance, self.inside.send)
        self.kernel.addresses = [self.address]

    # ---- addresses -----------------------------------------------------------------------

    def _allocate_ipv4(self, plug: Plug) -> str:
        if self._translates:
            return str(next(self._lan))
        return self.outer.allocate(self.outside, IPV4_ONLY)[0]

    def _allocate_ipv6(self, plug: Plug) -> str:
        return self.outer.allocate(self.outside, IPV6)[0]

    def release(self, addresses: Sequence[str]) -> None:
        super().release(addresses)
        self.outer.release(addresses)

    # ---- packets -------------------------------------------------------------------------

    def _from_inside(self, packet: Packet) -> None:
        if packet.destination.host == self.address or is_multicast(packet.destination):
            self.kernel.receive(packet)
        elif self._nat64 is not None and (
            not packet.source.is_ipv6 or self._nat64.is_for(packet.destination.host)
        ):
            # Both, as a host with IPv4 may hairpin to one with IPv6.
            self._pass(packet, self._nat64.outbound(packet, trio.current_time()))
        elif not packet.source.is_ipv6:
            self._pass(packet, self.nat.outbound(packet, trio.current_time()))
        else:
            self._pass(packet, self._firewall.outbound(packet, trio.current_time()))

    def _from_outside(self, packet: Packet) -> None:
        now = trio.current_time()
        if packet.destination.is_ipv6:
            self._pass(packet, self._firewall.inbound(packet, now))
        elif self._nat64 is not None:
            self._pass(packet, self._nat64.inbound(packet, now))
        else:
            self._pass(packet, self.nat.inbound(packet, now))

    def _pass(self, packet: Packet, verdict: Hop | Dropped) -> None:
        if isinstance(verdict, Dropped):
            now = trio.current_time()
            self._trace.record(TracedHop(now, self.name, self.name, packet, verdict.reason))
        elif verdict.to is Side.INSIDE:
            self.inside.send(verdict.packet)
        else:
            self.outside.send(verdict.packet)

    # ---- faults --------------------------------------------------------------------------

    def reboot(self) -> None:
        """Lose all mappings."""
        self._note("reboots")
        self.nat.reset()
        self._firewall.reset()
        self.when_rebooted()

    def renumber(self) -> None:
        """Get another outside address, and lose all mappings."""
        self.outer.release(self.outside_addresses)
        self.outside_addresses = self.outer.allocate(self.outside, IPV4_ONLY)
        self._note(f"has the outside address {self.outside_addresses[0]} now")
        self.nat.set_outside(self.outside_addresses)
        self._firewall.reset()
        self.when_renumbered()

    def _note(self, text: str) -> None:
        self._trace.note(trio.current_time(), f"{self.name} {text}")

    @property
    def nats(self) -> tuple[Nat, ...]:
        """All of it that holds mappings."""
        return (self.nat, self._firewall)


def nothing() -> None:
    """Do nothing."""
