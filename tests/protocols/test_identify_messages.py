"""The identify message: codec, merging, limits, and how it is split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.framing import FrameDecoder
from p2pnet.errors import ProtocolError
from p2pnet.pb import identify_pb2 as pb
from p2pnet.protocols.identify.messages import (
    IDENTIFY,
    MAX_ADDRESSES,
    MAX_FIRST_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    MAX_PROTOCOLS,
    MAX_SINGLE_BYTES,
    IdentifyMessage,
    clean,
    decode_untrusted,
    encode,
    frames,
    split,
)

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), max_size=30).map(
    lambda text: "/" + text
)
MESSAGES = st.builds(
    IdentifyMessage,
    public_key=st.none() | st.binary(max_size=300),
    addresses=st.lists(st.binary(max_size=60), max_size=20).map(tuple),
    protocols=st.lists(NAMES, max_size=200, unique=True).map(tuple),
    observed_address=st.none() | st.binary(max_size=60),
    protocol_version=st.none() | st.from_regex(r"[a-z/0-9.]{0,40}", fullmatch=True),
    agent_version=st.none() | st.from_regex(r"[a-z/0-9.]{0,40}", fullmatch=True),
    signed_record=st.none() | st.binary(max_size=2000),
)


@given(MESSAGES)
def test_what_is_split_is_whole_again(message: IdentifyMessage) -> None:
    """I6."""
    parts = split(message)
    assert decode_untrusted(parts) == message
    assert len(parts) <= MAX_MESSAGES
    assert len(parts[0]) <= MAX_FIRST_BYTES
    assert len(parts) == 1 or len(encode(message)) > MAX_SINGLE_BYTES


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_garbage_is_a_protocol_error_or_a_message(parts: list[bytes]) -> None:
    try:
        message = decode_untrusted(parts)
    except ProtocolError:
        return
    assert isinstance(message, IdentifyMessage)


@given(MESSAGES, st.lists(st.integers(1, 4000), max_size=5))
def test_frames_are_the_same_whatever_the_chunking(
    message: IdentifyMessage, cuts: list[int]
) -> None:
    data, decoder, found = frames(message), FrameDecoder(MAX_MESSAGE_BYTES, IDENTIFY), []
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(bounds):
        decoder.feed(data[start:end])
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    assert decode_untrusted(found) == message


def test_of_repeated_fields_all_count_and_of_others_the_last() -> None:
    """I3."""
    first = IdentifyMessage(addresses=(b"a",), protocols=("/x", "/y"), agent_version="old")
    second = IdentifyMessage(addresses=(b"b",), protocols=("/y", "/z"), agent_version="new")
    merged = decode_untrusted([encode(first), encode(second)])
    assert merged.addresses == (b"a", b"b")
    assert merged.protocols == ("/x", "/y", "/z")
    assert merged.agent_version == "new"
    assert merged.public_key is None


def test_ten_messages_are_read_and_eleven_are_not() -> None:
    """I2."""
    parts = [encode(IdentifyMessage(protocols=(f"/{number}",))) for number in range(11)]
    assert len(decode_untrusted(parts[:MAX_MESSAGES]).protocols) == MAX_MESSAGES
    with pytest.raises(ProtocolError, match="11 messages"):
        decode_untrusted(parts)
    with pytest.raises(ProtocolError, match="0 messages"):
        decode_untrusted([])


def test_a_message_over_the_limit_is_refused() -> None:
    """I2."""
    fits = IdentifyMessage(signed_record=bytes(MAX_MESSAGE_BYTES - 3))
    assert decode_untrusted([encode(fits)]) == fits
    with pytest.raises(ProtocolError, match="8193 bytes"):
        decode_untrusted([encode(IdentifyMessage(signed_record=bytes(MAX_MESSAGE_BYTES - 2)))])


def test_there_are_limits_to_what_is_kept() -> None:
    """I5."""
    names = tuple(f"/{number}" for number in range(MAX_PROTOCOLS + 1))
    parts = [
        pb.Identify(protocols=names[i : i + 200]).SerializeToString() for i in range(0, 1100, 200)
    ]
    assert decode_untrusted(parts).protocols == names[:MAX_PROTOCOLS]
    many = pb.Identify(listen_addrs=[b"\x04"] * (MAX_ADDRESSES + 1))
    assert len(decode_untrusted([many.SerializeToString()]).addresses) == MAX_ADDRESSES


@pytest.mark.parametrize(
    "name", ["", "echo", "/line\nfeed", "/\x1b[31m", "/" + 256 * "x", "/" + 100 * "\N{SNOWMAN}"]
)
def test_what_cannot_be_a_protocol_is_left_out(name: str) -> None:
    """I5."""
    data = pb.Identify(protocols=["/a", name, "/b"]).SerializeToString()
    assert decode_untrusted([data]).protocols == ("/a", "/b")


def test_versions_are_cut_and_cleaned() -> None:
    """I5."""
    assert clean("go\x1b[2J-libp2p\n/0.41") == "go[2J-libp2p/0.41"
    assert clean(200 * "x") == 128 * "x"


def test_text_that_is_no_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        decode_untrusted([b"\x32\x02\xff\xfe"])


def test_a_small_message_goes_out_in_one_piece_with_its_record() -> None:
    """I6."""
    message = IdentifyMessage(public_key=b"key", signed_record=bytes(1000))
    assert split(message) == (encode(message),)


def test_over_two_kib_the_record_comes_last_and_alone() -> None:
    """I6."""
    message = IdentifyMessage(
        public_key=b"key", addresses=(bytes(1500),), protocols=("/x",), signed_record=bytes(1600)
    )
    first, second = split(message)
    assert decode_untrusted([first]).signed_record is None
    assert decode_untrusted([first]).protocols == ("/x",)
    assert second == encode(IdentifyMessage(signed_record=bytes(1600)))


def test_protocols_that_do_not_fit_come_in_further_messages() -> None:
    """I6."""
    names = tuple(f"/{number:0>250}" for number in range(40))
    parts = split(IdentifyMessage(public_key=b"key", protocols=names, signed_record=b"record"))
    assert [len(part) <= MAX_FIRST_BYTES for part in parts] == [True] * 4
    assert decode_untrusted(parts).protocols == names
    assert decode_untrusted(parts[:1]).public_key == b"key"


def test_what_ten_messages_cannot_hold_is_left_out() -> None:
    """I6."""
    names = tuple(f"/{number:0>250}" for number in range(400))
    parts = split(IdentifyMessage(public_key=b"key", protocols=names, signed_record=b"record"))
    assert len(parts) == MAX_MESSAGES
    read = decode_untrusted(parts)
    assert read.protocols == names[: len(read.protocols)]
    assert read.signed_record == b"record"
