"""A foreword in the Noise handshake is passed over by those who do not know it (N14)."""

from __future__ import annotations

import pytest
import trio

from interop.processes import serving
from p2pnet.core.addresses import parse, peer_id_of, place_of, without_peer
from p2pnet.core.env import Env
from p2pnet.core.foreword import MAX_FOREWORD_BYTES
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Ends, Kit, Role
from p2pnet.muxers.yamux import Yamux
from p2pnet.negotiation.driver import select_one
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.security.noise import Noise

IDENTIFY = "/ipfs/id/1.0.0"
SECONDS = 60.0


@pytest.mark.parametrize("listener", ["go", "js", "rust", "p2pnet"])
async def test_a_listener_takes_a_dialer_that_says_something_ahead(listener: str) -> None:
    """N14: As much as may be said, and a stream works after it."""
    async with serving(
        listener, "listen", LISTEN="/ip4/127.0.0.1/tcp/0", SECURITY="noise"
    ) as there:
        with trio.fail_after(SECONDS):
            assert IDENTIFY.encode() in await identified(there.addresses[0])


async def identified(target: str) -> bytearray:
    """Say something ahead to a listener, and return what it says of itself."""
    address = parse(target)
    at, place = without_peer(address), place_of(address)
    assert place is not None
    raw = await trio.open_tcp_stream(place.endpoint.host, place.endpoint.port)
    ends = Ends(at, at, foreword=lambda: bytes(MAX_FOREWORD_BYTES))
    expected = peer_id_of(address)
    connection = await upgrader().upgrade(raw, Role.DIALER, ends=ends, expected=expected)
    assert connection.forewords is not None
    assert len(connection.forewords.said) == MAX_FOREWORD_BYTES
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run, lambda stream: stream.reset())
        stream = await connection.open_stream()
        await select_one(stream, [IDENTIFY])
        heard = bytearray()
        async for chunk in stream:
            heard += chunk
        await connection.aclose()
    return heard


def upgrader() -> LayeredUpgrader:
    key, made = PrivateKey.generate(), LayeredUpgrader()
    kit = Kit(Env.system(), key, PeerId.from_public_key(key.public_key), made)
    made.securities, made.muxers = (Noise().build(kit),), (Yamux().build(kit),)
    return made
