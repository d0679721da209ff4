"""DIAL and DIAL_RESPONSE: bytes to values and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import encode, parse
from p2pnet.core.framing import FrameDecoder, encode_frame
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import autonat_v1_pb2 as pb
from p2pnet.protocols.autonat_v1.messages import (
    MAX_MESSAGE_BYTES,
    MAX_READ,
    MAX_TEXT,
    PROTOCOL_ID,
    Dial,
    DialResponse,
    Message,
    Status,
    decode_untrusted,
    encode_message,
    status_name,
)

PEER = PeerId.from_public_key(PrivateKey.from_seed(bytes(32)).public_key)
PEERS = st.binary(min_size=32, max_size=32).map(
    lambda seed: PeerId.from_public_key(PrivateKey.from_seed(seed).public_key)
)
PORTS = st.integers(1, 65535)
ADDRESSES = st.builds(
    lambda ip, port: parse(f"/ip4/{ip}/tcp/{port}"), st.ip_addresses(v=4), PORTS
) | st.builds(lambda ip, port: parse(f"/ip6/{ip}/udp/{port}"), st.ip_addresses(v=6), PORTS)
DIALS = st.builds(
    Dial, PEERS, st.lists(ADDRESSES, max_size=16, unique=True).map(lambda found: tuple(found))
)
TEXTS = st.text(max_size=MAX_TEXT).filter(str.isprintable)
RESPONSES = st.builds(DialResponse, st.sampled_from(Status), TEXTS, st.none() | ADDRESSES)


@given(DIALS | RESPONSES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode_untrusted(encode_message(message)) == message


@given(DIALS | RESPONSES, st.lists(st.integers(1, 40), min_size=1))
def test_any_chunking_gives_the_same_message(message: Message, sizes: list[int]) -> None:
    data, decoder = encode_frame(encode_message(message)), FrameDecoder(4096, PROTOCOL_ID)
    while data:
        size = sizes.pop(0) if sizes else len(data)
        decoder.feed(data[:size])
        data = data[size:]
    frame = decoder.next_frame()
    assert frame is not None
    assert decode_untrusted(frame) == message


@given(st.binary(max_size=400))
def test_garbage_is_a_protocol_error_or_a_message(data: bytes) -> None:
    try:
        message = decode_untrusted(data)
    except ProtocolError:
        return
    assert isinstance(message, Dial | DialResponse)


@given(DIALS | RESPONSES, st.data())
def test_a_message_with_a_wrong_byte_is_a_protocol_error_or_a_message(
    message: Message, data: st.DataObject
) -> None:
    encoded = bytearray(encode_message(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_untrusted(bytes(encoded))
    except ProtocolError:
        return
    assert isinstance(decoded, Dial | DialResponse)


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_bad_addresses_do_not_spoil_the_good_ones(garbage: list[bytes]) -> None:
    """AO3."""
    good = parse("/ip4/11.0.0.1/tcp/1")
    decoded = decode_untrusted(dial([*garbage, encode(good)]))
    assert isinstance(decoded, Dial)
    assert good in decoded.addresses


def dial(addresses: list[bytes]) -> bytes:
    peer = pb.PeerInfo(id=PEER.to_bytes(), addrs=addresses)
    return pb.Message(type=pb.Message.DIAL, dial=pb.Dial(peer=peer)).SerializeToString()


def test_a_message_over_4096_bytes_is_refused() -> None:
    """AO1."""
    full = dial([bytes(MAX_MESSAGE_BYTES - len(dial([bytes(3000)])) + 3000)])
    assert len(full) == MAX_MESSAGE_BYTES
    assert decode_untrusted(full) == Dial(PEER, ())
    with pytest.raises(ProtocolError, match="4097"):
        decode_untrusted(full + b"\x00")


def test_sixty_four_addresses_are_looked_at() -> None:
    """AO3."""
    many = tuple(parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 101))
    decoded = decode_untrusted(dial([encode(address) for address in many]))
    assert decoded == Dial(PEER, many[:MAX_READ])


def test_a_text_is_cut_when_it_is_written_and_when_it_is_read() -> None:
    """AO4, AO14."""
    written = encode_message(DialResponse(Status.E_DIAL_ERROR, "x" * 5000))
    assert decode_untrusted(written) == DialResponse(Status.E_DIAL_ERROR, "x" * MAX_TEXT)
    response = pb.DialResponse(status=pb.DialResponse.E_DIAL_ERROR, status_text="\x1b[31m" * 400)
    long = pb.Message(type=pb.Message.DIAL_RESPONSE, dial_response=response).SerializeToString()
    read = decode_untrusted(long)
    assert isinstance(read, DialResponse)
    assert len(read.text) == MAX_TEXT
    assert read.text.isprintable()


def test_a_status_is_said_by_name_and_an_unknown_one_by_number() -> None:
    assert status_name(101) == "E_DIAL_REFUSED"
    assert status_name(999) == "status 999"
