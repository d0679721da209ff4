"""Rules Q21 Q22 Q23: what can be set, and what is missing is named."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from p2pnet.core.env import Env
from p2pnet.errors import ExtraMissing
from p2pnet.interfaces import Role
from p2pnet.testing.conformance.identities import kit_of
from p2pnet.testing.world import World
from p2pnet.transports.quic import QUIC
from p2pnet.transports.quic.packets import Secrets
from tests.transports.quic.quic_scene import Peer, meeting, send_and_end


@pytest.mark.parametrize(
    ("part", "package", "extra"),
    [
        (QUIC(), "aioquic", r"p2pnet\[quic\]"),
        (QUIC(core="qh3"), "qh3", r"p2pnet\[quic-fast\]"),
    ],
)
def test_a_missing_library_is_an_error_that_names_the_extra(
    part: QUIC, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"p2pnet.transports.quic.{package}_core", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraMissing, match=extra):
        part.build(kit_of(Role.DIALER, Env.system()))


def test_a_host_with_a_secret_of_its_network_has_no_quic() -> None:
    """Q21."""
    kit = replace(kit_of(Role.DIALER, Env.system()), is_private=True)
    with pytest.raises(ValueError, match="pre-shared key"):
        QUIC().build(kit)


def test_secrets_are_not_shown() -> None:
    assert repr(Secrets(b"secret")) == "Secrets(...)"


@pytest.mark.parametrize("most", [1232, 1400, 1452])
async def test_no_datagram_is_larger_and_no_more_waits_than_is_said(
    most: int, world: World
) -> None:
    """Q22, Q23, Q26."""
    part = QUIC(max_unsent_bytes=100_000, max_datagram_bytes=most)
    here, there = world.machine(), world.machine()
    one, two = Peer(here.env, part), Peer(there.env, part)
    async with meeting(one, two, there.addresses[0]) as made:
        dialled, accepted = await made.connect()
        stream = await dialled.open()
        waiting = []

        async def read() -> None:
            theirs = await accepted.next_stream()
            while await theirs.receive_some():
                waiting.append(dialled.capable._core.unsent)  # type: ignore[attr-defined]

        made.nursery.start_soon(read)
        await send_and_end(stream, bytes(500_000))
    assert 0 < max(waiting) <= 100_000
    sizes = [int(line.rpartition("len=")[2].split()[0]) for line in world.trace.lines(5000)]
    assert max(sizes) == most
