"""Dial, Noise, yamux, identify, ping and an echo of 10 MiB: each way, with each implementation."""

from __future__ import annotations

import pytest

from interop.processes import dialled, serving

ECHO_BYTES = 10 * 1024 * 1024
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"


@pytest.mark.parametrize(
    ("dialer", "listener"),
    [("p2pnet", "go"), ("p2pnet", "js"), ("go", "p2pnet"), ("js", "p2pnet"), ("p2pnet", "p2pnet")],
)
async def test_direct(dialer: str, listener: str) -> None:
    async with serving(listener, "listen") as there:
        target = there.addresses[0]
        result = await dialled(dialer, TARGET=target, ECHO_BYTES=str(ECHO_BYTES))
    assert result["error"] is None, result.get("log")
    assert result["exit_code"] == 0
    assert result["remote_peer_id"] == there.peer_id
    assert (result["echo_bytes"], result["echo_ok"]) == (ECHO_BYTES, True)
    assert result["relayed"] is False
    protocols = result["protocols"]
    assert isinstance(protocols, list)
    assert {PING, IDENTIFY} <= set(protocols)
    assert str(result["observed"]).startswith("/ip4/127.0.0.1/tcp/")
    assert target.split("/p2p/")[0] in str(result["listen_addrs"])
