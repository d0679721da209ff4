"""Connections by number and by peer. Rule S16."""

from __future__ import annotations

from p2pnet.swarm.roster import Roster
from tests.swarm.fakes import OTHER, PEER, THIRD, Line
from tests.swarm.scene import A, B, C, arrive, running


async def test_the_connections_to_a_peer_are_found_until_they_have_ended() -> None:
    async with running() as swarm:
        held = await arrive(swarm, Line(PEER, A), Line(OTHER, B), Line(PEER, C))
        roster = Roster()
        for connection in held:
            roster.add(connection)
        one, two = (connection for connection in held if connection.peer_id == PEER)
        assert list(roster) == held
        assert set(roster.of_peer(PEER).values()) == {one, two}
        assert roster.get(one.ref.number) is one
        roster.remove(one)
        assert list(roster.of_peer(PEER).values()) == [two]
        roster.remove(two)
        assert (len(roster), len(roster.of_peer(PEER)), roster.get(two.ref.number)) == (1, 0, None)
        assert not roster.of_peer(THIRD)


async def test_a_peer_that_comes_and_goes_leaves_nothing_behind() -> None:
    async with running() as swarm:
        (connection,) = await arrive(swarm, Line(PEER, A))
        roster = Roster()
        empty = str(vars(roster))
        for _ in range(3):
            roster.add(connection)
            roster.remove(connection)
        assert str(vars(roster)) == empty
