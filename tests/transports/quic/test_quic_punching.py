"""Rules Q2 Q20: from which port a dial leaves, and how holes are punched into NATs."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_address, quic_endpoint
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import hearing
from p2pnet.errors import AddressUnsupported, P2PError
from p2pnet.interfaces import CapableConnection, Listener, PendingConnection, Role
from p2pnet.testing.conformance.running import converse, stream_between
from p2pnet.testing.links import Quality
from p2pnet.testing.world import World
from p2pnet.transports.quic.connection import QuicConnection
from p2pnet.transports.quic.endings import no_answer
from p2pnet.transports.quic.listening import Expectation, QuicListener
from p2pnet.transports.quic.transport import PUNCH_PATIENCE, QuicTransport
from tests.transports.quic.quic_scene import End, Peer

NO_ANSWER = type(no_answer())


class Home:
    """A peer behind a NAT that listens, and where its NAT shows it to a peer outside."""

    def __init__(self, world: World, kind: str, name: str, *, link: Quality | None = None) -> None:
        self.world = world
        site = world.home(kind, f"home of {name}", link=link)
        self.peer = Peer(world.machine(name, at=site).env)
        self.door: Listener | None = None
        self.accepted: list[CapableConnection] = []

    async def open(self, nursery: trio.Nursery) -> None:
        self.door = await self.peer.listen("0.0.0.0", 4001)
        nursery.start_soon(self.accept)

    async def accept(self) -> None:
        assert self.door is not None
        while True:
            try:
                pending = await self.door.accept()
            except trio.ClosedResourceError:
                return
            await self.upgrade(pending)

    async def upgrade(self, pending: PendingConnection) -> None:
        try:
            with trio.fail_after(10):
                self.accepted.append(await pending.upgrade())
        except (P2PError, OSError, trio.TooSlowError):
            return

    async def close(self) -> None:
        assert self.door is not None
        for connection in self.accepted:
            await connection.aclose()
        await self.door.aclose()


class Mirror:
    """A public peer that sees from where others come."""

    def __init__(self, world: World) -> None:
        machine = world.machine("mirror")
        self.host = machine.addresses[0]
        self.peer = Peer(machine.env)

    async def shows(self, home: Home) -> Multiaddr:
        door = await self.peer.listen(self.host)
        seen: list[Multiaddr] = []

        async def serve() -> None:
            connection = await (await door.accept()).upgrade()
            seen.append(connection.remote_address)
            await connection.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            connection = await home.peer.dial(door.address, self.peer)
        await connection.aclose()
        await door.aclose()
        return seen[0]


async def try_dial(
    home: Home, address: Multiaddr, other: Home, role: Role, made: list[CapableConnection]
) -> None:
    try:
        made.append(await home.peer.dial(address, other.peer, role=role))
    except (P2PError, OSError):
        return


async def talk(one: CapableConnection, two: CapableConnection) -> None:
    async with trio.open_nursery() as nursery:
        ends = End(one), End(two)
        for end in ends:
            nursery.start_soon(end.run)
        await converse(*await stream_between(*ends))
        await converse(*await stream_between(*reversed(ends)))
        await one.aclose()
        await two.aclose()


async def punch(
    world: World, kinds: tuple[str, str], roles: tuple[Role, Role]
) -> tuple[list[CapableConnection], list[CapableConnection], Home, Home]:
    """Punch between two homes; return what the dials of each made."""
    alice, bob = Home(world, kinds[0], "alice"), Home(world, kinds[1], "bob")
    mirror = Mirror(world)
    results: tuple[list[CapableConnection], list[CapableConnection]] = ([], [])
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        where_alice, where_bob = await mirror.shows(alice), await mirror.shows(bob)
        async with trio.open_nursery() as dialling:
            dialling.start_soon(try_dial, alice, where_bob, bob, roles[0], results[0])
            dialling.start_soon(try_dial, bob, where_alice, alice, roles[1], results[1])
        punched = results[1] if roles[1] is Role.LISTENER and results[1] else bob.accepted
        await trio.sleep(1)
        for one, two in zip(results[0], punched, strict=False):
            await talk(one, two)
        for one, two in zip(alice.accepted, results[1], strict=False):
            await talk(one, two)
        for connection in (*results[0], *results[1]):
            await connection.aclose()
        await alice.close()
        await bob.close()
        nursery.cancel_scope.cancel()
    return (*results, alice, bob)


@pytest.mark.parametrize(
    "kinds",
    [
        ("port-restricted", "port-restricted"),
        ("full-cone", "port-restricted"),
        ("port-restricted", "full-cone"),
        ("address-restricted", "port-restricted"),
        ("full-cone", "symmetric"),
    ],
)
async def test_random_packets_let_the_dial_of_the_other_side_in(
    kinds: tuple[str, str], world: World
) -> None:
    """Q20: the listener's dial returns the very connection that came in."""
    dialled, punched, alice, bob = await punch(
        world, (kinds[1], kinds[0]), (Role.DIALER, Role.LISTENER)
    )
    assert len(dialled) == 1
    if kinds[1] == "symmetric":
        # It comes from another port than the one that is knocked at: as any arrival.
        assert not punched
        assert [one.peer_id for one in bob.accepted] == [alice.peer.peer_id]
        return
    assert len(punched) == 1
    assert not bob.accepted


