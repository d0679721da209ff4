"""Sealed messages and their frames: N1, N10 and N11 of specs/noise.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import ConnectionLost, P2PError, StreamTampered
from p2pnet.security.noise.cipher import (
    MAX_MESSAGE_BYTES,
    MAX_NONCE,
    MAX_PLAINTEXT_BYTES,
    CipherState,
    Opener,
    Sealer,
    frame,
)

KEY = b"\x0b" * 32


def pair() -> tuple[Sealer, Opener]:
    return Sealer(CipherState(KEY)), Opener(CipherState(KEY))


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        chunks.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return chunks


def lengths_of(frames: bytes | bytearray) -> list[int]:
    lengths, at = [], 0
    while at < len(frames):
        lengths.append(int.from_bytes(frames[at : at + 2], "big"))
        at += 2 + lengths[-1]
    assert at == len(frames)
    return lengths


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (1, [17]),
        (MAX_PLAINTEXT_BYTES, [MAX_MESSAGE_BYTES]),
        (MAX_PLAINTEXT_BYTES + 1, [MAX_MESSAGE_BYTES, 17]),
        (2 * MAX_PLAINTEXT_BYTES, [MAX_MESSAGE_BYTES] * 2),
        (0, []),
    ],
)
def test_n10_messages_are_as_few_and_large_as_noise_allows(size: int, lengths: list[int]) -> None:
    sealer, opener = pair()
    text = bytes(range(256)) * (size // 256 + 1)
    frames = sealer.seal(memoryview(text)[:size])
    assert lengths_of(frames) == lengths
    assert opener.open(frames) == text[:size]


@given(
    texts=st.lists(st.binary(min_size=1, max_size=60), max_size=6),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=8),
)
def test_n1_any_chunking_gives_the_same_plaintext(texts: list[bytes], sizes: list[int]) -> None:
    sealer, opener = pair()
    frames = b"".join(sealer.seal(memoryview(text)) for text in texts)
    plaintext = b"".join(opener.open(chunk) for chunk in cut(frames, sizes))
    assert plaintext == b"".join(texts)
    assert opener.is_between_frames


@given(
    texts=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    bit=st.integers(0),
)
def test_n11_no_changed_bit_goes_unnoticed(texts: list[bytes], sizes: list[int], bit: int) -> None:
    sealer, opener = pair()
    frames = bytearray(b"".join(sealer.seal(memoryview(text)) for text in texts))
    bit %= 8 * len(frames)
    frames[bit // 8] ^= 1 << bit % 8
    opened = bytearray()
    try:
        for chunk in cut(bytes(frames), sizes):
            opened += opener.open(chunk)
    except StreamTampered:
        pass
    else:
        # A length that grew makes the opener wait for bytes that never come.
        assert not opener.is_between_frames
    whole = b"".join(texts)
    assert len(opened) < len(whole)
    assert whole.startswith(opened)


@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(1, 50), min_size=1))
def test_garbage_only_ever_raises_errors_of_ours(data: bytes, sizes: list[int]) -> None:
    opener = Opener(CipherState(KEY))
    try:
        for chunk in cut(data, sizes):
            opener.open(chunk)
    except P2PError:
        return


@pytest.mark.parametrize("chunk", [b"\x00\x0f", b"\x00\x00", b"\x00\x0f" + bytes(15)])
def test_n11_a_length_that_holds_no_tag_is_noticed_at_once(chunk: bytes) -> None:
    with pytest.raises(StreamTampered, match="too short"):
        Opener(CipherState(KEY)).open(chunk)
    opener = Opener(CipherState(KEY))
    assert opener.open(chunk[:1]) == b""
    with pytest.raises(StreamTampered, match="too short"):
        opener.open(chunk[1:])


def test_n11_replayed_and_dropped_messages_do_not_open() -> None:
    sealer, opener = pair()
    first, second = (sealer.seal(memoryview(text)) for text in (b"one", b"two"))
    opener.open(first)
    with pytest.raises(StreamTampered):
        opener.open(first)
    _, fresh = pair()
    with pytest.raises(StreamTampered):
        fresh.open(second)


def test_n10_nonces_are_not_used_up_to_the_last() -> None:
    sealer, opener = pair()
    for cipher in (sealer._cipher, opener._cipher):
        cipher._nonce = MAX_NONCE - 1
    frames = sealer.seal(memoryview(b"last"))
    assert opener.open(frames) == b"last"
    with pytest.raises(ConnectionLost):
        sealer.seal(memoryview(b"one more"))
    with pytest.raises(ConnectionLost):
        opener.open(frames)


def test_a_message_that_fits_no_frame_is_misuse() -> None:
    with pytest.raises(ValueError, match="65536 bytes"):
        frame(bytes(MAX_MESSAGE_BYTES + 1))


def test_the_plaintext_can_be_resized_by_whoever_gets_it() -> None:
    sealer, opener = pair()
    plaintext = opener.open(sealer.seal(memoryview(b"hello")))
    del plaintext[:2]
    assert plaintext == b"llo"
