"""The mappings a router has granted, whichever of its protocols was asked.

Theory of operation: the gate (a ``Nat``) forwards the ports. What it does not know stands
here: who asked by which protocol, under which nonce and description. One lease holds one
outside endpoint of one transport.

    NAT-PMP, PCP: one lease an inside endpoint; asked again, the same one is renewed
    UPnP:         as many as there are outside ports
    IPv6 (PCP):   the outside endpoint is the inside one, opened in the firewall

The gate has the last word: a lease whose forward is gone from it, because it was reset or
because the time is up, is gone from here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol as Seam

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import TransportName
from p2pnet.testing.portmap.settings import PortMapConfig, Protocol


class Forward(Seam):
    """A mapping of the gate, as far as it matters here."""

    @property
    def transport(self) -> TransportName: ...

    @property
    def inside(self) -> Endpoint: ...

    @property
    def outside(self) -> Endpoint: ...


class Gate(Seam):
    """What forwards the ports: ``p2pnet.testing.nat.Nat`` fits."""

    def map_port(
        self,
        transport: TransportName,
        inside: Endpoint,
        outside_port: int,
        *,
        seconds: float | None,
        now: float,
    ) -> Endpoint | None:
        """Forward an outside port, or keep doing so; None if another has it or there is no room."""
        ...

    def unmap_port(
        self, transport: TransportName, outside_port: int, *, inside: Endpoint | None = None
    ) -> bool: ...

    def mappings(self, now: float) -> Sequence[Forward]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An outside endpoint that is forwarded to an inside one."""

    transport: TransportName
    inside: Endpoint
    outside: Endpoint
    expires: float | None
    """None: never."""
    protocol: Protocol
    nonce: bytes = b""
    description: str = ""

    def seconds_left(self, now: float) -> int:
        """Whole seconds until it ends, rounded up; 0 if it never does."""
        return 0 if self.expires is None else max(1, int(-(-(self.expires - now) // 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client asks for."""

    transport: TransportName
    inside: Endpoint
    port: int
    """The outside port it would like; 0 leaves it to the router."""
    exact: bool = False
    """No other port will do."""
    seconds: int | None
    """None: for ever."""
    protocol: Protocol
    nonce: bytes = b""
    description: str = ""


class Refusal(Enum):
    """Why there is no lease."""

    NOT_AUTHORIZED = "not authorized"
    NO_NETWORK = "no outside address"
    TAKEN = "the port is taken"
    NO_PORT = "no free port was found"
    FULL = "too many leases"
    QUOTA = "too many leases of this host"


class Leases:
    """All leases of a router, its outside address and its epoch."""

    def __init__(
        self, gate: Gate, config: PortMapConfig, *, outside_address: str | None, now: float
    ) -> None:
        self._gate = gate
        self._config = config
        self._outside = outside_address
        self._leases: dict[tuple[TransportName, Endpoint], Lease] = {}
        self._epoch_began = now

    @property
    def outside_address(self) -> str | None:
        """What the router says its outside address is; None while it has none."""
        if self._outside is None:
            return None
        return self._config.reported_address or self._outside

    def address_of(self, lease: Lease) -> str:
        """Return the outside address that a client is told of."""
        lies = None if lease.inside.is_ipv6 else self._config.reported_address
        return lies or lease.outside.host

    def epoch(self, now: float) -> int:
        """Seconds since the table of leases began empty."""
        return max(0, int(now - self._epoch_began)) & 0xFFFF_FFFF

    def forget(self, now: float) -> None:
        """Begin anew after a reboot; the gate is reset by who owns it."""
        self._leases.clear()
        if not self._config.keeps_epoch:
            self._epoch_began = now

    def renumber(self, outside_address: str | None, now: float) -> None:
        """Take another outside address, or none; no lease of the old one is left."""
        self._outside = outside_address
        self.forget(now)

    def live(self, now: float) -> tuple[Lease, ...]:
        """All leases that stand, the oldest first."""
        forwards = {
            (forward.transport, forward.outside, forward.inside)
            for forward in self._gate.mappings(now)
        }
        for key, lease in list(self._leases.items()):
            ended = lease.expires is not None and lease.expires <= now
            if ended or (*key, lease.inside) not in forwards:
                del self._leases[key]
        return tuple(self._leases.values())

    def at(self, transport: TransportName, outside_port: int, now: float) -> Lease | None:
        """Return the lease of an outside port; of IPv4, as IPv6 has no ports to share."""
        for lease in self.live(now):
            found = lease.transport == transport and lease.outside.port == outside_port
            if found and not lease.inside.is_ipv6:
                return lease
        return None

    def of(self, transport: TransportName, inside: Endpoint, now: float) -> Lease | None:
        """Return the oldest lease of an inside endpoint."""
        for lease in self.live(now):
            if lease.transport == transport and lease.inside == inside:
                return lease
        return None

    def release(self, lease: Lease) -> None:
        del self._leases[lease.transport, lease.outside]
        self._unmap(lease)

    def grant_port(self, wish: Wish, now: float) -> Lease | Refusal:
        """Grant an outside port, as UPnP wants it: what the same host had there is replaced."""
        refusal = self._refuses(wish)
        if refusal is not None:
            return refusal
        holder = self.at(wish.transport, wish.port, now)
        if holder is not None and holder.inside.host == wish.inside.host:
            del self._leases[holder.transport, holder.outside]
            if holder.inside != wish.inside:
                self._unmap(holder)
        return self._place(wish, now)

    def grant_endpoint(self, wish: Wish, now: float) -> Lease | Refusal:
        """Grant a port for an inside endpoint, as NAT-PMP and PCP want it: one and the same.

        The lease of another protocol is shared: its life may grow, its owner stays.
        """
        refusal = self._refuses(wish)
        if refusal is not None:
            return refusal
        held = self.of(wish.transport, wish.inside, now)
        if held is None:
            return self._place(wish, now)
        if wish.exact and wish.port not in (0, held.outside.port):
            return Refusal.TAKEN
        return self._renew(held, wish, now)

    def _refuses(self, wish: Wish) -> Refusal | None:
        if self._outside is None and not wish.inside.is_ipv6:
            return Refusal.NO_NETWORK
        return Refusal.NOT_AUTHORIZED if self._config.refuses else None

    def _renew(self, held: Lease, wish: Wish, now: float) -> Lease | Refusal:
        expires = None if wish.seconds is None else now + wish.seconds
        if held.protocol != wish.protocol:
            expires = later(held.expires, expires)
        outside = self._map(held.transport, held.inside, held.outside.port, expires, now)
        if outside != held.outside:
            return Refusal.NO_PORT
        renewed = replace(held, expires=expires)
        self._leases[held.transport, held.outside] = renewed
        return renewed

    def _place(self, wish: Wish, now: float) -> Lease | Refusal:
        refusal = self._has_no_room(wish, now)
        if refusal is not None:
            return refusal
        if wish.exact and wish.port and not self._may_give(wish.port, wish):
            return Refusal.NOT_AUTHORIZED
        expires = None if wish.seconds is None else now + wish.seconds
        for port in self._candidates(wish):
            if not self._is_free(port, wish):
                continue
            outside = self._map(wish.transport, wish.inside, port, expires, now)
            if outside is not None:
                lease = Lease(
                    transport=wish.transport,
                    inside=wish.inside,
                    outside=outside,
                    expires=expires,
                    protocol=wish.protocol,
                    nonce=wish.nonce,
                    description=wish.description,
                )
                self._leases[lease.transport, outside] = lease
                return lease
        return Refusal.TAKEN if wish.exact and wish.port else Refusal.NO_PORT

    def _has_no_room(self, wish: Wish, now: float) -> Refusal | None:
        live = self.live(now)
        if len(live) >= self._config.max_leases:
            return Refusal.FULL
        of_host = sum(lease.inside.host == wish.inside.host for lease in live)
        return Refusal.QUOTA if of_host >= self._config.max_leases_a_host else None

    def _may_give(self, port: int, wish: Wish) -> bool:
        return wish.inside.is_ipv6 or self._config.first_port <= port <= self._config.last_port

    def _candidates(self, wish: Wish) -> Iterator[int]:
        if wish.exact and wish.port:
            yield wish.port
            return
        first = self._config.first_port
        span = self._config.last_port - first + 1
        wanted = [port for port in (wish.port, wish.inside.port) if port]
        wanted = [port for port in wanted if self._may_give(port, wish)]
        offset = wanted[0] - first if wanted else 0
        # A firewall can give none but the port inside, so that is tried next.
        ports = wanted + [first + (offset + step) % span for step in range(min(span, self._tries))]
        yield from tuple(dict.fromkeys(ports))[: self._tries]

    @property
    def _tries(self) -> int:
        return self._config.max_port_tries

    def _is_free(self, port: int, wish: Wish) -> bool:
        if wish.inside.is_ipv6:
            return True
        for lease in self._leases.values():
            if lease.outside.port != port or lease.inside.is_ipv6:
                continue
            if lease.transport == wish.transport:
                return False
            # A host with a UDP port may want the same of TCP: no other host gets it (RFC 6886).
            if wish.protocol != "upnp" and lease.inside.host != wish.inside.host:
                return False
        return True

    def _map(
        self,
        transport: TransportName,
        inside: Endpoint,
        port: int,
        expires: float | None,
        now: float,
    ) -> Endpoint | None:
        seconds = None if expires is None else expires - now
        outside = self._gate.map_port(transport, inside, port, seconds=seconds, now=now)
        return outside if outside is not None and outside.port == port else None

    def _unmap(self, lease: Lease) -> None:
        self._gate.unmap_port(lease.transport, lease.outside.port, inside=lease.inside)


def later(one: float | None, other: float | None) -> float | None:
    """Return the later of two times, where None is never."""
    return None if one is None or other is None else max(one, other)
