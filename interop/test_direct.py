"""Every transport, with Noise and with TLS, each way, with each implementation.

In each cell: dial, identify, ping, and an echo of 10 MiB.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from interop.processes import Line, Serving, dialled, serving
from p2pnet.security.pnet import PreSharedKey

ECHO_BYTES = 10 * 1024 * 1024
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"

LISTEN = {
    "tcp": "/ip4/127.0.0.1/tcp/0",
    "ws": "/ip4/127.0.0.1/tcp/0/ws",
    "quic": "/ip4/127.0.0.1/udp/0/quic-v1",
}
STACKS = [
    ("tcp", "noise"),
    ("tcp", "tls"),
    ("ws", "noise"),
    ("ws", "tls"),
    # QUIC is secured by TLS of its own, and there is nothing to choose.
    ("quic", "tls"),
]
PAIRS = [
    # dialer, listener
    ("p2pnet", "go"),
    ("p2pnet", "rust"),
    ("p2pnet", "js"),
    ("go", "p2pnet"),
    ("rust", "p2pnet"),
    ("js", "p2pnet"),
    ("p2pnet", "p2pnet"),
]


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
@pytest.mark.parametrize(("transport", "security"), STACKS)
async def test_direct(transport: str, security: str, dialer: str, listener: str) -> None:
    listen = LISTEN[transport]
    async with serving(listener, "listen", LISTEN=listen, SECURITY=security) as there:
        result = await dialled(
            dialer,
            TARGET=there.addresses[0],
            SECURITY=security,
            ECHO_BYTES=str(ECHO_BYTES),
        )
    check(result, there, transport)


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
async def test_quic_with_the_fast_core(dialer: str, listener: str) -> None:
    listen, core = LISTEN["quic"], "qh3"
    async with serving(listener, "listen", LISTEN=listen, QUIC_CORE=core) as there:
        target = there.addresses[0]
        result = await dialled(dialer, TARGET=target, QUIC_CORE=core, ECHO_BYTES=str(ECHO_BYTES))
    check(result, there, "quic")


@pytest.mark.parametrize("core", ["aioquic", "qh3"])
@pytest.mark.parametrize("dialer", ["go", "rust", "js", "p2pnet"])
async def test_quic_sends_strangers_back_first(dialer: str, core: str) -> None:
    """Q6: as under a flood; each comes back with its token."""
    listen = LISTEN["quic"]
    async with serving("p2pnet", "listen", LISTEN=listen, QUIC_CORE=core, QUIC_RETRY="1") as there:
        size = str(ECHO_BYTES)
        result = await dialled(dialer, TARGET=there.addresses[0], ECHO_BYTES=size, QUIC_CORE=core)
    check(result, there, "quic")


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
@pytest.mark.parametrize(("transport", "security"), [("tcp", "noise"), ("ws", "tls")])
async def test_private_network(
    tmp_path: Path, transport: str, security: str, dialer: str, listener: str
) -> None:
    key, listen = write_key(tmp_path), LISTEN[transport]
    async with serving(listener, "listen", LISTEN=listen, SECURITY=security, PSK_FILE=key) as there:
        result = await dialled(
            dialer,
            TARGET=there.addresses[0],
            SECURITY=security,
            PSK_FILE=key,
            ECHO_BYTES=str(ECHO_BYTES),
        )
    check(result, there, transport)


@pytest.mark.parametrize(("dialer", "listener"), PAIRS)
async def test_private_network_keeps_out_who_has_another_key(
    tmp_path: Path, dialer: str, listener: str
) -> None:
    key, other = write_key(tmp_path), write_key(tmp_path)
    async with serving(listener, "listen", PSK_FILE=key) as there:
        target = there.addresses[0]
        kept_out = await dialled(
            dialer, TARGET=target, PSK_FILE=other, ECHO_BYTES="0", TIMEOUT_SECONDS="15"
        )
        let_in = await dialled(dialer, TARGET=target, PSK_FILE=key, ECHO_BYTES="0")
    assert kept_out["error"] is not None
    assert kept_out["exit_code"] == 1
    assert not kept_out.get("agent")
    assert let_in["error"] is None, let_in.get("log")


def write_key(folder: Path) -> str:
    key = PreSharedKey(secrets.token_bytes(32))
    path = folder / f"{key.fingerprint()}.key"
    path.write_text(key.encode())
    return str(path)


def check(result: Line, there: Serving, transport: str) -> None:
    assert result["error"] is None, result.get("log")
    assert result["exit_code"] == 0
    assert result["remote_peer_id"] == there.peer_id
    assert (result["echo_bytes"], result["echo_ok"]) == (ECHO_BYTES, True)
    assert result["relayed"] is False
    protocols = result["protocols"]
    assert isinstance(protocols, list)
    assert {PING, IDENTIFY} <= set(protocols)
    before, _, after = LISTEN[transport].rpartition("/0")
    observed = str(result["observed"]).split("/p2p/")[0]
    assert observed.startswith(before)
    assert observed.endswith(after)
    assert there.addresses[0].split("/p2p/")[0] in str(result["listen_addrs"])
