"""How ports are opened to be looked at: not without a reason, and not for every peer of a crowd."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import Endpoint, Multiaddr, at_endpoint, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.events import CircuitOffered, DialPlanned, NetworkChanged
from p2pnet.interfaces import Apart, Connection
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.prediction import Forecast, Sample, foresee
from p2pnet.protocols.dcutr.sampling import RANDOM_SECONDS, SILENT_SECONDS, Lookout, Sampler
from tests.protocols.dcutr_pair import BOB, RELAY
from tests.protocols.memory_world import MemoryHost, MemoryWorld

SECONDS = 0.2
"""What a look takes."""


class Moving(MemoryHost):
    """A host whose NAT gives one port after the other, as a relay tells."""

    def __init__(self, world: MemoryWorld) -> None:
        super().__init__(world, 1, "/ip4/192.168.1.2/tcp/4001")
        self.relay = world.host(2, "/ip4/11.0.0.2/tcp/2")
        self.others = {self.relay.peer_id: self.relay}
        self.punchable = (parse("/ip4/11.0.0.1/tcp/5000"),)
        self.moving["tcp"] = True
        self.next_port = 5001
        self.gap = 1
        self.still_known: list[int] = []
        """Ports that the NAT gave before, to the next ports that it sees."""
        self.silent = False
        self.given: dict[Connection, int] = {}
        self.opened = Counter[str]()
        self.udp_ports = itertools.count(6001)
        self.lies = itertools.count(7000, 100)
        self.liars: set[PeerId] = set()
        self.mute: set[PeerId] = set()
        self.late: dict[PeerId, float] = {}
        self.goodbye_seconds = 0.0
        self.opening: dict[PeerId, float] = {}
        """Seconds from when a port is to be opened for a peer until anything leaves from it."""

    def meet(self, seed: int, way: str = "tcp/2") -> PeerId:
        """Dial one more public peer; return who that is."""
        other = self.world.host(seed, f"/ip4/11.0.0.{seed}/{way}")
        self.others[other.peer_id] = other
        self.call(other)
        return other.peer_id

    def call(self, other: MemoryHost) -> Connection:
        is_udp = "udp" in str(other.place)
        place = parse("/ip4/192.168.1.2/udp/4001/quic-v1") if is_udp else None
        return self.world.connect(self, other, dialer_place=place)

    def apart(
        self, *, stranger: bool, unanswered_bytes: int | None = None
    ) -> AbstractAsyncContextManager[Apart]:
        assert stranger

        @asynccontextmanager
        async def made() -> AsyncGenerator[Apart]:
            yield Samples(self)
            with trio.CancelScope(shield=True):
                await trio.sleep(self.goodbye_seconds)

        return made()

    async def observe(self, connection: Connection) -> Multiaddr | None:
        await trio.sleep(SECONDS)
        await trio.sleep(self.late.get(connection.peer_id, 0.0))
        if self.silent or connection.peer_id in self.mute:
            await trio.sleep_forever()
        is_lie = connection.peer_id in self.liars
        port = next(self.lies) if is_lie else self.given[connection]
        return at_endpoint(connection.local_address, Endpoint("11.0.0.1", port))

    def give_port(self, connection: Connection) -> str:
        """Be the NAT: give a fresh port one outside; return its transport."""
        if "udp" in str(connection.local_address):
            self.given[connection] = next(self.udp_ports)
            return "udp"
        if self.still_known:
            self.given[connection] = self.still_known.pop()
        else:
            self.given[connection], self.next_port = self.next_port, self.next_port + self.gap
        return "tcp"

    def ports_apart(self, transport: str) -> int:
        return self.opened[transport]

    def open_one(self, transport: str = "tcp") -> None:
        """Open a port apart, for something else."""
        self.opened[transport] += 1
        self.next_port += self.gap


class Samples(Apart):
    """The fresh ports of such a host."""

    def __init__(self, host: Moving) -> None:
        self._host = host
        self._is_sealed = False
        self._last_port = 0

    @property
    def last_port(self) -> int:
        return self._last_port

    def seal(self) -> None:
        self._is_sealed = True

    async def listen(self, address: Multiaddr) -> Multiaddr:
        raise NotImplementedError

    async def dial(self, peer_id: PeerId, address: Multiaddr) -> Connection:
        with trio.CancelScope(shield=True):
            await trio.sleep(self._host.opening.get(peer_id, 0.0))
        if self._is_sealed:
            raise OSError("no more ports")
        connection = self._host.call(self._host.others[peer_id])
        transport = self._host.give_port(connection)
        self._host.opened[transport] += 1
        self._last_port = self._host.opened[transport]
        return connection


@pytest.fixture
async def moving(world: MemoryWorld) -> Moving:
    return Moving(world)


async def test_a_crowd_is_met_with_one_look(autojump_clock: MockClock, moving: Moving) -> None:
    """D16."""
    moving.world.connect(moving, moving.relay)
    sampler = Sampler(moving, 2.0)
    found: list[tuple[Forecast, ...]] = []

    async def look() -> None:
        found.append(await sampler.look())

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(look)
    assert found == [(Forecast("tcp", "11.0.0.1", 5003, 1),)] * 10
    await trio.sleep(1)
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5006, 1),)


async def test_what_a_peer_was_told_is_not_taken_by_another_look(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16 D30: It dials those ports half a second later; and others take ports, too."""
    moving.world.connect(moving, moving.relay)
    sampler = Sampler(moving, 2.0)
    seen = await sampler.look()
    for _ in range(4):
        await trio.sleep(0.9)
        assert sampler.to_tell() == seen
        await trio.sleep(0.05)
        assert await sampler.look() == seen
    await trio.sleep(1)
    assert sampler.to_tell() is None
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5006, 1),)


