"""Rule DI13: a dial ends when its peer comes by itself; others are not even looked at."""

from __future__ import annotations

from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.dialer import Run
from p2pnet.swarm.interrupting import Interruptions
from tests.swarm.fakes import OTHER, PEER, Line
from tests.swarm.scene import CIRCUIT, A, B, arrive, running


async def test_a_newer_direct_connection_ends_the_dial() -> None:
    async with running() as swarm:
        interruptions = Interruptions(swarm.connections)
        await arrive(swarm, Line(PEER, A))
        (old,) = swarm.connections(PEER)
        with interruptions.during(PEER, old.ref.number) as dial:
            await arrive(swarm, Line(PEER, CIRCUIT))
            interruptions.changed(PEER)
            assert (dial.arrived, dial.scope.cancel_called) == (None, False)
            await arrive(swarm, Line(PEER, B))
            interruptions.changed(PEER)
            assert dial.scope.cancel_called
            assert dial.arrived is not None
            assert dial.arrived.remote_address == B


async def test_who_came_stays_known_while_the_dial_ends() -> None:
    async with running() as swarm:
        interruptions = Interruptions(swarm.connections)
        with interruptions.during(PEER, 0) as dial:
            await arrive(swarm, Line(PEER, B))
            interruptions.changed(PEER)
            (came,) = swarm.connections(PEER)
            await came.aclose()
            assert swarm.connections(PEER) == ()
            interruptions.changed(PEER)
            assert dial.arrived is came


async def test_handshakes_under_way_come_to_their_end_first() -> None:
    async with running() as swarm:
        interruptions = Interruptions(swarm.connections)
        with interruptions.during(PEER, 0) as dial:
            run = dial.race.runs[A] = Run(0.0, answered=0.1)
            await arrive(swarm, Line(PEER, B))
            interruptions.changed(PEER)
            assert not dial.scope.cancel_called
            run.is_over = True
            dial.race.change()
            assert dial.scope.cancel_called


async def test_only_dials_of_that_peer_look() -> None:
    asked: list[PeerId] = []

    def connections(peer_id: PeerId) -> tuple[LiveConnection, ...]:
        asked.append(peer_id)
        return ()

    interruptions = Interruptions(connections)
    with interruptions.during(PEER, 0), interruptions.during(PEER, 0):
        interruptions.changed(OTHER)
        assert asked == []
        interruptions.changed(PEER)
        assert asked == [PEER, PEER]
    interruptions.changed(PEER)
    assert asked == [PEER, PEER]
