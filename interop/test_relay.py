"""Each implementation as relay, each as either end of a circuit."""

from __future__ import annotations

import pytest

from interop.processes import dialled, serving

WITHIN_LIMITS = 20_000
BEYOND_LIMITS = 1024 * 1024

CELLS = [
    # relay, listener, dialer
    ("go", "p2pnet", "p2pnet"),
    ("js", "p2pnet", "p2pnet"),
    ("p2pnet", "go", "go"),
    ("p2pnet", "js", "js"),
    ("p2pnet", "go", "p2pnet"),
    ("p2pnet", "p2pnet", "go"),
    ("p2pnet", "js", "p2pnet"),
    ("p2pnet", "p2pnet", "js"),
    ("go", "go", "p2pnet"),
    ("go", "p2pnet", "go"),
    ("js", "p2pnet", "js"),
    ("js", "js", "p2pnet"),
    ("rust", "p2pnet", "p2pnet"),
    ("p2pnet", "rust", "p2pnet"),
    ("p2pnet", "p2pnet", "rust"),
    ("p2pnet", "rust", "rust"),
]


WAYS = {"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}
"""Where the relay listens, and so how both ends speak to it."""


@pytest.mark.parametrize(("relay", "listener", "dialer"), CELLS)
@pytest.mark.parametrize(("way", "limited"), [("tcp", "1"), ("tcp", "0"), ("quic", "1")])
async def test_circuit(relay: str, listener: str, dialer: str, way: str, limited: str) -> None:
    size = WITHIN_LIMITS if limited == "1" else BEYOND_LIMITS
    async with serving(relay, "relay", RELAY_LIMITED=limited, LISTEN=WAYS[way]) as between:
        assert ("/quic" in between.addresses[0]) is (way == "quic")
        async with serving(listener, "listen", RELAY=between.addresses[0]) as there:
            target = f"{between.addresses[0]}/p2p-circuit/p2p/{there.peer_id}"
            assert there.circuit_addresses
            result = await dialled(dialer, TARGET=target, ECHO_BYTES=str(size))
    assert result["error"] is None, result.get("log")
    assert result["remote_peer_id"] == there.peer_id
    assert (result["echo_bytes"], result["echo_ok"]) == (size, True)
    assert result["relayed"] is True
