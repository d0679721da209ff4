"""The identify service: who asks whom, what is stored and published, what is pushed when."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import encode, parse, with_peer
from p2pnet.core.envelope import open_peer_record_untrusted
from p2pnet.core.keys import PrivateKey
from p2pnet.errors import (
    ConnectionLost,
    NegotiationFailed,
    P2PError,
)
from p2pnet.events import AddressObserved, IdentifyFailed, PeerIdentified
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
    RELAY_ID,
    THERE,
    never,
    pair,
    read_all,
    started,
    tells,
)
from tests.protocols.memory_world import MemoryConnection, MemoryWorld

# ---- both sides ------------------------------------------------------------------------------


async def test_two_hosts_learn_who_the_other_is(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I1."""
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here, Identify(agent_version="here/1"))
    await started(there, Identify(agent_version="there/2"))
    connection = world.connect(here, there)
    event = await service.wait_identified(connection)
    assert event == await here.wait_event(PeerIdentified)
    assert event.connection == connection.ref
    assert event.agent_version == "there/2"
    assert event.protocol_version == "ipfs/0.1.0"
    assert event.protocols == (IDENTIFY, PUSH)
    assert [str(address) for address in event.addresses] == [THERE]
    assert str(event.observed_address) == HERE
    assert not event.pushed
    assert here.peers.protocols(there.peer_id) == frozenset({IDENTIFY, PUSH})
    assert [str(address) for address in here.peers.addresses(there.peer_id)] == [THERE]
    assert (await there.wait_event(PeerIdentified)).agent_version == "here/1"


async def test_connections_from_before_the_service_are_asked_too(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    await started(there)
    connection = world.connect(here, there)
    service = await started(here)
    assert (await service.wait_identified(connection)).addresses == (parse(THERE),)


async def test_missed_events_are_made_up_for(autojump_clock: MockClock, world: MemoryWorld) -> None:
    world.event_limit = 2
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here)
    await started(there)
    gone = [world.connect(here, there) for _ in range(5)]
    await trio.sleep(1)
    assert len(service._known) == 5
    for connection in gone:
        connection.cut()
    live = [world.connect(here, there) for _ in range(5)]
    for connection in live:
        await service.wait_identified(connection)
    assert set(service._known) == {connection.ref.number for connection in live}


async def test_identify_asks_again_at_any_time(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here)
    tells(there, IdentifyMessage(agent_version="before"))
    connection = world.connect(here, there)
    assert (await service.wait_identified(connection)).agent_version == "before"
    tells(there, IdentifyMessage(agent_version="after"))
    assert (await service.identify(there.peer_id)).agent_version == "after"
    assert (await service.identify(connection)).agent_version == "after"
    assert (await service.wait_identified(connection)).agent_version == "after"


