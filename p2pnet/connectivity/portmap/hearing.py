"""Hear what routers tell all hosts after a restart, or with a new outside address. Rule PM10."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from p2pnet.connectivity.portmap.asking import NotSpoken, ProtocolName
from p2pnet.connectivity.portmap.nat_pmp import messages as nat_pmp
from p2pnet.connectivity.portmap.pcp import messages as pcp
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network
from p2pnet.core.tasks import EXPECTED, close_at_once
from p2pnet.errors import ProtocolError

logger = logging.getLogger("p2pnet.portmap")

ALL_HOSTS = Endpoint("224.0.0.1", 5350)
RETRY_SECONDS = 60.0

Heard = Callable[[str, ProtocolName, int], None]
"""Told of the router, the protocol, and the router's epoch."""


async def hear_announcements(network: Network, heard: Heard) -> None:
    """Tell what is announced, until cancelled; where that cannot be heard, do without."""
    while True:
        try:
            await hear(network, heard)
        except EXPECTED as error:
            logger.debug("announcements of routers are not heard: %s", error)
        await trio.sleep(RETRY_SECONDS)


async def hear(network: Network, heard: Heard) -> None:
    sock = await network.bind_udp(ALL_HOSTS)
    try:
        while True:
            data, source = await sock.receive()
            told = read_announcement(data)
            if told is not None and source.port == nat_pmp.PORT:
                heard(source.host, *told)
    finally:
        await close_at_once(sock)


def read_announcement(data: bytes) -> tuple[ProtocolName, int] | None:
    """Return the protocol and the epoch; None for what is no announcement."""
    try:
        if data[:1] == bytes([pcp.VERSION]):
            announced = pcp.decode_untrusted(data)
            return ("pcp", announced.epoch) if isinstance(announced, pcp.Announced) else None
        told = nat_pmp.decode_untrusted(data)
        return ("nat-pmp", told.epoch) if isinstance(told, nat_pmp.AddressAnswer) else None
    except (NotSpoken, ProtocolError):
        return None
