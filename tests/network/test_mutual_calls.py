"""Two calls at about the same time, by both peers or by one: one of the two procedures ends."""

from __future__ import annotations

import pytest
import trio

from p2pnet.events import HolePunched, PunchStarted
from p2pnet.interfaces import Connection
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.scene import ECHO, direct, echo, reserved, say
from tests.network.test_prediction import SETTLED, put_two

SECONDS = 0.6
"""From the later call's circuit on: no SYN has to be sent again for that, which takes 1 s."""


async def put_callers(world: World, kind: str) -> tuple[Machine, Machine]:
    """Put two homes, and return first who gives way to the other (D13)."""
    pair = await put_two(world, kind, kind, "tcp", DCUtR())
    for machine in pair:
        machine.host.handle(ECHO, echo)
        await reserved(machine)
    await trio.sleep(SETTLED)
    one, other = sorted(pair, key=lambda each: each.host.peer_id.to_bytes())
    return other, one


async def call_later(caller: Machine, peer: Machine, seconds: float) -> None:
    await trio.sleep(seconds)
    await caller.host.connect(peer.host.peer_id)


@pytest.mark.parametrize("later", [0.0, 0.01, 0.03, 0.08, 0.1])
@pytest.mark.parametrize("gives_way_first", [True, False])
@pytest.mark.parametrize("kind", ["port-restricted", "symmetric-sequential"])
async def test_who_call_each_other_are_direct_as_soon_as_ever(
    world: World, kind: str, gives_way_first: bool, later: float
) -> None:
    """D13: Over TCP a dial that is given up, for its side gives way, is in the way of the next."""
    first, second = await put_callers(world, kind)
    if not gives_way_first:
        first, second = second, first
    with first.host.subscribe(HolePunched) as punched:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_later, first, second, 0.0)
            nursery.start_soon(call_later, second, first, later)
        await direct(first, second, within=SECONDS)
        assert (await anext(punched)).attempt == 1
    await say(first, second)


async def test_who_have_called_each_other_end_both_circuits(world: World) -> None:
    """D14: though one of them gave way, and has no success of its own."""
    first, second = await put_callers(world, "port-restricted")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_later, first, second, 0.0)
        nursery.start_soon(call_later, second, first, 0.03)
    await direct(first, second, within=SECONDS)
    assert len(circuits(first, second)) == 2
    await trio.sleep(6.0)
    assert circuits(first, second) == []


def circuits(one: Machine, other: Machine) -> list[Connection]:
    return [each for each in one.host.connections(other.host.peer_id) if each.is_relayed]


async def test_who_drops_its_call_is_punched_at_once_when_it_calls_again(world: World) -> None:
    """D13: Not when the dials of the call before are over, after ten seconds."""
    alice, bob = await put_callers(world, "symmetric")
    with bob.host.subscribe(PunchStarted) as begun:
        for _ in range(2):
            circuit = await alice.host.connect(bob.host.peer_id)
            with trio.fail_after(SECONDS):
                assert (await anext(begun)).attempt == 1
            await trio.sleep(1.0)
            await circuit.aclose()
            await trio.sleep(0.5)
