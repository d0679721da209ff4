"""Vectors of specs/peer-id.md."""

from __future__ import annotations

from p2pnet.core.keys import KeyType, PrivateKey, PublicKey
from p2pnet.core.peer_id import PeerId
from tests.specs.forms import Codec, Fields, TextCodec


def describe_public(key: PublicKey) -> dict[str, object]:
    peer_id = PeerId.from_public_key(key)
    inline = peer_id.public_key() == key
    return {"kind": key.kind.name, "peer_id": str(peer_id), "inline": inline}


def describe_peer_id(peer_id: PeerId) -> dict[str, object]:
    has_key = peer_id.public_key() is not None
    return {"text": str(peer_id), "cid": peer_id.to_cid(), "has_key": has_key}


def read_rsa(given: Fields) -> KeyType:
    """Read the key of a modulus that is only long: nothing needs its factors here."""
    size = given["rsa_bits"] // 8
    modulus = b"\x00\x80" + bytes(size - 2) + b"\x01"
    numbers = der(0x30, der(0x02, modulus) + bytes.fromhex("0203010001"))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    data = der(0x30, algorithm + der(0x03, b"\x00" + numbers))
    return PublicKey.decode_untrusted(b"\x08\x00" + der(0x12, data, protobuf=True)).kind


def der(tag: int, content: bytes, *, protobuf: bool = False) -> bytes:
    size = len(content)
    if protobuf:
        return bytes([tag, size & 0x7F | 0x80, size >> 7]) + content
    length = bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


CODECS = {
    "PublicKey": Codec(PublicKey.decode_untrusted, PublicKey.encode, describe_public),
    "PrivateKey": Codec(
        PrivateKey.decode,
        PrivateKey.encode,
        lambda key: {"public": key.public_key.encode().hex()},
    ),
    "PeerId": Codec(PeerId.decode_untrusted, PeerId.to_bytes, describe_peer_id),
    "text": TextCodec(PeerId.parse, str, lambda peer_id: {"multihash": peer_id.to_bytes().hex()}),
}
FORMS = {"rsa_bits": read_rsa}
