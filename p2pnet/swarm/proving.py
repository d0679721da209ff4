"""Asks connections whether they still live, once the network may be another. Rule KA12."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from p2pnet.core.addresses import ip_of
from p2pnet.core.env import Network
from p2pnet.swarm.connection import LiveConnection

logger = logging.getLogger("p2pnet.swarm")

PATIENCE = 5.0
"""Seconds for a sign of life: time for a slow link to bring what waits before the answer."""
AT_ONCE = 100
"""So many are asked, and then others a moment later."""
MOMENT = 0.05


async def prove_alive(connections: Sequence[LiveConnection], network: Network) -> None:
    """Have all connections ask their remotes for a sign of life, those that can have one."""
    await trio.lowlevel.checkpoint()
    try:
        own = set(network.interface_addresses())
    except OSError as error:
        logger.info("cannot look at the interfaces, and ask no connection if it lives: %s", error)
        return
    for number, connection in enumerate(connections, start=1):
        if not connection.is_closed and may_be_asked(connection, own):
            connection.prove_alive(PATIENCE)
        if number % AT_ONCE == 0:
            await trio.sleep(MOMENT)


def may_be_asked(connection: LiveConnection, own: set[str]) -> bool:
    """Tell if an answer could come: not as long as its address is gone, nor is it to be doubted."""
    ip = None if connection.is_relayed else ip_of(connection.local_address)
    return ip is None or ip.is_unspecified or (str(ip) in own and not ip.is_loopback)
