"""Rules Q3 to Q8, Q16 to Q18: who gets in, and what garbage and floods cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_address, quic_endpoint
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import hearing
from p2pnet.errors import P2PError, PeerIdMismatch, PeerSilent
from p2pnet.interfaces import Listener
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.endings import no_answer
from p2pnet.transports.quic.listening import QuicListener, QuicPending
from tests.transports.quic.puppets import settings_of
from tests.transports.quic.quic_scene import Peer, meeting
from tests.transports.quic.test_quic_streams import (
    CoreName,
    both,
    connected,
    host_of,
    two_peers,
)

FAILED = (P2PError, OSError)


class Scene:
    """A listener that serves, and a machine from which to attack it."""

    def __init__(self, world: World, part: QUIC | None = None) -> None:
        self.world = world
        self.machine: Machine = world.machine("attacker")
        self.server = Peer(world.machine("server").env, part)
        self.attacker = Peer(self.machine.env)
        self.host = world.machines["server"].addresses[0]
        self.errors: list[BaseException] = []
        self.upgraded: list[PeerId] = []
        self.streams = 0

    async def serve(self, door: QuicListener, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self.upgrade, await door.accept())

    async def upgrade(self, pending: QuicPending) -> None:
        try:
            with trio.fail_after(10):
                connection = await pending.upgrade()
        except (*FAILED, trio.TooSlowError) as error:
            self.errors.append(error)
            return
        self.upgraded.append(connection.peer_id)
        with trio.move_on_after(20):
            try:
                await connection.run(self.count)
            except FAILED as error:
                self.errors.append(error)
        await connection.aclose()

    def count(self, stream: object) -> None:
        self.streams += 1


def address_of(door: QuicListener) -> Endpoint:
    endpoint = quic_endpoint(door.address)
    assert endpoint is not None
    return endpoint


async def honest(scene: Scene, address: Multiaddr) -> None:
    connection = await scene.attacker.dial(address, scene.server)
    assert connection.peer_id == scene.server.peer_id
    await trio.sleep(1)
    await connection.aclose()
    assert scene.upgraded == [scene.attacker.peer_id]


# ---- who gets in -------------------------------------------------------------------------


@both
async def test_another_peer_than_the_one_asked_for_is_refused(core: CoreName, world: World) -> None:
    """Q5."""
    one, two, three = (Peer(world.machine().env, QUIC(core=core)) for _ in range(3))
    async with meeting(one, two, host_of(two)) as made:

        async def refuse() -> None:
            pending = await made.door.accept()
            with pytest.raises(FAILED):
                await pending.upgrade()

        made.nursery.start_soon(refuse)
        with pytest.raises(PeerIdMismatch):
            await one.dial(made.door.address, three)


# ---- garbage and floods ------------------------------------------------------------------


async def flood(scene: Scene, door: QuicListener, datagrams: Sequence[bytes]) -> list[bytes]:
    """Send datagrams; return what was answered."""
    socket = await scene.machine.env.network.bind_udp(Endpoint("0.0.0.0", 0))
    answers: list[bytes] = []
    for start in range(0, len(datagrams), 100):
        await socket.send_many(datagrams[start : start + 100], address_of(door))
        with trio.move_on_after(0.1):
            while True:
                answers += [arrival.data for arrival in await socket.receive_many()]
    await socket.aclose()
    return answers


async def flooded(
    world: World, make: Callable[[Scene], Sequence[bytes]], part: QUIC | None = None
) -> tuple[list[bytes], int]:
    scene = Scene(world, part)
    door = await scene.server.transport.listen(quic_address(Endpoint(scene.host, 0)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.serve, door, nursery)
        answers = await flood(scene, door, make(scene))
        begun = len(door._handshakes)
        await trio.sleep(60)
        assert not door._handshakes
        assert not door.socket._routes
        await honest(scene, door.address)
        nursery.cancel_scope.cancel()
    await door.aclose()
    assert all(isinstance(error, (*FAILED, trio.TooSlowError)) for error in scene.errors)
    return answers, begun


def first_datagram(scene: Scene) -> bytes:
    library = Aioquic(settings_of(scene.attacker))
    core = library.dial(Endpoint("1.2.3.4", 5), 0.0)
    return core.transmit(0.0)[0][0]


@both
async def test_garbage_leaves_nothing_and_is_hardly_answered(core: CoreName, world: World) -> None:
    """Q8, Q18."""
    chance = Random(7)
    sizes = [*range(60), *(chance.randrange(60, 1400) for _ in range(300))]
    answers, begun = await flooded(
        world, lambda _: [chance.randbytes(size) for size in sizes], QUIC(core=core)
    )
    assert begun == 0
    assert sum(map(len, answers)) < sum(sizes)


@both
async def test_a_first_datagram_cut_anywhere_leaves_nothing(core: CoreName, world: World) -> None:
    """Q8: and what is padded with zeros again, to be long enough, can't be read."""

    def make(scene: Scene) -> list[bytes]:
        whole = first_datagram(scene)
        cuts = range(0, len(whole.rstrip(b"\0")) - 1, 7)
        return [whole[:cut] for cut in cuts] + [whole[:cut].ljust(1232, b"\0") for cut in cuts]

    answers, begun = await flooded(world, make, QUIC(core=core))
    assert begun == 0
    assert not answers


