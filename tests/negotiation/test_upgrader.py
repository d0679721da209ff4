"""From a raw stream to a capable connection, and what it costs in flights: M6, N9, N14, D15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import trio
import trio.testing

from p2pnet.core import addresses
from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    LimitExceeded,
    NegotiationFailed,
    PeerIdMismatch,
    ProtocolError,
    StreamReset,
)
from p2pnet.interfaces import CircuitLimit, Ends, MuxedStream, Role, Secured, Security
from p2pnet.negotiation.upgrader import LayeredUpgrader, UpgradedConnection
from p2pnet.security.noise import Noise, NoiseSecurity
from tests.core.passing_on import PassingOn

KEYS = {
    Role.DIALER: PrivateKey.from_seed(bytes(31) + b"A"),
    Role.LISTENER: PrivateKey.from_seed(bytes(31) + b"B"),
}
IDS = {role: PeerId.from_public_key(key.public_key) for role, key in KEYS.items()}
ENDS = Ends(
    addresses.parse("/ip4/192.0.2.1/tcp/1"),
    addresses.parse("/ip4/192.0.2.2/tcp/2"),
    CircuitLimit(seconds=120),
)
YAMUX = "/yamux/1.0.0"
MPLEX = "/mplex/6.7.0"


class FakeMuxed:
    """A muxed connection that only remembers what it was asked."""

    def __init__(self, stream: trio.abc.Stream, role: Role) -> None:
        self.stream = stream
        self.role = role
        self.is_over = False
        self.calls: list[str] = []

    async def run(self, accept: Callable[[MuxedStream], None]) -> None:
        self.calls.append("run")

    async def open_stream(self) -> MuxedStream:
        raise LimitExceeded("max_streams", 0)

    async def aclose(self) -> None:
        await self.stream.aclose()


@dataclass
class FakeMuxer:
    protocol_id: str

    def start(self, stream: trio.abc.Stream, role: Role) -> FakeMuxed:
        return FakeMuxed(stream, role)


@dataclass
class OtherSecurity:
    """Noise by another name, which can leave the muxer open."""

    noise: NoiseSecurity
    protocol_id: str = "/other"
    hides_muxers: bool = False

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        shown = () if self.hides_muxers else muxers
        return await self.noise.secure(stream, role, expected=expected, muxers=shown)


class Wire(PassingOn):
    """A raw stream that notes who sends, and whether it was closed."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, role: Role, log: list[Role]) -> None:
        super().__init__(stream)
        self._role = role
        self._log = log

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._log.append(self._role)
        await super().send_all(data)


class Meeting:
    """Two ends of a raw stream that are upgraded at the same time."""

    def __init__(self) -> None:
        self.log: list[Role] = []
        one, other = trio.testing.memory_stream_pair()
        self.wires = {
            Role.DIALER: Wire(one, Role.DIALER, self.log),
            Role.LISTENER: Wire(other, Role.LISTENER, self.log),
        }
        self.done: dict[Role, UpgradedConnection] = {}
        self.failed: dict[Role, Exception] = {}
        self.flights: dict[Role, int] = {}
        """How often the direction had changed, at most, when an end was through."""
        self.foreword: Callable[[], bytes] | None = None

    async def upgrade(
        self, role: Role, upgrader: LayeredUpgrader, expected: PeerId | None = None
    ) -> None:
        ends = replace(ENDS, foreword=self.foreword if role is Role.DIALER else None)
        try:
            self.done[role] = await upgrader.upgrade(
                self.wires[role], role, ends=ends, expected=expected
            )
        except (NegotiationFailed, PeerIdMismatch, ProtocolError, StreamReset) as error:
            self.failed[role] = error
        self.flights[role] = sum(
            1 for at, sender in enumerate(self.log) if at == 0 or self.log[at - 1] is not sender
        )

    async def run(
        self,
        dialer: LayeredUpgrader,
        listener: LayeredUpgrader,
        *,
        expected: PeerId | None = None,
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.upgrade, Role.DIALER, dialer, expected)
            nursery.start_soon(self.upgrade, Role.LISTENER, listener)


def noise(role: Role) -> NoiseSecurity:
    return NoiseSecurity(Noise(), env=Env.system(), key=KEYS[role])


def upgrader(
    role: Role, *muxers: str, securities: Sequence[Security] | None = None
) -> LayeredUpgrader:
    return LayeredUpgrader(
        securities or [noise(role)], [FakeMuxer(muxer) for muxer in muxers or (YAMUX,)]
    )


def both(role: Role) -> list[Security]:
    return [OtherSecurity(noise(role)), noise(role)]


