"""The plaintext protocol: its bytes, and whom it refuses."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core import varint
from p2pnet.core.env import Env
from p2pnet.core.keys import KeyType, PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import HandshakeCut, PeerIdMismatch, ProtocolError, SecurityError
from p2pnet.interfaces import Kit, Role
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.testing.insecure import MAX_EXCHANGE_BYTES, Exchange, Insecure, InsecureSecurity

# The key is that of RFC 8032, section 7.1, test 1. By hand, from the specs of plaintext and of
# peer ids: a PublicKey message is `08 01` (Ed25519) `12 20` and the key; the peer id is `00 24`
# (identity, 36 bytes) and that; an Exchange is `0a 26` and the id, `12 24` and the message.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY_MESSAGE = bytes.fromhex("08011220") + PUBLIC
EXCHANGE = bytes.fromhex("0a260024") + KEY_MESSAGE + bytes.fromhex("1224") + KEY_MESSAGE
ON_THE_WIRE = bytes.fromhex("4e") + EXCHANGE

KEY = PrivateKey.from_seed(SEED)
PEER = PeerId.from_public_key(KEY.public_key)
OTHER_KEY = PrivateKey.from_seed(bytes(32))
OTHER = PeerId.from_public_key(OTHER_KEY.public_key)


def security(key: PrivateKey = KEY) -> InsecureSecurity:
    peer_id = PeerId.from_public_key(key.public_key)
    return Insecure().build(Kit(Env.system(), key, peer_id, LayeredUpgrader()))


async def hear(said: bytes, expected: PeerId | None = None) -> None:
    """Let one end do its part with a remote that says only this."""
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    secured = await security().secure(ours, Role.DIALER, expected=expected, muxers=["/yamux/1.0.0"])
    assert (secured.peer_id, secured.remote_key) == (PEER, KEY.public_key)
    assert secured.muxer is None
    assert bytes(await theirs.receive_some()) == ON_THE_WIRE
    assert await secured.stream.receive_some() == said[len(ON_THE_WIRE) :]


async def test_an_exchange_is_id_and_key_with_a_length_in_front() -> None:
    assert security().protocol_id == "/plaintext/2.0.0"
    assert Exchange(PEER, KEY.public_key).encode() == EXCHANGE
    assert Exchange.decode_untrusted(EXCHANGE) == Exchange(PEER, KEY.public_key)
    await hear(ON_THE_WIRE, expected=PEER)


async def test_nothing_behind_the_exchange_is_taken_from_the_next_protocol() -> None:
    await hear(ON_THE_WIRE + b"\x13/multistream/1.0.0\n")


async def test_two_ends_meet() -> None:
    one, two = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def dial() -> None:
            secured = await security().secure(one, Role.DIALER, expected=OTHER, muxers=[])
            await secured.stream.send_all(b"as it is")

        secured = await security(OTHER_KEY).secure(two, Role.LISTENER, expected=None, muxers=[])
        assert secured.peer_id == PEER
        assert await secured.stream.receive_some() == b"as it is"


async def test_another_peer_than_expected_is_refused() -> None:
    with pytest.raises(PeerIdMismatch):
        await hear(ON_THE_WIRE, expected=OTHER)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", HandshakeCut),
        (ON_THE_WIRE[:-1], HandshakeCut),
        (b"\x00", ProtocolError),
        (b"\xff" * 9, ProtocolError),
        (b"\xce\x00", ProtocolError),
        (b"\x28" + EXCHANGE[:40], ProtocolError),
        (b"\x26" + EXCHANGE[40:], ProtocolError),
        (b"\x05" + b"\x0a\x01\x00\x12\x00", ProtocolError),
        (b"GET / HTTP/1.1\r\n\r\n", HandshakeCut),
        # A key, and the name of another.
        (b"\x4e\x0a\x26" + OTHER.to_bytes() + EXCHANGE[40:], SecurityError),
    ],
)
async def test_what_is_no_introduction_is_refused_and_closed(
    said: bytes, error: type[Exception]
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    with pytest.raises(error) as caught:
        await security().secure(ours, Role.LISTENER, expected=None, muxers=[])
    assert type(caught.value) is error
    with pytest.raises(trio.ClosedResourceError):
        await ours.receive_some()


async def test_an_exchange_over_the_limit_is_refused_before_it_comes() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(varint.encode(MAX_EXCHANGE_BYTES + 1))
    with pytest.raises(ProtocolError):
        await security().secure(ours, Role.LISTENER, expected=None, muxers=[])


keys = st.sampled_from(
    [OTHER_KEY, *(PrivateKey.generate(kind) for kind in KeyType if kind is not KeyType.RSA)]
)


@given(keys)
def test_an_exchange_survives_the_wire(key: PrivateKey) -> None:
    exchange = Exchange(PeerId.from_public_key(key.public_key), key.public_key)
    assert Exchange.decode_untrusted(exchange.encode()) == exchange


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: EXCHANGE[:40] + tail))
def test_garbage_raises_only_what_is_due(data: bytes) -> None:
    try:
        Exchange.decode_untrusted(data)
    except (ProtocolError, SecurityError):
        return
    assert data.startswith(EXCHANGE[:40])
