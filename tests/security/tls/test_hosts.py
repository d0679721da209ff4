"""Hosts that speak TLS, Noise or both, over the simulated internet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from p2pnet import TLS, HostConfig, Noise, PeerId, Ping, PrivateKey, presets
from p2pnet.errors import DialError
from p2pnet.interfaces import Part, Security
from p2pnet.testing.running import run
from p2pnet.testing.world import World

LISTEN = ["/ip4/0.0.0.0/tcp/4001"]
TLS_ID, NOISE_ID = "/tls/1.0.0", "/noise"


def config(seed: int, *parts: Part[Security], listen: Sequence[str] = LISTEN) -> HostConfig:
    key = PrivateKey.from_seed(bytes(31) + bytes([seed]))
    return replace(presets.minimal(key=key, listen=listen), security=parts)


@pytest.mark.parametrize(
    ("dialers", "listeners", "agreed"),
    [
        ([TLS()], [TLS()], TLS_ID),
        ([TLS(), Noise()], [Noise()], NOISE_ID),
        ([Noise(), TLS()], [TLS()], TLS_ID),
        ([Noise()], [TLS(), Noise()], NOISE_ID),
        ([TLS()], [Noise(), TLS()], TLS_ID),
        ([TLS(), Noise()], [Noise(), TLS()], TLS_ID),
        ([Noise(), TLS()], [TLS(), Noise()], NOISE_ID),
    ],
)
async def test_the_first_that_the_dialer_likes_and_the_listener_speaks_is_used(
    world: World,
    dialers: Sequence[Part[Security]],
    listeners: Sequence[Part[Security]],
    agreed: str,
) -> None:
    alice = (await world.host(config(1, *dialers))).host
    bob = await world.host(config(2, *listeners))
    connection = await alice.connect(bob.address)
    assert (connection.security, connection.muxer) == (agreed, "/yamux/1.0.0")
    assert await alice.service(Ping).ping(connection) > 0
    (back,) = bob.host.connections(alice.peer_id)
    assert back.security == agreed


async def test_without_a_security_in_common_a_dial_fails_with_its_reason(world: World) -> None:
    alice = (await world.host(config(1, TLS()))).host
    bob = await world.host(config(2, Noise()))
    with pytest.raises(DialError, match=r"speaks none of: /tls/1\.0\.0"):
        await alice.connect(bob.address)


async def test_another_peer_than_was_asked_for_is_refused(world: World) -> None:
    """T14."""
    alice = (await world.host(config(1, TLS()))).host
    bob = await world.host(config(2, TLS()))
    carol = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
    address = str(bob.address).replace(str(bob.host.peer_id), str(carol))
    with pytest.raises(DialError, match="expected peer"):
        await alice.connect(address)


async def play() -> tuple[list[str], float]:
    async with World(seed=7) as world:
        alice = (await world.host(config(1, TLS()))).host
        bob = await world.host(config(2, TLS()))
        connection = await alice.connect(bob.address)
        times = [await alice.service(Ping).ping(connection) for _ in range(3)]
        return world.trace.lines(), sum(times)


def test_a_world_with_tls_is_the_same_each_time_it_is_run() -> None:
    # The bytes are not: OpenSSL draws its own. But as many go at the same times.
    assert run(play) == run(play)