async def test_what_is_used_without_a_pause_is_held_on_to_for_five_seconds(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16: Others take ports, too."""
    moving.world.connect(moving, moving.relay)
    sampler = Sampler(moving, 2.0)
    await sampler.look()
    told = []
    for _ in range(20):
        told.append(sampler.to_tell() is not None)
        await trio.sleep(0.5)
    assert told == [True] * 9 + [False] * 11


async def test_a_look_in_which_nothing_was_foreseen_is_not_held_on_to(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16 D29: A port more or less may show a rule."""
    moving.gap, moving.next_port = 100, 9001
    moving.world.connect(moving, moving.relay)
    moving.meet(3)
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == ()
    moving.gap = 1
    await trio.sleep(0.6)
    assert sampler.to_tell() == ()
    assert await sampler.look() == ()
    await trio.sleep(0.6)
    assert await sampler.look()


async def test_a_port_that_the_nat_still_knows_costs_another(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16."""
    moving.world.connect(moving, moving.relay)
    moving.still_known = [1285]
    assert await Sampler(moving, 2.0).look() == (Forecast("tcp", "11.0.0.1", 5003, 1),)


async def test_two_ports_that_the_nat_still_knows_cost_two_others(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16: The third lies ahead of where peers see this host."""
    moving.world.connect(moving, moving.relay)
    moving.still_known = [1285, 2410]
    assert await Sampler(moving, 2.0).look() == (Forecast("tcp", "11.0.0.1", 5003, 1),)
    moving.still_known = [1285, 1290]
    assert await Sampler(moving, 2.0).look() == (Forecast("tcp", "11.0.0.1", 5006, 1),)
    moving.still_known = [9000, 1285, 1290]
    assert await Sampler(moving, 2.0).look() == ()
    assert moving.next_port == 5007 + 2


@pytest.mark.parametrize("other", ["mute", "late"])
async def test_who_is_late_is_heard_while_another_one_is_asked(
    autojump_clock: MockClock, moving: Moving, other: str
) -> None:
    """D29: three ports were opened for the other one meanwhile."""
    first, second = moving.meet(5), moving.meet(6)
    moving.late[first] = 1.0
    moving.late[second] = 1.0
    if other == "mute":
        moving.mute.add(second)
    sampler = Sampler(moving, 2.0)
    began = trio.current_time()
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5006, 1),)
    assert trio.current_time() - began == pytest.approx(1.0 + SECONDS)


