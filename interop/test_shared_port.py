"""One TCP port for plain TCP and WebSocket: peers of other implementations find each there."""

from __future__ import annotations

import pytest

from interop.processes import dialled, serving
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import SystemNetwork

ECHO_BYTES = 1_000_000


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize("kind", ["go", "js", "rust"])
async def test_w20_w21_all_find_both_at_one_port(kind: str, security: str) -> None:
    listener = await SystemNetwork().listen_tcp(Endpoint("127.0.0.1", 0))
    base = f"/ip4/127.0.0.1/tcp/{listener.local.port}"
    await listener.aclose()
    async with serving("p2pnet", "listen", LISTEN=f"{base},{base}/ws", SECURITY=security) as host:
        assert len(host.addresses) == 2
        for target in host.addresses:
            line = await dialled(kind, TARGET=target, SECURITY=security, ECHO_BYTES=str(ECHO_BYTES))
            assert line["error"] is None, line
            assert line["echo_ok"] is True
            assert line["echo_bytes"] == ECHO_BYTES
