"""``--psk FILE``: the commands within a private network."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pnet.security.pnet import PreSharedKey
from tests.commands.test_commands import LOOPBACK, ask, events, run, running

pytestmark = pytest.mark.sockets


async def test_in_a_private_network_only_who_has_the_key_is_answered(tmp_path: Path) -> None:
    """PN4, C4."""
    key, other = tmp_path / "swarm.key", tmp_path / "other.key"
    key.write_text(PreSharedKey(bytes(range(32))).encode())
    other.write_text(PreSharedKey(bytes(32)).encode())
    async with running("node", "--listen", LOOPBACK, "--psk", str(key)) as node:
        address = str((await node.wait_event("listening"))["address"])
        pinged = await ask("ping", address, "--count", "1", "--psk", str(key), "--json")
        assert [event["event"] for event in events(pinged)] == ["ping"]
        wrong = await ask("ping", address, "--psk", str(other), "--json")
        assert wrong.returncode == 1
        assert "pre-shared key" in str(events(wrong)[0]["causes"])
        assert (await ask("ping", address, "--json")).returncode == 1


def test_a_key_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """C4."""
    bad = tmp_path / "bad"
    bad.write_text("nonsense")
    for path, words in ((bad, b"holds no pre-shared key"), (tmp_path / "none", b"cannot read")):
        done = run("node", "--psk", str(path))
        assert done.returncode == 1
        assert words in done.stderr


def test_quic_is_refused_with_the_reason(tmp_path: Path) -> None:
    """C16 Q21."""
    key = tmp_path / "swarm.key"
    key.write_text(PreSharedKey(bytes(range(32))).encode())
    done = run("node", "--psk", str(key), "--listen", "/ip4/127.0.0.1/udp/0/quic-v1")
    assert done.returncode == 1
    assert b"QUIC cannot keep to a pre-shared key" in done.stderr
