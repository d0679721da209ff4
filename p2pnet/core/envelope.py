"""Signed envelopes, and the peer records that travel in them. Rules: specs/signed-envelope.md."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from p2pnet.core import varint
from p2pnet.core.keys import PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import envelope_pb2, peer_record_pb2

NAME = "signed-envelope"
MAX_ENVELOPE_BYTES = 8192
MAX_ADDRESSES = 256

PEER_RECORD_DOMAIN = "libp2p-peer-record"
PEER_RECORD_TYPE = b"\x03\x01"
# E7: what the RFC says, and rust-libp2p does.
RFC_DOMAIN = "libp2p-routing-state"
RFC_TYPE = b"/libp2p/routing-state-record"
RECORD_DOMAINS = {PEER_RECORD_TYPE: PEER_RECORD_DOMAIN, RFC_TYPE: RFC_DOMAIN}


@dataclass(frozen=True, slots=True)
class Envelope:
    """Bytes, what kind of bytes they are, and who signed them."""

    public_key: PublicKey
    payload_type: bytes
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a peer says it can be reached; the higher ``sequence`` is the newer one."""

    peer_id: PeerId
    sequence: int
    addresses: tuple[bytes, ...]
    """Multiaddrs in binary form, as they were signed."""


def seal(key: PrivateKey, *, domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """Sign a payload for one use, the ``domain``, and wrap it.

    Raises:
        ValueError: if domain or payload type is empty, or the envelope would be too large.
    """
    if not domain or not payload_type:  # E2
        raise ValueError("an envelope needs a domain and a payload type")
    message = envelope_pb2.Envelope(
        public_key=key.public_key.encode(),
        payload_type=payload_type,
        payload=payload,
        signature=key.sign(_signed(domain, payload_type, payload)),
    )
    sealed = message.SerializeToString(deterministic=True)
    if len(sealed) > MAX_ENVELOPE_BYTES:
        raise ValueError(f"an envelope of {len(sealed)} bytes, over {MAX_ENVELOPE_BYTES}")
    return sealed


def open_untrusted(data: bytes, *, domain: str, payload_type: bytes) -> Envelope:
    """Unwrap an envelope that was sealed for this domain and holds this type of payload.

    Who signed it is for the caller to judge.

    Raises:
        ProtocolError: if it is malformed, too large, of another type or not validly signed.
    """
    envelope = _decode(data)
    if envelope.payload_type != payload_type:  # E4
        raise ProtocolError(NAME, "an envelope with another type of payload than expected")
    _verify(envelope, domain)
    return envelope


def seal_peer_record(key: PrivateKey, record: PeerRecord) -> bytes:
    """Wrap a record of one's own, in the form that go-libp2p and most others read.

    Raises:
        ValueError: if it is another peer's, or too large.
    """
    if not record.peer_id.matches(key.public_key):
        raise ValueError("a peer record is sealed with the key of its peer")
    if len(record.addresses) > MAX_ADDRESSES:
        raise ValueError(f"a peer record of {len(record.addresses)} addresses")
    message = peer_record_pb2.PeerRecord(
        peer_id=record.peer_id.to_bytes(),
        seq=record.sequence,
        addresses=[
            peer_record_pb2.PeerRecord.AddressInfo(multiaddr=address)
            for address in record.addresses
        ],
    )
    payload = message.SerializeToString(deterministic=True)
    return seal(key, domain=PEER_RECORD_DOMAIN, payload_type=PEER_RECORD_TYPE, payload=payload)


def open_peer_record_untrusted(data: bytes) -> PeerRecord:
    """Unwrap a peer record, in go-libp2p's form or in rust-libp2p's (E7).

    It was signed by the peer that it tells of. Its addresses are still to be decoded, and its
    sequence to be compared.

    Raises:
        ProtocolError: if it is malformed, too large, or not validly signed by its peer.
    """
    envelope = _decode(data)
    domain = RECORD_DOMAINS.get(envelope.payload_type)
    if domain is None:
        raise ProtocolError(NAME, "an envelope with no peer record inside")
    _verify(envelope, domain)
    record = _read_record(envelope.payload)
    if not record.peer_id.matches(envelope.public_key):  # E6
        raise ProtocolError(NAME, "a peer record signed by another peer")
    return record


def claimed_peer_record_untrusted(data: bytes) -> PeerRecord:
    """Read what the envelope of a peer record claims, whoever signed it, if anybody did.

    Raises:
        ProtocolError: if it is malformed or too large.
    """
    return _read_record(_message(data).payload)


def _read_record(payload: bytes) -> PeerRecord:
    try:
        message = peer_record_pb2.PeerRecord.FromString(payload)
    except DecodeError:
        raise ProtocolError(NAME, "malformed peer record") from None
    peer_id = PeerId.decode_untrusted(message.peer_id)
    if len(message.addresses) > MAX_ADDRESSES:  # E8
        raise ProtocolError(NAME, f"a peer record of {len(message.addresses)} addresses")
    addresses = tuple(info.multiaddr for info in message.addresses if info.multiaddr)
    return PeerRecord(peer_id, message.seq, addresses)


def _message(data: bytes) -> envelope_pb2.Envelope:
    if len(data) > MAX_ENVELOPE_BYTES:  # E3
        raise ProtocolError(NAME, f"an envelope of {len(data)} bytes")
    try:
        return envelope_pb2.Envelope.FromString(data)
    except DecodeError:
        raise ProtocolError(NAME, "malformed envelope") from None


def _decode(data: bytes) -> Envelope:
    message = _message(data)
    return Envelope(
        PublicKey.decode_untrusted(message.public_key),
        message.payload_type,
        message.payload,
        message.signature,
    )


def _verify(envelope: Envelope, domain: str) -> None:
    signed = _signed(domain, envelope.payload_type, envelope.payload)
    if not envelope.public_key.verify(signed, envelope.signature):  # E4
        raise ProtocolError(NAME, "an envelope whose signature is not valid")


def _signed(domain: str, payload_type: bytes, payload: bytes) -> bytes:
    """Return what is signed (E1); the lengths keep one part from passing for another."""
    parts = (domain.encode(), payload_type, payload)
    return b"".join(varint.encode(len(part)) + part for part in parts)
