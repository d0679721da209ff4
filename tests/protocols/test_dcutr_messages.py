"""CONNECT and SYNC: bytes to values and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import encode, parse
from p2pnet.errors import ProtocolError
from p2pnet.pb import dcutr_pb2 as pb
from p2pnet.protocols.dcutr.messages import (
    MAX_MESSAGE_BYTES,
    MAX_OFFERED,
    MAX_READ,
    Connect,
    HolePunch,
    Sync,
    decode_untrusted,
    encode_message,
)

PORTS = st.integers(1, 65535)
ADDRESSES = st.builds(
    lambda ip, port: parse(f"/ip4/{ip}/tcp/{port}"), st.ip_addresses(v=4), PORTS
) | st.builds(lambda ip, port: parse(f"/ip6/{ip}/tcp/{port}"), st.ip_addresses(v=6), PORTS)
MESSAGES = st.just(Sync()) | st.lists(ADDRESSES, max_size=MAX_OFFERED, unique=True).map(
    lambda addresses: Connect(tuple(addresses))
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: HolePunch) -> None:
    assert decode_untrusted(encode_message(message)) == message


@given(st.binary(max_size=400))
def test_garbage_is_a_protocol_error_or_a_message(data: bytes) -> None:
    try:
        message = decode_untrusted(data)
    except ProtocolError:
        return
    assert isinstance(message, Connect | Sync)


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_bad_addresses_do_not_spoil_the_good_ones(garbage: list[bytes]) -> None:
    """D6."""
    good = parse("/ip4/11.0.0.1/tcp/1")
    message = pb.HolePunch(type=pb.HolePunch.CONNECT, obs_addrs=[*garbage, encode(good)])
    decoded = decode_untrusted(message.SerializeToString())
    assert isinstance(decoded, Connect)
    assert good in decoded.addresses


def test_a_message_over_4096_bytes_is_refused() -> None:
    """D1."""
    head = pb.HolePunch(type=pb.HolePunch.CONNECT, obs_addrs=[bytes(4091)]).SerializeToString()
    assert len(head) == MAX_MESSAGE_BYTES
    assert decode_untrusted(head) == Connect(())
    with pytest.raises(ProtocolError, match="4097"):
        decode_untrusted(head + b"\x00")


def test_sixteen_addresses_are_offered_and_sixty_four_looked_at() -> None:
    """D6."""
    many = tuple(parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 101))
    sent = decode_untrusted(encode_message(Connect(many)))
    assert sent == Connect(many[:MAX_OFFERED])
    message = pb.HolePunch(
        type=pb.HolePunch.CONNECT, obs_addrs=[encode(address) for address in many]
    )
    assert decode_untrusted(message.SerializeToString()) == Connect(many[:MAX_READ])