async def test_a_raw_stream_becomes_a_capable_connection() -> None:
    meeting = Meeting()
    await meeting.run(upgrader(Role.DIALER), upgrader(Role.LISTENER), expected=IDS[Role.LISTENER])
    for role, other in ((Role.DIALER, Role.LISTENER), (Role.LISTENER, Role.DIALER)):
        connection = meeting.done[role]
        assert connection.peer_id == IDS[other]
        assert (connection.local_address, connection.remote_address) == (ENDS.local, ENDS.remote)
        assert (connection.security, connection.muxer) == ("/noise", YAMUX)
        assert connection.limit == CircuitLimit(seconds=120)
        assert isinstance(connection.muxed, FakeMuxed)
        assert connection.muxed.role is role
        await connection.run(lambda _: None)
        with pytest.raises(LimitExceeded):
            await connection.open_stream()
        assert connection.muxed.calls == ["run"]
        await connection.aclose()
        assert meeting.wires[role].is_closed


async def test_m6_with_one_security_and_an_early_muxer_the_dialer_needs_one_round_trip() -> None:
    meeting = Meeting()
    await meeting.run(upgrader(Role.DIALER), upgrader(Role.LISTENER))
    # Its own first, the answer, and the third, with which data can already go.
    assert meeting.flights == {Role.DIALER: 3, Role.LISTENER: 3}


async def test_n14_a_foreword_reaches_the_connection_at_the_other_end() -> None:
    meeting = Meeting()
    meeting.foreword = lambda: b"hello"
    await meeting.run(upgrader(Role.DIALER), upgrader(Role.LISTENER))
    said, heard = (meeting.done[role].forewords for role in (Role.DIALER, Role.LISTENER))
    assert said is not None
    assert heard is not None
    assert (said.said, said.heard) == (b"hello", b"")
    assert (heard.said, heard.heard) == (b"", b"hello")


async def test_n14_a_security_that_takes_nothing_along_is_asked_for_nothing_more() -> None:
    meeting = Meeting()
    meeting.foreword = lambda: b"hello"
    others = [upgrader(role, securities=[OtherSecurity(noise(role))]) for role in Role]
    await meeting.run(*others)
    heard = meeting.done[Role.LISTENER].forewords
    assert heard is not None
    assert heard.heard == b""


@pytest.mark.parametrize(("accepted", "flights"), [("/other", 5), ("/noise", 7)])
async def test_a_choice_of_securities_costs_a_round_trip_and_a_refusal_another(
    accepted: str, flights: int
) -> None:
    meeting = Meeting()
    known = [one for one in both(Role.LISTENER) if one.protocol_id == accepted]
    await meeting.run(
        upgrader(Role.DIALER, securities=both(Role.DIALER)),
        upgrader(Role.LISTENER, securities=known),
    )
    assert meeting.done[Role.DIALER].security == accepted
    assert meeting.flights == {Role.DIALER: flights, Role.LISTENER: flights}


async def test_a_muxer_that_is_negotiated_costs_one_round_trip_more() -> None:
    meeting = Meeting()
    shy = OtherSecurity(noise(Role.LISTENER), protocol_id="/noise", hides_muxers=True)
    await meeting.run(upgrader(Role.DIALER), upgrader(Role.LISTENER, securities=[shy]))
    assert meeting.done[Role.DIALER].muxer == YAMUX
    assert meeting.flights[Role.DIALER] == 4


@pytest.mark.parametrize(
    ("dialers", "listeners", "muxer"),
    [
        ((YAMUX, MPLEX), (MPLEX, YAMUX), YAMUX),
        ((MPLEX, YAMUX), (YAMUX,), YAMUX),
        ((YAMUX,), (MPLEX, YAMUX), YAMUX),
    ],
)
async def test_n9_the_dialers_preference_decides_on_the_muxer(
    dialers: tuple[str, ...], listeners: tuple[str, ...], muxer: str
) -> None:
    for hidden in (False, True):
        meeting = Meeting()
        security = OtherSecurity(noise(Role.LISTENER), "/noise", hides_muxers=hidden)
        await meeting.run(
            upgrader(Role.DIALER, *dialers),
            upgrader(Role.LISTENER, *listeners, securities=[security]),
        )
        assert meeting.done[Role.DIALER].muxer == meeting.done[Role.LISTENER].muxer == muxer


async def test_n9_without_a_common_muxer_the_negotiation_fails_by_name() -> None:
    meeting = Meeting()
    await meeting.run(upgrader(Role.DIALER, YAMUX), upgrader(Role.LISTENER, MPLEX))
    error = meeting.failed[Role.DIALER]
    assert isinstance(error, NegotiationFailed)
    assert error.proposals == (YAMUX,)
    assert isinstance(meeting.failed[Role.LISTENER], ProtocolError)
    assert all(wire.is_closed for wire in meeting.wires.values())


@pytest.mark.parametrize("securities", [1, 2])
async def test_m10_without_a_common_security_the_negotiation_fails_by_name(
    securities: int,
) -> None:
    meeting = Meeting()
    offered = both(Role.DIALER)[:securities]
    third = OtherSecurity(noise(Role.LISTENER), protocol_id="/third")
    await meeting.run(
        upgrader(Role.DIALER, securities=offered), upgrader(Role.LISTENER, securities=[third])
    )
    assert isinstance(meeting.failed[Role.DIALER], NegotiationFailed)
    assert isinstance(meeting.failed[Role.LISTENER], ProtocolError)
    assert all(wire.is_closed for wire in meeting.wires.values())


