"""One TCP port for plain TCP and WebSocket: peers of other implementations find each there."""

from __future__ import annotations

import pytest

from interop.ports import free_port
from interop.processes import dialled, serving

ECHO_BYTES = 1_000_000


@pytest.mark.parametrize("security", ["noise", "tls"])
@pytest.mark.parametrize("kind", ["go", "js", "rust"])
async def test_w20_w21_all_find_both_at_one_port(kind: str, security: str) -> None:
    base = f"/ip4/127.0.0.1/tcp/{free_port()}"
    async with serving("p2pnet", "listen", LISTEN=f"{base},{base}/ws", SECURITY=security) as host:
        assert len(host.addresses) == 2
        for target in host.addresses:
            line = await dialled(kind, TARGET=target, SECURITY=security, ECHO_BYTES=str(ECHO_BYTES))
            assert line["error"] is None, line
            assert line["echo_ok"] is True
            assert line["echo_bytes"] == ECHO_BYTES
