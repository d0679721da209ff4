"""Noise over trio streams: N3, N8, N10 to N13, N14 of specs/noise.md, and trio's own rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    ConnectionLost,
    PeerIdMismatch,
    ProtocolError,
    SecurityError,
    StreamTampered,
)
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.security.noise import Noise, NoiseSecurity
from p2pnet.security.noise.cipher import MAX_NONCE, MAX_PLAINTEXT_BYTES
from p2pnet.security.noise.driver import BATCH_BYTES, LENT_BUFFERS, NoiseStream
from tests.core.passing_on import PassingOn

ALICE = PrivateKey.from_seed(bytes(31) + b"A")
BOB = PrivateKey.from_seed(bytes(31) + b"B")
ALICE_ID = PeerId.from_public_key(ALICE.public_key)
BOB_ID = PeerId.from_public_key(BOB.public_key)


def security_of(key: PrivateKey, env: Env | None = None) -> NoiseSecurity:
    kit = Kit(
        env=env or Env.system(),
        key=key,
        peer_id=PeerId.from_public_key(key.public_key),
        upgrader=LayeredUpgrader(),
    )
    return Noise().build(kit)


async def secure_both(
    one: trio.abc.Stream,
    other: trio.abc.Stream,
    *,
    muxers: Sequence[str] = (),
    dialer: NoiseSecurity | None = None,
) -> tuple[Secured, Secured]:
    found: dict[Role, Secured] = {}
    parts = {Role.DIALER: dialer or security_of(ALICE), Role.LISTENER: security_of(BOB)}

    async def secure(stream: trio.abc.Stream, role: Role) -> None:
        expected = BOB_ID if role is Role.DIALER else None
        found[role] = await parts[role].secure(stream, role, expected=expected, muxers=muxers)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, one, Role.DIALER)
        nursery.start_soon(secure, other, Role.LISTENER)
    return found[Role.DIALER], found[Role.LISTENER]


class Tap(PassingOn):
    """One end of a stream that shows what is sent, and what is to be received can be changed."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream)
        self.sent: list[bytes] = []
        self.is_lent = False
        """True if what was sent last stands in a buffer that will be used again."""
        self.gate: trio.Event | None = None
        self.change: Callable[[bytes], bytes] = bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.sent.append(bytes(data))
        self.is_lent = isinstance(data, memoryview)
        await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.change(bytes(await super().receive_some(max_bytes)))


async def tapped_pair() -> tuple[trio.abc.Stream, Tap, trio.abc.Stream, Tap]:
    one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    at_dialer, at_listener = await secure_both(one, other)
    one.sent.clear()
    other.sent.clear()
    return at_dialer.stream, one, at_listener.stream, other


async def test_both_ends_know_each_other_and_the_muxer_and_can_talk() -> None:
    one, other = trio.testing.memory_stream_pair()
    at_dialer, at_listener = await secure_both(one, other, muxers=["/yamux/1.0.0"])
    assert (at_dialer.peer_id, at_dialer.muxer) == (BOB_ID, "/yamux/1.0.0")
    assert (at_listener.peer_id, at_listener.muxer) == (ALICE_ID, "/yamux/1.0.0")
    await at_dialer.stream.send_all(b"hello")
    assert await at_listener.stream.receive_some() == b"hello"
    await at_listener.stream.send_all(bytearray(b"hi"))
    assert await at_dialer.stream.receive_some() == b"hi"


