"""Rules F3 and F4 of specs/framing.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core import varint
from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.errors import ProtocolError

PROTOCOL = "/test/1.0.0"


def frames_in(decoder: FrameDecoder) -> list[bytes]:
    found = []
    while (frame := decoder.next_frame()) is not None:
        found.append(frame)
    return found


def test_a_frame_is_its_length_and_its_bytes() -> None:
    assert encode_frame(b"") == b"\x00"
    assert encode_frame(b"abc") == b"\x03abc"
    assert encode_frame(b"x" * 300) == b"\xac\x02" + b"x" * 300


def test_an_empty_frame_is_a_frame() -> None:
    decoder = FrameDecoder(16, PROTOCOL)
    decoder.feed(b"\x00\x00\x01a")
    assert frames_in(decoder) == [b"", b"", b"a"]


def test_a_frame_of_the_maximum_passes_and_one_byte_more_is_refused() -> None:
    decoder = FrameDecoder(200, PROTOCOL)
    decoder.feed(encode_frame(b"x" * 200))
    assert decoder.next_frame() == b"x" * 200

    decoder.feed(varint.encode(201))
    with pytest.raises(ProtocolError, match=PROTOCOL):
        decoder.next_frame()
    with pytest.raises(ProtocolError, match=PROTOCOL):
        decoder.wanted()


def test_a_broken_decoder_stays_broken() -> None:
    decoder = FrameDecoder(16, PROTOCOL)
    decoder.feed(b"\x80\x00")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.next_frame()
        decoder.feed(b"\x01a")


def test_frames_before_a_bad_length_are_still_given_out() -> None:
    decoder = FrameDecoder(16, PROTOCOL)
    decoder.feed(b"\x01a\x11")
    assert decoder.next_frame() == b"a"
    with pytest.raises(ProtocolError):
        decoder.next_frame()


def test_wanted_is_one_within_the_length_then_the_rest_then_nothing() -> None:
    decoder = FrameDecoder(1000, PROTOCOL)
    assert decoder.wanted() == 1
    decoder.feed(b"\xac")
    assert decoder.wanted() == 1
    decoder.feed(b"\x02")
    assert decoder.wanted() == 300
    decoder.feed(b"x" * 299)
    assert decoder.wanted() == 1
    decoder.feed(b"x")
    assert decoder.wanted() == 0
    assert decoder.next_frame() == b"x" * 300
    assert decoder.wanted() == 1


@given(st.lists(st.binary(max_size=200)), st.data())
def test_any_chunking_gives_the_same_frames(payloads: list[bytes], data: st.DataObject) -> None:
    rest = b"".join(map(encode_frame, payloads))
    decoder = FrameDecoder(200, PROTOCOL)
    found = []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        decoder.feed(rest[:size])
        rest = rest[size:]
        found += frames_in(decoder)
    assert found == payloads


@given(st.binary(max_size=300), st.binary(max_size=20), st.data())
def test_who_reads_what_is_wanted_never_reads_past_the_frame(
    payload: bytes, behind: bytes, data: st.DataObject
) -> None:
    stream = encode_frame(payload) + behind
    decoder = FrameDecoder(300, PROTOCOL)
    at = 0
    while (frame := decoder.next_frame()) is None:
        size = data.draw(st.integers(1, decoder.wanted()))
        decoder.feed(stream[at : at + size])
        at += size
    assert frame == payload
    assert stream[at:] == behind


@given(st.binary(max_size=64))
def test_any_bytes_give_frames_within_the_maximum_or_a_protocol_error(garbage: bytes) -> None:
    decoder = FrameDecoder(20, PROTOCOL)
    decoder.feed(garbage)
    try:
        frames = frames_in(decoder)
        decoder.wanted()
    except ProtocolError:
        return
    assert all(len(frame) <= 20 for frame in frames)
