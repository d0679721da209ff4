"""Rule S3 on the kernel's own TCP: who resets leaves its ports free, and so those of the remote."""

from __future__ import annotations

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import SystemNetwork

pytestmark = pytest.mark.sockets
LOOPBACK = Endpoint("127.0.0.1", 0)


@pytest.mark.parametrize("closes_first", ["near", "far"])
async def test_s3_after_a_reset_the_next_dial_leaves_from_the_same_port(closes_first: str) -> None:
    """As of a hole punch whose handshake failed: ``near`` is the end that resets."""
    network = SystemNetwork()
    ours, theirs = await network.listen_tcp(LOOPBACK), await network.listen_tcp(LOOPBACK)
    near = await network.dial_tcp(theirs.local, local=ours.local)
    far = await theirs.accept()
    near.resets = True
    if closes_first == "near":
        await near.aclose()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await far.receive_some()
        await far.aclose()
    else:
        await far.aclose()
        assert await near.receive_some() == b""
        await near.aclose()
    again = await network.dial_tcp(theirs.local, local=ours.local)
    assert again.local == ours.local
    await again.aclose()
    await ours.aclose()
    await theirs.aclose()
