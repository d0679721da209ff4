"""The payload of a Noise handshake: N6, N7, N12 and N14 of specs/noise.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.foreword import MAX_FOREWORD_BYTES
from p2pnet.core.keys import PrivateKey
from p2pnet.errors import ProtocolError, SecurityError
from p2pnet.pb import noise_pb2 as pb
from p2pnet.security.noise.messages import MAX_MUXERS, MAX_SIGNATURE_BYTES, HandshakePayload

KEY = PrivateKey.from_seed(bytes(32))
STATIC = b"\x07" * 32


def encoded(**changes: object) -> bytes:
    signed = HandshakePayload.sign(KEY, STATIC)
    fields = {"identity_key": KEY.public_key.encode(), "identity_sig": signed.identity_signature}
    return pb.NoiseHandshakePayload(**(fields | changes)).SerializeToString()  # type: ignore[arg-type]


@given(muxers=st.lists(st.text(max_size=20), max_size=5), foreword=st.binary(max_size=40))
def test_a_payload_survives_the_wire(muxers: list[str], foreword: bytes) -> None:
    signed = HandshakePayload.sign(KEY, STATIC)
    payload = HandshakePayload(KEY.public_key, signed.identity_signature, tuple(muxers), foreword)
    assert HandshakePayload.decode_untrusted(payload.encode()) == payload


@given(st.binary(max_size=200))
def test_garbage_only_ever_raises_a_protocol_error(data: bytes) -> None:
    try:
        HandshakePayload.decode_untrusted(data)
    except ProtocolError:
        return


def test_n7_the_signature_binds_the_static_key() -> None:
    payload = HandshakePayload.decode_untrusted(encoded())
    payload.check_signature(STATIC)
    with pytest.raises(SecurityError):
        payload.check_signature(bytes(32))


@pytest.mark.parametrize("missing", ["identity_key", "identity_sig"])
def test_n6_key_and_signature_are_required(missing: str) -> None:
    with pytest.raises(ProtocolError, match="without"):
        HandshakePayload.decode_untrusted(encoded(**{missing: None}))


def test_n6_unknown_fields_and_the_retired_one_are_ignored() -> None:
    retired = b"\x1a\x04data"
    extension = b"\x22\x07\x82\x40\x04beta"
    payload = HandshakePayload.decode_untrusted(encoded() + retired + extension)
    assert payload.muxers == ()


@pytest.mark.parametrize("over", [0, 1])
def test_n14_a_foreword_that_is_too_long_is_passed_over(over: int) -> None:
    foreword = bytes(MAX_FOREWORD_BYTES + over)
    extensions = pb.NoiseExtensions(foreword=foreword, stream_muxers=["/yamux/1.0.0"])
    payload = HandshakePayload.decode_untrusted(encoded(extensions=extensions))
    assert payload.foreword == (b"" if over else foreword)
    assert payload.muxers == ("/yamux/1.0.0",)


def test_n6_text_that_is_not_utf_8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="malformed"):
        HandshakePayload.decode_untrusted(encoded() + b"\x22\x04\x12\x02\xff\xfe")


def test_n12_limits() -> None:
    with pytest.raises(ProtocolError, match="signature of 4097"):
        HandshakePayload.decode_untrusted(encoded(identity_sig=bytes(MAX_SIGNATURE_BYTES + 1)))
    most = pb.NoiseExtensions(stream_muxers=["/m"] * MAX_MUXERS)
    assert len(HandshakePayload.decode_untrusted(encoded(extensions=most)).muxers) == MAX_MUXERS
    most.stream_muxers.append("/m")
    with pytest.raises(ProtocolError, match="101 muxers"):
        HandshakePayload.decode_untrusted(encoded(extensions=most))
    with pytest.raises(ProtocolError, match="public key of"):
        HandshakePayload.decode_untrusted(encoded(identity_key=bytes(5000)))
