"""Ask in each protocol whether a router speaks it."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnet.connectivity.portmap.asking import Place, ProtocolName, RouterClient
from p2pnet.connectivity.portmap.nat_pmp.client import NatPmpClient
from p2pnet.connectivity.portmap.pcp.client import PcpClient
from p2pnet.connectivity.portmap.schedule import Jitter
from p2pnet.connectivity.portmap.upnp.finding import find
from p2pnet.core.env import Network


@dataclass(frozen=True, slots=True)
class Spoken:
    """A router speaks a protocol, by this client."""

    client: RouterClient
    outside_address: str | None
    """What it says its outside address is; None if it has none, or does not tell."""
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Speaking:
    """What it takes to speak to routers."""

    network: Network
    jitter: Jitter
    secret: bytes

    async def look_for(self, protocol: ProtocolName, place: Place) -> Spoken:
        """Find the router of a place.

        Raises:
            NotSpoken, Unanswered, Refused, ProtocolError, OSError: if it cannot be used.
        """
        match protocol:
            case "pcp":
                return await self._pcp(place)
            case "nat-pmp":
                return await self._nat_pmp(place)
            case "upnp":
                upnp, address = await find(self.network, place, jitter=self.jitter)
                return Spoken(upnp, address)

    async def _pcp(self, place: Place) -> Spoken:
        client = PcpClient(self.network, place, secret=self.secret, jitter=self.jitter)
        announced = await client.announce()
        return Spoken(client, None, None if announced is None else announced.epoch)

    async def _nat_pmp(self, place: Place) -> Spoken:
        client = NatPmpClient(self.network, place)
        told = await client.outside_address()
        return Spoken(client, told.address, told.epoch)
