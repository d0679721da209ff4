"""Rules P1, P2, P3, P4, P5 and P6 of specs/peer-id.md, with its vectors of keys."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core import keys
from p2pnet.core.keys import SECP256K1_ORDER, KeyType, PrivateKey, PublicKey
from p2pnet.errors import ProtocolError

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "specs" / "vectors" / "keys.json").read_text()
)
KEYS = {kind: PrivateKey.generate(kind) for kind in KeyType}


def group(name: str) -> list[object]:
    found = [pytest.param(vector, id=vector["comment"]) for vector in VECTORS[name]]
    assert found
    return list(found)


@pytest.mark.parametrize("vector", group("valid"))
def test_published_keys_are_read_and_written(vector: dict[str, str]) -> None:
    private = PrivateKey.decode(bytes.fromhex(vector["private"]))
    public = PublicKey.decode_untrusted(bytes.fromhex(vector["public"]))

    assert private.kind is public.kind is KeyType[vector["kind"]]
    assert private.public_key == public
    assert private.encode().hex() == vector["private"]
    assert public.encode().hex() == vector["public"]
    assert public.verify(b"data", private.sign(b"data"))


@pytest.mark.parametrize(
    "vector", [vector for vector in VECTORS["valid"] if "signature" in vector], ids=str
)
def test_published_signatures_are_valid(vector: dict[str, str]) -> None:
    public = PublicKey.decode_untrusted(bytes.fromhex(vector["public"]))
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])

    assert public.verify(message, signature)
    assert not public.verify(message + b"!", signature)
    assert not public.verify(message, signature[:-1])


@pytest.mark.parametrize("vector", group("public_invalid"))
def test_invalid_public_keys_are_refused(vector: dict[str, str]) -> None:
    with pytest.raises(ProtocolError):
        PublicKey.decode_untrusted(bytes.fromhex(vector["hex"]))


@pytest.mark.parametrize("vector", group("public_other_form"))
def test_other_encodings_of_a_public_key_are_the_same_key(vector: dict[str, str]) -> None:
    key = PublicKey.decode_untrusted(bytes.fromhex(vector["hex"]))
    canonical = PublicKey.decode_untrusted(bytes.fromhex(vector["canonical"]))

    assert key.encode().hex() == vector["canonical"]
    assert key == canonical
    assert hash(key) == hash(canonical)


@pytest.mark.parametrize("vector", group("private_invalid"))
def test_invalid_private_keys_are_refused_without_a_word_of_the_secret(
    vector: dict[str, str],
) -> None:
    data = bytes.fromhex(vector["hex"])
    with pytest.raises(ValueError, match=r"key|DER") as caught:
        PrivateKey.decode(data)
    assert len(str(caught.value)) < 100
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("vector", group("private_other_form"))
def test_other_encodings_of_a_private_key_are_written_in_the_usual_one(
    vector: dict[str, str],
) -> None:
    assert PrivateKey.decode(bytes.fromhex(vector["hex"])).encode().hex() == vector["canonical"]


@pytest.mark.parametrize("kind", KeyType)
def test_a_generated_key_signs_and_comes_back_from_its_encoding(kind: KeyType) -> None:
    key = KEYS[kind]
    assert PrivateKey.decode(key.encode()) == key
    assert PublicKey.decode_untrusted(key.public_key.encode()) == key.public_key
    assert key.public_key.verify(b"data", key.sign(b"data"))
    assert not key.public_key.verify(b"other data", key.sign(b"data"))


@pytest.mark.parametrize("kind", KeyType)
def test_two_generated_keys_differ(kind: KeyType) -> None:
    assert PrivateKey.generate(kind) != KEYS[kind]


@pytest.mark.parametrize("kind", KeyType)
def test_a_signature_of_another_key_is_refused(kind: KeyType) -> None:
    other = PrivateKey.generate(kind)
    assert not KEYS[kind].public_key.verify(b"data", other.sign(b"data"))


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_rsa_keys_up_to_8192_bits_are_read(bits: int) -> None:
    """P6, without making such a key, which takes a minute: any odd number is a modulus here."""
    small = KEYS[KeyType.RSA].public_key.encode()
    modulus = ((1 << (bits - 1)) | 1).to_bytes(bits // 8)
    integers = der(2, b"\0" + modulus) + bytes.fromhex("0203010001")
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    data = der(0x30, algorithm + der(3, b"\0" + der(0x30, integers)))

    key = PublicKey(KeyType.RSA, data)
    assert PublicKey.decode_untrusted(key.encode()) == key
    assert (len(key.encode()) == len(small)) == (bits == 2048)


def der(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x82]) + len(content).to_bytes(2) + content


def test_a_kind_that_the_system_lacks_is_an_error_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some builds of OpenSSL have no Secp256k1."""

    def refuse(data: bytes) -> NoReturn:
        raise UnsupportedAlgorithm("no such curve")

    encoded = KEYS[KeyType.SECP256K1].encode()
    public = KEYS[KeyType.SECP256K1].public_key.encode()
    monkeypatch.setitem(keys._PUBLIC_LOADERS, KeyType.SECP256K1, refuse)
    monkeypatch.setitem(keys._PRIVATE_LOADERS, KeyType.SECP256K1, refuse)

    with pytest.raises(ProtocolError, match="not supported"):
        PublicKey.decode_untrusted(public)
    with pytest.raises(ValueError, match="not supported"):
        PrivateKey.decode(encoded)


