"""Rules Q3 to Q8, Q16 to Q18: who gets in, and what garbage and floods cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Literal

import pytest
import trio

from p2pnet.core.addresses import Endpoint, Multiaddr, quic_address, quic_endpoint
from p2pnet.core.env import DatagramSocket
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.progress import hearing
from p2pnet.errors import NegotiationFailed, P2PError, PeerIdMismatch, PeerSilent, SecurityError
from p2pnet.interfaces import Listener
from p2pnet.security.tls.certificate import make_certificate
from p2pnet.testing.machines import Machine
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.aioquic_core import Aioquic, Connection
from p2pnet.transports.quic.core import CoreSettings
from p2pnet.transports.quic.endings import no_answer
from p2pnet.transports.quic.listening import QuicListener, QuicPending
from tests.transports.quic.quic_scene import Peer, meeting

FAILED = (P2PError, OSError)
MIB = 1_048_576


def settings_of(peer: Peer) -> CoreSettings:
    own = make_certificate(peer.key, peer.env.random_bytes)
    return CoreSettings(
        certificate=own.certificate_pem,
        private_key=own.private_key_pem,
        reset_token=lambda id_: bytes(16),
        idle_timeout=30.0,
        datagram_bytes=1232,
        max_datagram_bytes=1452,
        max_streams=256,
        stream_window=MIB,
        max_stream_window=MIB,
        connection_window=MIB,
        max_connection_window=MIB,
    )


class Puppet:
    """A client whose handshake can be bent, on a socket of its own."""

    def __init__(self, socket: DatagramSocket, remote: Endpoint, peer: Peer) -> None:
        self.socket = socket
        self.remote = remote
        library = Aioquic(settings_of(peer))
        self.configuration = library._configuration(is_client=True)
        self.connection: Connection | None = None
        self.settings = settings_of(peer)

    async def talk(self) -> int | None:
        """Shake hands; return the code with which the remote closed, or None if it did not."""
        connection = self.connection = Connection(self.configuration, self.settings)
        connection.connect((self.remote.host, self.remote.port), trio.current_time())
        with trio.move_on_after(5):
            while connection.close_event is None:
                await self.flush(connection)
                with trio.move_on_after(0.2):
                    for arrival in await self.socket.receive_many():
                        sender = (arrival.remote.host, arrival.remote.port)
                        connection.receive_datagram(arrival.data, sender, trio.current_time())
                timer = connection.get_timer()
                if timer is not None and timer <= trio.current_time():
                    connection.handle_timer(trio.current_time())
        event = connection.close_event
        return None if event is None else event.error_code

    async def flush(self, connection: Connection) -> None:
        for data, _ in connection.datagrams_to_send(trio.current_time()):
            await self.socket.send(data, self.remote)


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


async def attacked(
    world: World, bend: Callable[[Puppet], None], part: QUIC | None = None
) -> tuple[Scene, int | None]:
    """Let a bent client shake hands; afterwards an honest one still gets in."""
    scene = Scene(world, part)
    door = await scene.server.transport.listen(quic_address(Endpoint(scene.host, 0)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.serve, door, nursery)
        socket = await scene.machine.env.network.bind_udp(Endpoint("0.0.0.0", 0))
        puppet = Puppet(socket, address_of(door), scene.attacker)
        bend(puppet)
        code = await puppet.talk()
        await trio.sleep(15)
        await socket.aclose()
        assert not scene.upgraded
        await honest(scene, door.address)
        nursery.cancel_scope.cancel()
    await door.aclose()
    assert not scene.server.transport._sockets
    return scene, code


async def honest(scene: Scene, address: Multiaddr) -> None:
    connection = await scene.attacker.dial(address, scene.server)
    assert connection.peer_id == scene.server.peer_id
    await trio.sleep(1)
    await connection.aclose()
    assert scene.upgraded == [scene.attacker.peer_id]


# ---- who gets in -------------------------------------------------------------------------


async def test_a_client_without_a_certificate_is_refused(world: World) -> None:
    """Q4: and told so; no stream of it surfaces."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = None

    scene, code = await attacked(world, bend)
    assert code == 0x100 + 116
    assert [type(error) for error in scene.errors] == [SecurityError]
    assert "no certificate" in str(scene.errors[0])
    assert scene.streams == 0


