"""TLS over trio streams: T1 to T3, T9 to T15 of specs/tls.md, and trio's own rules."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from p2pnet.core.env import Env
from p2pnet.errors import (
    ConnectionLost,
    HandshakeCut,
    PeerIdMismatch,
    ProofRefused,
    ProtocolError,
    SecurityError,
    StreamTampered,
)
from p2pnet.interfaces import Role, Secured
from p2pnet.security.tls import TLS, KeyKind, TLSStream
from p2pnet.security.tls.certificate import NOT_BEFORE
from p2pnet.security.tls.driver import BATCH_BYTES, LAST_WORD_SECONDS
from tests.security.tls.strangers import (
    ALICE,
    ALICE_ID,
    BOB,
    BOB_ID,
    CERTIFICATE,
    YAMUX,
    Stranger,
    security_of,
    stranger_context,
)

OURS = security_of(BOB)


async def secure_both(
    one: trio.abc.Stream,
    other: trio.abc.Stream,
    *,
    muxers: tuple[Sequence[str], Sequence[str]] = ((), ()),
    part: TLS | None = None,
) -> tuple[Secured, Secured]:
    found: dict[Role, Secured] = {}

    async def secure(stream: trio.abc.Stream, role: Role) -> None:
        is_dialer = role is Role.DIALER
        found[role] = await security_of(ALICE if is_dialer else BOB, part).secure(
            stream,
            role,
            expected=BOB_ID if is_dialer else None,
            muxers=muxers[0 if is_dialer else 1],
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, one, Role.DIALER)
        nursery.start_soon(secure, other, Role.LISTENER)
    return found[Role.DIALER], found[Role.LISTENER]


class Tap(trio.abc.HalfCloseableStream):
    """One end of a stream that shows what is sent, and can do without."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.sent: list[bytes] = []
        self.is_closed = False
        self.is_stuck = False
        self.change: Callable[[bytes], bytes] = bytes

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        if self.is_stuck:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self.change(bytes(await self._stream.receive_some(max_bytes)))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.is_closed = True
        await self._stream.aclose()


async def tapped_pair() -> tuple[trio.abc.Stream, Tap, trio.abc.Stream, Tap]:
    """Return the ends of a secured stream that were both heard already."""
    one, other = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    at_dialer, at_listener = await secure_both(one, other)
    for sender, receiver in ((at_dialer, at_listener), (at_listener, at_dialer)):
        await sender.stream.send_all(b"x")
        assert await receiver.stream.receive_some() == b"x"
    one.sent.clear()
    other.sent.clear()
    return at_dialer.stream, one, at_listener.stream, other


async def meet(
    stranger: SSL.Context, role: Role, *, part: TLS | None = None, muxers: Sequence[str] = ()
) -> tuple[Secured | Exception, Exception | None]:
    """Let us, in a role, meet a stranger; return what came of it here and there."""
    one, other = trio.testing.memory_stream_pair()
    security = OURS if part is None else security_of(BOB, part)
    theirs: list[Exception] = []

    async def be_strange() -> None:
        peer = Stranger(stranger, other, Role.LISTENER if role is Role.DIALER else Role.DIALER)
        try:
            await peer.shake_hands()
            await peer.receive()
        except (SSL.Error, trio.BrokenResourceError, ValueError) as error:
            theirs.append(error)

    result: Secured | Exception
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_strange)
        try:
            result = await security.secure(one, role, expected=None, muxers=muxers)
            await result.stream.aclose()
        except (SecurityError, ProtocolError) as error:
            result = error
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await one.send_all(b"T15")
    return result, theirs[0] if theirs else None


# ---- the handshake -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialers", "listeners", "muxer"),
    [
        ([], [], None),
        ([YAMUX], [YAMUX], YAMUX),
        ([YAMUX], [], None),
        ([], [YAMUX], None),
        ([YAMUX], ["/mplex/6.7.0"], None),
        ([YAMUX, "/mplex/6.7.0"], ["/mplex/6.7.0", YAMUX], YAMUX),
        (["/quiet", "/mplex/6.7.0"], [YAMUX, "/mplex/6.7.0"], "/mplex/6.7.0"),
    ],
)
@pytest.mark.parametrize("kind", KeyKind)
async def test_both_ends_know_each_other_and_the_muxer_and_can_talk(
    dialers: list[str], listeners: list[str], muxer: str | None, kind: KeyKind
) -> None:
    """T1 T3."""
    one, other = trio.testing.memory_stream_pair()
    part = TLS(certificate_key=kind)
    at_dialer, at_listener = await secure_both(one, other, muxers=(dialers, listeners), part=part)
    assert (at_dialer.peer_id, at_dialer.muxer) == (BOB_ID, muxer)
    assert (at_listener.peer_id, at_listener.muxer) == (ALICE_ID, muxer)
    assert at_dialer.remote_key == BOB.public_key
    await at_dialer.stream.send_all(b"hello")
    assert await at_listener.stream.receive_some() == b"hello"
    await at_listener.stream.send_all(bytearray(b"hi"))
    assert await at_dialer.stream.receive_some() == b"hi"


