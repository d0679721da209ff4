"""Rule DI12."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    ConnectionLost,
    DialError,
    FailedAttempt,
    LimitExceeded,
)
from p2pnet.events import ConnectionRef
from p2pnet.interfaces import CircuitLimit, MuxedStream
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.connection import LiveConnection
from p2pnet.swarm.joining import JoinedDials
from p2pnet.swarm.peerstore import Peerstore

PEER, OTHER = (PeerId(b"\x12\x20" + bytes([n]) * 32) for n in (1, 2))
A, B = (parse(f"/ip4/1.2.3.4/tcp/{n}") for n in (1, 2))
NONE: frozenset[Multiaddr] = frozenset()


@dataclass
class Line:
    """A capable connection on which nothing ever happens."""

    peer_id: PeerId
    local_address: Multiaddr = A
    remote_address: Multiaddr = B
    security: str = "/none"
    muxer: str = "/none"
    limit: CircuitLimit | None = None
    is_over: bool = False

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        await trio.sleep_forever()

    async def open_stream(self) -> MuxedStream:
        raise ConnectionLost("never")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def connection_to(peer_id: PeerId) -> LiveConnection:
    config = SwarmConfig()
    return LiveConnection(
        Line(peer_id),
        ConnectionRef(1, peer_id, A, B, is_inbound=False, is_relayed=False),
        config=config,
        handlers={},
        peers=Peerstore(config, trio.current_time),
    )


@dataclass
class Dials:
    """Takes a second for each dial, and then raises ``error`` if there is one."""

    error: Exception | None = None
    made: list[tuple[PeerId, frozenset[Multiaddr]]] = field(default_factory=list)
    cancelled: int = 0

    async def dial(self, peer_id: PeerId, insist: frozenset[Multiaddr]) -> LiveConnection:
        self.made.append((peer_id, insist))
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return connection_to(peer_id)


Outcome = LiveConnection | Exception


async def join_all(
    dials: Dials, wishes: list[tuple[PeerId, frozenset[Multiaddr]]]
) -> list[Outcome]:
    """Let a task join for each wish, in this order; return what each got."""
    joined = JoinedDials(dials.dial)
    got: dict[int, Outcome] = {}

    async def join(number: int) -> None:
        try:
            got[number] = await joined.join(*wishes[number], home)
        except (DialError, LimitExceeded) as error:
            got[number] = error

    async with trio.open_nursery() as home:
        for number in range(len(wishes)):
            home.start_soon(join, number)
            await wait_all_tasks_blocked()
    return [got[number] for number in range(len(wishes))]


async def test_di12_all_who_want_a_peer_share_one_dial(autojump_clock: MockClock) -> None:
    dials = Dials()
    first, second, third = await join_all(dials, [(PEER, NONE)] * 3)
    assert isinstance(first, LiveConnection)
    assert first is second is third
    assert dials.made == [(PEER, NONE)]


async def test_di12_different_peers_are_dialled_at_the_same_time(autojump_clock: MockClock) -> None:
    dials = Dials()
    started = trio.current_time()
    first, second = await join_all(dials, [(PEER, NONE), (OTHER, NONE)])
    assert trio.current_time() - started == 1
    assert isinstance(first, LiveConnection)
    assert isinstance(second, LiveConnection)
    assert (first.peer_id, second.peer_id) == (PEER, OTHER)


async def test_di12_each_gets_an_error_of_its_own_with_all_causes(
    autojump_clock: MockClock,
) -> None:
    attempts = [FailedAttempt(A, OSError("refused"))]
    first, second = await join_all(Dials(DialError(PEER, attempts, "hint")), [(PEER, NONE)] * 2)
    assert isinstance(first, DialError)
    assert isinstance(second, DialError)
    assert first is not second
    assert first.attempts == second.attempts == tuple(attempts)
    assert str(first) == str(second)


async def test_di12_other_errors_reach_all_too(autojump_clock: MockClock) -> None:
    outcomes = await join_all(Dials(LimitExceeded("max_connections_per_peer", 8)), [(PEER, NONE)])
    assert isinstance(outcomes[0], LimitExceeded)


async def test_di12_addresses_the_dial_under_way_knows_are_no_reason_for_another(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    await join_all(dials, [(PEER, frozenset([A, B])), (PEER, frozenset([A])), (PEER, NONE)])
    assert len(dials.made) == 1


async def test_di12_a_new_address_waits_for_the_dial_under_way_and_uses_what_it_brings(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    first, second = await join_all(dials, [(PEER, frozenset([A])), (PEER, frozenset([B]))])
    assert first is second
    assert len(dials.made) == 1


async def test_di12_a_new_address_is_dialled_if_the_dial_under_way_fails(
    autojump_clock: MockClock,
) -> None:
    dials = Dials(DialError(PEER, []))
    await join_all(dials, [(PEER, frozenset([A])), (PEER, frozenset([B]))])
    assert dials.made == [(PEER, frozenset([A])), (PEER, frozenset([B]))]


async def test_di12_a_dial_goes_on_while_anybody_waits_and_ends_with_the_last(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    joined = JoinedDials(dials.dial)

    async def join(scope: trio.CancelScope) -> None:
        with scope:
            await joined.join(PEER, NONE, home)
            pytest.fail("it was given up")

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as home:
        home.start_soon(join, first)
        home.start_soon(join, second)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        assert dials.cancelled == 0
        second.cancel()
        await wait_all_tasks_blocked()
        assert dials.cancelled == 1
    assert len(dials.made) == 1


async def test_di12_after_one_was_given_up_the_next_is_a_dial_of_its_own(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    joined = JoinedDials(dials.dial)
    async with trio.open_nursery() as home:
        with trio.move_on_after(0.5):
            await joined.join(PEER, NONE, home)
        assert isinstance(await joined.join(PEER, NONE, home), LiveConnection)
    assert dials.cancelled == 1
    assert len(dials.made) == 2


async def test_di12_when_the_host_leaves_nobody_waits_for_ever(autojump_clock: MockClock) -> None:
    joined = JoinedDials(Dials().dial)

    async def join() -> None:
        with pytest.raises(ConnectionLost, match="leaving"):
            await joined.join(PEER, NONE, home)

    async with trio.open_nursery() as callers:
        async with trio.open_nursery() as home:
            callers.start_soon(join)
            await wait_all_tasks_blocked()
            home.cancel_scope.cancel()


async def test_a_dial_that_begins_when_the_host_has_left_is_none(
    autojump_clock: MockClock,
) -> None:
    dials = Dials()
    joined = JoinedDials(dials.dial)
    async with trio.open_nursery() as left:
        pass
    with pytest.raises(trio.ClosedResourceError):
        await joined.join(PEER, NONE, left)
    async with trio.open_nursery() as home:
        assert (await joined.join(PEER, NONE, home)).peer_id == PEER
