"""Hop and stop messages: specs/relay.md R1, R2, R3, R4, R5, R6."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import circuit_pb2 as pb
from p2pnet.protocols.relay.messages import (
    MAX_ADDRESSES,
    MAX_MESSAGE_BYTES,
    HopConnect,
    HopMessage,
    HopStatus,
    Limit,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
    decode_hop_untrusted,
    decode_stop_untrusted,
    encode_hop,
    encode_stop,
    status_name,
)

peer_ids = st.binary(min_size=32, max_size=32).map(lambda hash_: PeerId(b"\x12\x20" + hash_))
addresses = st.builds(
    lambda port, peer: parse(f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer}"),
    st.integers(1, 65535),
    peer_ids,
)
statuses = st.sampled_from(Status)
limits = st.builds(Limit, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
reservations = st.builds(
    Reservation,
    st.integers(1, 2**64 - 1),
    st.lists(addresses, max_size=4, unique=True).map(tuple),
    st.none() | st.binary(max_size=200),
)
hop_messages = st.one_of(
    st.just(Reserve()),
    st.builds(HopConnect, peer_ids),
    st.builds(HopStatus, statuses, st.none() | reservations, st.none() | limits),
)
stop_messages = st.one_of(
    st.builds(StopConnect, peer_ids, st.none() | limits), st.builds(StopStatus, statuses)
)
BOB = PeerId(b"\x12\x20" + bytes(32))


@given(hop_messages)
def test_a_hop_message_comes_back_as_it_was(message: HopMessage) -> None:
    assert decode_hop_untrusted(encode_hop(message)) == message


@given(stop_messages)
def test_a_stop_message_comes_back_as_it_was(message: StopMessage) -> None:
    assert decode_stop_untrusted(encode_stop(message)) == message


@given(st.binary(max_size=300))
def test_garbage_raises_protocol_error_and_nothing_else(data: bytes) -> None:
    for decode in (decode_hop_untrusted, decode_stop_untrusted):
        with contextlib.suppress(ProtocolError):
            decode(data)


@given(hop_messages.map(encode_hop), st.data())
def test_a_damaged_message_raises_protocol_error_and_nothing_else(
    encoded: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(encoded) - 1))
    damaged = encoded[:at] + data.draw(st.binary(max_size=3)) + encoded[at + 1 :]
    with contextlib.suppress(ProtocolError):
        decode_hop_untrusted(damaged)


def test_r2_the_type_is_on_the_wire_even_when_it_is_number_0() -> None:
    assert encode_hop(Reserve()) == bytes.fromhex("0800")
    assert encode_stop(StopConnect(BOB)).startswith(bytes.fromhex("0800"))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.HopMessage(), "without type"),
        (pb.HopMessage(type="CONNECT"), "names no peer"),
        (pb.HopMessage(type="CONNECT", peer=pb.Peer()), "names no peer"),
        (pb.HopMessage(type="CONNECT", peer=pb.Peer(id=b"")), "multihash"),
        (pb.HopMessage(type="CONNECT", peer=pb.Peer(id=b"\x12\x20short")), "multihash"),
        (pb.HopMessage(type="STATUS"), "without a status"),
        (
            pb.HopMessage(type="STATUS", status="OK", reservation=pb.Reservation()),
            "without expiry",
        ),
    ],
)
def test_r2_r3_r4_r5_what_has_to_be_there_is_missed(message: pb.HopMessage, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode_hop_untrusted(message.SerializeToString())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (pb.StopMessage(), "without type"),
        (pb.StopMessage(type="CONNECT"), "names no peer"),
        (pb.StopMessage(type="STATUS"), "without a status"),
    ],
)
def test_r2_r3_r4_the_same_on_stop(message: pb.StopMessage, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode_stop_untrusted(message.SerializeToString())


def test_r2_an_unknown_type_is_malformed() -> None:
    for decode in (decode_hop_untrusted, decode_stop_untrusted):
        with pytest.raises(ProtocolError, match="unknown type 9"):
            decode(bytes.fromhex("0809"))


def test_r4_an_unknown_status_is_kept_as_a_number() -> None:
    message = decode_hop_untrusted(bytes.fromhex("0802" + "28e707"))
    assert message == HopStatus(999)
    assert status_name(999) == "status 999"
    assert decode_stop_untrusted(bytes.fromhex("0801" + "20e707")) == StopStatus(999)


def test_r3_the_addresses_beside_a_peer_are_ignored() -> None:
    peer = pb.Peer(id=BOB.to_bytes(), addrs=[b"\xff" * 20])
    message = pb.HopMessage(type="CONNECT", peer=peer)
    assert decode_hop_untrusted(message.SerializeToString()) == HopConnect(BOB)


def test_r5_addresses_that_cannot_be_read_are_skipped_and_the_others_are_bounded() -> None:
    good = [parse(f"/ip4/192.0.2.1/tcp/{port}").to_bytes() for port in range(1, 101)]
    message = pb.HopMessage(type="STATUS", status="OK")
    message.reservation.expire = 1
    message.reservation.addrs.extend([b"\x04\x01", *good])
    decoded = decode_hop_untrusted(message.SerializeToString())
    assert isinstance(decoded, HopStatus)
    assert decoded.reservation is not None
    assert len(decoded.reservation.addresses) == MAX_ADDRESSES - 1


def test_r1_a_message_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        decode_hop_untrusted(b"\x08\x00" * (MAX_MESSAGE_BYTES // 2 + 1))
