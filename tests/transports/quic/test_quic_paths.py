"""Q29 Q30: where a remote is, when it goes on from elsewhere; and who is seen elsewhere himself."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint, quic_address
from p2pnet.testing.nat import NatKind, PortChoice
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.connection import QuicConnection
from p2pnet.transports.quic.core import (
    MAX_IDS,
    Challenged,
    Core,
    Event,
    HandshakeDone,
    Moved,
    StreamData,
)
from p2pnet.transports.quic.qh3_core import Qh3
from tests.transports.quic.quic_scene import Peer, meeting
from tests.transports.quic.test_aioquic_core import CLIENT, SERVER, pair, settings
from tests.transports.quic.test_quic_streams import CoreName, both, host_of

NEW, THIRD = Endpoint("1.2.3.4", 6), Endpoint("9.9.9.9", 7)
LIBRARIES = pytest.mark.parametrize("library", [Aioquic, Qh3])


class Line:
    """A client whose outside address can change, and a server; time passes with each step."""

    def __init__(self, client: type[Aioquic | Qh3], server: type[Aioquic | Qh3]) -> None:
        self.client, self.server = pair(client(settings()), server(settings()))
        self.seen_at = CLIENT
        self.now = 0.2
        self.told: dict[Core, list[Event]] = {self.client: [], self.server: []}
        self.lost: list[Endpoint] = []
        """Where datagrams went that nobody got."""
        self.run(1.0)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            for core in (self.client, self.server):
                timer = core.timer()
                if timer is not None and timer <= self.now:
                    core.on_timer(self.now)
            self._carry()
            self.now += 0.01

    def _carry(self) -> None:
        for data, _ in self.client.transmit(self.now):
            self.server.receive([data], self.seen_at, self.now)
        for data, to in self.server.transmit(self.now):
            if to == self.seen_at:
                self.client.receive([data], SERVER, self.now)
            else:
                self.lost.append(to)
        for core, told in self.told.items():
            told += iter(core.next_event, None)

    def send(self, data: bytes) -> None:
        number = self.client.open_stream()
        assert number is not None
        self.client.write(number, data, is_last=True)

    def arrived(self) -> list[bytes]:
        return [event.data for event in self.told[self.server] if isinstance(event, StreamData)]

    def moves(self) -> list[Event]:
        return [event for event in self.told[self.server] if isinstance(event, Moved)]


@LIBRARIES
def test_a_remote_that_has_proved_where_it_is_has_moved(library: type[Aioquic | Qh3]) -> None:
    """Q29."""
    line = Line(Aioquic, library)
    assert HandshakeDone() in line.told[line.server]
    assert line.moves() == [], "it has been here all the time"
    line.seen_at = NEW
    line.client.ping()
    line.run(3.0)
    assert line.moves() == [Moved(NEW)]
    line.send(b"on")
    line.run(1.0)
    assert line.arrived() == [b"on"]
    line.seen_at = THIRD
    line.client.ping()
    line.run(3.0)
    assert line.moves() == [Moved(NEW), Moved(THIRD)]


@pytest.mark.parametrize(("library", "moves"), [(Aioquic, 2 * MAX_IDS), (Qh3, 3)])
def test_a_remote_may_move_more_often_than_it_has_connection_ids(
    library: type[Aioquic | Qh3], moves: int
) -> None:
    """Q31: for each that was used up comes another. How far qh3 goes stands under Deviations."""
    line = Line(Aioquic, library)
    places = [Endpoint("1.2.3.4", port) for port in range(100, 100 + moves)]
    for place in places:
        line.seen_at = place
        line.client.ping()
        line.run(3.0)
    assert line.moves() == [Moved(place) for place in places]


def test_a_remote_may_go_back_to_where_it_was() -> None:
    """Q29: that qh3 does not follow it there stands under Deviations."""
    line = Line(Aioquic, Aioquic)
    for place in (NEW, CLIENT):
        line.seen_at = place
        line.client.ping()
        line.run(3.0)
    assert line.moves() == [Moved(NEW), Moved(CLIENT)]


@LIBRARIES
def test_a_copy_from_elsewhere_that_comes_first_proves_nothing(
    library: type[Aioquic | Qh3],
) -> None:
    """Q29: whoever sees packets may send them again from his own place, faster than the client."""
    line = Line(Aioquic, library)
    for _ in range(5):
        line.send(b"honest")
        for data, _ in line.client.transmit(line.now):
            line.server.receive([data], THIRD, line.now)
        line.run(5.0)
    assert line.moves() == []
    assert THIRD in line.lost, "it was asked for a proof"
    assert line.arrived() == [b"honest"] * 5


@LIBRARIES
def test_noise_from_elsewhere_is_not_even_asked_for_a_proof(library: type[Aioquic | Qh3]) -> None:
    """Q29."""
    line = Line(Aioquic, library)
    forged = b"\x40" + line.server.id + bytes(40)
    line.server.receive([forged], THIRD, line.now)
    line.run(3.0)
    assert line.moves() == []
    assert line.lost == []


@LIBRARIES
def test_who_was_dialled_stays_where_it_is(library: type[Aioquic | Qh3]) -> None:
    """Q29: a client hears nobody from elsewhere, whatever he says."""
    line = Line(library, Aioquic)
    line.server.ping()
    for data, _ in line.server.transmit(line.now):
        line.client.receive([data], THIRD, line.now)
    line.run(3.0)
    assert not [event for event in line.told[line.client] if isinstance(event, Moved)]


@LIBRARIES
def test_to_be_dialled_is_no_move(library: type[Aioquic | Qh3]) -> None:
    """Q29: it would be told to the host, and cost each dial a turn."""
    core = library(settings()).dial(SERVER, 0.0)
    assert core.transmit(0.0)
    assert core.next_event() is None


@LIBRARIES
def test_a_dialer_hears_that_it_is_seen_elsewhere(library: type[Aioquic | Qh3]) -> None:
    """Q30."""
    line = Line(Aioquic, library)
    assert Challenged() not in line.told[line.client]
    line.seen_at = NEW
    line.client.ping()
    line.run(3.0)
    assert line.told[line.client].count(Challenged()) >= 1
    assert Challenged() not in line.told[line.server]


@both
async def test_the_address_of_a_remote_follows_it_through_a_router_that_is_rebooted(
    core: CoreName, world: World
) -> None:
    """Q29: goodbyes go there, too, and stateless resets are expected from there."""
    router = world.router("home", NatKind(ports=PortChoice.RANDOM))
    one = Peer(world.machine(at=router, families=IPV4_ONLY).env, QUIC(core=core))
    two = Peer(world.machine(families=IPV4_ONLY).env, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        ours, theirs = dialled.capable, accepted.capable
        assert isinstance(ours, QuicConnection)
        assert isinstance(theirs, QuicConnection)
        told: list[bool] = []
        theirs.on_path_changed = told.append
        before = theirs.remote
        router.reboot()
        while not told:  # noqa: ASYNC110
            await trio.sleep(1)
        assert told == [False]
        assert theirs.remote != before
        assert theirs.remote_address == quic_address(theirs.remote)
        assert theirs._socket._peers == {theirs.remote: [theirs]}
        await theirs.aclose()
        with trio.fail_after(1):
            await dialled.ended.wait()


async def test_a_host_is_told_of_moves_once_a_second_at_most(world: World) -> None:
    """Q29: and of the last one in any case."""
    one = Peer(world.machine(families=IPV4_ONLY).env)
    two = Peer(world.machine(families=IPV4_ONLY).env)
    async with meeting(one, two, host_of(two)) as made:
        theirs = (await made.connect())[1].capable
        assert isinstance(theirs, QuicConnection)
        told: list[tuple[float, Endpoint]] = []
        theirs.on_path_changed = lambda is_ours: told.append((trio.current_time(), theirs.remote))
        began = trio.current_time()
        for number in range(100):
            theirs._take(Moved((NEW, THIRD)[number % 2]))
            theirs.kick()
            await trio.sleep(0.025)
        await trio.sleep(10)
    assert [time - began for time, _ in told] == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=0.1)
    assert told[-1][1] == THIRD