async def test_a_service_that_does_not_run_says_so(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    service = Identify().build(world.host(1, HERE).kit)
    with pytest.raises(trio.ClosedResourceError):
        await service.identify(RELAY_ID)


# ---- failures --------------------------------------------------------------------------------


async def test_a_peer_without_identify_is_a_failure_that_is_told(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here)
    connection = world.connect(here, there)
    with pytest.raises(P2PError, match="did not identify itself: the remote speaks none"):
        await service.wait_identified(connection)
    event = await here.wait_event(IdentifyFailed)
    assert event.connection == connection.ref
    assert here.peers.protocols(there.peer_id) is None
    with pytest.raises(NegotiationFailed):
        await service.identify(connection)


async def test_an_answer_has_five_seconds(autojump_clock: MockClock, world: MemoryWorld) -> None:
    """I2."""
    here, there = await pair(world)

    async def drip(stream: Stream) -> None:
        await stream.send_all(b"\x20")
        while True:
            await trio.sleep(1)
            await stream.send_all(b"x")

    there.handlers[IDENTIFY] = drip
    began = trio.current_time()
    connection = world.connect(here, there)
    assert (await here.wait_event(IdentifyFailed)).reason == "timed out"
    assert trio.current_time() - began == pytest.approx(5.0)
    assert connection.streams == 0


async def test_more_than_ten_messages_are_too_many(
    autojump_clock: MockClock, world: MemoryWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """I2."""
    here, there = await pair(world)

    async def chatter(stream: Stream) -> None:
        while True:
            await stream.send_all(b"\x00")

    there.handlers[IDENTIFY] = chatter
    world.connect(here, there)
    assert "11 messages" in (await here.wait_event(IdentifyFailed)).reason
    assert "misbehaving peer" in caplog.text


async def test_an_answer_that_ends_within_a_message_is_none(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I2."""
    here, there = await pair(world)

    async def mumble(stream: Stream) -> None:
        for piece in (b"\x03\x2a", b"\x01x", b"\x05\x2a"):
            await stream.send_all(piece)

    there.handlers[IDENTIFY] = mumble
    world.connect(here, there)
    assert "ended within a message" in (await here.wait_event(IdentifyFailed)).reason


async def test_whoever_tells_another_key_is_not_believed(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I4."""
    here, there = await pair(world)
    stranger = PrivateKey.from_seed(bytes(32)).public_key
    tells(
        there,
        IdentifyMessage(
            public_key=stranger.encode(), addresses=(encode(parse(THERE)),), protocols=("/x",)
        ),
    )
    world.connect(here, there)
    assert "not that of" in (await here.wait_event(IdentifyFailed)).reason
    assert here.peers.addresses(there.peer_id) == ()
    assert here.peers.protocols(there.peer_id) is None
    assert here.of_kind(PeerIdentified) == []


async def test_waiting_ends_with_the_connection(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here)

    async def be_silent(stream: Stream) -> None:
        await trio.sleep_forever()

    there.handlers[IDENTIFY] = be_silent
    connection = world.connect(here, there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_later, connection)
        with pytest.raises(P2PError):
            await service.wait_identified(connection)
    with pytest.raises(ConnectionLost):
        await service.wait_identified(connection)
    assert service._known == {}


async def cut_later(connection: MemoryConnection) -> None:
    await trio.sleep(1)
    connection.cut()


async def test_waiting_on_a_connection_nobody_asks_on_ends_with_it(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here)
    connection = world.connect(here, there)
    connection.cut()
    with pytest.raises(ConnectionLost):
        await service.wait_identified(connection)


# ---- what is stored --------------------------------------------------------------------------


async def test_addresses_outlive_the_connection_for_a_while(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    here, there = world.host(1, HERE), world.host(2, THERE)
    service = await started(here, Identify(address_seconds=100.0, recent_seconds=50.0))
    await started(there)
    connection = world.connect(here, there)
    await service.wait_identified(connection)
    await trio.sleep(90)
    connection.cut()
    await trio.sleep(40)
    assert here.peers.addresses(there.peer_id) == (parse(THERE),)
    await trio.sleep(20)
    assert here.peers.addresses(there.peer_id) == ()


async def test_what_comes_over_a_relay_does_not_replace_what_is_known_directly(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I13."""
    here, there = await pair(world)
    tells(there, IdentifyMessage(protocols=("/direct",), addresses=(encode(parse(THERE)),)))
    direct = world.connect(here, there)
    await here.wait_event(PeerIdentified)
    other = encode(parse("/ip4/11.0.0.9/tcp/9"))
    tells(there, IdentifyMessage(protocols=("/relayed",), addresses=(other,)))
    world.connect(here, there, relay=CIRCUIT)
    await trio.sleep(1)
    assert here.of_kind(PeerIdentified)[-1].protocols == ("/relayed",)
    assert here.peers.protocols(there.peer_id) == frozenset({"/direct"})
    assert here.peers.addresses(there.peer_id) == (parse(THERE),)
    direct.cut()
    world.connect(here, there, relay=CIRCUIT)
    await trio.sleep(1)
    assert here.peers.protocols(there.peer_id) == frozenset({"/relayed"})


# ---- observations ----------------------------------------------------------------------------


async def test_an_observation_of_our_listening_port_is_published(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I11."""
    here, there = await pair(world)
    tells(there, IdentifyMessage(observed_address=encode(parse("/ip4/11.7.7.7/tcp/999"))))
    connection = world.connect(here, there)
    event = await here.wait_event(AddressObserved)
    assert event.connection == connection.ref
    assert str(event.address) == "/ip4/11.7.7.7/tcp/999"


async def test_an_observation_of_any_other_port_is_not(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I11."""
    here, there = await pair(world)
    tells(there, IdentifyMessage(observed_address=encode(parse("/ip4/11.7.7.7/tcp/999"))))
    world.connect(here, there, dialer_place=parse("/ip4/11.0.0.1/tcp/50000"))
    event = await here.wait_event(PeerIdentified)
    await trio.sleep(1)
    assert str(event.observed_address) == "/ip4/11.7.7.7/tcp/999"
    assert here.of_kind(AddressObserved) == []


async def test_what_a_peer_sees_over_a_relay_is_nothing_of_ours(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I13."""
    here, there = await pair(world)
    tells(there, IdentifyMessage(observed_address=encode(parse(HERE))))
    world.connect(here, there, relay=CIRCUIT)
    assert (await here.wait_event(PeerIdentified)).observed_address is None
    await trio.sleep(1)
    assert here.of_kind(AddressObserved) == []


# ---- what we tell ----------------------------------------------------------------------------


async def test_a_peer_that_asks_hears_everything_that_makes_sense_where_it_is(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I17: in the record, too."""
    here, there = await pair(world)
    here.addresses.set(
        tuple(with_peer(parse(text), here.peer_id) for text in (HERE, "/ip4/10.0.0.1/tcp/4001"))
    )
    connection = world.connect(there, here)
    told = await read_all(await connection.open_stream(IDENTIFY))
    assert told.public_key == here.key.public_key.encode()
    assert told.protocols == (IDENTIFY, PUSH)
    assert told.addresses == (encode(parse(HERE)),)
    assert told.observed_address == encode(parse(THERE))
    assert told.agent_version == Identify().agent_version
    record = open_peer_record_untrusted(told.signed_record or b"")
    assert record.peer_id == here.peer_id
    assert record.addresses == told.addresses


async def test_over_a_relay_a_peer_hears_of_the_circuit(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I12."""
    here, there = await pair(world)
    connection = world.connect(there, here, relay=CIRCUIT)
    told = await read_all(await connection.open_stream(IDENTIFY))
    assert told.observed_address == encode(parse(CIRCUIT))


async def test_the_record_is_renewed_when_something_changed_and_only_then(
    autojump_clock: MockClock, world: MemoryWorld
) -> None:
    """I6."""
    here, there = await pair(world)
    connection = world.connect(there, here)

    async def sequence() -> int:
        told = await read_all(await connection.open_stream(IDENTIFY))
        return open_peer_record_untrusted(told.signed_record or b"").sequence

    first = await sequence()
    assert first == int(world.wall * 1e9)
    assert await sequence() == first
    here.addresses.set((with_peer(parse("/ip4/11.0.0.1/tcp/5"), here.peer_id),))
    assert await sequence() == first + 1
    world.wall -= 1000
    here.handle("/new", never)
    assert await sequence() == first + 2


@pytest.mark.parametrize(
    "nonsense",
    [
        {"exchange_timeout": 0.0},
        {"max_parallel_pushes": 0},
        {"max_address_bytes": 4096},
        {"agent_version": "x" * 129},
        {"agent_version": "line\nfeed"},
    ],
)
def test_nonsense_is_no_config(nonsense: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        Identify(**nonsense)  # type: ignore[arg-type]
