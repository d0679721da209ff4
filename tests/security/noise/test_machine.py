"""Noise XX by published vectors, and libp2p's handshake on it: N2 to N12, N14 of specs/noise.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet.core.foreword import MAX_FOREWORD_BYTES
from p2pnet.core.keys import KeyType, PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import P2PError, PeerIdMismatch, ProtocolError, SecurityError
from p2pnet.interfaces import Role
from p2pnet.pb import noise_pb2 as pb
from p2pnet.security.noise.cipher import MAX_NONCE, CipherState, frame
from p2pnet.security.noise.machine import (
    Credentials,
    Established,
    HandshakeMachine,
    XXHandshake,
    choose_muxer,
    private_key,
    public_bytes,
)
from p2pnet.security.noise.messages import HandshakePayload

VECTORS = json.loads(
    (Path(__file__).parents[3] / "specs" / "vectors" / "noise.json").read_text(encoding="utf-8")
)
ALICE = PrivateKey.from_seed(bytes(31) + b"A")
BOB = PrivateKey.from_seed(bytes(31) + b"B")
ALICE_ID = PeerId.from_public_key(ALICE.public_key)
BOB_ID = PeerId.from_public_key(BOB.public_key)
YAMUX = "/yamux/1.0.0"
MPLEX = "/mplex/6.7.0"


def dialer(**changes: object) -> HandshakeMachine:
    arguments = {"ephemeral": b"\x01" * 32, "muxers": [YAMUX], "expected": BOB_ID} | changes
    return HandshakeMachine(Role.DIALER, Credentials.create(ALICE, b"\x02" * 32), **arguments)  # type: ignore[arg-type]


def listener(**changes: object) -> HandshakeMachine:
    arguments = {"ephemeral": b"\x03" * 32, "muxers": [YAMUX]} | changes
    return HandshakeMachine(Role.LISTENER, Credentials.create(BOB, b"\x04" * 32), **arguments)  # type: ignore[arg-type]


def feed(machine: HandshakeMachine, data: bytes) -> Established | None:
    """Give a machine exact pieces of ``data``, all of which it must take."""
    established = None
    while data:
        size = machine.wanted()
        established = machine.receive(data[:size])
        data = data[size:]
    return established


def shake(one: HandshakeMachine, other: HandshakeMachine) -> tuple[Established, Established]:
    """Carry messages between a dialer and a listener until both are through."""
    assert feed(other, one.data_to_send()) is None
    at_dialer = feed(one, other.data_to_send())
    at_listener = feed(other, one.data_to_send())
    assert at_dialer is not None
    assert at_listener is not None
    return at_dialer, at_listener


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["comment"])
def test_n2_published_vectors_of_noise_xx(vector: dict[str, object]) -> None:
    def made_of(key: str) -> bytes:
        return bytes.fromhex(str(vector[key]))

    one, other = (
        XXHandshake(
            static=private_key(made_of(f"{end}_static")),
            ephemeral=private_key(made_of(f"{end}_ephemeral")),
            prologue=made_of("prologue"),
        )
        for end in ("init", "resp")
    )
    messages = vector["messages"]
    assert isinstance(messages, list)
    texts = [bytes.fromhex(message["payload"]) for message in messages]
    sealed = [bytes.fromhex(message["ciphertext"]) for message in messages]

    assert one.write_first(texts[0]) == sealed[0]
    assert other.read_first(sealed[0]) == texts[0]
    assert other.write_second(texts[1]) == sealed[1]
    assert one.read_second(sealed[1]) == texts[1]
    assert one.write_third(texts[2]) == sealed[2]
    assert other.read_third(sealed[2]) == texts[2]
    assert one.hash == other.hash
    if "handshake_hash" in vector:
        assert one.hash == made_of("handshake_hash")

    ciphers = [(one.split(), other.split())[index] for index in (0, 1)]
    for number in range(3, len(texts)):
        # The initiator wrote message 3, so the responder goes first.
        direction = number % 2
        sender, receiver = (ciphers[1][1], ciphers[0][1])
        if direction == 0:
            sender, receiver = (ciphers[0][0], ciphers[1][0])
        assert sender.seal(texts[number], b"") == sealed[number]
        assert receiver.open(sealed[number], b"") == texts[number]


def test_n2_both_ends_learn_who_the_other_is_and_can_talk() -> None:
    at_dialer, at_listener = shake(dialer(), listener())
    assert (at_dialer.peer_id, at_dialer.remote_key) == (BOB_ID, BOB.public_key)
    assert (at_listener.peer_id, at_listener.remote_key) == (ALICE_ID, ALICE.public_key)
    for sender, receiver in ((at_dialer, at_listener), (at_listener, at_dialer)):
        sealed = sender.sending.seal(b"hello", b"")
        assert receiver.receiving.open(sealed, b"") == b"hello"


@pytest.mark.parametrize("kind", [KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA, KeyType.RSA])
def test_n7_every_kind_of_identity_key_can_vouch(kind: KeyType) -> None:
    key = PrivateKey.generate(kind)
    peer_id = PeerId.from_public_key(key.public_key)
    remote = HandshakeMachine(
        Role.LISTENER, Credentials.create(key, b"\x05" * 32), ephemeral=b"\x06" * 32
    )
    assert shake(dialer(expected=peer_id), remote)[0].peer_id == peer_id


@pytest.mark.parametrize(
    ("initiators", "responders", "chosen"),
    [
        ([YAMUX], [YAMUX], YAMUX),
        ([YAMUX, MPLEX], [MPLEX, YAMUX], YAMUX),
        ([MPLEX, YAMUX], [YAMUX], YAMUX),
        ([YAMUX], [MPLEX], None),
        ([YAMUX], [], None),
        ([], [YAMUX], None),
        ([], [], None),
    ],
)
def test_n9_both_ends_choose_the_same_muxer_or_none(
    initiators: list[str], responders: list[str], chosen: str | None
) -> None:
    at_dialer, at_listener = shake(dialer(muxers=initiators), listener(muxers=responders))
    assert at_dialer.muxer == at_listener.muxer == chosen
    assert choose_muxer(initiators, responders) == chosen


def test_n9_a_payload_without_muxers_has_no_extensions() -> None:
    payload = pb.NoiseHandshakePayload.FromString(
        Credentials.create(ALICE, b"\x02" * 32).proof.encode()
    )
    assert not payload.HasField("extensions")


def test_n8_the_dialer_tells_nothing_more_to_another_peer_than_expected() -> None:
    one, other = dialer(expected=ALICE_ID), listener()
    feed(other, one.data_to_send())
    with pytest.raises(PeerIdMismatch) as caught:
        feed(one, other.data_to_send())
    assert (caught.value.expected, caught.value.actual) == (ALICE_ID, BOB_ID)
    assert one.data_to_send() == b""


def test_n14_another_peer_than_expected_is_told_nothing() -> None:
    one, other = dialer(expected=ALICE_ID), listener()
    asked: list[bool] = []

    def foreword() -> bytes:
        asked.append(True)
        return b"hello"

    one.foreword = foreword
    feed(other, one.data_to_send())
    with pytest.raises(PeerIdMismatch):
        feed(one, other.data_to_send())
    assert asked == []


@pytest.mark.parametrize(
    ("size", "told"), [(0, 0), (MAX_FOREWORD_BYTES, MAX_FOREWORD_BYTES), (1025, 0)]
)
def test_n14_the_listener_hears_what_the_dialer_says_unless_it_is_too_long(
    size: int, told: int
) -> None:
    one, other = dialer(), listener()
    one.foreword = lambda: bytes(size)
    at_dialer, at_listener = shake(one, other)
    assert (at_dialer.said, at_dialer.heard) == (bytes(told), b"")
    assert (at_listener.said, at_listener.heard) == (b"", bytes(told))


def test_n14_a_listener_says_nothing_ahead() -> None:
    one, other = dialer(), listener()
    other.foreword = lambda: b"never"
    at_dialer, at_listener = shake(one, other)
    assert (at_dialer.heard, at_listener.said) == (b"", b"")


def test_n14_in_message_2_a_foreword_means_nothing() -> None:
    other = with_payload(replace(Credentials.create(BOB, b"\x04" * 32).proof, foreword=b"hi"))
    one = dialer()
    feed(other, one.data_to_send())
    established = feed(one, other.data_to_send())
    assert established is not None
    assert established.heard == b""


def test_n8_the_listener_too_may_expect_somebody() -> None:
    one, other = dialer(), listener(expected=BOB_ID)
    feed(other, one.data_to_send())
    feed(one, other.data_to_send())
    with pytest.raises(PeerIdMismatch):
        feed(other, one.data_to_send())


@pytest.mark.parametrize("length", [0, 31, 33, 200, 65_535])
def test_n4_message_1_is_a_key_and_nothing_more(length: int) -> None:
    with pytest.raises(ProtocolError, match="message 1"):
        feed(listener(), length.to_bytes(2, "big"))


def test_n5_two_dialers_get_an_error_that_says_so() -> None:
    one, other = dialer(), dialer()
    with pytest.raises(ProtocolError, match="simultaneous open"):
        feed(one, other.data_to_send())


@pytest.mark.parametrize("length", [0, 1, 31, 33, 95])
def test_n4_an_answer_too_short_for_its_keys_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="handshake message"):
        feed(dialer(), frame(b"\x09" * length))


@pytest.mark.parametrize("length", [0, 47, 63])
def test_n4_a_third_message_too_short_for_its_key_is_refused(length: int) -> None:
    other = listener()
    feed(other, dialer().data_to_send())
    with pytest.raises(ProtocolError, match="handshake message"):
        feed(other, frame(b"\x09" * length))


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_small_order_is_refused(key: bytes) -> None:
    with pytest.raises(SecurityError, match="small order"):
        feed(listener(), frame(key))


def test_n12_a_handshake_message_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(ProtocolError, match="1025 bytes"):
        feed(dialer(max_bytes=1024), (1025).to_bytes(2, "big"))


def test_the_remote_may_not_hang_up_in_the_middle() -> None:
    for machine in (dialer(), listener()):
        with pytest.raises(SecurityError, match="hung up"):
            machine.receive(b"")


def test_a_machine_takes_no_byte_more_than_its_own() -> None:
    one, other = dialer(), listener()
    feed(other, one.data_to_send())
    assert other.wanted() == 2
    with pytest.raises(ValueError, match="wanted"):
        other.receive(b"\x00\x60a")
    feed(one, other.data_to_send())
    assert one.wanted() == 0
    with pytest.raises(ValueError, match="wanted"):
        one.receive(b"a")


@settings(max_examples=60)
@given(data=st.data())
def test_one_changed_bit_ends_the_handshake(data: st.DataObject) -> None:
    one, other = dialer(expected=None), listener()
    number = data.draw(st.integers(1, 3), label="message")
    messages = [one.data_to_send()]
    feed(other, messages[0])
    messages.append(other.data_to_send())
    if number == 3:
        feed(one, messages[1])
        messages.append(one.data_to_send())
    changed = bytearray(messages[number - 1])
    # Not the length: a longer message is just waited for.
    bit = data.draw(st.integers(16, 8 * len(changed) - 1), label="bit")
    changed[bit // 8] ^= 1 << bit % 8
    fresh = listener()
    if number == 1:
        # X25519 ignores the highest bit of a key, yet the hash does not.
        feed(fresh, bytes(changed))
        with pytest.raises(SecurityError):
            feed(one, fresh.data_to_send())
    else:
        with pytest.raises(SecurityError):
            feed(one if number == 2 else other, bytes(changed))


@given(data=st.binary(max_size=400), stage=st.integers(0, 2))
def test_garbage_only_ever_raises_errors_of_ours(data: bytes, stage: int) -> None:
    one, other = dialer(), listener()
    first = one.data_to_send()
    if stage == 2:
        feed(other, first)
    machine = one if stage == 0 else other
    try:
        while data and (size := machine.wanted()):
            machine.receive(data[:size])
            data = data[size:]
    except P2PError:
        return


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=9))
@settings(max_examples=20)
def test_any_chunking_of_the_handshake_gives_the_same_result(sizes: list[int]) -> None:
    one, other = dialer(), listener()
    ends: dict[HandshakeMachine, Established] = {}
    turn = 0
    for speaker, hearer in ((one, other), (other, one), (one, other)):
        data = speaker.data_to_send()
        while data:
            size = min(hearer.wanted(), sizes[turn % len(sizes)])
            turn += 1
            if established := hearer.receive(data[:size]):
                ends[hearer] = established
            data = data[size:]
    assert ends[one].peer_id == BOB_ID
    assert ends[other].peer_id == ALICE_ID


def with_payload(payload: HandshakePayload | bytes) -> HandshakeMachine:
    """Return a listener that answers with this payload."""

    class Crafted(HandshakePayload):
        def encode(self) -> bytes:
            return payload if isinstance(payload, bytes) else payload.encode()

    credentials = Credentials.create(BOB, b"\x04" * 32)
    proof = Crafted(credentials.proof.identity_key, credentials.proof.identity_signature)
    return HandshakeMachine(
        Role.LISTENER, replace(credentials, proof=proof), ephemeral=b"\x03" * 32
    )


def answer_with(payload: HandshakePayload | bytes) -> None:
    one, other = dialer(expected=None), with_payload(payload)
    feed(other, one.data_to_send())
    feed(one, other.data_to_send())


def test_n7_a_signature_over_another_static_key_proves_nothing() -> None:
    static = public_bytes(private_key(b"\x04" * 32))
    answer_with(HandshakePayload.sign(BOB, static))
    with pytest.raises(SecurityError, match="did not sign"):
        answer_with(HandshakePayload.sign(BOB, bytes(32)))
    stolen = replace(HandshakePayload.sign(ALICE, static), identity_key=BOB.public_key)
    with pytest.raises(SecurityError, match="did not sign"):
        answer_with(stolen)


def test_n6_the_payload_must_be_there_and_be_one() -> None:
    for payload in (b"", b"\xff", b"\x0a\x01"):
        with pytest.raises(ProtocolError):
            answer_with(payload)


def test_n10_a_cipher_ends_before_its_nonces_do() -> None:
    cipher = CipherState(bytes(32))
    cipher._nonce = MAX_NONCE - 1
    cipher.seal(b"last", b"")
    with pytest.raises(P2PError, match="nonces"):
        cipher.seal(b"one more", b"")


def test_nothing_secret_shows_in_a_repr() -> None:
    credentials = Credentials.create(ALICE, b"\x02" * 32)
    at_dialer, _ = shake(dialer(), listener())
    for shown in (repr(credentials), repr(at_dialer)):
        assert "X25519PrivateKey" not in shown
        assert "CipherState" not in shown