@pytest.mark.parametrize("role", Role)
async def test_a_stranger_who_does_as_libp2p_says_is_let_in(role: Role) -> None:
    found, _ = await meet(stranger_context(), role, muxers=[YAMUX])
    assert isinstance(found, Secured)
    assert (found.peer_id, found.muxer) == (ALICE_ID, None)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    ("context", "words"),
    [
        (stranger_context(None), ""),
        (stranger_context(extra=[CERTIFICATE.certificate]), "more than one certificate"),
        (stranger_context(newest=SSL.TLS1_2_VERSION), "protocol"),
        (stranger_context(alpn=[]), "application protocol"),
    ],
    ids=["no certificate", "two certificates", "TLS 1.2", "no ALPN"],
)
async def test_a_stranger_who_does_not_is_refused(
    context: SSL.Context, words: str, role: Role
) -> None:
    """T1 T2 T3 T15."""
    found, _ = await meet(context, role)
    assert type(found) is SecurityError
    assert words in str(found)


async def test_a_dialer_that_offers_only_unknown_protocols_is_refused() -> None:
    """T3."""
    found, theirs = await meet(stranger_context(alpn=[b"h2", YAMUX.encode()]), Role.LISTENER)
    assert type(found) is SecurityError
    assert "no application protocol of libp2p" in str(found)
    assert "no application protocol" in str(theirs)


@pytest.mark.parametrize("role", Role)
async def test_a_certificate_that_does_not_stand_is_refused_with_its_reason(role: Role) -> None:
    """T6: judged by the clock of the Env."""
    env = replace(Env.system(), wall_clock=lambda: NOT_BEFORE.timestamp() - 4000)
    security = security_of(BOB, env=env)
    one, other = trio.testing.memory_stream_pair()
    opposite = Role.LISTENER if role is Role.DIALER else Role.DIALER
    stranger = Stranger(stranger_context(), other, opposite)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ignoring_errors, stranger.shake_hands)
        with pytest.raises(SecurityError, match="not valid yet"):
            await security.secure(one, role, expected=None, muxers=())


async def ignoring_errors(action: Callable[[], object]) -> None:
    with suppress(SSL.Error, trio.BrokenResourceError, trio.ClosedResourceError, SecurityError):
        await action()  # type: ignore[misc]


async def test_a_dialer_shows_nothing_of_itself_to_another_than_it_expects() -> None:
    """T14: neither certificate nor name; only an alert."""
    one, other = trio.testing.memory_stream_pair()
    tap = Tap(one)
    async with trio.open_nursery() as nursery:
        stranger = Stranger(stranger_context(), other, Role.LISTENER)
        nursery.start_soon(ignoring_errors, stranger.shake_hands)
        with pytest.raises(PeerIdMismatch) as caught:
            await OURS.secure(tap, Role.DIALER, expected=BOB_ID, muxers=())
    assert (caught.value.expected, caught.value.actual) == (BOB_ID, ALICE_ID)
    assert len(tap.sent) == 2
    assert len(tap.sent[1]) < 64
    assert tap.is_closed


async def test_a_handshake_without_end_is_refused_at_the_limit() -> None:
    """T9: a certificate of 1 MiB is not even taken in."""
    one, other = trio.testing.memory_stream_pair()
    part = TLS(max_handshake_bytes=4096)
    with pytest.raises(ValueError, match="at least 4096"):
        TLS(max_handshake_bytes=4095)
    hello = b"\x16\x03\x01\x40\x00" + b"\x01\x10\x00\x00\x03\x03"
    await other.send_all(hello + bytes(1 << 20))
    with pytest.raises(ProtocolError, match="no end"):
        await security_of(BOB, part).secure(one, Role.LISTENER, expected=None, muxers=())
    chain = stranger_context(extra=[CERTIFICATE.certificate] * 200)
    found, _ = await meet(chain, Role.DIALER)
    assert isinstance(found, ProtocolError)
    assert "no end" in str(found)


