"""Vouchers: specs/relay.md R9."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core import envelope
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import circuit_pb2 as pb
from p2pnet.protocols.relay.voucher import (
    DOMAIN,
    PAYLOAD_TYPE,
    Voucher,
    check,
    decode_untrusted,
    seal,
)

KEY = PrivateKey.from_seed(b"r" * 32)
RELAY = PeerId.from_public_key(KEY.public_key)
ALICE, BOB = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2)
)
VOUCHER = Voucher(RELAY, ALICE, 1000)


def sealed(payload: bytes) -> bytes:
    return envelope.seal(KEY, domain=DOMAIN, payload_type=PAYLOAD_TYPE, payload=payload)


@given(st.integers(0, 2**64 - 1))
def test_a_voucher_comes_back_as_it_was_signed(expiration: int) -> None:
    voucher = Voucher(RELAY, ALICE, expiration)
    assert decode_untrusted(seal(voucher, KEY)) == voucher


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(1, 255))
def test_garbage_raises_protocol_error_and_nothing_else(data: bytes, at: int, flip: int) -> None:
    damaged = bytearray(seal(VOUCHER, KEY))
    damaged[at % len(damaged)] ^= flip
    for case in (data, sealed(data), bytes(damaged)):
        with contextlib.suppress(ProtocolError):
            # A flipped bit in what is not signed may pass, but never changes what it says.
            assert decode_untrusted(case) == VOUCHER


def test_r9_only_the_relay_itself_can_sign() -> None:
    with pytest.raises(ProtocolError, match="another than the relay"):
        decode_untrusted(seal(Voucher(BOB, ALICE, 1000), KEY))


def test_r9_a_voucher_of_another_kind_is_refused() -> None:
    payload = pb.ReservationVoucher(relay=RELAY.to_bytes(), peer=ALICE.to_bytes(), expiration=1)
    for domain, kind in (("libp2p-peer-record", PAYLOAD_TYPE), (DOMAIN, b"\x03\x01")):
        data = envelope.seal(
            KEY, domain=domain, payload_type=kind, payload=payload.SerializeToString()
        )
        with pytest.raises(ProtocolError):
            decode_untrusted(data)


@pytest.mark.parametrize(
    ("relay", "peer_id", "not_before", "reason"),
    [
        (BOB, ALICE, 0, "of relay"),
        (RELAY, BOB, 0, "for peer"),
        (RELAY, ALICE, 1001, "expired"),
    ],
)
def test_r9_a_voucher_has_to_fit_what_it_came_with(
    relay: PeerId, peer_id: PeerId, not_before: float, reason: str
) -> None:
    check(VOUCHER, relay=RELAY, peer_id=ALICE, not_before=1000)
    with pytest.raises(ProtocolError, match=reason):
        check(VOUCHER, relay=relay, peer_id=peer_id, not_before=not_before)
