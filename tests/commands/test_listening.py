"""What the command listens by and offers, if nobody says. Rules C16 and C17."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from p2pnet import TLS, open_host, presets
from p2pnet.commands import running as commands
from p2pnet.commands.parser import build_parser
from tests.commands.test_commands import LOOPBACK, running


def listening(*arguments: str) -> tuple[str, ...]:
    args = build_parser().parse_args(arguments)
    return tuple(presets.edge(transports=commands.transports(args)).listen)


@pytest.mark.sockets
async def test_a_node_listens_by_tcp_and_by_quic() -> None:
    """C16."""
    async with running("node") as node:
        kinds: set[str] = set()
        with trio.fail_after(30):
            while kinds != {"tcp", "udp"}:
                address = str((await node.wait_event("listening"))["address"])
                kinds.add(address.split("/")[3])


def test_without_quic_installed_and_in_a_private_network_it_is_tcp_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C16: nothing is said of it, and nothing fails."""
    assert "/ip4/0.0.0.0/udp/0/quic-v1" in listening("node")
    assert listening("node", "--psk", "swarm.key") == presets.ANYWHERE
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert listening("node") == presets.ANYWHERE


@pytest.mark.sockets
async def test_a_peer_that_knows_nothing_but_tls_is_answered() -> None:
    """C17."""
    only_tls = replace(presets.minimal(), security=[TLS()])
    async with running("node", "--listen", LOOPBACK) as node, open_host(only_tls) as host:
        address = str((await node.wait_event("listening"))["address"])
        with trio.fail_after(30):
            assert (await host.connect(address)).security == "/tls/1.0.0"