@both
async def test_a_first_datagram_changed_anywhere_is_not_believed(
    core: CoreName, world: World
) -> None:
    """Q8."""

    def make(scene: Scene) -> list[bytes]:
        whole = first_datagram(scene)
        return [
            whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(1, 1200, 11)
        ]

    _, begun = await flooded(world, make, QUIC(core=core))
    assert begun <= 3  # The bytes of the version, and of the source's ID, are not protected all.


@both
async def test_tokens_of_any_length_that_are_not_ours_are_worth_nothing(
    core: CoreName, world: World
) -> None:
    """Q6, Q18."""

    def make(scene: Scene) -> list[bytes]:
        whole = first_datagram(scene)
        at = 6 + whole[5]
        at += 1 + whole[at]
        assert whole[at] == 0  # The length of the token.
        lengths = [*range(1, 60, 7), *range(255, 290), 500, 1000]
        return [
            (whole[:at] + (0x4000 | length).to_bytes(2) + bytes(length) + whole[at + 1 :])[:1232]
            for length in lengths
        ]

    answers, begun = await flooded(world, make, QUIC(core=core, retry_above=0))
    assert begun == 0
    assert len(answers) > 40


@both
async def test_above_the_threshold_strangers_are_sent_back_first(
    core: CoreName, world: World
) -> None:
    """Q6: a flood of first datagrams costs a bounded number of handshakes."""
    part = QUIC(core=core, retry_above=8)

    def make(scene: Scene) -> list[bytes]:
        return [first_datagram(scene) for _ in range(150)]

    answers, begun = await flooded(world, make, part)
    assert begun == 8
    retries = [data for data in answers if data[0] & 0xF0 == 0xF0]
    assert 100 < len(retries) <= 142
    assert max(map(len, retries)) < 200


@both
async def test_who_comes_back_with_its_token_gets_in(core: CoreName, world: World) -> None:
    """Q6."""
    one, two = two_peers(world, QUIC(core=core, retry_above=0))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        assert accepted.capable.peer_id == one.peer_id
        assert dialled.capable.peer_id == two.peer_id


@both
async def test_more_handshakes_than_are_allowed_are_not_answered(
    core: CoreName, world: World
) -> None:
    """Q7."""
    part = QUIC(core=core, retry_above=4, max_handshakes=4)

    def make(scene: Scene) -> list[bytes]:
        return [first_datagram(scene) for _ in range(20)]

    _, begun = await flooded(world, make, part)
    assert begun == 4


@both
async def test_versions_are_named_only_for_large_datagrams_and_seldom(
    core: CoreName, world: World
) -> None:
    """Q3."""
    small = b"\xc0\xaa\xaa\xaa\xaa\x08" + bytes(8) + b"\x00"
    answers, _ = await flooded(world, lambda _: [small] * 50, QUIC(core=core))
    assert not answers


@both
async def test_many_large_ones_get_no_more_answers_than_are_allowed(
    core: CoreName, world: World
) -> None:
    """Q3, Q18."""
    large = (b"\xc0\xaa\xaa\xaa\xaa\x08" + bytes(8) + b"\x08" + b"5" * 8).ljust(1200, b"\0")
    answers, _ = await flooded(world, lambda _: [large] * 1000, QUIC(core=core))
    assert 200 <= len(answers) < 450
    assert all(answer[1:5] == bytes(4) and answer[6:14] == b"5" * 8 for answer in answers)
    assert all(answer.endswith((1).to_bytes(4)) for answer in answers)


