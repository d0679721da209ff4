"""What an actor of the demo tells."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet import presets
from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.demo.actor import told_of
from p2pnet.events import ReservationAccepted
from p2pnet.interfaces import Kit, ServiceHost
from p2pnet.testing.world import World

RELAY = PeerId.from_public_key(PrivateKey.generate().public_key)
CIRCUIT = parse(f"/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit")


@dataclass(frozen=True)
class Swift:
    """Has its first success before the host is open."""

    def build(self, kit: Kit) -> Swift:
        return self

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        host.publish(ReservationAccepted(RELAY, (CIRCUIT,), 60.0, renewal=False))
        task_status.started()
        await trio.sleep_forever()


async def test_what_happens_while_a_host_opens_is_told(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    """The director waits for the reservation, which may be there before the host is."""
    env = world.machine().env
    edge = presets.edge(listen=["/ip4/0.0.0.0/tcp/0"])
    config = replace(edge, env=env, services=[Swift()])
    async with told_of(config):
        await wait_all_tasks_blocked()
    told = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]
    assert told == ["listening", "reserved"]
