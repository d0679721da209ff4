"""Identify push: what goes out when something changed, and what is made of what comes in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import encode, parse, with_peer
from p2pnet.core.keys import PrivateKey
from p2pnet.errors import (
    LimitExceeded,
    ProtocolError,
    StreamReset,
)
from p2pnet.events import AddressObserved, PathChanged, PeerIdentified
from p2pnet.interfaces import Stream
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.identify.messages import (
    IDENTIFY,
    PUSH,
    IdentifyMessage,
)
from tests.protocols.identify_peers import (
    CIRCUIT,
    HERE,
    THERE,
    never,
    pair,
    push,
    started,
    tells,
)
from tests.protocols.memory_world import MemoryConnection, MemoryWorld

# ---- another path ----------------------------------------------------------------------------


async def moved(connection: MemoryConnection, address: str) -> None:
    """Let the far end of a connection be seen elsewhere by this one."""
    connection.ref = replace(connection.ref, remote_address=parse(address))
    connection.owner.publish(PathChanged(connection.ref, is_ours=False))


async def test_i18_who_is_seen_elsewhere_is_told_so_and_not_too_often(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here)
    await started(there)
    connection = world.connect(here, there)
    await trio.sleep(1)
    elsewhere = ["/ip4/11.0.0.3/tcp/4002", "/ip4/11.0.0.4/tcp/4002", "/ip4/11.0.0.5/tcp/4002"]
    for address in elsewhere:
        await moved(connection, address)
        await trio.sleep(1)
    await trio.sleep(20)
    told = [(one.pushed, str(one.observed_address)) for one in there.of_kind(PeerIdentified)]
    assert told == [(False, THERE), (True, elsewhere[0]), (True, elsewhere[2])]
    assert [str(one.address) for one in there.of_kind(AddressObserved)] == [
        str(address) for _, address in told
    ]
    assert here.of_kind(PeerIdentified) == here.of_kind(PeerIdentified)[:1]


async def test_i18_who_has_heard_it_already_is_not_told_again(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here)
    service = await started(there)
    connection = world.connect(here, there)
    await trio.sleep(1)
    await moved(connection, "/ip4/11.0.0.3/tcp/4002")
    await service.identify(connection.other_end)
    await trio.sleep(20)
    assert [one.pushed for one in there.of_kind(PeerIdentified)] == [False, False]


async def test_i18_who_seems_to_be_seen_elsewhere_asks_again(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """Of a peer that knows no pushes, too: what it says now is taken."""
    host, peer = await pair(world)
    tells(peer, IdentifyMessage(observed_address=encode(parse("/ip4/11.0.0.7/tcp/4001"))))
    connection = world.connect(host, peer)
    await trio.sleep(1)
    tells(peer, IdentifyMessage(observed_address=encode(parse("/ip4/11.0.0.8/tcp/4001"))))
    for _ in range(20):
        host.publish(PathChanged(connection.ref, is_ours=True))
        await trio.sleep(0.5)
    assert connection.opened == [IDENTIFY] * 3, "soon, and again after 5 s"
    assert str(host.of_kind(AddressObserved)[-1].address) == "/ip4/11.0.0.8/tcp/4001"


# ---- pushes out ------------------------------------------------------------------------------


async def test_changes_are_pushed_together_and_soon(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I16."""
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here)
    await started(there)
    world.connect(here, there)
    await trio.sleep(1)
    here.handle("/one", never)
    await trio.sleep(0.05)
    here.handle("/two", never)
    here.addresses.set((with_peer(parse("/ip4/11.0.0.1/tcp/5"), here.peer_id),))
    await trio.sleep(1)
    first, second = there.of_kind(PeerIdentified)
    assert (first.pushed, second.pushed) == (False, True)
    assert second.protocols == (IDENTIFY, PUSH, "/one", "/two")
    assert second.addresses == (parse("/ip4/11.0.0.1/tcp/5"),)
    assert there.peers.protocols(here.peer_id) == frozenset({IDENTIFY, PUSH, "/one", "/two"})


async def test_a_change_that_was_taken_back_is_not_pushed(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here)
    await started(there)
    connection = world.connect(here, there)
    await trio.sleep(1)
    before = here.addresses.value
    here.addresses.set(())
    await trio.sleep(0.05)
    here.addresses.set(before)
    await trio.sleep(1)
    assert connection.opened == [IDENTIFY]