async def one_punches(
    world: World, kinds: tuple[str, str], *, round_trip: float, late: float = 0.0
) -> tuple[float, Home, list[CapableConnection], list[CapableConnection]]:
    """Punch from Bob, whom Alice dials, that much earlier; return how long that took Bob.

    And what each dial made.
    """
    link = Quality(latency=round_trip / 4)
    alice, bob = (
        Home(world, kind, name, link=link)
        for kind, name in zip(kinds, ("alice", "bob"), strict=True)
    )
    mirror = Mirror(world)
    dialled: list[CapableConnection] = []
    punched: list[CapableConnection] = []
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        where_alice, where_bob = await mirror.shows(alice), await mirror.shows(bob)
        nursery.start_soon(try_dial, alice, where_bob, bob, Role.DIALER, dialled)
        await trio.sleep(late)
        began = trio.current_time()
        await try_dial(bob, where_alice, alice, Role.LISTENER, punched)
        seconds = trio.current_time() - began
        await trio.sleep(1)
        for connection in (*dialled, *punched):
            await connection.aclose()
        await alice.close()
        await bob.close()
        nursery.cancel_scope.cancel()
    return seconds, alice, dialled, punched


async def test_who_cannot_be_found_dials_after_a_tenth_of_a_second(world: World) -> None:
    """Q20: behind a symmetric NAT, at one that lets everybody in."""
    seconds, alice, dialled, punched = await one_punches(
        world, ("full-cone", "symmetric"), round_trip=0.2
    )
    assert seconds == pytest.approx(0.1 + 0.2, abs=0.04)
    assert not dialled
    assert len(punched) == len(alice.accepted) == 1


async def test_who_is_found_later_than_that_is_not_connected_twice(world: World) -> None:
    """Q20: its own dial is under way when the remote's comes in."""
    kinds = ("port-restricted", "port-restricted")
    seconds, alice, dialled, punched = await one_punches(world, kinds, round_trip=0.5)
    assert seconds == pytest.approx(1.5 * 0.5, abs=0.04)
    assert len(dialled) == len(punched) == 1
    assert not alice.accepted


@pytest.mark.parametrize("round_trip", [0.02, 0.04])
async def test_a_dial_that_came_too_early_begins_anew_when_the_remote_knocks(
    round_trip: float, world: World
) -> None:
    """Q32: Bob's bytes go there, and the handshake comes, goes and comes again."""
    kinds = ("port-restricted", "port-restricted")
    way = round_trip / 2 + 0.01  # Homes have 5 ms of their own.
    seconds, alice, dialled, punched = await one_punches(
        world, kinds, round_trip=round_trip, late=way + 0.005
    )
    assert seconds == pytest.approx(4 * way, abs=0.008)
    assert seconds < PUNCH_PATIENCE + 2 * way - 0.02, "no later than by Bob's own dial"
    assert len(dialled) == len(punched) == 1
    assert not alice.accepted