async def test_nothing_is_resumed_and_no_server_is_named() -> None:
    """T10: a session that was kept is not taken up again, nor is there early data."""
    kept: list[SSL.Session] = []
    context = stranger_context()
    seen: list[int] = []

    def look(_: object, __: object, error: int, *___: int) -> bool:
        seen.append(error)
        return True

    context.set_verify(SSL.VERIFY_PEER, look)
    for _ in range(2):
        one, other = trio.testing.memory_stream_pair()
        stranger = Stranger(context, other, Role.DIALER)
        if kept:
            stranger.tls.set_session(kept[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.shake_hands)
            found = await OURS.secure(one, Role.LISTENER, expected=None, muxers=())
        await found.stream.send_all(b"hello")
        assert await stranger.receive() == b"hello"
        # Only who does the whole handshake is shown a certificate.
        assert seen.count(18) == len(kept) + 1
        session = stranger.tls.get_session()
        assert session is not None
        kept.append(session)


async def test_a_dialer_names_no_server_and_offers_its_muxers_first() -> None:
    """T3 T10."""
    one, other = trio.testing.memory_stream_pair()
    context = stranger_context()
    offers: list[list[bytes]] = []

    def choose(_: SSL.Connection, offered: list[bytes]) -> bytes:
        offers.append(offered)
        return b"libp2p"

    context.set_alpn_select_callback(choose)
    stranger = Stranger(context, other, Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.shake_hands)
        await OURS.secure(one, Role.DIALER, expected=ALICE_ID, muxers=[YAMUX, "/b"])
    assert offers == [[YAMUX.encode(), b"/b", b"libp2p"]]
    assert stranger.tls.get_servername() is None


async def test_no_log_of_keys_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T10."""
    path = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    await tapped_pair()
    assert not path.exists()


@pytest.mark.parametrize("muxer", ["libp2p", "", "x" * 256])
async def test_a_muxer_that_alpn_cannot_name_is_a_mistake_of_the_caller(muxer: str) -> None:
    one, _ = trio.testing.memory_stream_pair()
    with pytest.raises(ValueError, match="ALPN"):
        await OURS.secure(one, Role.DIALER, expected=None, muxers=[muxer])


async def test_a_remote_that_takes_no_alert_delays_a_refusal_but_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """T15."""
    one, other = trio.testing.memory_stream_pair()
    tap = Tap(one)
    stranger = Stranger(stranger_context(), other, Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ignoring_errors, stranger.shake_hands)

        def stick(data: bytes) -> bytes:
            tap.is_stuck = True
            return data

        tap.change = stick
        with pytest.raises(PeerIdMismatch):
            await OURS.secure(tap, Role.DIALER, expected=BOB_ID, muxers=())
        assert trio.current_time() == pytest.approx(LAST_WORD_SECONDS)
        assert tap.is_closed
        nursery.cancel_scope.cancel()


# ---- who is refused, learns of it --------------------------------------------------------


async def unconfirmed() -> tuple[trio.abc.Stream, Stranger]:
    """Return a dialer's stream, to a listener that has not read the dialer's last flight."""
    one, other = trio.testing.memory_stream_pair()
    stranger = Stranger(stranger_context(), other, Role.LISTENER)
    found: list[Secured] = []

    async def dial() -> None:
        found.append(await OURS.secure(one, Role.DIALER, expected=ALICE_ID, muxers=()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        with suppress(SSL.WantReadError):
            stranger.tls.bio_write(await other.receive_some())
            stranger.tls.do_handshake()
        await stranger.flush()
    return found[0].stream, stranger


async def test_a_dialer_that_is_refused_with_an_alert_is_told_when_it_reads() -> None:
    """T11."""
    one, other = trio.testing.memory_stream_pair()
    results: list[BaseException] = []

    async def listen() -> None:
        security = security_of(ALICE)
        with pytest.raises(PeerIdMismatch):
            await security.secure(other, Role.LISTENER, expected=ALICE_ID, muxers=())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        found = await OURS.secure(one, Role.DIALER, expected=ALICE_ID, muxers=())
        for _ in range(2):
            with pytest.raises(ProofRefused, match=r"refused us: .*alert") as caught:
                await found.stream.receive_some()
            results.append(caught.value)
    assert isinstance(results[0], SecurityError)
    assert isinstance(results[0], trio.BrokenResourceError)


async def test_a_dialer_whose_connection_ends_or_breaks_first_is_told_when_it_reads() -> None:
    """T11."""
    stream, stranger = await unconfirmed()
    await stranger.stream.aclose()
    with pytest.raises(ProofRefused, match="hung up before"):
        await stream.receive_some()
    stream, stranger = await unconfirmed()
    assert isinstance(stream, TLSStream)
    await trio.aclose_forcefully(stranger.stream)
    with pytest.raises(ProofRefused):
        await stream.receive_some()


async def test_once_confirmed_a_dialer_loses_connections_as_anybody_does() -> None:
    """T11 T12."""
    dialer, _, _, listeners = await tapped_pair()
    await listeners.aclose()
    with pytest.raises(ConnectionLost, match="without the word"):
        await dialer.receive_some()


@pytest.mark.parametrize("role", Role)
async def test_a_remote_that_hangs_up_in_the_handshake_is_said_so(role: Role) -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_eof()
    with pytest.raises(HandshakeCut):
        await OURS.secure(one, role, expected=None, muxers=())


# ---- the stream --------------------------------------------------------------------------


async def make_memory_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.memory_stream_pair())
    return ends[0].stream, ends[1].stream


async def make_lockstep_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    ends = await secure_both(*trio.testing.lockstep_stream_pair())
    return ends[0].stream, ends[1].stream


async def test_the_secured_stream_behaves_as_every_trio_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await trio.testing.check_two_way_stream(make_memory_pair, None)
    await trio.testing.check_two_way_stream(make_lockstep_pair, make_lockstep_pair)


@pytest.mark.parametrize("size", [1, 16_384, 16_385, BATCH_BYTES, BATCH_BYTES + 1])
async def test_any_amount_arrives_whole_and_in_few_sends(size: int) -> None:
    sender, tap, receiver, _ = await tapped_pair()
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    await sender.send_all(data)
    assert len(tap.sent) == -(-size // BATCH_BYTES)
    received = bytearray()
    while len(received) < size:
        received += await receiver.receive_some()
    assert received == data


async def test_all_whole_records_of_a_chunk_are_handed_out_at_once() -> None:
    sender, _, receiver, _ = await tapped_pair()
    for text in (b"one", b"two", b"three"):
        await sender.send_all(text)
    assert await receiver.receive_some() == b"onetwothree"
    await sender.send_all(b"abcdefgh")
    assert await receiver.receive_some(3) == b"abc"
    assert await receiver.receive_some(4) == b"defg"
    assert await receiver.receive_some() == b"h"


async def test_who_closes_says_so_and_what_it_sent_before_arrives() -> None:
    """T12."""
    sender, tap, receiver, _ = await tapped_pair()
    await sender.send_all(b"last")
    await sender.aclose()
    assert tap.is_closed
    assert await receiver.receive_some() == b"last"
    assert await receiver.receive_some() == b""
    assert await receiver.receive_some() == b""


@pytest.mark.parametrize("left", [0, 1, 20])
async def test_an_end_that_nobody_spoke_of_is_a_loss(left: int) -> None:
    """T12: before, between and within records."""
    sender, tap, receiver, other = await tapped_pair()
    other.change = lambda data: data[:left] if data else data
    await sender.send_all(b"first")
    await tap._stream.aclose()
    with pytest.raises(ConnectionLost):
        await receiver.receive_some()
    with pytest.raises(ConnectionLost):
        await receiver.send_all(b"x")


async def test_closing_waits_but_a_second_for_room_on_the_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """T12."""
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    await sender.aclose()
    assert tap.is_closed
    assert trio.current_time() == pytest.approx(LAST_WORD_SECONDS)


async def test_closing_in_the_middle_of_a_send_ends_both_at_once() -> None:
    """T12."""
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sender.send_all(b"y")
        await sender.aclose()
        assert tap.is_closed
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await sender.send_all(b"z")


async def test_an_interrupted_send_is_never_taken_up_again() -> None:
    sender, tap, _, _ = await tapped_pair()
    tap.is_stuck = True
    with trio.CancelScope() as scope:
        scope.cancel()
        await sender.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError, match="interrupted"):
        await sender.send_all(b"y")


async def test_tampering_ends_both_directions_and_closes_the_connection() -> None:
    """T13."""
    sender, _, receiver, other = await tapped_pair()
    other.change = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    await sender.send_all(b"hello")
    for _ in range(2):
        with pytest.raises(StreamTampered):
            await receiver.receive_some()
    with pytest.raises(StreamTampered):
        await receiver.send_all(b"x")
    assert other.is_closed


async def test_two_receivers_are_one_too_many() -> None:
    _, _, receiver, _ = await tapped_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await receiver.receive_some()
        nursery.cancel_scope.cancel()


# ---- an update of keys -------------------------------------------------------------------


def expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, 7.1, for what fits into one block."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2) + bytes([len(name)]) + name + b"\x00"
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)[:size]


class Records:
    """One direction of a connection, by hand: TLS_AES_128_GCM_SHA256."""

    def __init__(self, secret: bytes, number: int = 0) -> None:
        self.secret = secret
        self.number = number

    def updated(self) -> Records:
        return Records(expand(self.secret, "traffic upd", 32))

    def seal(self, content: bytes, kind: int) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        cipher, nonce = self._next()
        return header + cipher.encrypt(nonce, content + bytes([kind]), header)

    def open(self, record: bytes) -> tuple[bytes, int]:
        cipher, nonce = self._next()
        inner = cipher.decrypt(nonce, record[5:], record[:5])
        return inner[:-1], inner[-1]

    def _next(self) -> tuple[AESGCM, bytes]:
        iv = int.from_bytes(expand(self.secret, "iv", 12))
        nonce = (iv ^ self.number).to_bytes(12)
        self.number += 1
        return AESGCM(expand(self.secret, "key", 16)), nonce


def cut(records: bytes) -> list[bytes]:
    found = []
    while records:
        size = 5 + int.from_bytes(records[3:5])
        found.append(records[:size])
        records = records[size:]
    return found


KEY_UPDATE_REQUESTED, KEY_UPDATE = b"\x18\x00\x00\x01\x01", b"\x18\x00\x00\x01\x00"
HANDSHAKE, DATA = 22, 23


async def by_hand() -> tuple[trio.abc.Stream, trio.abc.SendStream, Records, Records, Tap]:
    """Return a dialer's stream, the other end, and both directions by hand."""
    one, other = trio.testing.memory_stream_pair()
    tap = Tap(one)
    secrets: dict[str, bytes] = {}

    def remember(_: SSL.Connection, line: bytes) -> None:
        name, _client, secret = line.decode().split()
        secrets[name] = bytes.fromhex(secret)

    context = stranger_context()
    context.set_keylog_callback(remember)
    stranger = Stranger(context, other, Role.LISTENER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stranger.shake_hands)
        found = await OURS.secure(tap, Role.DIALER, expected=ALICE_ID, muxers=())
    assert stranger.tls.get_cipher_name() == "TLS_AES_128_GCM_SHA256"
    # OpenSSL's two tickets came before.
    theirs = Records(secrets["SERVER_TRAFFIC_SECRET_0"], 2)
    return found.stream, other, theirs, Records(secrets["CLIENT_TRAFFIC_SECRET_0"]), tap


async def test_an_update_of_keys_is_answered_by_the_next_sender_and_not_by_the_receiver() -> None:
    stream, other, theirs, old, tap = await by_hand()
    for _ in range(3):
        await other.send_all(theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE))
        theirs = theirs.updated()
    await other.send_all(theirs.seal(b"news", DATA))
    assert await stream.receive_some() == b"news"
    assert len(tap.sent) == 2
    await stream.send_all(b"answer")
    *answers, data = cut(tap.sent[2])
    assert 1 <= len(answers) <= 3
    for answer in answers:
        assert old.open(answer) == (KEY_UPDATE, HANDSHAKE)
        old = old.updated()
    assert old.open(data) == (b"answer", DATA)


