"""Port mapping as a service of a router: all its protocols at their ports, over one table.

For the router that has it:

    udp_ports        the UDP ports of its inside address to listen at
    groups           the multicast groups to listen at, too
    http_endpoint    the TCP endpoint to listen at
    receive          a datagram came in from the inside: what to send
    connect          a connection to ``http_endpoint`` came in from the inside
    restart          it was rebooted, and its gate reset: what to send
    renumber         it has another outside address, or none: what to send

Nothing from the outside may get here (RFC 6886, 3; RFC 6887, 18): the router sees to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.portmap.http import HttpExchange
from p2pnet.testing.portmap.leases import Gate, Lease, Leases
from p2pnet.testing.portmap.natpmp import VERSION as NAT_PMP_VERSION
from p2pnet.testing.portmap.natpmp import NatPmpServer
from p2pnet.testing.portmap.pcp import PcpServer
from p2pnet.testing.portmap.settings import PROTOCOLS, PortMapConfig, Protocol
from p2pnet.testing.portmap.upnp import SSDP_GROUP, SSDP_PORT, UpnpServer

PMP_PORT = 5351
"""Where NAT-PMP and PCP are asked."""
PMP_CLIENT_PORT = 5350
ALL_HOSTS = "224.0.0.1"
ANNOUNCED_AFTER = (0.0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 31.75, 63.75, 127.75)
"""Seconds after a restart at which ``announcements`` are due (RFC 6886, 3.2.1)."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A datagram to be sent into the inside network."""

    data: bytes
    local_port: int
    destination: Endpoint


class PortMapping:
    """Answers hosts that ask a router for port mappings."""

    def __init__(
        self,
        gate: Gate,
        *,
        inside_address: str,
        outside_address: str | None,
        now: float,
        protocols: Iterable[Protocol] = PROTOCOLS,
        config: PortMapConfig | None = None,
    ) -> None:
        config = config or PortMapConfig()
        self._leases = Leases(gate, config, outside_address=outside_address, now=now)
        spoken = frozenset(protocols)
        self._nat_pmp = NatPmpServer(self._leases, config) if "nat-pmp" in spoken else None
        self._pcp = PcpServer(self._leases, config) if "pcp" in spoken else None
        self._upnp: UpnpServer | None = None
        self.http_endpoint: Endpoint | None = None
        if "upnp" in spoken:
            self._upnp = UpnpServer(self._leases, config, inside_address=inside_address)
            self.http_endpoint = Endpoint(inside_address, config.http_port)

    @property
    def udp_ports(self) -> tuple[int, ...]:
        asks = self._nat_pmp is not None or self._pcp is not None
        return (PMP_PORT,) * asks + (SSDP_PORT,) * (self._upnp is not None)

    @property
    def groups(self) -> tuple[Endpoint, ...]:
        return () if self._upnp is None else (Endpoint(SSDP_GROUP, SSDP_PORT),)

    def leases(self, now: float) -> tuple[Lease, ...]:
        """All that is granted, the oldest first."""
        return self._leases.live(now)

    def receive(
        self, local_port: int, data: bytes, source: Endpoint, now: float
    ) -> tuple[Outgoing, ...]:
        """Take a datagram that came to a port from the inside; return the answers."""
        answers: tuple[bytes, ...] = ()
        if local_port == SSDP_PORT and self._upnp is not None:
            answers = self._upnp.search(data)
        elif local_port == PMP_PORT:
            answer = self._receive_pmp(data, source, now)
            answers = () if answer is None else (answer,)
        return tuple(Outgoing(answer, local_port, source) for answer in answers)

    def _receive_pmp(self, data: bytes, source: Endpoint, now: float) -> bytes | None:
        """Answer in the version that was asked in; in another, if only that is spoken."""
        speaks_version = data[:1] == bytes([NAT_PMP_VERSION])
        if self._nat_pmp is not None and (speaks_version or self._pcp is None):
            return self._nat_pmp.receive(data, source, now)
        return None if self._pcp is None else self._pcp.receive(data, source, now)

    def connect(self, client: Endpoint) -> HttpExchange:
        """Begin with a connection to ``http_endpoint``.

        Feed it what is received, send what it returns, close when it is over.

        Raises:
            ValueError: if the router does not speak UPnP.
        """
        if self._upnp is None:
            raise ValueError("this router does not speak UPnP")
        return self._upnp.connect(client)

    def restart(self, now: float) -> tuple[Outgoing, ...]:
        """Forget all leases after a reboot; return what is due at once.

        Send ``announcements`` again at the times of ``ANNOUNCED_AFTER``.
        """
        self._leases.forget(now)
        return self.notifications() + self.announcements(now)

    def renumber(self, outside_address: str | None, now: float) -> tuple[Outgoing, ...]:
        """Take another outside address, or none; the leases are lost, as in the gate."""
        self._leases.renumber(outside_address, now)
        return self.announcements(now)

    def announcements(self, now: float) -> tuple[Outgoing, ...]:
        """Make what NAT-PMP and PCP tell all hosts after a reboot or with a new address."""
        packets = [server.announcement(now) for server in (self._nat_pmp, self._pcp) if server]
        group = Endpoint(ALL_HOSTS, PMP_CLIENT_PORT)
        return tuple(Outgoing(packet, PMP_PORT, group) for packet in packets)

    def notifications(self) -> tuple[Outgoing, ...]:
        """Make what UPnP tells all hosts when the router comes up."""
        if self._upnp is None:
            return ()
        group = Endpoint(SSDP_GROUP, SSDP_PORT)
        return tuple(Outgoing(data, SSDP_PORT, group) for data in self._upnp.notifications())