async def test_two_symmetric_nats_cannot_be_punched(world: World) -> None:
    """Q20: and both dials end, with nothing left."""
    kinds = ("symmetric", "symmetric")
    dialled, punched, alice, bob = await punch(world, kinds, (Role.DIALER, Role.LISTENER))
    assert not dialled
    assert not punched
    assert not alice.accepted
    assert not bob.accepted


async def test_both_sides_may_dial_at_once(world: World) -> None:
    """Q20: as js-libp2p does; each dial gets a connection of its own."""
    kinds = ("port-restricted", "port-restricted")
    one, two, alice, bob = await punch(world, kinds, (Role.DIALER, Role.DIALER))
    assert len(one) == len(two) == 1
    assert len(alice.accepted) == len(bob.accepted) == 1


async def test_a_stranger_at_the_place_that_is_knocked_at_is_accepted_as_any(
    world: World,
) -> None:
    """Q20."""
    alice, bob = Home(world, "open", "alice"), Home(world, "open", "bob")
    stranger = Peer(world.machine("nobody").env)
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        assert bob.door is not None
        address = quic_address(Endpoint(world.machines["alice"].addresses[0], 4001))
        target = quic_address(Endpoint(world.machines["bob"].addresses[0], 4001))
        async with trio.open_nursery() as dialling:
            dialling.start_soon(try_dial, alice, target, bob, Role.DIALER, alice.accepted)
            with pytest.raises(NO_ANSWER):
                await bob.peer.dial(address, stranger, role=Role.LISTENER)
        await trio.sleep(1)
        assert [one.peer_id for one in bob.accepted] == [alice.peer.peer_id]
        await alice.close()
        await bob.close()
        nursery.cancel_scope.cancel()


async def test_what_comes_in_is_accepted_if_nobody_waits_for_it_any_more(world: World) -> None:
    """Q20: the remote is ready half a round trip before the listener is."""
    alice, bob = Home(world, "open", "alice"), Home(world, "open", "bob")
    dialled: list[CapableConnection] = []
    punched: list[CapableConnection] = []
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        address = quic_address(Endpoint(world.machines["alice"].addresses[0], 4001))
        target = quic_address(Endpoint(world.machines["bob"].addresses[0], 4001))
        nursery.start_soon(try_dial, alice, target, bob, Role.DIALER, dialled)
        with trio.move_on_after(0.025):  # It takes 0.01 s from one to the other.
            await try_dial(bob, address, alice, Role.LISTENER, punched)
        assert len(dialled) == 1
        assert not bob.accepted
        await trio.sleep(0.2)
        assert not punched
        await talk(dialled[0], bob.accepted[0])
        await alice.close()
        await bob.close()
        nursery.cancel_scope.cancel()


