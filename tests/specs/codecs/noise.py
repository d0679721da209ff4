"""Transcripts of libp2p's Noise handshake, its payload, and frames after it."""

from __future__ import annotations

from typing import Any

from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Role
from p2pnet.security.noise.cipher import CipherState, Opener, Sealer
from p2pnet.security.noise.machine import Credentials, Established, HandshakeMachine
from p2pnet.security.noise.messages import HandshakePayload
from tests.specs.forms import Codec, Fields, Toml, plain


def handshake(given: Fields) -> dict[str, Any]:
    """Play the end that ``noise`` names: it must send, byte for byte, what the script says."""
    machine = HandshakeMachine(
        Role[given["noise"].upper()],
        Credentials.create(
            PrivateKey.from_seed(thirty_two(given["seed"])), thirty_two(given["static"])
        ),
        ephemeral=thirty_two(given["ephemeral"]),
        muxers=given["muxers"],
        expected=PeerId.parse(given["expected"]) if "expected" in given else None,
    )
    if "foreword" in given:
        foreword = bytes.fromhex(given["foreword"])
        machine.foreword = lambda: foreword
    established: Established | None = None
    for step in given["script"]:
        if "send" in step:
            assert machine.data_to_send().hex() == joined(step["send"])
            continue
        data = bytes.fromhex(joined(step["receive"]))
        while data:
            size = machine.wanted()
            established = machine.receive(data[:size])
            data = data[size:]
    assert machine.data_to_send() == b"", "the machine would say more than the script"
    assert established is not None
    sealed = established.sending.seal(b"hello", b"")
    heard = {"heard": established.heard} if established.heard else {}
    return {"peer_id": established.peer_id, "muxer": established.muxer, "hello": sealed, **heard}


def frames(given: Fields) -> bytes:
    """Open frames, in whatever chunks; if they are good, sealing gives the same frames."""
    key = thirty_two(given["frames"])
    opener, sealer = Opener(CipherState(key)), Sealer(CipherState(key))
    chunks = [bytes.fromhex(chunk) for chunk in given["chunks"]]
    pieces = [opener.open(chunk) for chunk in chunks]
    if "sealed_as" in given:
        plaintexts = [bytes.fromhex(text) for text in given["sealed_as"]]
        sealed = [sealer.seal(memoryview(text)) for text in plaintexts]
        assert b"".join(sealed) == b"".join(chunks)
    return b"".join(pieces)


def thirty_two(byte: int) -> bytes:
    return bytes([byte]) * 32


def joined(text: str | list[str]) -> str:
    return (text if isinstance(text, str) else "".join(text)).replace(" ", "")


def described(payload: HandshakePayload) -> Toml:
    told: dict[str, Toml] = plain(payload)
    if not payload.foreword:
        del told["foreword"]
    return told


CODECS = {
    "Payload": Codec(HandshakePayload.decode_untrusted, HandshakePayload.encode, describe=described)
}
FORMS = {"noise": handshake, "frames": frames}
