"""TLS handshakes over trio streams: T1 to T3, T9 to T11, T14 and T15 of specs/tls.md."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from OpenSSL import SSL

from p2pnet.core.env import Env
from p2pnet.errors import (
    BothDialed,
    ConnectionLost,
    HandshakeCut,
    PeerIdMismatch,
    ProofRefused,
    ProtocolError,
    SecurityError,
)
from p2pnet.interfaces import Role, Secured
from p2pnet.security.tls import TLS, KeyKind, TLSStream
from p2pnet.security.tls.certificate import NOT_BEFORE
from p2pnet.security.tls.stream import LAST_WORD_SECONDS
from tests.security.tls.strangers import (
    ALICE,
    ALICE_ID,
    BOB,
    BOB_ID,
    CERTIFICATE,
    YAMUX,
    Stranger,
    Tap,
    secure_both,
    security_of,
    stranger_context,
    tapped_pair,
)

OURS = security_of(BOB)
Pipe = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


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


@pytest.mark.parametrize("chunk", [1, 6, 100_000])
async def test_two_dialers_are_told_that_both_dialed(chunk: int) -> None:
    """T16: whatever the chunks. And nothing is left open (T15)."""
    ends = trio.testing.memory_stream_pair()
    told: list[str] = []

    async def dial(end: Pipe) -> None:
        sending = end.send_stream

        async def in_chunks() -> None:
            data = sending.get_data_nowait()
            far = ends[1 - ends.index(end)].receive_stream
            for at in range(0, len(data), chunk):
                far.put_data(data[at : at + chunk])
                await trio.testing.wait_all_tasks_blocked()

        sending.send_all_hook = in_chunks
        with pytest.raises(BothDialed, match="both ends") as caught:
            await OURS.secure(end, Role.DIALER, expected=None, muxers=())
        told.append(str(caught.value))
        with pytest.raises(trio.ClosedResourceError):
            await end.receive_some()

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(dial, end)
    assert len(told) == 2


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


# ---- garbage -----------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("step", "garbage"), [(7, 0), (13, 4000)], ids=["cut", "garbage"])
async def test_a_handshake_cut_anywhere_and_garbage_behind_it_is_a_typed_error(
    role: Role, step: int, garbage: int, autojump_clock: trio.testing.MockClock
) -> None:
    """T15: nothing is left open."""
    genuine = (Tap(stream) for stream in trio.testing.memory_stream_pair())
    taps = dict(zip(Role, genuine, strict=True))
    await secure_both(taps[Role.DIALER], taps[Role.LISTENER])
    opposite = Role.LISTENER if role is Role.DIALER else Role.DIALER
    said = b"".join(taps[opposite].sent)
    for at in range(0, len(said), step):
        one, other = trio.testing.memory_stream_pair()
        await other.send_all(said[:at] + os.urandom(garbage))
        await other.send_eof()
        with pytest.raises((SecurityError, ProtocolError)):
            await OURS.secure(one, role, expected=None, muxers=())
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