class Slow(Tap):
    """One end of a stream on which each send takes so many seconds, one after the other."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, *seconds: float) -> None:
        super().__init__(stream)
        self._seconds = iter(seconds)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(next(self._seconds))
        await super().send_all(data)


async def test_n14_a_foreword_goes_along_and_each_end_measures_the_round_trip(
    autojump_clock: MockClock,
) -> None:
    one, other = trio.testing.memory_stream_pair()
    found: list[Secured] = []

    async def listen(stream: trio.abc.Stream) -> None:
        security = security_of(BOB)
        found.append(await security.secure(stream, Role.LISTENER, expected=None, muxers=()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, Slow(other, 0.3))
        at_dialer = await security_of(ALICE).secure_saying(
            Slow(one, 0.2, 0.4),
            Role.DIALER,
            expected=BOB_ID,
            muxers=(),
            foreword=lambda: b"hello",
        )
    said, heard = at_dialer.forewords, found[0].forewords
    assert said is not None
    assert heard is not None
    assert (said.said, said.heard, round(said.round_trip, 3)) == (b"hello", b"", 0.5)
    assert (heard.said, heard.heard, round(heard.round_trip, 3)) == (b"", b"hello", 0.7)


async def test_n14_nothing_is_said_if_there_is_nothing_to_say() -> None:
    one, other = trio.testing.memory_stream_pair()
    for secured in await secure_both(one, other):
        assert secured.forewords is not None
        assert (secured.forewords.said, secured.forewords.heard) == (b"", b"")


async def make_memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.memory_stream_pair())
    return ends[0].stream, ends[1].stream


async def make_lockstep_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.lockstep_stream_pair())
    return ends[0].stream, ends[1].stream


async def test_the_secured_stream_behaves_as_every_trio_stream() -> None:
    await trio.testing.check_two_way_stream(make_memory_pair, None)
    await trio.testing.check_two_way_stream(make_lockstep_pair, make_lockstep_pair)


@pytest.mark.parametrize(
    "size", [1, MAX_PLAINTEXT_BYTES, MAX_PLAINTEXT_BYTES + 1, BATCH_BYTES, BATCH_BYTES + 1]
)
async def test_any_amount_arrives_whole_and_in_few_sends(size: int) -> None:
    sender, tap, receiver, _ = await tapped_pair()
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await sender.send_all(data)
    assert len(tap.sent) == -(-size // BATCH_BYTES)
    received = bytearray()
    while len(received) < size:
        received += await receiver.receive_some()
    assert received == data


async def test_connections_that_send_much_at_once_keep_apart() -> None:
    security = security_of(ALICE)
    count = 2 * LENT_BUFFERS + 1
    gate = trio.Event()
    senders, receivers, texts = [], [], []
    for number in range(count):
        one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())
        at_dialer, at_listener = await secure_both(one, other, dialer=security)
        one.gate = gate
        senders.append(at_dialer.stream)
        receivers.append(at_listener.stream)
        texts.append(bytes([number]) * BATCH_BYTES)
    async with trio.open_nursery() as nursery:
        for sender, text in zip(senders, texts, strict=True):
            nursery.start_soon(sender.send_all, text)
        await trio.testing.wait_all_tasks_blocked()  # All have sealed, and wait to send.
        gate.set()
    for receiver, text in zip(receivers, texts, strict=True):
        received = bytearray()
        while len(received) < len(text):
            received += await receiver.receive_some()
        assert received == text


async def test_no_buffer_is_lost_by_senders_that_gave_up() -> None:
    security = security_of(ALICE)
    for _ in range(LENT_BUFFERS + 1):
        one, other = (Tap(stream) for stream in trio.testing.lockstep_stream_pair())
        sender, _ = await secure_both(one, other, dialer=security)
        with trio.move_on_after(0):
            await sender.stream.send_all(bytes(BATCH_BYTES))
        assert one.is_lent


async def test_all_whole_messages_of_a_chunk_are_handed_out_at_once() -> None:
    sender, _, receiver, _ = await tapped_pair()
    for text in (b"one", b"two", b"three"):
        await sender.send_all(text)
    assert await receiver.receive_some() == b"onetwothree"


async def test_what_is_not_asked_for_is_kept_for_the_next_time() -> None:
    sender, _, receiver, _ = await tapped_pair()
    await sender.send_all(b"abcdefgh")
    assert await receiver.receive_some(3) == b"abc"
    assert await receiver.receive_some(1) == b"d"
    assert await receiver.receive_some(4) == b"efgh"
    await sender.send_all(b"ij")
    assert await receiver.receive_some(1) == b"i"
    assert await receiver.receive_some() == b"j"


async def test_a_message_may_arrive_in_pieces() -> None:
    sender, tap, receiver, _ = await tapped_pair()
    assert isinstance(sender, NoiseStream)
    frames = sender._sealer.seal(memoryview(b"data"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.send_all, frames[:9])

        async def send_the_rest() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await tap.send_all(frames[9:])

        nursery.start_soon(send_the_rest)
        assert await receiver.receive_some() == b"data"


async def test_a_raw_stream_that_is_closed_underneath_shows_as_such() -> None:
    stream, raw, _, _ = await tapped_pair()
    await raw.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"data")


async def test_waiting_for_room_while_another_task_sends_is_misuse() -> None:
    stream, _ = await make_lockstep_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"data")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.wait_send_all_might_not_block()
        nursery.cancel_scope.cancel()


async def test_nothing_is_sent_for_nothing() -> None:
    sender, tap, _, _ = await tapped_pair()
    await sender.send_all(b"")
    assert tap.sent == []


async def test_n11_an_empty_message_is_passed_over() -> None:
    sender, tap, receiver, _ = await tapped_pair()
    assert isinstance(sender, NoiseStream)
    empty = sender._sealer._cipher.seal(b"", b"")
    await tap.send_all(len(empty).to_bytes(2, "big") + empty)
    await sender.send_all(b"data")
    assert await receiver.receive_some() == b"data"


async def test_n11_tampering_ends_both_directions_and_closes_the_raw_stream() -> None:
    sender, _, receiver, tap = await tapped_pair()
    tap.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    await sender.send_all(b"data")
    for _ in range(2):
        with pytest.raises(StreamTampered) as caught:
            await receiver.receive_some()
        assert isinstance(caught.value, SecurityError)
        assert isinstance(caught.value, trio.BrokenResourceError)
        assert tap.is_closed
    with pytest.raises(StreamTampered):
        await receiver.send_all(b"data")
    with pytest.raises(StreamTampered):
        await receiver.wait_send_all_might_not_block()
    await receiver.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await receiver.receive_some()


async def test_n11_a_blocked_sender_learns_of_the_tampering() -> None:
    one, other = trio.testing.lockstep_stream_pair()
    tap = Tap(other)
    at_dialer, at_listener = await secure_both(one, tap)
    tap.change = lambda data: bytes(len(data))

    async def send() -> None:
        with pytest.raises(StreamTampered):
            await at_listener.stream.send_all(b"never read")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(at_dialer.stream.send_all, b"data")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StreamTampered):
            await at_listener.stream.receive_some()


async def test_n11_an_end_between_messages_is_one_and_within_one_it_is_a_loss() -> None:
    sender, tap, receiver, _ = await tapped_pair()
    await sender.send_all(b"data")
    await tap.send_eof()
    assert await receiver.receive_some() == b"data"
    assert await receiver.receive_some() == b""
    assert await receiver.receive_some() == b""

    sender, tap, receiver, raw = await tapped_pair()
    await sender.send_all(b"data")
    await tap.send_all(b"\x00\x20half")
    await tap.send_eof()
    assert await receiver.receive_some() == b"data"
    with pytest.raises(ConnectionLost, match="within a Noise message"):
        await receiver.receive_some()
    assert raw.is_closed


async def test_an_interrupted_send_spoils_the_stream() -> None:
    one, other = trio.testing.lockstep_stream_pair()
    at_dialer, _ = await secure_both(one, other)
    with trio.CancelScope() as scope:
        scope.cancel()
        await at_dialer.stream.send_all(b"data")
    assert scope.cancelled_caught
    with pytest.raises(trio.BrokenResourceError, match="interrupted"):
        await at_dialer.stream.send_all(b"data")


async def test_a_cancelled_receive_loses_nothing() -> None:
    sender, _, receiver, _ = await tapped_pair()
    await sender.send_all(b"data")
    assert await receiver.receive_some(1) == b"d"
    for _ in range(2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await receiver.receive_some(1)
        assert scope.cancelled_caught
    assert await receiver.receive_some() == b"ata"
    with trio.CancelScope() as scope:
        scope.cancel()
        await receiver.receive_some()
    await sender.send_all(b"more")
    assert await receiver.receive_some() == b"more"


async def test_n10_a_stream_without_nonces_is_closed() -> None:
    sender, tap, _, _ = await tapped_pair()
    assert isinstance(sender, NoiseStream)
    sender._sealer._cipher._nonce = MAX_NONCE
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="used up"):
            await sender.send_all(b"data")
        assert tap.is_closed


@pytest.mark.parametrize(
    ("said", "expected"), [(b"GET / HTTP/1.1\r\n\r\n", ProtocolError), (b"", SecurityError)]
)
async def test_n13_a_failed_handshake_closes_the_raw_stream_without_a_word(
    said: bytes, expected: type[Exception]
) -> None:
    one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    await one.send_all(said)
    await one.send_eof()
    with pytest.raises(expected):
        await security_of(BOB).secure(other, Role.LISTENER, expected=None, muxers=())
    assert other.is_closed
    assert other.sent == []


async def test_n8_another_peer_than_expected_is_refused_and_both_ends_are_closed() -> None:
    one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())

    async def listen() -> None:
        with pytest.raises(SecurityError, match="hung up"):
            await security_of(BOB).secure(other, Role.LISTENER, expected=None, muxers=())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        with pytest.raises(PeerIdMismatch):
            await security_of(ALICE).secure(one, Role.DIALER, expected=ALICE_ID, muxers=())
    assert one.is_closed
    assert other.is_closed


async def test_n13_a_cancelled_handshake_closes_the_raw_stream() -> None:
    one, _ = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(security_of(ALICE).secure, one, Role.DIALER, expected=None, muxers=())
        )
        await trio.testing.wait_all_tasks_blocked()
        assert not one.is_closed
        nursery.cancel_scope.cancel()
    assert one.is_closed


async def test_n3_a_host_has_one_static_key_and_a_fresh_one_for_each_handshake() -> None:
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes([len(drawn)]) * count

    security = security_of(ALICE, replace(Env.system(), random_bytes=random_bytes))
    assert drawn == [32]
    firsts = set()
    for _ in range(3):
        one, other = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(security.secure, one, Role.DIALER, expected=None, muxers=()))
            firsts.add(bytes(await other.receive_some()))
            nursery.cancel_scope.cancel()
    assert drawn == [32] * 4
    assert len(firsts) == 3


@pytest.mark.parametrize("size", [1023, 65_536])
def test_n12_the_limit_of_the_handshake_must_make_sense(size: int) -> None:
    with pytest.raises(ValueError, match="max_handshake_bytes"):
        Noise(max_handshake_bytes=size)
