"""Rules E1, E2, E3, E4, E5, E6, E7, E8 and E9 of specs/signed-envelope.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.envelope import (
    MAX_ADDRESSES,
    MAX_ENVELOPE_BYTES,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    RFC_DOMAIN,
    RFC_TYPE,
    PeerRecord,
    open_peer_record_untrusted,
    open_untrusted,
    seal,
    seal_peer_record,
)
from p2pnet.core.keys import KeyType, PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import envelope_pb2, peer_record_pb2

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "specs" / "vectors" / "envelope.json").read_text()
)
KEY = PrivateKey.from_seed(b"\x01" * 32)
OTHER = PrivateKey.from_seed(b"\x02" * 32)
ADDRESS = bytes.fromhex("04cb007107060fa1")
DOMAIN, TYPE = "test-domain", b"\x7f\x01"


def record_of(key: PrivateKey, *addresses: bytes, sequence: int = 1) -> PeerRecord:
    return PeerRecord(PeerId.from_public_key(key.public_key), sequence, addresses)


def sealed_payload(payload: bytes) -> bytes:
    return seal(KEY, domain=PEER_RECORD_DOMAIN, payload_type=PEER_RECORD_TYPE, payload=payload)


@pytest.mark.parametrize(
    "vector", VECTORS["peer_records"], ids=lambda vector: f"{vector['form']} {vector['comment']}"
)
def test_peer_records_of_other_implementations_are_opened(vector: dict[str, object]) -> None:
    """E7: both forms."""
    record = open_peer_record_untrusted(bytes.fromhex(str(vector["hex"])))

    assert str(record.peer_id) == vector["peer_id"]
    assert record.sequence == vector["sequence"]
    assert [address.hex() for address in record.addresses] == vector["addresses"]


@pytest.mark.parametrize(
    "vector",
    [
        vector
        for vector in VECTORS["peer_records"]
        if vector["form"] == "go" and vector["comment"].startswith(("ED25519", "RSA"))
    ],
    ids=lambda vector: vector["comment"],
)
def test_our_peer_record_is_byte_for_byte_that_of_go(vector: dict[str, str]) -> None:
    """E7, with the two kinds of keys that always sign alike."""
    key = PrivateKey.decode(bytes.fromhex(vector["private"]))
    record = open_peer_record_untrusted(bytes.fromhex(vector["hex"]))
    assert seal_peer_record(key, record).hex() == vector["hex"]


@pytest.mark.parametrize("vector", VECTORS["reservation_vouchers"], ids=lambda v: v["comment"])
def test_an_envelope_of_go_is_opened_and_made(vector: dict[str, str]) -> None:
    domain, payload_type = vector["domain"], bytes.fromhex(vector["payload_type"])
    data = bytes.fromhex(vector["hex"])

    envelope = open_untrusted(data, domain=domain, payload_type=payload_type)

    key = PrivateKey.decode(bytes.fromhex(vector["private"]))
    assert envelope.public_key == key.public_key
    assert envelope.payload.hex() == vector["payload"]
    assert seal(key, domain=domain, payload_type=payload_type, payload=envelope.payload) == data


@pytest.mark.parametrize("kind", KeyType)
def test_an_envelope_comes_back_with_every_kind_of_key(kind: KeyType) -> None:
    key = PrivateKey.generate(kind)
    data = seal(key, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    envelope = open_untrusted(data, domain=DOMAIN, payload_type=TYPE)
    assert envelope.public_key == key.public_key
    assert envelope.payload == b"payload"
    assert key.public_key.verify(b"\x0btest-domain\x02\x7f\x01\x07payload", envelope.signature)


@pytest.mark.parametrize(("domain", "payload_type"), [("", TYPE), (DOMAIN, b"")])
def test_an_envelope_needs_a_domain_and_a_type(domain: str, payload_type: bytes) -> None:
    """E2"""
    with pytest.raises(ValueError, match="needs a domain"):
        seal(KEY, domain=domain, payload_type=payload_type, payload=b"")


def test_an_envelope_of_another_domain_is_refused() -> None:
    data = seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    with pytest.raises(ProtocolError, match="signature"):
        open_untrusted(data, domain=DOMAIN + "2", payload_type=TYPE)


def test_an_envelope_of_another_type_is_refused() -> None:
    data = seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    with pytest.raises(ProtocolError, match="another type"):
        open_untrusted(data, domain=DOMAIN, payload_type=TYPE + b"\x00")


def test_the_lengths_keep_one_part_from_passing_for_another() -> None:
    """E1: the same bytes, cut elsewhere."""
    message = envelope_pb2.Envelope.FromString(
        seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    )
    message.payload_type, message.payload = TYPE + b"\x07", b"ayload"
    with pytest.raises(ProtocolError, match="signature"):
        open_untrusted(
            message.SerializeToString(), domain=DOMAIN, payload_type=message.payload_type
        )


@pytest.mark.parametrize("field", ["public_key", "payload_type", "payload", "signature"])
def test_an_envelope_without_one_of_its_parts_is_refused(field: str) -> None:
    message = envelope_pb2.Envelope.FromString(
        seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    )
    message.ClearField(field)
    with pytest.raises(ProtocolError):
        open_untrusted(message.SerializeToString(), domain=DOMAIN, payload_type=TYPE)


def test_an_envelope_with_the_key_of_another_is_refused() -> None:
    message = envelope_pb2.Envelope.FromString(
        seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    )
    message.public_key = OTHER.public_key.encode()
    with pytest.raises(ProtocolError, match="signature"):
        open_untrusted(message.SerializeToString(), domain=DOMAIN, payload_type=TYPE)


def test_an_unknown_field_beside_the_parts_is_ignored() -> None:
    """E5"""
    data = seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"payload")
    envelope = open_untrusted(data + b"\x22\x01x", domain=DOMAIN, payload_type=TYPE)
    assert envelope.payload == b"payload"


def test_unknown_fields_inside_the_payload_are_signed_and_kept() -> None:
    """E5: the payload is verified as it came, not as we would write it."""
    payload = peer_record_pb2.PeerRecord(
        peer_id=PeerId.from_public_key(KEY.public_key).to_bytes(), seq=3
    ).SerializeToString()
    payload += b"\x7a\x03new"

    data = sealed_payload(payload)

    assert open_peer_record_untrusted(data) == record_of(KEY, sequence=3)
    envelope = open_untrusted(data, domain=PEER_RECORD_DOMAIN, payload_type=PEER_RECORD_TYPE)
    assert envelope.payload == payload


def test_an_envelope_over_the_limit_is_neither_made_nor_opened() -> None:
    """E3"""
    room = MAX_ENVELOPE_BYTES - len(seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b""))
    largest = seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"x" * (room - 1))
    assert len(largest) == MAX_ENVELOPE_BYTES
    opened = open_untrusted(largest, domain=DOMAIN, payload_type=TYPE)
    assert opened.payload == b"x" * (room - 1)

    with pytest.raises(ValueError, match="8193 bytes"):
        seal(KEY, domain=DOMAIN, payload_type=TYPE, payload=b"x" * room)
    with pytest.raises(ProtocolError, match="8193 bytes"):
        open_untrusted(largest + b"\x00", domain=DOMAIN, payload_type=TYPE)
    with pytest.raises(ProtocolError, match="8193 bytes"):
        open_peer_record_untrusted(largest + b"\x00")


def test_a_peer_record_comes_back() -> None:
    record = record_of(KEY, ADDRESS, b"\x06\x0f\xa1")
    assert open_peer_record_untrusted(seal_peer_record(KEY, record)) == record


@pytest.mark.parametrize("sequence", [0, 1, 2**63, 2**64 - 1])
def test_a_sequence_has_64_bits(sequence: int) -> None:
    """E9"""
    record = record_of(KEY, ADDRESS, sequence=sequence)
    assert open_peer_record_untrusted(seal_peer_record(KEY, record)).sequence == sequence


def test_a_record_without_a_sequence_has_the_lowest() -> None:
    """E9: others do not write a zero."""
    payload = peer_record_pb2.PeerRecord(
        peer_id=PeerId.from_public_key(KEY.public_key).to_bytes()
    ).SerializeToString()
    assert open_peer_record_untrusted(sealed_payload(payload)).sequence == 0


def test_a_peer_record_that_tells_of_another_peer_is_refused() -> None:
    """E6"""
    with pytest.raises(ValueError, match="with the key of its peer"):
        seal_peer_record(KEY, record_of(OTHER, ADDRESS))

    payload = peer_record_pb2.PeerRecord(
        peer_id=PeerId.from_public_key(OTHER.public_key).to_bytes(), seq=1
    ).SerializeToString()
    with pytest.raises(ProtocolError, match="another peer"):
        open_peer_record_untrusted(sealed_payload(payload))


@pytest.mark.parametrize(
    ("domain", "payload_type"),
    [(RFC_DOMAIN, PEER_RECORD_TYPE), (PEER_RECORD_DOMAIN, RFC_TYPE), (PEER_RECORD_DOMAIN, TYPE)],
)
def test_the_two_forms_of_a_peer_record_do_not_mix(domain: str, payload_type: bytes) -> None:
    """E7"""
    data = seal(KEY, domain=domain, payload_type=payload_type, payload=b"")
    with pytest.raises(ProtocolError, match=r"signature|no peer record"):
        open_peer_record_untrusted(data)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 9, b"\x0a\x02\x12\x20", b"\x0a\x00"])
def test_a_payload_that_is_no_peer_record_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_peer_record_untrusted(sealed_payload(payload))


def test_a_peer_record_with_too_many_addresses_is_neither_made_nor_opened() -> None:
    """E8"""
    most = record_of(KEY, *[ADDRESS] * MAX_ADDRESSES)
    assert open_peer_record_untrusted(seal_peer_record(KEY, most)) == most

    with pytest.raises(ValueError, match="257 addresses"):
        seal_peer_record(KEY, record_of(KEY, *[ADDRESS] * (MAX_ADDRESSES + 1)))
    payload = peer_record_pb2.PeerRecord(
        peer_id=most.peer_id.to_bytes(),
        addresses=[peer_record_pb2.PeerRecord.AddressInfo()] * (MAX_ADDRESSES + 1),
    ).SerializeToString()
    with pytest.raises(ProtocolError, match="257 addresses"):
        open_peer_record_untrusted(sealed_payload(payload))


def test_empty_addresses_are_dropped() -> None:
    """E8"""
    data = seal_peer_record(KEY, record_of(KEY, b"", ADDRESS, b""))
    assert open_peer_record_untrusted(data).addresses == (ADDRESS,)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_untrusted(garbage, domain=DOMAIN, payload_type=TYPE)
    with pytest.raises(ProtocolError):
        open_peer_record_untrusted(garbage)


@given(st.binary(max_size=300))
def test_any_validly_signed_payload_is_a_record_of_its_signer_or_a_protocol_error(
    payload: bytes,
) -> None:
    try:
        record = open_peer_record_untrusted(sealed_payload(payload))
    except ProtocolError:
        return
    assert record.peer_id.matches(KEY.public_key)


@given(st.data())
def test_no_changed_byte_of_a_peer_record_goes_unnoticed(data: st.DataObject) -> None:
    record = record_of(KEY, ADDRESS)
    sealed = bytearray(seal_peer_record(KEY, record))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        open_peer_record_untrusted(bytes(sealed))


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.binary(min_size=1, max_size=40), max_size=20),
)
def test_every_peer_record_comes_back(sequence: int, addresses: list[bytes]) -> None:
    record = record_of(KEY, *addresses, sequence=sequence)
    assert open_peer_record_untrusted(seal_peer_record(KEY, record)) == record