# ---- late, silent and gone ----------------------------------------------------------------


async def wait_at(door: Listener) -> None:
    with suppress(trio.ClosedResourceError):
        await door.accept()


@both
async def test_strays_of_a_closed_connection_are_told_so(core: CoreName, world: World) -> None:
    """Q18: the last words are repeated, ever more seldom."""
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        link = world.machines["machine 2"].plug.link
        link.is_cut = True
        await accepted.capable.aclose()
        link.is_cut = False
        made.nursery.start_soon(wait_at, made.door)
        await (await dialled.open()).send_all(b"are you there?")
        with trio.fail_after(3):
            await dialled.ended.wait()
        dialled.expect_good_order("the other end had closed")


@both
async def test_a_peer_that_forgot_all_says_so_at_once(core: CoreName, world: World) -> None:
    """Q17: stateless resets work also after the other end began anew with the same key."""
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        dialled, _ = await made.connect()
        await trio.sleep(1)
        assert isinstance(made.door, QuicListener)
        made.door.socket._routes.clear()
        made.nursery.start_soon(wait_at, made.door)
        await (await dialled.open()).send_all(b"are you there?" * 10)
        with trio.fail_after(3):
            await dialled.ended.wait()
        assert dialled.error is not None
        assert "knows nothing" in str(dialled.error)


@both
async def test_a_peer_that_vanishes_is_noticed(core: CoreName, world: World) -> None:
    """Q10."""
    async with connected(world, QUIC(core=core)) as (dialled, _):
        world.machines["machine 2"].plug.link.is_cut = True
        began = trio.current_time()
        await dialled.ended.wait()
        assert 29 < trio.current_time() - began < 36
        dialled.expect_error(PeerSilent, after="the peer vanished")


@both
async def test_a_quiet_connection_lives_on_though_the_remote_is_impatient(
    core: CoreName, world: World
) -> None:
    """Q11: as one with rust-libp2p, which gives up after 10 seconds."""
    one = Peer(world.machine().env, QUIC(core=core))
    two = Peer(world.machine().env, QUIC(core=core, idle_timeout=10.0, keep_alive=3600.0))
    async with meeting(one, two, host_of(two)) as made:
        dialled, accepted = await made.connect()
        await trio.sleep(600)
        assert not dialled.ended.is_set()
        assert not accepted.ended.is_set()


@both
async def test_nobody_at_the_address_is_a_timeout(core: CoreName, world: World) -> None:
    one, two = two_peers(world, QUIC(core=core))
    began = trio.current_time()
    nowhere = quic_address(Endpoint(host_of(two), 9))
    with pytest.raises(type(no_answer())):
        await one.dial(nowhere, two)
    assert trio.current_time() - began == pytest.approx(10.0)


def test_the_part_refuses_what_makes_no_sense() -> None:
    for bad in (
        {"handshake_timeout": 0.0},
        {"idle_timeout": -1.0},
        {"keep_alive": 0.0},
        {"linger": -1.0},
        {"max_streams": 0},
        {"datagram_bytes": 1199},
        {"datagram_bytes": 9000},
        {"datagram_bytes": 1300, "max_datagram_bytes": 1299},
        {"max_datagram_bytes": 1453},
        {"retry_above": 5, "max_handshakes": 4},
        {"stream_window": 1000},
        {"max_stream_window": 65_536},
    ):
        with pytest.raises(ValueError, match=r"must|is between|at least"):
            replace(QUIC(), **bad)


@both
async def test_a_dial_tells_that_the_remote_has_answered(core: CoreName, world: World) -> None:
    """DI10: once something of it has come, and not as long as it is silent."""
    one, two = two_peers(world, QUIC(core=core))
    async with meeting(one, two, host_of(two)) as made:
        heard: list[float] = []
        with hearing(lambda: heard.append(trio.current_time())):
            silent = quic_address(Endpoint("11.99.0.1", 4001))
            with pytest.raises(trio.TooSlowError), trio.fail_after(5):
                await one.dial(silent, two)
            assert not heard
            await made.connect()
        assert heard