async def test_each_peer_gets_one_push_on_its_best_connection(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I16."""
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here)
    await started(there)
    relayed = world.connect(here, there, relay=CIRCUIT)
    direct = world.connect(here, there)
    await trio.sleep(1)
    here.handle("/one", never)
    await trio.sleep(1)
    assert relayed.opened == [IDENTIFY]
    assert direct.opened == [IDENTIFY, PUSH]


async def test_a_peer_that_does_not_take_pushes_gets_none(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I16."""
    here, there = await pair(world)
    tells(there, IdentifyMessage(protocols=("/x",)))
    connection = world.connect(here, there)
    await trio.sleep(1)
    here.handle("/one", never)
    await trio.sleep(1)
    assert connection.opened == [IDENTIFY]


async def test_pushes_run_at_most_so_many_at_a_time(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I16."""
    here = world.host(1, HERE)
    await started(here, Identify(max_parallel_pushes=2))
    arrived: list[float] = []

    async def note(stream: Stream) -> None:
        arrived.append(trio.current_time())

    for seed in range(2, 7):
        peer = world.host(seed, f"/ip4/11.0.0.{seed}/tcp/1")
        tells(peer, IdentifyMessage(protocols=(PUSH,)))
        peer.handlers[PUSH] = note
        connection = world.connect(here, peer)
        await trio.sleep(0.1)
        connection.open_seconds = 2.0
    began = trio.current_time()
    here.handle("/one", never)
    await trio.sleep(20)
    assert [round(at - began, 3) for at in arrived] == [2.2, 2.2, 4.2, 4.2, 6.2]


async def test_a_peer_that_hangs_holds_pushes_up_for_five_seconds_only(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I16."""
    here, there = world.host(1, HERE), world.host(2, THERE)
    hanging = world.host(3, "/ip4/11.0.0.3/tcp/3")
    await started(here)
    await started(there)
    tells(hanging, IdentifyMessage(protocols=(PUSH,)))
    hanging.handlers[PUSH] = never
    world.connect(here, there)
    stuck = world.connect(here, hanging)
    await trio.sleep(1)
    stuck.open_seconds = 1e6
    here.handle("/one", never)
    await trio.sleep(1)
    here.handle("/two", never)
    await trio.sleep(5)
    assert there.peers.protocols(here.peer_id) == frozenset({IDENTIFY, PUSH, "/one", "/two"})


async def test_a_push_that_breaks_off_is_the_end_of_it(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = await pair(world)
    tells(there, IdentifyMessage(protocols=(PUSH,)))
    there.handlers[PUSH] = never
    connection = world.connect(here, there)
    await trio.sleep(1)
    connection.open_seconds = 1.0
    here.handle("/one", never)
    await trio.sleep(0.5)
    connection.is_closed = True
    await trio.sleep(10)
    assert connection.opened == [IDENTIFY]
    connection.is_closed = False
    there.handlers[PUSH] = reset_at_once
    here.handle("/two", never)
    await trio.sleep(10)
    assert connection.opened == [IDENTIFY, PUSH]
    assert connection.streams == 0


async def reset_at_once(stream: Stream) -> None:
    stream.reset()


# ---- pushes in -------------------------------------------------------------------------------


async def test_a_push_changes_what_it_says_and_leaves_the_rest(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I15."""
    here, there = await pair(world)
    tells(
        there,
        IdentifyMessage(
            agent_version="there/1", protocols=("/x",), addresses=(encode(parse(THERE)),)
        ),
    )
    world.connect(here, there)
    await trio.sleep(1)
    await push(there.connections()[0], IdentifyMessage(protocols=("/x", "/y")))
    event = here.of_kind(PeerIdentified)[-1]
    assert event.pushed
    assert event.protocols == ("/x", "/y")
    assert event.agent_version == "there/1"
    assert event.addresses == (parse(THERE),)
    await push(there.connections()[0], IdentifyMessage(agent_version="there/2"))
    assert here.peers.protocols(there.peer_id) == frozenset({"/x", "/y"})
    assert here.of_kind(PeerIdentified)[-1].agent_version == "there/2"


async def test_a_push_with_another_key_is_refused(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I4."""
    here, there = await pair(world)
    connection = world.connect(there, here)
    stranger = PrivateKey.from_seed(bytes(32)).public_key
    await push(connection, IdentifyMessage(public_key=stranger.encode(), protocols=("/x",)))
    assert isinstance(here.handler_errors[0], ProtocolError)
    assert here.peers.protocols(there.peer_id) is None


async def test_too_many_pushes_are_reset(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """I14."""
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(here, Identify(push_burst=2, push_interval=60.0))
    connection = world.connect(there, here)
    for number in range(2):
        await push(connection, IdentifyMessage(protocols=(f"/{number}",)))
    with pytest.raises(StreamReset):
        await push(connection, IdentifyMessage(protocols=("/2",)))
    assert [type(error) for error in here.handler_errors] == [LimitExceeded]
    assert here.peers.protocols(there.peer_id) == frozenset({"/1"})


async def test_a_push_has_five_seconds(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """I2."""
    here, there = await pair(world)
    stream = await world.connect(there, here).open_stream(PUSH)
    await stream.send_all(b"\x10")
    await trio.sleep(6)
    assert stream.inward.is_reset
    assert [type(error) for error in here.handler_errors] == [trio.TooSlowError]
