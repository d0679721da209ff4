"""Frames: round trips, any chunking, garbage. RS3, RS5 and RS13 of specs/resume.md."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.messages import (
    MAX_CODE,
    MAX_DATA,
    Accept,
    Ack,
    Again,
    Ask,
    Data,
    Decoder,
    Fin,
    Frame,
    Leave,
    Mark,
    Move,
    Moved,
    Open,
    Refuse,
    Reset,
    Seek,
    Stop,
    Why,
    data_header,
    encode,
)
from p2pnet.protocols.resume.policy import Sought, Tokens, may_move, pause
from tests.protocols.resume.peers import ALICE, BOB, CAROL

token = st.binary(min_size=16, max_size=16)
number = st.integers(0, 2**63 - 1)
name = st.text(max_size=60).map("/{}".format)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Open, token, number, name),
    st.builds(Accept, number),
    st.builds(Refuse, st.sampled_from(Why)),
    st.builds(Move, token, number, token, number, number, st.booleans()),
    st.builds(Moved, number, number),
    st.builds(Ask, token, number, token),
    st.builds(Seek, number),
    st.builds(Ack, number, number),
    st.builds(Again, number),
    st.builds(Mark, number),
    st.builds(Reset, st.integers(0, MAX_CODE)),
    st.sampled_from((Fin(), Stop(), Leave())),
)


def joined(items: list[Frame | Data]) -> list[Frame | bytes]:
    """Return what was decoded, with pieces of data that follow each other made one."""
    found: list[Frame | bytes] = []
    for item in items:
        if not isinstance(item, Data):
            found.append(item)
        elif found and isinstance(found[-1], bytes):
            found[-1] += bytes(item)
        else:
            found.append(bytes(item))
    return found


@given(parts=st.lists(frames | st.binary(min_size=1), max_size=8), data=st.data())
def test_whatever_the_chunking_the_frames_are_the_same(
    parts: list[Frame | bytes], data: st.DataObject
) -> None:
    wire = b"".join(
        data_header(len(part)) + part if isinstance(part, bytes) else encode(part) for part in parts
    )
    decoder = Decoder()
    items: list[Frame | Data] = []
    while wire:
        count = data.draw(st.integers(1, len(wire)))
        items += decoder.feed(wire[:count])
        wire = wire[count:]
    expected: list[Frame | bytes] = []
    for part in parts:
        if isinstance(part, bytes) and expected and isinstance(expected[-1], bytes):
            expected[-1] += part
        else:
            expected.append(part)
    assert joined(items) == expected


@given(garbage=st.binary(max_size=100))
def test_garbage_is_a_protocol_error_or_nothing(garbage: bytes) -> None:
    with suppress(ProtocolError):
        Decoder().feed(garbage)


@pytest.mark.parametrize(
    "wire",
    [
        data_header(MAX_DATA + 1),
        b"\x07\x00",
        encode(Open(bytes(16), 1, "echo")),
        encode(Open(bytes(16), 1, "/" + "x" * 256)),
        b"\x01\x13" + bytes(16) + b"\x01/\xff",
        b"\x03\x01\x05",
        b"\x03\x01\x00",
        encode(Reset(MAX_CODE + 1)),
        b"\x04\x03abc",
    ],
)
def test_what_is_malformed_is_refused(wire: bytes) -> None:
    """RS5."""
    with pytest.raises(ProtocolError):
        Decoder().feed(wire)


def test_a_frame_is_read_to_its_end_and_no_further() -> None:
    wire = encode(Open(bytes(16), 1, "/echo"))
    decoder = Decoder()
    while True:
        wanted = decoder.wanted()
        found = decoder.feed(wire[:wanted])
        wire = wire[wanted:]
        if found:
            break
    assert wire == b""


def test_a_proof_is_for_one_move_of_one_stream_of_two_peers() -> None:
    """RS3 RS12."""
    tokens = Tokens(bytes(16), ALICE, BOB)
    proof = tokens.proof("move", 1)
    assert tokens.is_proof("move", 1, proof)
    assert not tokens.is_proof("move", 2, proof)
    assert not tokens.is_proof("ask", 1, proof)
    assert not Tokens(bytes(15) + b"\1", ALICE, BOB).is_proof("move", 1, proof)
    assert not Tokens(bytes(16), ALICE, CAROL).is_proof("move", 1, proof)
    assert not Tokens(bytes(16), BOB, ALICE).is_proof("move", 1, proof)


def test_secrets_are_not_shown() -> None:
    secret = b"0123456789abcdef"
    tokens = Tokens(secret, ALICE, BOB)
    shown = f"{tokens!r} {Open(secret, 1, '/x')!r} {Ask(b'', 1, secret)!r}"
    assert "0123" not in shown
    assert "0123" not in repr(Move(b"", 1, secret, 0, 0, False))


def test_protocols_about_the_connection_do_not_move() -> None:
    """RS2."""
    assert may_move("/echo/1.0.0")
    assert not may_move("/libp2p/dcutr")
    assert not may_move("/ipfs/ping/1.0.0")
    assert not may_move("/p2pnet/resume/1.0.0")


def test_few_are_sought_at_a_time_and_fewer_at_one_place() -> None:
    """RS13."""
    keys = (PrivateKey.from_seed(bytes([n]) * 32).public_key for n in range(50))
    peers = [PeerId.from_public_key(key) for key in keys]
    sought = Sought(32)

    def admitted(place: str, now: float) -> int:
        return sum(sought.admit(p, [parse(place.format(n))], now) for n, p in enumerate(peers))

    assert admitted("/ip4/1.2.3.{}/tcp/1", 0.0) == admitted("/ip4/1.2.3.{}/tcp/1", 59.0) == 4
    assert admitted("/dns4/example.com/tcp/{}", 60.0) == 4
    assert admitted("/ip4/1.2.{}.3/tcp/1", 61.0) == 32
    for peer in peers[:10]:
        sought.found(peer)
    assert admitted("/ip4/1.2.{}.3/tcp/1", 62.0) == 32


def test_pauses_grow_up_to_the_longest() -> None:
    """RS9: a quarter of the time that all has stood still."""
    pauses = [pause(stood, first=0.5, longest=5.0) for stood in (0.0, 2.0, 3.0, 12.0, 20.0, 99.0)]
    assert pauses == [0.5, 0.5, 0.75, 3.0, 5.0, 5.0]


def test_nonsense_is_no_config() -> None:
    with pytest.raises(ValueError, match="orphan_seconds must be positive"):
        Resume(orphan_seconds=0)
    with pytest.raises(ValueError, match="window must be at least 65536"):
        Resume(window=1000)
    with pytest.raises(ValueError, match="max_bytes must be at least 131072"):
        Resume(max_bytes=100_000)
    with pytest.raises(ValueError, match="max_streams must be positive"):
        Resume(max_streams=0, direct=False)
