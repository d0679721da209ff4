"""How many round trips it takes until a connection can be used, and until its peer is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import TLS, Identify, Noise, presets
from p2pnet.interfaces import Part, Security
from p2pnet.testing.links import Quality
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

ROUND_TRIP = 0.2
ANYWHERE = "/ip4/0.0.0.0/tcp/4001"


@pytest.mark.parametrize(
    ("security", "connected", "identified"),
    [
        # TCP 1; header, proposal and first message together, answered together 1. The muxer is
        # settled by the handshake, and the question of identify goes along with its last message.
        ([Noise()], 2, 3),
        ([TLS()], 2, 3),
        # With a choice of two the first proposal is answered before the handshake begins.
        ([Noise(), TLS()], 3, 4),
    ],
    ids=["Noise", "TLS", "both"],
)
async def test_a_connection_takes_so_many_round_trips(
    world: World, security: list[Part[Security]], connected: int, identified: int
) -> None:
    """M6 N9."""
    link = Quality(latency=ROUND_TRIP / 2)
    there = await world.host(
        replace(presets.minimal(listen=[ANYWHERE]), security=security),
        link=Quality(latency=0.0),
        families=IPV4_ONLY,
    )
    here = await world.host(
        replace(presets.minimal(), security=security), link=link, families=IPV4_ONLY
    )
    began = trio.current_time()
    connection = await here.host.connect(there.address)
    assert (trio.current_time() - began) / ROUND_TRIP == pytest.approx(connected)
    await here.host.service(Identify).wait_identified(connection)
    assert (trio.current_time() - began) / ROUND_TRIP == pytest.approx(identified)