async def test_another_peer_than_expected_is_refused() -> None:
    meeting = Meeting()
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                meeting.upgrade, Role.DIALER, upgrader(Role.DIALER), IDS[Role.DIALER]
            )
            with pytest.raises(Exception, match="hung up"):
                await upgrader(Role.LISTENER).upgrade(
                    meeting.wires[Role.LISTENER], Role.LISTENER, ends=ENDS
                )
    assert isinstance(meeting.failed[Role.DIALER], PeerIdMismatch)
    assert all(wire.is_closed for wire in meeting.wires.values())


async def test_n5_an_accidental_simultaneous_open_fails_on_both_ends_and_says_so() -> None:
    meeting = Meeting()

    async def dial(role: Role) -> None:
        with pytest.raises(ProtocolError, match="simultaneous open"):
            await upgrader(role).upgrade(meeting.wires[role], Role.DIALER, ends=ENDS)

    async with trio.open_nursery() as nursery:
        for role in Role:
            nursery.start_soon(dial, role)
    assert all(wire.is_closed for wire in meeting.wires.values())


@pytest.mark.parametrize("role", list(Role))
async def test_a_port_that_speaks_something_else_is_named(role: Role) -> None:
    meeting = Meeting()
    other = Role.LISTENER if role is Role.DIALER else Role.DIALER
    await meeting.wires[other].send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ProtocolError, match="looks like HTTP"):
        await upgrader(role).upgrade(meeting.wires[role], role, ends=ENDS)
    assert meeting.wires[role].is_closed


async def test_m11_somebody_who_just_hangs_up_has_broken_no_rule() -> None:
    meeting = Meeting()
    await meeting.wires[Role.DIALER].aclose()
    with pytest.raises(StreamReset):
        await upgrader(Role.LISTENER).upgrade(
            meeting.wires[Role.LISTENER], Role.LISTENER, ends=ENDS
        )
    assert meeting.wires[Role.LISTENER].is_closed


@pytest.mark.parametrize("role", list(Role))
async def test_a_deadline_closes_the_raw_stream(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    meeting = Meeting()
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(15):
            await upgrader(role).upgrade(meeting.wires[role], role, ends=ENDS)
    assert meeting.wires[role].is_closed


async def test_of_two_listeners_the_one_whose_patience_ends_is_the_dialer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """D15."""
    meeting = Meeting()
    done: dict[Role, UpgradedConnection] = {}
    began = trio.current_time()

    async def listen(end: Role, patience: float | None) -> None:
        done[end] = await upgrader(end).upgrade(
            meeting.wires[end], Role.LISTENER, ends=ENDS, patience=patience
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, Role.DIALER, 0.2)
        nursery.start_soon(listen, Role.LISTENER, None)
    assert trio.current_time() - began == pytest.approx(0.2)
    for role, other in ((Role.DIALER, Role.LISTENER), (Role.LISTENER, Role.DIALER)):
        assert done[role].peer_id == IDS[other]
        muxed = done[role].muxed
        assert isinstance(muxed, FakeMuxed)
        assert muxed.role is role


@pytest.mark.parametrize("patient", list(Role))
async def test_a_listener_with_patience_lets_a_dialer_be_one_without_delay(
    autojump_clock: trio.testing.MockClock, patient: Role
) -> None:
    """D15: And a dialer needs none."""
    meeting = Meeting()
    roles = []
    began = trio.current_time()

    async def take(role: Role) -> None:
        connection = await upgrader(role).upgrade(
            meeting.wires[role], role, ends=ENDS, patience=0.2 if role is patient else None
        )
        assert isinstance(connection.muxed, FakeMuxed)
        assert connection.muxed.role is role
        roles.append(role)

    async with trio.open_nursery() as nursery:
        for role in Role:
            nursery.start_soon(take, role)
    assert set(roles) == set(Role)
    assert trio.current_time() == began


async def test_a_listener_that_hangs_up_while_we_are_patient_has_broken_no_rule() -> None:
    """D15 M11."""
    meeting = Meeting()
    await meeting.wires[Role.DIALER].aclose()
    with pytest.raises(StreamReset):
        await upgrader(Role.LISTENER).upgrade(
            meeting.wires[Role.LISTENER], Role.LISTENER, ends=ENDS, patience=0.2
        )
    assert meeting.wires[Role.LISTENER].is_closed


async def test_patience_does_not_outlast_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """D15."""
    meeting = Meeting()
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(15):
            await upgrader(Role.LISTENER).upgrade(
                meeting.wires[Role.LISTENER], Role.LISTENER, ends=ENDS, patience=60.0
            )
    assert meeting.wires[Role.LISTENER].is_closed