async def test_a_client_with_two_certificates_is_refused(world: World) -> None:
    """Q4."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate_chain = [puppet.configuration.certificate]

    scene, code = await attacked(world, bend)
    assert code == 0x100 + 42
    assert "2 certificates" in str(scene.errors[0])


async def test_a_certificate_of_a_mebibyte_is_refused(world: World) -> None:
    """Q4: no more than 64 KiB of a message are kept of somebody unknown."""

    def bend(puppet: Puppet) -> None:
        chain = [puppet.configuration.certificate] * 2000
        puppet.configuration.certificate_chain = chain

    monkey = pytest.MonkeyPatch()
    monkey.setattr("aioquic.quic.connection.CRYPTO_BUFFER_SIZE", 2 * MIB)
    try:
        scene, code = await attacked(world, bend)
    finally:
        monkey.undo()
    assert code == 0xD
    assert all(isinstance(error, FAILED) for error in scene.errors)


async def test_another_alpn_is_refused(world: World) -> None:
    """Q5."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.alpn_protocols = ["h3"]

    scene, code = await attacked(world, bend)
    assert code == 0x100 + 120
    assert [type(error) for error in scene.errors] == [NegotiationFailed]


async def test_a_certificate_of_another_key_is_refused(world: World) -> None:
    """Q4: the identity key must have signed the certificate's."""
    other = make_certificate(PrivateKey.generate(), os.urandom)

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = other.certificate

    scene, code = await attacked(world, bend)
    assert code is not None
    assert all(isinstance(error, SecurityError) for error in scene.errors)


async def test_another_version_is_told_which_there_is(world: World) -> None:
    """Q3."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.supported_versions = [0x6B3343CF]

    scene, code = await attacked(world, bend)
    assert code == 1
    assert not scene.errors


async def test_another_peer_than_the_one_asked_for_is_refused(world: World) -> None:
    """Q5."""
    one, two, three = (Peer(world.machine(f"m{number}").env) for number in range(3))
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:

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


async def test_garbage_leaves_nothing_and_is_hardly_answered(world: World) -> None:
    """Q8, Q18."""
    chance = Random(7)
    sizes = [*range(60), *(chance.randrange(60, 1400) for _ in range(300))]
    answers, begun = await flooded(world, lambda _: [chance.randbytes(size) for size in sizes])
    assert begun == 0
    assert sum(map(len, answers)) < sum(sizes)


async def test_a_first_datagram_cut_anywhere_leaves_nothing(world: World) -> None:
    """Q8: and what is padded with zeros again, to be long enough, can't be read."""

    def make(scene: Scene) -> list[bytes]:
        whole = first_datagram(scene)
        cuts = range(0, len(whole.rstrip(b"\0")) - 1, 7)
        return [whole[:cut] for cut in cuts] + [whole[:cut].ljust(1232, b"\0") for cut in cuts]

    answers, begun = await flooded(world, make)
    assert begun == 0
    assert not answers


async def test_a_first_datagram_changed_anywhere_is_not_believed(world: World) -> None:
    """Q8."""

    def make(scene: Scene) -> list[bytes]:
        whole = first_datagram(scene)
        return [
            whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(1, 1200, 11)
        ]

    _, begun = await flooded(world, make)
    assert begun <= 3  # The bytes of the version, and of the source's ID, are not protected all.


async def test_tokens_of_any_length_that_are_not_ours_are_worth_nothing(world: World) -> None:
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

    answers, begun = await flooded(world, make, QUIC(retry_above=0))
    assert begun == 0
    assert len(answers) > 40


async def test_above_the_threshold_strangers_are_sent_back_first(world: World) -> None:
    """Q6: a flood of first datagrams costs a bounded number of handshakes."""
    part = QUIC(retry_above=8)

    def make(scene: Scene) -> list[bytes]:
        return [first_datagram(scene) for _ in range(150)]

    answers, begun = await flooded(world, make, part)
    assert begun == 8
    retries = [data for data in answers if data[0] & 0xF0 == 0xF0]
    assert 100 < len(retries) <= 142
    assert max(map(len, retries)) < 200


async def test_who_comes_back_with_its_token_gets_in(world: World) -> None:
    """Q6."""
    part = QUIC(retry_above=0)
    one, two = Peer(world.machine("m0").env, part), Peer(world.machine("m1").env, part)
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:
        dialled, accepted = await made.connect()
        assert accepted.capable.peer_id == one.peer_id
        assert dialled.capable.peer_id == two.peer_id


