"""A swarm apart: ports, and perhaps an identity, that have nothing to do with the host's own.

AutoNAT servers dial back as a stranger would, from a port that no NAT has seen, and under a
key that nobody knows; and who wants to learn how its NAT filters needs a port that has spoken
to one peer only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.bus import EventBus
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import overhearing
from p2pnet.core.sparing import KEPT_BYTES, Allowance, PortCount, SparingNetwork
from p2pnet.core.tasks import bare_exceptions
from p2pnet.host.config import HostConfig
from p2pnet.host.private import protector_for
from p2pnet.interfaces import Connection, Kit, Role, StreamHandler
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.swarm.swarm import Swarm
from p2pnet.transports.tcp_ports import SharedTcpPorts


def build_upgrader(config: HostConfig, env: Env, key: PrivateKey) -> LayeredUpgrader:
    """Build what secures and multiplexes connections under a key."""
    upgrader = LayeredUpgrader()
    kit = Kit(env, key, PeerId.from_public_key(key.public_key), upgrader)
    upgrader.protect = protector_for(config, env)
    upgrader.securities = tuple(part.build(kit) for part in config.security)
    upgrader.muxers = tuple(part.build(kit) for part in config.muxers)
    return upgrader


class SwarmApart:
    """Made by ``swarm_apart``; see ``interfaces.Apart``."""

    def __init__(self, swarm: Swarm, network: SparingNetwork, allowance: Allowance) -> None:
        self._swarm = swarm
        self._network = network
        self._allowance = allowance

    @property
    def last_port(self) -> int:
        return self._network.last_port

    def seal(self) -> None:
        self._network.seal()

    async def listen(self, address: Multiaddr) -> Multiaddr:
        listener = await self._swarm.listen(address)
        self._swarm.serve(listener)
        return listener.address

    async def dial(self, peer_id: PeerId, address: Multiaddr) -> Connection:
        with overhearing(self._allowance.lift):
            connection = await self._swarm.dial_at_once(peer_id, [address], Role.DIALER)
        self._allowance.lift()
        return connection


@asynccontextmanager
async def swarm_apart(
    config: HostConfig,
    env: Env,
    key: PrivateKey,
    handlers: Mapping[str, StreamHandler],
    unanswered_bytes: int | None,
    ports: PortCount,
) -> AsyncGenerator[SwarmApart]:
    """Run a swarm with the transports of ``config`` for as long as the block lasts."""
    if unanswered_bytes is None:
        allowance = Allowance()
    else:
        allowance = Allowance(unanswered_bytes, kept=KEPT_BYTES)
    network = SparingNetwork(env.network, allowance, ports)
    env = replace(env, network=network)
    peer_id = PeerId.from_public_key(key.public_key)
    swarm = Swarm(config.swarm, env, peer_id=peer_id, bus=EventBus())
    swarm.handlers.update(handlers)
    upgrader = build_upgrader(config, env, key)
    kit = Kit(
        env,
        key,
        peer_id,
        upgrader,
        is_private=config.private_network is not None,
        tcp_ports=SharedTcpPorts(env.network, scattered=True),
    )
    for part in config.transports:
        swarm.add_transport(part.build(kit))
    with bare_exceptions():
        async with trio.open_nursery() as nursery:
            await nursery.start(swarm.run)
            try:
                yield SwarmApart(swarm, network, allowance)
                await swarm.say_goodbye()
            finally:
                nursery.cancel_scope.cancel()