async def test_a_port_that_nothing_has_left_from_is_not_counted(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29: the first answers when the second is asked already, but before that is sent."""
    first, second = moving.meet(5), moving.meet(6)
    moving.opening[second] = 0.1
    moving.late[first] = 0.85
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5003, 1),)
    assert moving.next_port == 5004


@pytest.mark.parametrize("seconds", [0.9, 1.02, 1.1])
async def test_ports_are_counted_in_the_order_in_which_they_are_opened(
    autojump_clock: MockClock, moving: Moving, seconds: float
) -> None:
    """D29: those of the first are late, before or after those of the second, who answers."""
    first, second = moving.meet(5), moving.meet(6)
    moving.opening = {first: seconds, second: 0.05}
    moving.late[first] = 1.0
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5006, 1),)
    assert moving.next_port == 5007


async def test_what_this_host_opens_for_other_ends_is_counted(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16: before a look has ended, and behind it, in all attempts."""
    moving.world.connect(moving, moving.relay)
    sampler = Sampler(moving, 2.0)
    lookout = Lookout(sampler, trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lookout.look)
        await trio.sleep(SECONDS / 2)
        moving.open_one()
        moving.opened["udp"] += 1
    assert sampler.at_hand() == (Forecast("tcp", "11.0.0.1", 5004, 1),)
    moving.open_one()
    for found in (await sampler.look(), sampler.to_tell(), await lookout.look()):
        assert found == (Forecast("tcp", "11.0.0.1", 5005, 1),)
    lookout.note(parse("/ip4/11.0.0.9/tcp/9"))
    moving.next_port += 1
    moving.open_one()
    assert sampler.at_hand() == (Forecast("tcp", "11.0.0.1", moving.next_port - 1, 1),)


async def test_where_ports_are_kept_those_for_other_ends_are_no_step(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16: The last port is the one that peers see, and fresh ones are as they are inside."""
    samples = [Sample("tcp", port, Endpoint("11.0.0.1", port)) for port in (41001, 52003, 33333)]
    forecast = foresee(samples, moving.punchable, opened=3)
    assert forecast is not None
    assert forecast.by_now(7) == forecast == Forecast("tcp", "11.0.0.1", 5000, 1)


async def test_what_was_seen_is_at_hand_before_goodbye_is_said(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D30: a round trip is what it takes, and who calls has to have it by message 3."""
    moving.goodbye_seconds = 0.5
    moving.world.connect(moving, moving.relay)
    sampler = Sampler(moving, 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.look)
        await trio.sleep(SECONDS / 2)
        assert sampler.at_hand() is None
        await trio.sleep(SECONDS)
        assert sampler.at_hand() == (Forecast("tcp", "11.0.0.1", 5003, 1),)


async def test_a_look_without_anybody_to_ask_is_repeated_at_once(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16."""
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == ()
    moving.world.connect(moving, moving.relay)
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5003, 1),)


@pytest.mark.parametrize(
    ("plan", "samples"), [((RELAY,), 3), ((BOB, RELAY), 0), ((), 0)], ids=["relays", "both", "none"]
)
async def test_who_is_about_to_call_over_a_relay_looks_ahead(
    autojump_clock: MockClock, moving: Moving, plan: tuple[str, ...], samples: int
) -> None:
    """D16: The peer asks for addresses as soon as it is called."""
    await moving.start(DCUtR().build(moving.kit))
    moving.world.connect(moving, moving.relay)
    moving.publish(DialPlanned(moving.relay.peer_id, tuple((0.0, parse(a)) for a in plan), ()))
    await trio.sleep(2)
    assert moving.next_port == 5001 + samples


async def test_who_is_about_to_be_called_looks_ahead(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D16: So CONNECT need not wait for that."""
    await moving.start(DCUtR().build(moving.kit))
    moving.world.connect(moving, moving.relay)
    caller = moving.world.host(3, BOB).peer_id
    moving.publish(CircuitOffered(caller, moving.relay.peer_id))
    await trio.sleep(0.1)
    moving.world.connect(moving.world.host(3, BOB), moving, relay=RELAY)
    await trio.sleep(2)
    assert moving.next_port == 5004


async def test_a_nat_without_a_rule_is_not_looked_at_again_for_minutes(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.world.connect(moving, moving.relay)
    moving.gap, moving.next_port = 100, 9001
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == ()
    assert moving.next_port == 9301
    await trio.sleep(RANDOM_SECONDS - 1)
    assert not sampler.is_of_use
    began = trio.current_time()
    assert await sampler.look() == ()
    assert (moving.next_port, trio.current_time()) == (9301, began)
    await trio.sleep(1)
    assert sampler.is_of_use
    moving.gap = 1
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 9303, 1),)


@pytest.mark.parametrize("liar", [0, 1, 2])
async def test_one_liar_among_three_is_believed_once_at_most(
    autojump_clock: MockClock, moving: Moving, liar: int
) -> None:
    """D29: he says that the ports follow no rule."""
    met = [moving.meet(seed) for seed in (5, 6, 7)]
    moving.liars.add(met[liar])
    sampler = Sampler(moving, 2.0)
    for number in range(1, 4):
        await trio.sleep(1)
        began = trio.current_time()
        found = await sampler.look()
        # Nobody waits for a second opinion; and he is not asked first a second time.
        is_deceived = (liar, number) == (0, 1)
        forecast = Forecast("tcp", "11.0.0.1", moving.next_port - 1, 1)
        assert found == (() if is_deceived else (forecast,))
        assert trio.current_time() - began == pytest.approx(SECONDS)
    assert sampler.is_of_use


async def test_a_liar_is_believed_once_at_most_where_others_tell_of_another_transport(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29: who is asked over TCP says nothing of who is to be asked last over UDP."""
    moving.meet(5)
    moving.liars.add(moving.meet(6, "udp/2/quic-v1"))
    moving.meet(7, "udp/2/quic-v1")
    moving.moving["udp"] = True
    moving.punchable = (*moving.punchable, parse("/ip4/11.0.0.1/udp/6000/quic-v1"))
    sampler = Sampler(moving, 2.0)
    found = []
    for _ in range(4):
        await trio.sleep(1)
        found.append([forecast.transport for forecast in await sampler.look()])
    assert found == [["tcp"], ["tcp", "udp"], ["tcp", "udp"], ["tcp", "udp"]]


@pytest.mark.parametrize("first", [True, False])
async def test_one_that_is_silent_among_three_changes_nothing(
    autojump_clock: MockClock, moving: Moving, first: bool
) -> None:
    """D29: others are asked beside him, and first the next time."""
    met = [moving.meet(seed) for seed in (5, 6, 7)]
    moving.mute.add(met[0 if first else 2])
    sampler = Sampler(moving, 2.0)
    for number in (1, 2):
        await trio.sleep(1)
        found = await sampler.look()
        # It took three ports where it was asked.
        steps = 3 * number + (3 if first else 0)
        assert found == (Forecast("tcp", "11.0.0.1", 5000 + steps, 1),)
    began = trio.current_time()
    await trio.sleep(1)
    await sampler.look()
    assert trio.current_time() - began == pytest.approx(1 + SECONDS)


async def test_who_is_silent_of_one_transport_takes_nothing_of_the_other_with_him(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.meet(5)
    moving.mute.add(moving.meet(6, "udp/2/quic-v1"))
    moving.moving["udp"] = True
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 5003, 1),)
    assert sampler.at_hand() == (Forecast("tcp", "11.0.0.1", 5003, 1),)


async def test_a_transport_of_which_nobody_says_anything_holds_up_two_looks_at_most(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29: in a minute; and the other one is looked at all the same."""
    moving.meet(5)
    mute = moving.meet(6, "udp/2/quic-v1")
    moving.mute.add(mute)
    moving.moving["udp"] = True
    moving.punchable = (*moving.punchable, parse("/ip4/11.0.0.1/udp/6000/quic-v1"))
    sampler = Sampler(moving, 2.0)
    took, found = [], []
    for wait in (1.0, 1.0, 1.0, SILENT_SECONDS, 1.0):
        if wait == SILENT_SECONDS:
            moving.mute.clear()
        await trio.sleep(wait)
        began = trio.current_time()
        found.append([forecast.transport for forecast in await sampler.look()])
        took.append(round(trio.current_time() - began, 3))
    assert took == [2.0, 2.0, SECONDS, SECONDS, SECONDS]
    assert found == [["tcp"]] * 3 + [["tcp", "udp"]] * 2


async def test_a_word_in_between_is_an_end_of_silence(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.meet(5)
    sampler = Sampler(moving, 2.0)
    for silent in (True, False, True):
        moving.silent = silent
        await trio.sleep(1)
        await sampler.look()
    assert sampler.is_of_use


async def test_a_look_that_waited_for_another_has_not_heard_all_of_the_silence(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.meet(5)
    moving.silent = True
    sampler = Sampler(moving, 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.look)
        await trio.sleep(0.5)
        nursery.start_soon(sampler.look)
    assert sampler.is_of_use
    await sampler.look()
    assert not sampler.is_of_use


async def test_two_have_to_say_that_there_is_no_rule(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29: in two looks, and then nobody is asked any more; and two at one IP count as one."""
    for seed in (5, 6, 7):
        moving.meet(seed)
    moving.gap, moving.next_port = 100, 9001
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == ()
    assert sampler.is_of_use
    assert moving.next_port == 9001 + 300
    await trio.sleep(1)
    assert await sampler.look() == ()
    assert not sampler.is_of_use
    assert moving.next_port == 9001 + 600


async def test_another_network_is_looked_at_at_once(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    await moving.start(DCUtR().build(moving.kit))
    moving.world.connect(moving, moving.relay)
    moving.gap, moving.next_port = 100, 9001
    offered = CircuitOffered(moving.world.host(3, BOB).peer_id, moving.relay.peer_id)
    for expected in (9301, 9301):
        moving.publish(offered)
        await trio.sleep(2)
        assert moving.next_port == expected
    moving.publish(NetworkChanged("moved"))
    moving.publish(offered)
    await trio.sleep(2)
    assert moving.next_port == 9601


async def test_another_network_is_looked_at_though_the_news_of_it_was_missed(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.world.event_limit = 4
    await moving.start(DCUtR().build(moving.kit))
    moving.world.connect(moving, moving.relay)
    await trio.sleep(1)
    moving.gap, moving.next_port = 100, 9001
    offered = CircuitOffered(moving.world.host(3, BOB).peer_id, moving.relay.peer_id)
    moving.publish(offered)
    await trio.sleep(2)
    assert moving.next_port == 9301
    for event in (*[offered] * 9, NetworkChanged("moved")):
        moving.publish(event)
    await trio.sleep(2)
    moving.publish(offered)
    await trio.sleep(2)
    assert moving.next_port == 9601


async def test_what_is_found_out_after_a_move_is_of_the_network_before(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.world.connect(moving, moving.relay)
    moving.gap, moving.next_port = 100, 9001
    sampler = Sampler(moving, 2.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.look)
        await trio.sleep(SECONDS / 2)
        sampler.forget()
    assert sampler.is_of_use
    moving.gap = 1
    assert await sampler.look() == (Forecast("tcp", "11.0.0.1", 9303, 1),)


async def test_a_look_that_failed_says_nothing_of_the_nat(
    autojump_clock: MockClock, moving: Moving
) -> None:
    """D29."""
    moving.world.connect(moving, moving.relay)
    moving.silent = True
    sampler = Sampler(moving, 2.0)
    assert await sampler.look() == ()
    assert sampler.is_of_use


async def test_a_nat_that_leaves_ports_alone_is_not_looked_at(moving: Moving) -> None:
    """D16."""
    moving.world.connect(moving, moving.relay)
    moving.moving["tcp"] = False
    assert await Sampler(moving, 2.0).look() == ()
    assert moving.next_port == 5001


@pytest.mark.parametrize("outside", [4001, 5000])
async def test_a_nat_that_one_peer_alone_has_seen_is_looked_at_if_it_does_not_keep_the_port(
    moving: Moving, outside: int
) -> None:
    """D16: nobody can tell yet if each destination is given another one."""
    moving.world.connect(moving, moving.relay)
    moving.moving.clear()
    moving.punchable = (parse(f"/ip4/11.0.0.1/tcp/{outside}"),)
    expected = () if outside == 4001 else (Forecast("tcp", "11.0.0.1", 5003, 1),)
    assert await Sampler(moving, 2.0).look() == expected


async def test_a_nat_that_nobody_has_seen_is_not_looked_at(moving: Moving) -> None:
    """D16."""
    moving.world.connect(moving, moving.relay)
    moving.moving.clear()
    moving.punchable = ()
    assert not Sampler(moving, 2.0).is_of_use


async def test_who_called_is_not_dialled_for_a_look(moving: Moving) -> None:
    """D16: Perhaps it cannot be dialled."""
    moving.world.connect(moving.relay, moving)
    assert await Sampler(moving, 2.0).look() == ()


async def test_a_look_does_not_wait_for_ever(autojump_clock: MockClock, moving: Moving) -> None:
    """D16."""
    moving.world.connect(moving, moving.relay)
    moving.silent = True
    began = trio.current_time()
    assert await Sampler(moving, 2.0).look() == ()
    assert trio.current_time() - began == pytest.approx(2.0)
