"""Vectors of specs/signed-envelope.md."""

from __future__ import annotations

from p2pnet.core.envelope import PeerRecord, open_peer_record_untrusted, seal, seal_peer_record
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from tests.specs.forms import Codec, Fields

SEEDED = PrivateKey.from_seed(b"\x01" * 32)
PUBLISHED = PrivateKey.decode(
    bytes.fromhex(
        "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
        "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
    )
)
KEYS = {PeerId.from_public_key(key.public_key): key for key in (SEEDED, PUBLISHED)}


def encode(record: PeerRecord) -> bytes:
    return seal_peer_record(KEYS[record.peer_id], record)


def seal_payload(given: Fields) -> dict[str, str]:
    payload_type, payload = bytes.fromhex(given["payload_type"]), bytes.fromhex(given["payload"])
    sealed = seal(SEEDED, domain=given["seal"], payload_type=payload_type, payload=payload)
    signed = bytes.fromhex(given["result"]["signed"])
    signature = sealed[-64:]
    assert SEEDED.public_key.verify(signed, signature)
    return {"hex": sealed.hex(), "signed": given["result"]["signed"]}


CODECS = {
    "PeerRecord": Codec(open_peer_record_untrusted, encode),
    "ReceivedPeerRecord": Codec(open_peer_record_untrusted, None),
}
FORMS = {"seal": seal_payload}
