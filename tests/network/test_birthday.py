"""Punching where a NAT gives random ports: many sockets on one side, many probes on the other."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import place_of
from p2pnet.events import HolePunched, PunchGivenUp
from p2pnet.protocols.dcutr import Birthday, DCUtR
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from tests.network.scene import ECHO, call, direct, echo, say
from tests.network.test_prediction import know_their_nats, put_two

ALLOWED = DCUtR(birthday=Birthday())


def udp_sockets(machine: Machine) -> set[str]:
    return {text for text in machine.kernel.left_open() if text.startswith("udp ")}


@pytest.mark.parametrize(
    ("a", "b"), [("symmetric", "port-restricted"), ("port-restricted", "address-symmetric")]
)
async def test_a_random_port_is_found(world: World, a: str, b: str) -> None:
    """D21 D22 D23."""
    alice, bob = await put_two(world, a, b, "quic", ALLOWED)
    bob.host.handle(ECHO, echo)
    await know_their_nats(alice, bob)
    sockets = {machine: udp_sockets(machine) for machine in (alice, bob)}
    hard = alice if a == "symmetric" else bob
    with hard.host.subscribe(HolePunched) as punched:
        await call(alice, bob)
        await direct(alice, bob)
        assert (await anext(punched)).attempt == 2
    await say(alice, bob)
    # The connection is on a socket of its own, and all others are closed.
    assert len(udp_sockets(hard) - sockets[hard]) == 1
    easy = bob if hard is alice else alice
    assert udp_sockets(easy) <= sockets[easy]
    (connection, *_) = hard.host.connections(easy.host.peer_id)
    place = place_of(connection.local_address)
    listening = {place_of(address) for address in hard.host.addresses.value}
    assert place is not None
    assert place not in listening


async def test_it_is_not_done_unless_both_allow_it(world: World) -> None:
    """D21."""
    alice, bob = await put_two(world, "symmetric", "port-restricted", "quic", DCUtR())
    await know_their_nats(alice, bob)
    with bob.host.subscribe(PunchGivenUp) as given_up:
        await call(alice, bob)
        reasons = " ".join((await anext(given_up)).reasons)
    assert "birthday" not in reasons
    assert alice.host.connections(bob.host.peer_id)[0].is_relayed


async def test_it_is_done_again_for_a_peer_that_was_found(world: World) -> None:
    """D24: Who calls twice in ten minutes becomes direct twice."""
    alice, bob = await put_two(world, "symmetric", "port-restricted", "quic", ALLOWED)
    await know_their_nats(alice, bob)
    for _ in range(2):
        await call(alice, bob)
        connection = await direct(alice, bob)
        await connection.aclose()
        await trio.sleep(1)


async def test_what_came_of_it_is_told(world: World) -> None:
    """D21 D23: one socket and one probe miss each other."""
    few = DCUtR(birthday=Birthday(sockets=1, probes=1))
    alice, bob = await put_two(world, "symmetric", "port-restricted", "quic", few)
    await know_their_nats(alice, bob)
    with (
        alice.host.subscribe(PunchGivenUp) as of_alice,
        bob.host.subscribe(PunchGivenUp) as of_bob,
    ):
        await call(alice, bob)
        hard = " ".join((await anext(of_alice)).reasons)
        easy = " ".join((await anext(of_bob)).reasons)
    assert "none of 1 sockets got through" in hard
    assert "none of 1 probes was answered" in easy