async def test_more_handshakes_than_are_allowed_are_not_answered(world: World) -> None:
    """Q7."""
    part = QUIC(retry_above=4, max_handshakes=4)

    def make(scene: Scene) -> list[bytes]:
        return [first_datagram(scene) for _ in range(20)]

    _, begun = await flooded(world, make, part)
    assert begun == 4


async def test_versions_are_named_only_for_large_datagrams_and_seldom(world: World) -> None:
    """Q3."""
    small = b"\xc0\xaa\xaa\xaa\xaa\x08" + bytes(8) + b"\x00"
    answers, _ = await flooded(world, lambda _: [small] * 50)
    assert not answers


async def test_many_large_ones_get_no_more_answers_than_are_allowed(world: World) -> None:
    """Q3, Q18."""
    large = (b"\xc0\xaa\xaa\xaa\xaa\x08" + bytes(8) + b"\x08" + b"5" * 8).ljust(1200, b"\0")
    answers, _ = await flooded(world, lambda _: [large] * 1000)
    assert 200 <= len(answers) < 450
    assert all(answer[1:5] == bytes(4) and answer[6:14] == b"5" * 8 for answer in answers)
    assert all(answer.endswith((1).to_bytes(4)) for answer in answers)


# ---- late, silent and gone ----------------------------------------------------------------


async def wait_at(door: Listener) -> None:
    with suppress(trio.ClosedResourceError):
        await door.accept()


async def test_strays_of_a_closed_connection_are_told_so(world: World) -> None:
    """Q18: the last words are repeated, ever more seldom."""
    one, two = Peer(world.machine("m0").env), Peer(world.machine("m1").env)
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:
        dialled, accepted = await made.connect()
        link = world.machines["m1"].plug.link
        link.is_cut = True
        await accepted.capable.aclose()
        link.is_cut = False
        made.nursery.start_soon(wait_at, made.door)
        await (await dialled.open()).send_all(b"are you there?")
        with trio.fail_after(3):
            await dialled.ended.wait()
        dialled.expect_good_order("the other end had closed")


async def test_a_peer_that_forgot_all_says_so_at_once(world: World) -> None:
    """Q17: stateless resets work also after the other end began anew with the same key."""
    one, two = Peer(world.machine("m0").env), Peer(world.machine("m1").env)
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:
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


async def test_a_peer_that_vanishes_is_noticed(world: World) -> None:
    """Q10."""
    one, two = Peer(world.machine("m0").env), Peer(world.machine("m1").env)
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:
        dialled, _ = await made.connect()
        world.machines["m1"].plug.link.is_cut = True
        began = trio.current_time()
        await dialled.ended.wait()
        assert 29 < trio.current_time() - began < 36
        dialled.expect_error(PeerSilent, after="the peer vanished")


async def test_a_quiet_connection_lives_on_though_the_remote_is_impatient(world: World) -> None:
    """Q11: as one with rust-libp2p, which gives up after 10 seconds."""
    one = Peer(world.machine("m0").env)
    two = Peer(world.machine("m1").env, QUIC(idle_timeout=10.0, keep_alive=3600.0))
    async with meeting(one, two, world.machines["m1"].addresses[0]) as made:
        dialled, accepted = await made.connect()
        await trio.sleep(600)
        assert not dialled.ended.is_set()
        assert not accepted.ended.is_set()


async def test_nobody_at_the_address_is_a_timeout(world: World) -> None:
    one, two = Peer(world.machine("m0").env), Peer(world.machine("m1").env)
    began = trio.current_time()
    nowhere = quic_address(Endpoint(world.machines["m1"].addresses[0], 9))
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


@pytest.mark.parametrize("core", ["aioquic", "qh3"])
async def test_a_dial_tells_that_the_remote_has_answered(
    core: Literal["aioquic", "qh3"], world: World
) -> None:
    """DI10: once something of it has come, and not as long as it is silent."""
    one, two = (Peer(world.machine().env, QUIC(core=core)) for _ in range(2))
    host = next(ip for ip in two.env.network.interface_addresses() if ip.startswith("11."))
    async with meeting(one, two, host) as made:
        heard: list[float] = []
        with hearing(lambda: heard.append(trio.current_time())):
            silent = quic_address(Endpoint("11.99.0.1", 4001))
            with pytest.raises(trio.TooSlowError), trio.fail_after(5):
                await one.dial(silent, two)
            assert not heard
            await made.connect()
        assert heard
