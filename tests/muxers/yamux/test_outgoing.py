"""The buffer of frames that wait to be sent."""

from __future__ import annotations

from p2pnet.muxers.yamux.messages import DATA, FIN, GO_AWAY, PING, SYN, WINDOW_UPDATE, encode
from p2pnet.muxers.yamux.outgoing import Outgoing


def test_only_what_waits_now_counts_against_the_limits() -> None:
    outgoing = Outgoing(max_unsent=100, max_control=24)
    for _ in range(5):
        outgoing.control(PING, SYN, 0, 1)
        outgoing.control(PING, SYN, 0, 2)
        assert not outgoing.is_overflowing
        outgoing.data(1, bytes(100), 10, 90)
        assert not outgoing.has_room_for(1)
        assert outgoing.has_room_for(3)
        outgoing.take()
        assert outgoing.is_empty
        assert outgoing.has_room_for(1)
        assert len(outgoing) == 0
        assert not outgoing.is_urgent
    for _ in range(3):
        outgoing.control(PING, SYN, 0, 1, urgent=False)
    assert outgoing.is_overflowing


def test_streams_take_turns_behind_control_frames_and_before_a_goodbye() -> None:
    """Y20: a stream's FIN stays behind its data, and its credit overtakes it."""
    outgoing = Outgoing(max_unsent=100_000, max_control=1000)
    outgoing.turn = 20
    for letter in (b"a", b"b", b"c"):
        outgoing.data(1, letter * 8, 0, 8)
    outgoing.control(WINDOW_UPDATE, FIN, 1, 0)
    outgoing.control(GO_AWAY, 0, 0, 0)
    outgoing.data(3, b"small", 0, 5)
    outgoing.control(WINDOW_UPDATE, 0, 1, 7)
    a, b, c = (encode(DATA, 0, 1, 8) + letter * 8 for letter in (b"a", b"b", b"c"))
    small = encode(DATA, 0, 3, 5) + b"small"
    assert outgoing.take(13) == encode(WINDOW_UPDATE, 0, 1, 7) + a
    assert outgoing.take(13) == small
    rest = encode(WINDOW_UPDATE, FIN, 1, 0) + encode(GO_AWAY, 0, 0, 0)
    assert outgoing.take() == b + c + rest
    assert outgoing.is_empty
    assert not outgoing.is_overflowing


def test_each_stream_has_a_little_room_while_there_is_any() -> None:
    """Y21."""
    outgoing = Outgoing(max_unsent=1600, max_control=1000)
    outgoing.data(1, bytes(1600), 0, 1600)
    assert not outgoing.has_room_for(1)
    for stream_id in range(3, 33, 2):
        assert outgoing.has_room_for(stream_id)
        outgoing.data(stream_id, bytes(100), 0, 100)
        assert not outgoing.has_room_for(stream_id)
    assert not outgoing.has_room
    assert not outgoing.has_room_for(99)


def test_some_control_frames_wait_for_company_and_data_does_not() -> None:
    outgoing = Outgoing(max_unsent=100, max_control=24)
    outgoing.control(PING, SYN, 0, 1, urgent=False)
    assert not outgoing.is_urgent
    outgoing.data(1, b"abcdef", 1, 3)
    assert outgoing.is_urgent
    assert outgoing.take() == encode(PING, SYN, 0, 1) + encode(0, 0, 1, 2) + b"bc"