async def test_a_remote_that_does_nothing_but_update_its_keys_is_cut_off() -> None:
    """T9: the answers that wait do not pile up."""
    stream, other, theirs, _, _ = await by_hand()
    flood = bytearray()
    while len(flood) < 1 << 16:
        flood += theirs.seal(KEY_UPDATE_REQUESTED, HANDSHAKE)
        theirs = theirs.updated()
    await other.send_all(flood)
    with pytest.raises(ConnectionLost, match="update its keys"):
        await stream.receive_some()


# ---- garbage -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
async def test_garbage_after_any_part_of_a_handshake_ends_it_with_a_typed_error(
    role: Role, autojump_clock: trio.testing.MockClock
) -> None:
    """T15: nothing is left open."""
    genuine = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    taps = dict(zip(Role, genuine, strict=True))
    await secure_both(taps[Role.DIALER], taps[Role.LISTENER])
    opposite = Role.LISTENER if role is Role.DIALER else Role.DIALER
    said = b"".join(taps[opposite].sent)
    for at in range(0, len(said), 13):
        one, other = trio.testing.memory_stream_pair()
        await other.send_all(said[:at] + os.urandom(4000))
        await other.send_eof()
        with pytest.raises((SecurityError, ProtocolError)):
            await OURS.secure(one, role, expected=None, muxers=())
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
