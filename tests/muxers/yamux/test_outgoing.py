"""The buffer of frames that wait to be sent."""

from __future__ import annotations

from p2pnet.muxers.yamux.messages import PING, SYN, encode
from p2pnet.muxers.yamux.outgoing import Outgoing


def test_only_what_waits_now_counts_against_the_limits() -> None:
    outgoing = Outgoing(max_unsent=100, max_control=24)
    for _ in range(5):
        outgoing.control(PING, SYN, 0, 1)
        outgoing.control(PING, SYN, 0, 2)
        assert not outgoing.is_overflowing
        outgoing.data(1, bytes(100), 10, 90)
        assert outgoing.is_full
        outgoing.take()
        assert outgoing.is_empty
        assert not outgoing.is_full
        assert not outgoing.is_urgent
    for _ in range(3):
        outgoing.control(PING, SYN, 0, 1, urgent=False)
    assert outgoing.is_overflowing


def test_some_control_frames_wait_for_company_and_data_does_not() -> None:
    outgoing = Outgoing(max_unsent=100, max_control=24)
    outgoing.control(PING, SYN, 0, 1, urgent=False)
    assert not outgoing.is_urgent
    outgoing.data(1, b"abcdef", 1, 3)
    assert outgoing.is_urgent
    assert outgoing.take() == encode(PING, SYN, 0, 1) + encode(0, 0, 1, 2) + b"bc"
