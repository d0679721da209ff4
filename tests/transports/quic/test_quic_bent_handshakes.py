"""Rules Q3 to Q5, Q8: handshakes that are bent in every way, to each role and each core.

The other end is aioquic; what its TLS says is changed before it is sealed, so that all of it
arrives. Whatever comes of it, the error is typed, no stream and no peer surfaces, and when the
doors are closed no socket is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from aioquic import tls
from aioquic._buffer import Buffer

from p2pnet.core.addresses import Endpoint, quic_address, quic_endpoint
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import NegotiationFailed, P2PError, PeerIdMismatch, SecurityError
from p2pnet.interfaces import Listener, PendingConnection, Role
from p2pnet.security.tls.certificate import make_certificate
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.packets import read_header, version_negotiation
from tests.hostile.test_tls import of_some_authority
from tests.transports.quic.puppets import Puppet, Spoiled, as_it_is
from tests.transports.quic.quic_scene import Peer
from tests.transports.quic.test_quic_streams import CoreName, both

FAILED = (P2PError, OSError)
Bend = Callable[[Puppet], None]
as_each = pytest.mark.parametrize("role", Role)


@dataclass
class Trial:
    """A victim in one role, and one puppet after the other in the opposite one."""

    world: World
    role: Role
    core: CoreName
    errors: list[BaseException] = field(default_factory=list)
    peers: list[PeerId] = field(default_factory=list)
    streams: int = 0

    def __post_init__(self) -> None:
        self.machine = self.world.machine("attacker")
        self.victim = Peer(self.world.machine("victim").env, QUIC(core=self.core))
        self.attacker = Peer(self.machine.env)
        self.host = self.world.machines["victim"].addresses[0]

    async def meet(self, bend: Bend) -> tuple[Puppet, int | None]:
        """Let a bent end meet the victim; return it, and the code with which it was sent away."""
        if self.role is Role.LISTENER:
            return await self._dial(bend)
        return await self._be_dialled(bend)

    async def _dial(self, bend: Bend) -> tuple[Puppet, int | None]:
        door = await self.victim.transport.listen(quic_address(Endpoint(self.host, 0)))
        remote = quic_endpoint(door.address)
        socket = await self.machine.env.network.bind_udp(Endpoint("0.0.0.0", 0))
        puppet = Puppet(socket, self.attacker, remote=remote)
        bend(puppet)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, door, nursery)
            code = await puppet.talk()
            await trio.sleep(15)
            nursery.cancel_scope.cancel()
        await socket.aclose()
        await door.aclose()
        return puppet, code

    async def _serve(self, door: Listener, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._upgrade, await door.accept())

    async def _upgrade(self, pending: PendingConnection) -> None:
        try:
            with trio.fail_after(10):
                connection = await pending.upgrade()
            self.peers.append(connection.peer_id)
            await connection.run(self._count)
        except (*FAILED, trio.TooSlowError) as error:
            self.errors.append(error)

    async def _be_dialled(self, bend: Bend) -> tuple[Puppet, int | None]:
        local = Endpoint(self.machine.addresses[0], 0)
        socket = await self.machine.env.network.bind_udp(local)
        puppet = Puppet(socket, self.attacker)
        bend(puppet)
        codes: list[int | None] = []

        async def talk() -> None:
            codes.append(await puppet.talk())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            try:
                connection = await self.victim.dial(quic_address(socket.local), self.attacker)
                self.peers.append(connection.peer_id)
                with trio.move_on_after(5):
                    await connection.run(self._count)
            except FAILED as error:
                self.errors.append(error)
        await socket.aclose()
        return puppet, codes[0]

    def _count(self, stream: object) -> None:
        self.streams += 1

    async def check(self) -> None:
        """See that nobody got in and nothing is left, and that an honest end still gets in."""
        assert not self.peers
        assert not self.streams
        assert not self.victim.transport._sockets
        assert not self.victim.transport._listeners
        assert all(isinstance(error, (*FAILED, trio.TooSlowError)) for error in self.errors)
        await self.meet(lambda puppet: None)
        assert self.peers == [self.attacker.peer_id]


async def refused(
    world: World, role: Role, core: CoreName, bend: Bend
) -> tuple[BaseException, int | None]:
    """Return the one error that a bent handshake ends in, and the code of it."""
    trial = Trial(world, role, core)
    _, code = await trial.meet(bend)
    errors = list(trial.errors)
    await trial.check()
    (error,) = errors
    return error, code


# ---- who shows what it should not --------------------------------------------------------


@both
@as_each
async def test_who_shows_no_certificate_is_refused(
    role: Role, core: CoreName, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q4: TLS lets a client do so; a server that does breaks TLS already."""
    push = tls.push_certificate

    def push_nothing(buffer: Buffer, certificate: tls.Certificate) -> None:
        certificate.certificates = []
        push(buffer, certificate)

    def bend(puppet: Puppet) -> None:
        if role is Role.LISTENER:
            puppet.configuration.certificate = None
        else:
            monkeypatch.setattr(tls, "push_certificate", push_nothing)

    trial = Trial(world, role, core)
    _, code = await trial.meet(bend)
    monkeypatch.undo()
    (error,) = trial.errors
    assert isinstance(error, P2PError)
    assert code is not None
    if role is Role.LISTENER:
        assert isinstance(error, SecurityError)
        assert "no certificate" in str(error)
        assert code == 0x100 + 116
    await trial.check()


