"""QUIC conforms in a simulated world, on good lines and on bad ones."""

from __future__ import annotations

from typing import Literal

import pytest

from p2pnet.testing.conformance import TransportCheck, transport_cases
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC

BAD = Quality(
    latency=0.02, jitter=0.01, loss=0.03, duplicate=0.02, reorder=0.05, bandwidth=50_000_000
)


@pytest.mark.parametrize("core", ["aioquic", "qh3"])
@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_quic_conforms_between_two_machines(
    rule: str, check: TransportCheck, core: Literal["aioquic", "qh3"], world: World
) -> None:
    assert rule == check.rule
    here, there = world.machine(), world.machine()
    listen = f"/ip4/{here.addresses[0]}/udp/0/quic-v1"
    await check(QUIC(core=core), listen=listen, env=here.env, dialer_env=there.env)


@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_quic_conforms_with_loss_and_reordering(
    rule: str, check: TransportCheck, world: World
) -> None:
    assert rule == check.rule
    here, there = world.machine(link=BAD), world.machine(link=BAD)
    listen = f"/ip4/{here.addresses[0]}/udp/0/quic-v1"
    await check(QUIC(), listen=listen, env=here.env, dialer_env=there.env)
