"""The messages of AutoNAT v2: bytes to values and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import encode, parse
from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.errors import ProtocolError
from p2pnet.pb import autonat_v2_pb2 as pb
from p2pnet.protocols.autonat.dialogue import MAX_PAYMENT, payment
from p2pnet.protocols.autonat.messages import (
    MAX_DIAL_BACK_BYTES,
    MAX_INSPECTED,
    MAX_MESSAGE_BYTES,
    MAX_SENT_BYTES,
    PADDING,
    DialBack,
    DialBackResponse,
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    Message,
    decode_dial_back_response_untrusted,
    decode_dial_back_untrusted,
    decode_message_untrusted,
    encode_dial_back,
    encode_dial_back_response,
    encode_message,
)

NONCES = st.integers(1, 2**64 - 1)
ADDRESSES = st.builds(
    lambda ip, port: parse(f"/ip4/{ip}/tcp/{port}"), st.ip_addresses(v=4), st.integers(1, 65535)
)
STATUSES = st.integers(0, 2**31 - 1)
INDICES = st.integers(0, 2**32 - 1)
REQUESTS = st.builds(
    DialRequest,
    st.lists(ADDRESSES | st.none(), max_size=MAX_INSPECTED).map(tuple),
    NONCES,
    st.integers(0, 200),
)
MESSAGES: st.SearchStrategy[Message] = (
    REQUESTS
    | st.builds(DialDataRequest, INDICES, st.integers(0, 2**64 - 1))
    | st.builds(DialDataResponse, st.binary(max_size=200))
    | st.builds(DialResponse, STATUSES, INDICES, STATUSES)
)
DECODERS: tuple[Callable[[bytes], object], ...] = (
    decode_message_untrusted,
    decode_dial_back_untrusted,
    decode_dial_back_response_untrusted,
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode_message_untrusted(encode_message(message)) == message


@given(NONCES, STATUSES)
def test_dial_backs_and_answers_are_decoded_as_they_were(nonce: int, status: int) -> None:
    assert decode_dial_back_untrusted(encode_dial_back(DialBack(nonce))) == DialBack(nonce)
    answer = DialBackResponse(status)
    assert decode_dial_back_response_untrusted(encode_dial_back_response(answer)) == answer


@given(st.binary(max_size=300))
def test_garbage_is_a_protocol_error_or_a_message(data: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(data)
        except ProtocolError:
            continue


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_any_chunking_gives_the_same_messages(sent: list[Message], sizes: list[int]) -> None:
    wire = b"".join(encode_frame(encode_message(message)) for message in sent)
    decoder = FrameDecoder(MAX_MESSAGE_BYTES, "autonat")
    received: list[Message] = []
    position = number = 0
    while position < len(wire):
        size = sizes[number % len(sizes)]
        decoder.feed(wire[position : position + size])
        position, number = position + size, number + 1
        while (frame := decoder.next_frame()) is not None:
            received.append(decode_message_untrusted(frame))
    assert received == sent


def test_only_the_first_50_addresses_are_looked_at_and_the_unreadable_count() -> None:
    """AN4."""
    good = encode(parse("/ip4/11.0.0.1/tcp/1"))
    request = pb.DialRequest(addrs=[b"\x04", *[good] * 200], nonce=1)
    decoded = decode_message_untrusted(pb.Message(dial_request=request).SerializeToString())
    assert isinstance(decoded, DialRequest)
    assert len(decoded.addresses) == MAX_INSPECTED
    assert [address is None for address in decoded.addresses] == [True] + [False] * 49


@pytest.mark.parametrize("decode", DECODERS)
def test_a_message_over_the_limit_is_refused_unread(decode: Callable[[bytes], object]) -> None:
    """AN1."""
    limit = MAX_MESSAGE_BYTES if decode is decode_message_untrusted else MAX_DIAL_BACK_BYTES
    with pytest.raises(ProtocolError, match=f"{limit + 1} bytes"):
        decode(bytes(limit + 1))


def test_all_that_we_send_is_readable_for_rust() -> None:
    """AN1: its limit is 4104 bytes, the length in front included."""
    for message in payment(MAX_PAYMENT):
        assert len(encode_frame(encode_message(message))) <= MAX_SENT_BYTES + 6
    address = parse("/ip6/2a00:1234:5678:9abc:def0:1234:5678:9abc/tcp/65535")
    assert len(encode_message(DialRequest((address,), 2**64 - 1))) < 64
    assert len(encode_message(DialRequest((address,), 2**64 - 1, PADDING))) < MAX_SENT_BYTES - 100


def test_a_request_of_many_kinds_at_once_is_the_last_of_them() -> None:
    two = bytes.fromhex("1200") + encode_message(DialDataResponse(b"data"))
    assert decode_message_untrusted(two) == DialDataResponse(b"data")