async def test_what_has_come_in_is_accepted_if_its_dial_is_cancelled_at_that_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q20: the handshake is over, and what the dial has started is not, yet."""
    alice, bob = Home(world, "open", "alice"), Home(world, "open", "bob")
    dialled: list[CapableConnection] = []
    punched: list[CapableConnection] = []
    hurried = trio.CancelScope()
    meet = QuicTransport._meet

    async def meet_in_vain(
        transport: QuicTransport,
        listener: QuicListener,
        expectation: Expectation,
        peer_id: PeerId,
        alone: trio.CancelScope,
    ) -> QuicConnection:
        connection = await meet(transport, listener, expectation, peer_id, alone)
        hurried.cancel()
        return connection

    monkeypatch.setattr(QuicTransport, "_meet", meet_in_vain)
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        address = quic_address(Endpoint(world.machines["alice"].addresses[0], 4001))
        target = quic_address(Endpoint(world.machines["bob"].addresses[0], 4001))
        nursery.start_soon(try_dial, alice, target, bob, Role.DIALER, dialled)
        with hurried:
            await try_dial(bob, address, alice, Role.LISTENER, punched)
        await trio.sleep(0.2)
        assert not punched
        await talk(dialled[0], bob.accepted[0])
        await alice.close()
        await bob.close()
        nursery.cancel_scope.cancel()


async def test_what_comes_in_is_refused_if_nobody_accepts_there_any_more(world: World) -> None:
    """Q1: the socket is closed when the last of its users is gone, and this one has none."""
    alice, bob = Home(world, "open", "alice"), Home(world, "open", "bob")
    dialled: list[CapableConnection] = []
    async with trio.open_nursery() as nursery:
        for home in (alice, bob):
            await home.open(nursery)
        address = quic_address(Endpoint(world.machines["alice"].addresses[0], 4001))
        target = quic_address(Endpoint(world.machines["bob"].addresses[0], 4001))
        nursery.start_soon(try_dial, alice, target, bob, Role.DIALER, dialled)
        with trio.move_on_after(0.025):  # As above: a handshake is under way then.
            async with trio.open_nursery() as punching:
                punching.start_soon(try_dial, bob, address, alice, Role.LISTENER, [])
                await trio.sleep(0.02)
                await bob.close()
        free = await bob.peer.env.network.bind_udp(Endpoint("0.0.0.0", 4001))
        await free.aclose()
        for connection in dialled:
            await connection.aclose()
        await alice.close()
        nursery.cancel_scope.cancel()


async def test_a_dial_that_the_remote_has_taken_is_not_cancelled(world: World) -> None:
    """Q20: the last packet of the handshake is as good as sent."""
    bob = Home(world, "open", "bob", link=Quality(latency=0.1))
    peer = Peer(world.machine("m").env)
    target = quic_address(Endpoint(world.machines["bob"].addresses[0], 4001))
    made: list[CapableConnection] = []
    async with trio.open_nursery() as nursery:
        await bob.open(nursery)
        with trio.CancelScope() as hurried, hearing(hurried.cancel):
            made.append(await peer.dial(target, bob.peer))
        assert hurried.cancel_called
        assert not bob.accepted
        await trio.sleep(0.2)
        await talk(made[0], bob.accepted[0])
        await bob.close()
        nursery.cancel_scope.cancel()


async def test_who_does_not_listen_cannot_be_dialled(world: World) -> None:
    peer, other = Peer(world.machine().env), Peer(world.machine("other").env)
    address = quic_address(Endpoint(world.machines["other"].addresses[0], 4001))
    with pytest.raises(AddressUnsupported, match="nothing listens"):
        await peer.dial(address, other, role=Role.LISTENER)


async def test_a_dial_leaves_from_the_port_that_is_listened_on(world: World) -> None:
    """Q2: unless any port is asked for; then from a fresh one each."""
    peer, other = Peer(world.machine("m").env), Peer(world.machine("o").env)
    here = await peer.listen("0.0.0.0", 4001)
    there = await other.listen(world.machines["o"].addresses[0])
    ports = []
    for any_port in (False, False, True, True):
        async with trio.open_nursery() as nursery:
            made: list[CapableConnection] = []

            async def dial(any_port: bool, made: list[CapableConnection]) -> None:
                made.append(await peer.dial(there.address, other, any_port=any_port))

            nursery.start_soon(dial, any_port, made)
            accepted = await (await there.accept()).upgrade()
        local, seen = quic_endpoint(made[0].local_address), quic_endpoint(accepted.remote_address)
        assert local == seen
        assert local is not None
        assert local.host == world.machines["m"].addresses[0]
        ports.append(local.port)
        await made[0].aclose()
        await accepted.aclose()
    assert ports[:2] == [4001, 4001]
    assert len(set(ports)) == 3
    await here.aclose()
    await there.aclose()


async def test_one_listens_again_where_connections_of_a_closed_listener_go_on(
    world: World,
) -> None:
    """Q1: all that is one port of UDP."""
    peer, other = Peer(world.machine("m").env), Peer(world.machine("o").env)
    door = await peer.listen(world.machines["m"].addresses[0], 4001)
    async with trio.open_nursery() as nursery:
        made: list[CapableConnection] = []

        async def dial() -> None:
            made.append(await other.dial(door.address, peer))

        nursery.start_soon(dial)
        accepted = await (await door.accept()).upgrade()
    await door.aclose()
    again = await peer.listen(world.machines["m"].addresses[0], 4001)
    assert again.address == door.address
    await talk(made[0], accepted)
    await again.aclose()
