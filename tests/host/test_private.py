"""Private networks, as whole hosts of the simulated internet. Rules PN2, PN4, PN5, PN9."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet import presets
from p2pnet.errors import AnotherNetwork, DialError, HandshakeCut, ProtocolError
from p2pnet.events import HolePunched
from p2pnet.host.config import HostConfig
from p2pnet.host.opening import open_host
from p2pnet.host.private import FORCING, PrivateNetworkForced
from p2pnet.interfaces import Connection, Kit, Stream, Transport
from p2pnet.muxers.yamux import Yamux
from p2pnet.protocols.ping import Ping
from p2pnet.security.noise import Noise
from p2pnet.security.pnet import PreSharedKey
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.tcp import TCP

KEY = PreSharedKey(bytes(range(32)))
OTHER = PreSharedKey(bytes(32))
ECHO = "/echo/1.0.0"


def private(config: HostConfig, key: PreSharedKey | None = KEY) -> HostConfig:
    return replace(config, private_network=key)


def listening() -> HostConfig:
    return presets.minimal(listen=["/ip4/0.0.0.0/tcp/4001"])


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def say(connection: Connection, words: bytes) -> bytes:
    async with await connection.open_stream(ECHO) as stream:
        await stream.send_all(words)
        await stream.send_eof()
        return b"".join([bytes(chunk) async for chunk in stream])


async def test_peers_with_one_key_talk(world: World) -> None:
    """PN2."""
    alice = await world.host(private(presets.minimal()))
    bob = await world.host(private(listening()))
    bob.host.handle(ECHO, echo)
    connection = await alice.host.connect(bob.address)
    words = bytes(range(256)) * 400
    assert await say(connection, words) == words
    assert await alice.host.service(Ping).ping(connection) < 1


@pytest.mark.parametrize(
    ("ours", "theirs", "reasons"),
    [
        (KEY, OTHER, (AnotherNetwork, HandshakeCut)),
        (KEY, None, (AnotherNetwork, HandshakeCut)),
        (None, KEY, (ProtocolError, trio.BrokenResourceError)),
    ],
)
async def test_nobody_else_is_talked_to_and_that_is_noticed_at_once(
    world: World, ours: PreSharedKey | None, theirs: PreSharedKey | None, reasons: tuple[type, ...]
) -> None:
    """PN4 PN5."""
    alice = await world.host(private(presets.minimal(), ours))
    bob = await world.host(private(listening(), theirs))
    began = trio.current_time()
    with pytest.raises(DialError) as caught:
        await alice.host.connect(bob.address)
    assert trio.current_time() - began < 1
    (attempt,) = caught.value.attempts
    assert isinstance(attempt.cause, reasons)
    if ours is not None:
        assert "pre-shared key" in str(attempt.cause)
    await trio.sleep(1)
    assert bob.host.connections() == ()


async def reserved(machine: Machine) -> None:
    await machine.host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )


@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
async def test_circuits_and_hole_punches_are_under_the_key(world: World, kind: str) -> None:
    """PN2 D15: patience and first words work under a key, too."""
    relay = await world.host(private(presets.relay()))
    alice, bob = [
        await world.host(private(presets.edge(relays=[relay.address])), at=world.home(kind))
        for _ in range(2)
    ]
    for machine in (alice, bob):
        await reserved(machine)
    bob.host.handle(ECHO, echo)
    with alice.host.subscribe(HolePunched) as punched:
        connection = await alice.host.connect(f"{relay.address}/p2p-circuit/p2p/{bob.host.peer_id}")
        assert connection.is_relayed
        assert await say(connection, b"over the relay") == b"over the relay"
        if kind == "port-restricted":
            with trio.fail_after(30):
                await anext(punched)
                direct = await alice.host.wait_direct(bob.host.peer_id)
            assert await say(direct, b"direct") == b"direct"


async def test_a_relay_of_another_network_is_of_no_use(world: World) -> None:
    """PN2."""
    relay = await world.host(private(presets.relay(), OTHER))
    alice = await world.host(private(presets.edge()), at=world.home("port-restricted"))
    with pytest.raises(DialError):
        await alice.host.connect(relay.address)


async def test_transports_are_told_that_the_network_is_private(autojump_clock: MockClock) -> None:
    """PN2."""
    told: list[bool] = []

    class Spy:
        def build(self, kit: Kit) -> Transport:
            told.append(kit.is_private)
            return TCP().build(kit)

    for key in (KEY, None):
        config = HostConfig(
            transports=[Spy()], security=[Noise()], muxers=[Yamux()], private_network=key
        )
        async with open_host(config) as host, host.apart(stranger=True):
            pass
    assert told == [True, True, False, False]


async def test_the_environment_can_force_a_private_network(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PN9."""
    monkeypatch.setenv(FORCING, "1")
    with pytest.raises(PrivateNetworkForced, match=FORCING):
        async with open_host(presets.minimal()):
            pass
    async with open_host(private(presets.minimal())):
        pass
    monkeypatch.setenv(FORCING, "0")
    async with open_host(presets.minimal()):
        pass