@both
@as_each
async def test_what_is_no_certificate_is_refused(role: Role, core: CoreName, world: World) -> None:
    """Q4: a library may fail on it in its own way; whose fault it is, is known."""

    class Nonsense:
        def public_bytes(self, encoding: object) -> bytes:
            return b"nonsense"

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = Nonsense()

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, SecurityError)
    assert code == 0x100 + 42


@as_each
async def test_a_share_of_a_key_that_is_no_use_is_refused(
    role: Role, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q5: qh3 fails on it as on a certificate that it can't read."""

    def bend(puppet: Puppet) -> None:
        monkeypatch.setattr(tls, "encode_public_key", lambda key: (tls.Group.X25519, bytes(32)))

    trial = Trial(world, role, "qh3")
    _, code = await trial.meet(bend)
    monkeypatch.undo()
    (error,) = trial.errors
    assert isinstance(error, SecurityError)
    assert "illegal_parameter" in str(error)
    assert code == 0x100 + 47
    await trial.check()


@both
@as_each
async def test_who_shows_two_certificates_is_refused(
    role: Role, core: CoreName, world: World
) -> None:
    """Q4."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate_chain = [puppet.configuration.certificate]

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, SecurityError)
    assert "2 certificates" in str(error)
    assert code == 0x100 + 42


@pytest.fixture
def verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the puppet's library say more at once than it would."""
    monkeypatch.setattr("aioquic.quic.connection.CRYPTO_BUFFER_SIZE", 2 << 20)


@pytest.mark.usefixtures("verbose")
@both
@as_each
async def test_a_chain_of_a_mebibyte_is_refused(role: Role, core: CoreName, world: World) -> None:
    """Q4: no more than 64 KiB of a message are kept of somebody unknown."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate_chain = [puppet.configuration.certificate] * 2800

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, P2PError)
    assert code == 0xD


@pytest.mark.usefixtures("verbose")
@both
@as_each
async def test_a_certificate_of_a_mebibyte_is_refused(
    role: Role, core: CoreName, world: World
) -> None:
    """Q4: in one piece, too."""
    bulk = of_some_authority(bulk=1 << 20)

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = bulk.certificate
        puppet.configuration.private_key = bulk.private_key

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, P2PError)
    assert code == 0xD


@both
@as_each
async def test_a_certificate_of_the_web_is_refused(
    role: Role, core: CoreName, world: World
) -> None:
    """Q4: it is judged by tls.md, T4."""
    web = of_some_authority()

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = web.certificate
        puppet.configuration.private_key = web.private_key

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, SecurityError)
    assert "extension" in str(error)
    assert code == 0x100 + 42


@both
@as_each
async def test_who_has_not_the_key_of_its_certificate_is_refused(
    role: Role, core: CoreName, world: World
) -> None:
    """Q4: CertificateVerify is by another key."""
    other = make_certificate(PrivateKey.generate(), os.urandom)

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = other.certificate

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, SecurityError)
    assert code is not None
    assert code > 0x100


async def test_a_dialer_refuses_another_peer_than_the_one_asked_for(world: World) -> None:
    """Q5."""
    trial = Trial(world, Role.DIALER, "qh3")
    genuine, trial.attacker = trial.attacker, Peer(trial.machine.env)
    other = make_certificate(genuine.key, os.urandom)

    def bend(puppet: Puppet) -> None:
        puppet.configuration.certificate = other.certificate
        puppet.configuration.private_key = other.private_key

    _, code = await trial.meet(bend)
    (error,) = trial.errors
    assert isinstance(error, PeerIdMismatch)
    assert (error.expected, error.actual) == (trial.attacker.peer_id, genuine.peer_id)
    assert code == 0x100 + 42


# ---- who speaks something else -----------------------------------------------------------


@both
@as_each
@pytest.mark.parametrize("protocol", ["h3", None])
async def test_who_speaks_another_application_protocol_is_refused(
    role: Role, core: CoreName, protocol: str | None, world: World
) -> None:
    """Q5."""

    def bend(puppet: Puppet) -> None:
        if role is Role.LISTENER:
            puppet.configuration.alpn_protocols = None if protocol is None else [protocol]
        else:
            puppet.answers = (protocol,)  # Nobody has offered it.

    error, code = await refused(world, role, core, bend)
    assert isinstance(error, NegotiationFailed)
    assert code == 0x100 + 120


@both
async def test_a_client_of_another_version_is_told_which_there_is(
    core: CoreName, world: World
) -> None:
    """Q3."""

    def bend(puppet: Puppet) -> None:
        puppet.configuration.supported_versions = [0x6B3343CF]

    trial = Trial(world, Role.LISTENER, core)
    _, code = await trial.meet(bend)
    assert code == 1
    assert not trial.errors
    await trial.check()


@both
async def test_a_server_that_speaks_only_other_versions_is_no_use(
    core: CoreName, world: World
) -> None:
    """Q3."""
    machine = world.machine("other")
    socket = await machine.env.network.bind_udp(Endpoint(machine.addresses[0], 0))
    one, two = Peer(world.machine().env, QUIC(core=core)), Peer(machine.env)

    async def answer() -> None:
        while True:
            for arrival in await socket.receive_many():
                header = read_header(arrival.data)
                answer = version_negotiation(header, 0)[:-4] + b"\x6b\x33\x43\xcf"
                await socket.send(answer, arrival.remote)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(NegotiationFailed, match="version 1"):
            await one.dial(quic_address(socket.local), two)
        nursery.cancel_scope.cancel()
    await socket.aclose()
    assert not one.transport._sockets


# ---- what is cut, and garbage ------------------------------------------------------------

STEP = 41
"""Bytes between two places where a handshake is bent; no multiple of anything in it."""
SPOILED: dict[str, Callable[[int], Spoiled]] = {
    "cut": lambda at: Spoiled(at, nothing, nothing),
    "garbage": lambda at: Spoiled(at, noise, noise),
    "zeros": lambda at: Spoiled(at, zeros, as_it_is),
    "one bit": lambda at: Spoiled(at, lambda rest: bytes([rest[0] ^ 1]) + rest[1:], as_it_is),
}


def nothing(rest: bytes) -> bytes:
    return b""


def noise(rest: bytes) -> bytes:
    return os.urandom(len(rest) + 64)


def zeros(rest: bytes) -> bytes:
    return bytes(len(rest) + 64)


@both
@as_each
@pytest.mark.parametrize("kind", SPOILED)
async def test_a_handshake_that_is_spoiled_anywhere_ends_in_a_typed_error(
    role: Role, core: CoreName, kind: str, world: World
) -> None:
    """Q5, Q8."""
    trial = Trial(world, role, core)
    puppet, _ = await trial.meet(lambda puppet: None)
    assert puppet.connection is not None
    assert trial.peers.pop() == trial.attacker.peer_id
    trial.errors.clear()
    places = range(0, len(puppet.connection.said) - 8, STEP)
    for at in places:

        def bend(puppet: Puppet, at: int = at) -> None:
            puppet.change = SPOILED[kind](at)

        await trial.meet(bend)
        assert not trial.peers, at
    assert len(trial.errors) == len(places)
    await trial.check()
