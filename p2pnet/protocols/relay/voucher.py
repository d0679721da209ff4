"""The voucher of a reservation: a relay's signed word that a peer may be called through it.

Rules: specs/relay.md (R9).
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from p2pnet.core import envelope
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.pb import circuit_pb2 as pb

DOMAIN = "libp2p-relay-rsvp"
PAYLOAD_TYPE = b"\x03\x02"
NAME = "relay voucher"


@dataclass(frozen=True, slots=True)
class Voucher:
    """``peer_id`` may be called through ``relay`` until ``expiration``, a Unix time."""

    relay: PeerId
    peer_id: PeerId
    expiration: int


def seal(voucher: Voucher, key: PrivateKey) -> bytes:
    """Sign a voucher with the key of its relay."""
    payload = pb.ReservationVoucher(
        relay=voucher.relay.to_bytes(),
        peer=voucher.peer_id.to_bytes(),
        expiration=voucher.expiration,
    )
    return envelope.seal(
        key,
        domain=DOMAIN,
        payload_type=PAYLOAD_TYPE,
        payload=payload.SerializeToString(deterministic=True),
    )


def decode_untrusted(data: bytes) -> Voucher:
    """Open a voucher.

    Raises:
        ProtocolError: if it is malformed, or was not signed by the relay that it names.
    """
    opened = envelope.open_untrusted(data, domain=DOMAIN, payload_type=PAYLOAD_TYPE)
    message = pb.ReservationVoucher()
    try:
        message.ParseFromString(opened.payload)
    except DecodeError:
        raise ProtocolError(NAME, "malformed voucher") from None
    voucher = Voucher(
        relay=PeerId.decode_untrusted(message.relay),
        peer_id=PeerId.decode_untrusted(message.peer),
        expiration=message.expiration,
    )
    if not voucher.relay.matches(opened.public_key):
        raise ProtocolError(NAME, "signed by another than the relay it names")
    return voucher


def check(voucher: Voucher, *, relay: PeerId, peer_id: PeerId, not_before: float) -> None:
    """Hold a voucher against what it was given for.

    Raises:
        ProtocolError: if it is of another relay, for another peer, or was over already at
            ``not_before``, a Unix time.
    """
    if voucher.relay != relay:
        raise ProtocolError(NAME, f"of relay {voucher.relay}")
    if voucher.peer_id != peer_id:
        raise ProtocolError(NAME, f"for peer {voucher.peer_id}")
    if voucher.expiration < not_before:
        raise ProtocolError(NAME, "expired")
