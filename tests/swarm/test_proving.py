"""Once the network may be another, connections are asked if they live. Rule KA12."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.bus import EventBus
from p2pnet.events import NetworkChanged, NetworkRenewed
from p2pnet.swarm import proving
from tests.swarm.fakes import PEER, Line, NoNetwork
from tests.swarm.scene import CIRCUIT, A, arrive, running

OWN = parse("/ip4/10.0.0.1/tcp/4001")


class Asked(Line):
    """A connection that notes when it was asked whether it lives."""

    def __init__(self, local: Multiaddr = OWN, remote: Multiaddr = A) -> None:
        super().__init__(PEER, remote)
        self.local_address = local
        self.asked_at: list[float] = []

    def stay_alert(self, silence: float | None) -> None:
        raise NotImplementedError

    def prove_alive(self, patience: float) -> None:
        assert patience == 5.0
        self.asked_at.append(trio.current_time())


@pytest.mark.parametrize("news", [NetworkRenewed(), NetworkChanged("moved")])
@pytest.mark.parametrize(
    ("local", "remote", "is_asked"),
    [
        (OWN, A, True),
        (parse("/ip4/0.0.0.0/udp/4001/quic-v1"), A, True),
        (parse("/ip4/10.0.0.2/tcp/4001"), A, False),
        (parse("/ip4/127.0.0.1/tcp/4001"), A, False),
        (CIRCUIT, CIRCUIT, True),
    ],
)
async def test_those_that_can_have_an_answer_are_asked(
    news: object, local: Multiaddr, remote: Multiaddr, is_asked: bool
) -> None:
    """KA12: but not at an address that is gone, nor on this machine."""
    bus, line = EventBus(), Asked(local, remote)
    async with running(bus=bus) as swarm:
        await arrive(swarm, line)
        bus.publish(news)
        await wait_all_tasks_blocked()
        assert len(line.asked_at) == is_asked


async def test_many_are_not_asked_all_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KA12."""
    assert proving.AT_ONCE == 100
    monkeypatch.setattr(proving, "AT_ONCE", 2)
    bus, lines = EventBus(), [Asked() for _ in range(5)]
    async with running(bus=bus) as swarm:
        await arrive(swarm, *lines)
        began = trio.current_time()
        bus.publish(NetworkRenewed())
        await trio.sleep(1)
        waited = sorted(line.asked_at[0] - began for line in lines)
        assert waited == pytest.approx([0.0, 0.0, 0.05, 0.05, 0.1])


class Exhausted(NoNetwork):
    """Nobody may look at it."""

    def interface_addresses(self) -> tuple[str, ...]:
        raise OSError("Too many open files")


async def test_who_cannot_look_asks_nobody() -> None:
    """KA12."""
    bus, line = EventBus(), Asked()
    async with running(network=Exhausted(), bus=bus) as swarm:
        await arrive(swarm, line)
        bus.publish(NetworkRenewed())
        await wait_all_tasks_blocked()
        assert line.asked_at == []
