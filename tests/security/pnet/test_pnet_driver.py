"""Streams under a key: PN1 to PN5. Transcripts are on specs/pnet.md."""

from __future__ import annotations

import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, check_half_closeable_stream, memory_stream_pair

from p2pnet.core.env import Env
from p2pnet.errors import AnotherNetwork, ExtraMissing, HandshakeCut
from p2pnet.interfaces import Role
from p2pnet.negotiation.first_word import role_left
from p2pnet.negotiation.machine import HEADER_LINE, encode_line
from p2pnet.security.pnet import PreSharedKey
from p2pnet.security.pnet.driver import (
    HEADER,
    NONCE_BYTES,
    ProtectedStream,
    Protector,
    import_cipher,
)

KEY = PreSharedKey(bytes(range(32)))
OTHER = PreSharedKey(bytes(32))
PROPOSAL = encode_line("/noise")


class Broken(trio.abc.ReceiveStream):
    """Nothing comes but an end by RST."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("connection reset")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def protector(key: PreSharedKey = KEY) -> Protector:
    return Protector(key, Env.system().random_bytes)


def pair(
    one: PreSharedKey = KEY, other: PreSharedKey = KEY
) -> tuple[ProtectedStream, ProtectedStream]:
    near, far = memory_stream_pair()
    return protector(one)(near), protector(other)(far)


async def greeted() -> tuple[ProtectedStream, ProtectedStream]:
    near, far = pair()
    await near.send_all(HEADER)
    assert await far.receive_some() == HEADER
    await far.send_all(HEADER)
    assert await near.receive_some() == HEADER
    return near, far


def test_the_header_is_that_of_multistream() -> None:
    """PN4."""
    assert HEADER == HEADER_LINE


async def test_behind_the_header_it_is_a_stream_like_any_other() -> None:
    """PN1."""
    await check_half_closeable_stream(greeted, None)


async def test_a_nonce_is_fresh_in_each_direction_and_on_each_stream() -> None:
    """PN1."""
    nonces = set()
    for _ in range(3):
        near, far = memory_stream_pair()
        await protector()(near).send_all(HEADER)
        await protector()(far).send_all(HEADER)
        for end in (near, far):
            sent = bytes(await end.receive_some())
            assert len(sent) == NONCE_BYTES + len(HEADER)
            assert HEADER not in sent
            nonces.add(sent[:NONCE_BYTES])
    assert len(nonces) == 6


@given(st.lists(st.integers(1, 30), max_size=20), st.binary(max_size=60))
def test_any_chunking_is_understood(sizes: list[int], rest: bytes) -> None:
    """PN1, PN4."""
    trio.run(cut_and_understand, sizes, rest)


async def cut_and_understand(sizes: list[int], rest: bytes) -> None:
    tapped, wire = memory_stream_pair()
    await protector()(tapped).send_all(HEADER + rest)
    sent = bytes(await wire.receive_some())
    near, far = memory_stream_pair()
    listening = protector()(near)
    heard = bytearray()

    async def listen() -> None:
        async for chunk in listening:
            heard.extend(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for size in sizes:
            if sent[:size]:
                await far.send_all(sent[:size])
                sent = sent[size:]
        if sent:
            await far.send_all(sent)
        await far.send_eof()
    assert heard == HEADER + rest


@pytest.mark.parametrize("eager", [0, 1])
async def test_who_awaits_our_nonce_before_the_first_word_gets_it(eager: int) -> None:
    """PN3: as rust- and js-libp2p do, whichever end they are."""
    near, far = memory_stream_pair()
    here = protector()(near)

    async def listen() -> None:
        assert await here.receive_some() == HEADER
        await here.send_all(HEADER)

    async def be_eager() -> None:
        nonce = bytes(range(24))
        await far.send_all(nonce)
        with trio.fail_after(1):
            got = bytes(await far.receive_some(NONCE_BYTES))
        assert len(got) == NONCE_BYTES
        await far.send_all(protector().cipher(nonce).apply(HEADER))
        sent = bytes(await far.receive_some())
        assert protector().cipher(got).apply(sent) == HEADER

    async with trio.open_nursery() as nursery:
        if eager:
            nursery.start_soon(listen)
        nursery.start_soon(be_eager)
        if not eager:
            nursery.start_soon(listen)


async def test_to_who_says_nothing_nothing_is_said(autojump_clock: MockClock) -> None:
    """PN3."""
    near, far = memory_stream_pair()
    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(protector()(near).receive_some)
            await far.send_all(bytes(NONCE_BYTES - 1))
            raise AssertionError(await far.receive_some())


async def test_another_key_is_told_at_the_first_byte() -> None:
    """PN4: whichever byte it is; one in 256 is right by chance."""
    seen: list[int] = []
    reasons: set[str] = set()
    for _ in range(20):
        near, far = pair(KEY, OTHER)
        await near.send_all(HEADER)
        try:
            while True:
                seen.append(len(await far.receive_some(1)))
        except AnotherNetwork as error:
            reasons.add(str(error))
    assert len(seen) < 5
    assert reasons == {"the remote has another pre-shared key"}


@given(st.binary(min_size=24, max_size=80))
def test_garbage_is_another_network(data: bytes) -> None:
    """PN4."""
    trio.run(hear_garbage, data)


async def hear_garbage(data: bytes) -> None:
    near, far = memory_stream_pair()
    await far.send_all(data)
    await far.send_eof()
    with pytest.raises((AnotherNetwork, HandshakeCut)):
        async for _ in protector()(near):
            pass


@pytest.mark.parametrize("said", [HEADER, HEADER + PROPOSAL])
@pytest.mark.parametrize("step", [1, 7, 100])
async def test_a_remote_without_a_key_is_told_and_not_answered(said: bytes, step: int) -> None:
    """PN5."""
    near, far = memory_stream_pair()

    async def speak() -> None:
        for start in range(0, len(said), step):
            await far.send_all(said[start : start + step])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        with pytest.raises(AnotherNetwork, match="no pre-shared key"):
            await protector()(near).receive_some()
    await near.aclose()
    assert await far.receive_some() == b""


@pytest.mark.parametrize("count", [0, 5, 24])
async def test_who_hangs_up_before_a_word_may_have_another_key(count: int) -> None:
    """PN5."""
    near, far = memory_stream_pair()
    if count:
        await far.send_all(bytes(count))
    await far.send_eof()
    with pytest.raises(HandshakeCut, match="pre-shared key"):
        await protector()(near).receive_some()


async def test_so_may_who_breaks_the_connection() -> None:
    """PN5."""

    near, _ = memory_stream_pair()
    with pytest.raises(HandshakeCut, match=r"connection reset; .* pre-shared key"):
        await protector()(trio.StapledStream(near.send_stream, Broken())).receive_some()


async def test_who_hangs_up_within_the_header_has_the_key() -> None:
    """PN5: what that means is for the negotiation to say."""
    near, far = pair()
    await far.send_all(HEADER[:5])
    await far.send_eof()
    assert await near.receive_some() == HEADER[:5]
    assert await near.receive_some() == b""


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ([], Role.DIALER),
        ([b""], Role.DIALER),
        ([HEADER], Role.DIALER),
        ([HEADER[:9], HEADER[9:]], Role.DIALER),
        ([HEADER + PROPOSAL], Role.LISTENER),
        ([HEADER, PROPOSAL], Role.LISTENER),
    ],
)
@pytest.mark.parametrize("answers", [True, False])
async def test_the_first_word_tells_the_role_under_a_key_too(
    autojump_clock: MockClock, said: list[bytes], role: Role, answers: bool
) -> None:
    """D15 PN3: an empty word is a nonce alone; patience may end within one."""
    raw, wire = memory_stream_pair()
    here = protector()(raw)
    nonce = bytes(range(24))
    cipher = protector().cipher(nonce)

    async def speak() -> None:
        await wire.send_all(nonce[:10])
        if said or answers:
            await wire.send_all(nonce[10:])
        for word in said:
            await trio.sleep(0.01)
            if word:
                await wire.send_all(cipher.apply(word))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        stream, left = await role_left(here, 0.2)
    assert left is role
    if not said and not answers:
        await wire.send_all(nonce[10:])
    if not b"".join(said):
        await wire.send_all(cipher.apply(HEADER))
    await wire.send_all(cipher.apply(b"the rest"))
    await wire.send_eof()
    heard = b"".join([bytes(chunk) async for chunk in stream])
    assert heard == (b"".join(said) or HEADER) + b"the rest"
    await stream.send_all(HEADER)
    sent = bytes(await wire.receive_some())
    assert protector().cipher(sent[:24]).apply(sent[24:]) == HEADER


async def test_a_sender_waits_for_the_nonce_and_fails_if_that_was_cut() -> None:
    """PN3."""

    near, far = memory_stream_pair()
    near.send_stream.send_all_hook = trio.sleep_forever
    stream = protector()(near)
    await far.send_all(bytes(NONCE_BYTES))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await stream.send_all(b"must not overtake it")
        nursery.cancel_scope.cancel()
    assert len(near.send_stream.get_data_nowait()) == NONCE_BYTES
    for send in (stream.send_all(HEADER), stream.send_eof()):
        with pytest.raises(trio.BrokenResourceError, match="nonce"):
            await send


def test_no_key_is_shown_by_what_holds_it() -> None:
    """PN7."""
    assert KEY.secret.hex() not in repr(protector())
    assert KEY.fingerprint() in repr(protector())


@pytest.fixture
def without_pycryptodome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "p2pnet.security.pnet.cipher", raising=False)
    monkeypatch.setitem(sys.modules, "Crypto.Cipher", None)


@pytest.mark.usefixtures("without_pycryptodome")
def test_without_the_extra_it_is_told_how_to_get_it() -> None:
    with pytest.raises(ExtraMissing, match=r"pip install 'p2pnet\[psk\]'"):
        import_cipher()
