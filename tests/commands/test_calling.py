"""What calls a peer over a relay takes up nothing there for itself. Rules C15 and R42."""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from p2pnet import Host, open_host, presets
from p2pnet.commands.echo import ECHO, EchoCut, echo, serve_echo
from p2pnet.commands.running import calling
from p2pnet.core.addresses import is_relayed
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.messages import STOP
from p2pnet.protocols.resume import Resume
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

NEAR = Quality(latency=0.02)


async def build(world: World, kind: str = "port-restricted") -> tuple[Machine, Machine]:
    """Start a relay, and a peer at home that can be called through it."""
    relay = await world.host(presets.relay(), "relay", link=NEAR, families=IPV4_ONLY)
    home = world.home(kind, "there", link=NEAR)
    config = presets.edge(relays=[relay.address], port_mapping=False)
    peer = await world.host(config, "peer", at=home, families=IPV4_ONLY)
    await peer.host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
    return relay, peer


@asynccontextmanager
async def caller(world: World, *relays: str, kind: str = "port-restricted") -> AsyncIterator[Host]:
    home = world.home(kind, "here", link=NEAR)
    machine = world.machine("me", at=home, families=IPV4_ONLY)
    async with open_host(replace(calling(relays), env=machine.env)) as host:
        yield host


def reservations(relay: Machine) -> int:
    return relay.host.service(RelayServer).statistics().reservations


@pytest.mark.parametrize("named", [True, False])
async def test_who_calls_over_a_relay_reserves_nothing_and_gets_direct(
    world: World, named: bool
) -> None:
    """Named or in the address of the peer: it is found, used and punched over all the same."""
    relay, peer = await build(world)
    circuit = f"{relay.address}/p2p-circuit/p2p/{peer.host.peer_id}"
    async with caller(world, *([relay.address] if named else [])) as host:
        connection = await host.connect(peer.host.peer_id if named else circuit)
        assert connection.is_relayed
        with trio.fail_after(10):
            await host.wait_direct(peer.host.peer_id)
        await trio.sleep(60)
        assert reservations(relay) == 1, "that of the peer"
        assert not any(map(is_relayed, host.addresses.value))
        assert STOP not in host.protocols.value


async def test_all_relays_are_connected_to_before_the_call(world: World) -> None:
    """What two of them see shows the kind of the NAT."""
    relay, peer = await build(world)
    other = await world.host(presets.relay(), "other", link=NEAR, families=IPV4_ONLY)
    async with caller(world, relay.address, other.address) as host:
        await host.connect(peer.host.peer_id)
        await trio.sleep(1)
        for machine in (relay, other):
            assert host.connections(machine.host.peer_id)
        assert (reservations(relay), reservations(other)) == (1, 0)


async def test_a_relay_that_is_away_stops_nobody_from_calling_over_another(world: World) -> None:
    relay, peer = await build(world)
    away = await world.host(presets.relay(), "away", link=NEAR, families=IPV4_ONLY)
    address = away.address
    await away.power_off()
    async with caller(world, address, relay.address) as host:
        with trio.fail_after(10):
            await host.connect(peer.host.peer_id)
        await trio.sleep(60)


async def test_an_echo_beyond_the_limit_of_a_circuit_ends_with_it_unless_it_can_be_resumed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, peer = await build(world, "symmetric")
    peer.host.handle(ECHO, serve_echo)
    peer.host.unhandle("/p2pnet/resume/1.0.0")
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr("p2pnet.commands.echo.send_stdin", send_much)
    monkeypatch.setattr("p2pnet.commands.echo.write_stdout", io.BytesIO().write)
    async with caller(world, relay.address, kind="symmetric") as host:
        with pytest.raises(EchoCut, match="131072 bytes each way"):
            await echo(host, peer.host.peer_id)
        assert host.service(Resume).streams == 0


async def send_much(stream: trio.abc.HalfCloseableStream) -> None:
    await stream.send_all(bytes(400_000))
    await stream.send_eof()
