"""Rules Q22 Q25: what a connection keeps to be sent, and whom it asks for more."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.aioquic_pacer import BURST as AIOQUIC_BURST
from p2pnet.transports.quic.backlog import SHARE, is_worth_waking, room
from p2pnet.transports.quic.core import Core, StreamData
from p2pnet.transports.quic.qh3_connection import BURST as QH3_BURST
from p2pnet.transports.quic.qh3_core import Qh3
from tests.transports.quic.test_aioquic_core import CLIENT, SERVER, exchange, pair, settings

MOST = 100_000
both_libraries = pytest.mark.parametrize("library", [Aioquic, Qh3])


def with_three_streams(library: type[Aioquic | Qh3]) -> tuple[Core, int, int, int]:
    wide = replace(settings(), stream_window=MOST, max_stream_window=MOST)
    dialled, _ = pair(library(wide), library(wide))
    first, second, third = (dialled.open_stream() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    return dialled, first, second, third


@both_libraries
def test_who_keeps_much_leaves_each_other_stream_its_share(library: type[Aioquic | Qh3]) -> None:
    core, greedy, other, _ = with_three_streams(library)
    core.write(greedy, os.urandom(90_000))
    assert room(core, other, MOST) == SHARE
    assert room(core, greedy, MOST) == min(10_000, core.room(greedy))
    core.write(other, bytes(SHARE - 1))
    assert room(core, other, MOST) == 1


@both_libraries
def test_a_stream_is_woken_for_half_of_what_it_may_keep(library: type[Aioquic | Qh3]) -> None:
    core, greedy, other, third = with_three_streams(library)
    core.write(greedy, bytes(MOST // 2))
    assert is_worth_waking(core, greedy, MOST)
    core.write(third, b"x")
    assert not is_worth_waking(core, greedy, MOST)
    core.write(other, bytes(SHARE // 2))
    assert is_worth_waking(core, other, MOST)
    core.write(other, b"x")
    assert not is_worth_waking(core, other, MOST)
    assert room(core, other, MOST) > 0


def test_a_stream_that_the_remote_grants_nothing_is_not_woken() -> None:
    core, stream, _, _ = with_three_streams(Aioquic)
    core.write(stream, bytes(MOST))
    core.transmit(1.0)
    assert core.room(stream) == 0
    assert not is_worth_waking(core, stream, 1_000_000)


@pytest.mark.parametrize(("library", "burst"), [(Aioquic, AIOQUIC_BURST), (Qh3, QH3_BURST)])
def test_much_is_sent_in_bursts(library: type[Aioquic | Qh3], burst: int) -> None:
    """The other end is at work on the first while the next is made."""
    wide = replace(settings(), max_stream_window=2**23, max_connection_window=2**25)
    dialled, accepted = pair(library(wide), library(wide))
    stream = dialled.open_stream()
    assert stream is not None
    sizes: list[int] = []
    for tick in range(50):  # So much is acknowledged that far more may be on its way.
        now = 1 + tick / 100
        dialled.write(stream, bytes(1_000_000))
        dialled.receive([data for data, _ in accepted.transmit(now)], SERVER, now)
        while going := dialled.transmit(now):
            assert dialled.has_more is (len(going) >= burst)
            sizes.append(len(going))
            accepted.receive([data for data, _ in going], CLIENT, now)
            exchange(accepted, dialled, now)
            for core in (dialled, accepted):
                while (event := core.next_event()) is not None:
                    if isinstance(event, StreamData):
                        core.consume(event.stream, len(event.data), now)
    assert max(sizes) == burst