def test_a_seed_makes_the_same_ed25519_key_each_time() -> None:
    seed = bytes(range(32))
    assert PrivateKey.from_seed(seed).encode() == PrivateKey.from_seed(seed).encode()
    assert PrivateKey.from_seed(seed).encode()[4:36] == seed
    assert PrivateKey.from_seed(seed).kind is KeyType.ED25519
    with pytest.raises(ValueError, match="32 bytes"):
        PrivateKey.from_seed(seed[:-1])


def test_secp256k1_signatures_have_the_low_s_and_both_forms_are_accepted() -> None:
    """P4: rust's k256 refuses the other of the two."""
    key = KEYS[KeyType.SECP256K1]
    for number in range(16):
        data = bytes([number])
        r, s = decode_dss_signature(key.sign(data))
        assert s <= SECP256K1_ORDER // 2
        assert key.public_key.verify(data, encode_dss_signature(r, s))
        assert key.public_key.verify(data, encode_dss_signature(r, SECP256K1_ORDER - s))


@pytest.mark.parametrize("kind", KeyType)
def test_a_private_key_does_not_show_its_secret(kind: KeyType) -> None:
    key = KEYS[kind]
    secret = key.encode()[5:]
    for text in (repr(key), str(key), f"{key}", repr([key])):
        for start in range(0, len(secret) - 8, 4):
            piece = secret[start : start + 8]
            if piece not in key.public_key.encode():
                assert piece.hex() not in text
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            attempt(key)
    with pytest.raises(TypeError, match="__dict__"):
        vars(key)


@pytest.mark.parametrize("kind", KeyType)
def test_a_public_key_is_a_value(kind: KeyType) -> None:
    key = KEYS[kind].public_key
    again = PublicKey.decode_untrusted(key.encode())
    assert {key: 1}[again] == 1
    assert pickle.loads(pickle.dumps(key)) == key
    assert copy.deepcopy(key) == key
    assert key != key.encode()
    assert KEYS[kind] != key
    assert {KEYS[kind]: 1}[PrivateKey.decode(KEYS[kind].encode())] == 1
    assert kind.name in repr(key)


@given(st.sampled_from(KeyType), st.binary(max_size=100), st.binary(max_size=300))
def test_garbage_is_no_signature_and_no_error(kind: KeyType, data: bytes, garbage: bytes) -> None:
    assert not KEYS[kind].public_key.verify(data, garbage)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_public_key_or_a_protocol_error(garbage: bytes) -> None:
    try:
        key = PublicKey.decode_untrusted(garbage)
    except ProtocolError:
        return
    assert PublicKey.decode_untrusted(key.encode()) == key


@given(st.sampled_from(KeyType), st.data())
def test_a_changed_public_key_is_another_key_or_a_protocol_error(
    kind: KeyType, data: st.DataObject
) -> None:
    encoded = bytearray(KEYS[kind].public_key.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        key = PublicKey.decode_untrusted(bytes(encoded))
    except ProtocolError:
        return
    assert key != KEYS[kind].public_key


@given(st.sampled_from(KeyType), st.binary(max_size=300))
def test_any_private_data_is_a_key_or_a_value_error(kind: KeyType, garbage: bytes) -> None:
    try:
        PrivateKey(kind, garbage)
    except ValueError:
        return


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_every_seed_makes_a_key_that_signs(seed: bytes, data: bytes) -> None:
    key = PrivateKey.from_seed(seed)
    assert key.public_key.verify(data, key.sign(data))
    assert PrivateKey.decode(key.encode()) == key
