"""Rules P7, P8, P9, P10 and P11 of specs/peer-id.md."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.keys import KeyType, PrivateKey, PublicKey
from p2pnet.core.peer_id import MAX_TEXT, PeerId
from p2pnet.errors import ProtocolError

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "specs" / "vectors" / "keys.json").read_text()
)
PEER = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
HASHED = "QmaeANgBs1DTSxWSrPPtobgQuxW8XTfsS4ydbK4rCHzqxG"

multihashes = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda digest: b"\x12\x20" + digest),
    st.binary(min_size=1, max_size=42).map(lambda inner: bytes([0, len(inner)]) + inner),
)


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["comment"])
def test_the_peer_ids_of_published_keys(vector: dict[str, str]) -> None:
    key = PublicKey.decode_untrusted(bytes.fromhex(vector["public"]))
    peer_id = PeerId.from_public_key(key)

    assert str(peer_id) == vector["peer_id"]
    assert PeerId.parse(vector["peer_id"]) == peer_id
    assert peer_id.matches(key)
    inline = key.kind in (KeyType.ED25519, KeyType.SECP256K1)
    assert peer_id.public_key() == (key if inline else None)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        # libp2p/specs peer-ids/peer-ids.md lines 266-269
        (
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ),
        # libp2p/specs tls/autotls-client.md lines 210-212
        (
            "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6",
            "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy",
        ),
    ],
)
def test_a_cid_and_the_old_form_name_the_same_peer(text: str, same: str) -> None:
    assert PeerId.parse(text) == PeerId.parse(same)
    assert str(PeerId.parse(text)) == same


def test_the_text_forms_of_a_peer() -> None:
    peer_id = PeerId.parse(PEER)
    assert str(peer_id) == PEER
    assert repr(peer_id) == f"PeerId({PEER})"
    assert peer_id.short == "Umo7R3pq"
    assert peer_id.to_cid().startswith("bafzaajaiaejca")
    assert PeerId.parse(peer_id.to_cid()) == peer_id


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("1", id="a single zero byte"),
        pytest.param("b", id="base32 of nothing"),
        pytest.param("k", id="base36 of nothing"),
        pytest.param("z", id="base58 of nothing"),
        pytest.param(PEER[:-1], id="truncated"),
        pytest.param(PEER + "p", id="one character more"),
        pytest.param(PEER.replace("K", "0"), id="a character that base58 lacks"),
        pytest.param(PEER + " ", id="a space behind"),
        pytest.param("\n" + PEER, id="a newline before"),
        pytest.param(PEER[:-1] + "ß", id="not ASCII"),
        pytest.param("1" + PEER, id="a zero byte more in front"),
        pytest.param("1" * 2000, id="too long"),
        pytest.param("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5", id="hash too short"),
        # go-libp2p core/peer/peer_test.go line 188
        pytest.param(
            "bafkreifoybygix7fh3r3g5rqle3wcnhqldgdg4shzf4k3ulyw3gn7mabt4", id="CID of a file"
        ),
        pytest.param(
            "Bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe".upper(),
            id="upper case base32",
        ),
        pytest.param(
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxf", id="spare bits set"
        ),
        pytest.param(
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqx1", id="not base32"
        ),
        pytest.param(
            "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65td_s6", id="not base36"
        ),
        pytest.param(
            "k051qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6", id="base36 with zero"
        ),
        pytest.param("f01721220" + "00" * 32, id="a base we do not read"),
        pytest.param("/p2p/" + PEER, id="an address"),
    ],
)
def test_text_that_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a peer id") as caught:
        PeerId.parse(text)
    assert len(str(caught.value)) < 2 * MAX_TEXT + 100


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="empty"),
        pytest.param("12", id="no length"),
        pytest.param("1220" + "00" * 31, id="digest too short"),
        pytest.param("1220" + "00" * 33, id="digest too long"),
        pytest.param("121f" + "00" * 31, id="sha2-256 of 31 bytes"),
        pytest.param("1100" + "", id="another hash, empty"),
        pytest.param("1114" + "00" * 20, id="sha1"),
        pytest.param("1340" + "00" * 64, id="sha2-512"),
        pytest.param("0000", id="identity of nothing"),
        pytest.param("002b" + "00" * 43, id="identity of 43 bytes"),
        pytest.param("80001220" + "00" * 32, id="code as a varint longer than needed"),
        pytest.param("12a000" + "00" * 32, id="length as a varint longer than needed"),
    ],
)
def test_bytes_that_are_no_peer_id_are_refused(data: str) -> None:
    with pytest.raises(ProtocolError):
        PeerId.decode_untrusted(bytes.fromhex(data))
    with pytest.raises(ValueError, match="multihash"):
        PeerId(bytes.fromhex(data))


def test_an_identity_multihash_of_random_bytes_is_a_peer_without_a_key() -> None:
    """P11"""
    peer_id = PeerId.decode_untrusted(b"\x00\x20" + bytes(range(32)))
    assert peer_id.public_key() is None
    assert PeerId.parse(str(peer_id)) == peer_id


def test_an_identity_multihash_of_a_key_in_another_form_gives_no_key() -> None:
    """P11: it is not the name of that key, which has only one."""
    encoded = PeerId.parse(PEER).to_bytes()[2:]
    swapped = encoded[2:] + encoded[:2]
    assert PeerId(bytes([0, len(swapped)]) + swapped).public_key() is None


def test_a_peer_id_does_not_match_another_key() -> None:
    mine = PrivateKey.from_seed(b"\x01" * 32).public_key
    other = PrivateKey.from_seed(b"\x02" * 32).public_key
    assert PeerId.from_public_key(mine).matches(mine)
    assert not PeerId.from_public_key(mine).matches(other)


def test_peer_ids_are_values_with_an_order() -> None:
    one, two = PeerId.parse(PEER), PeerId.parse(HASHED)
    assert sorted([two, one]) == [one, two]
    assert one < two
    assert len({one, PeerId.parse(PEER), two}) == 2
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.multihash = b""  # type: ignore[misc]


@given(multihashes)
def test_every_form_comes_back(multihash: bytes) -> None:
    peer_id = PeerId.decode_untrusted(multihash)
    assert peer_id.to_bytes() == multihash
    assert PeerId.parse(str(peer_id)) == peer_id
    assert PeerId.parse(peer_id.to_cid()) == peer_id
    assert len(peer_id.short) == 8 or len(str(peer_id)) < 8


@given(st.binary(max_size=60))
def test_any_bytes_are_a_peer_id_or_a_protocol_error(garbage: bytes) -> None:
    try:
        peer_id = PeerId.decode_untrusted(garbage)
    except ProtocolError:
        return
    assert peer_id.to_bytes() == garbage
    peer_id.public_key()


@given(st.one_of(st.text(max_size=80), st.from_regex(r"\A[1bkzQ][1-9a-zA-Zm]{0,70}\Z")))
def test_any_text_is_one_spelling_of_a_peer_id_or_a_value_error(text: str) -> None:
    try:
        peer_id = PeerId.parse(text)
    except ValueError:
        return
    assert text[0] in "kz" or text in (str(peer_id), peer_id.to_cid())
