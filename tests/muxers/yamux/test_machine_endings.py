"""How streams of a yamux session end: specs/yamux.md."""

from __future__ import annotations

import pytest

from p2pnet.errors import ConnectionLost, PeerLeft, ProtocolError, StreamReset
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.machine import (
    MAX_LINGERING,
    Opened,
    Readable,
    Writable,
)
from p2pnet.muxers.yamux.messages import (
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    RST,
    SYN,
    WINDOW_UPDATE,
    Header,
    encode,
)
from tests.muxers.yamux.ends import data, listener, session_pair, update

MIB = 1_048_576


# ---- ending streams ----------------------------------------------------------------------


def test_fin_after_payload_on_one_frame_ends_the_half_behind_the_payload() -> None:
    end = listener()
    events = end.receive(data(1, b"all", SYN | FIN))
    stream = end.streams[1]
    assert events == [Opened(stream), Readable(stream)]
    assert [stream.read(None), stream.read(None), stream.read(None)] == [b"all", b"", b""]


@pytest.mark.parametrize("frame", [update(1, FIN), data(1, b"", FIN)])
def test_fin_comes_on_any_frame(frame: bytes) -> None:
    end = listener()
    end.receive(update(1, SYN) + frame)
    assert end.streams[1].read(None) == b""


def test_finishing_one_half_leaves_the_other() -> None:
    dialer, other = session_pair()
    stream = dialer.open()
    stream.finish()
    stream.finish()
    assert dialer.sent() == [Header(WINDOW_UPDATE, SYN, 1, 0), Header(WINDOW_UPDATE, FIN, 1, 0)]
    dialer.receive(data(1, b"answer"))
    assert stream.read(None) == b"answer"
    assert other.sent() == []


def test_y7_data_after_fin_is_a_protocol_error() -> None:
    end = listener()
    with pytest.raises(ProtocolError, match="after FIN"):
        end.receive(update(1, SYN | FIN) + data(1, b"x"))


@pytest.mark.parametrize(
    ("frame", "code"), [(update(1, RST, 0x1003), "0x1003"), (data(1, b"", RST), "0x0")]
)
def test_y6_a_reset_carries_a_code_and_no_credit(frame: bytes, code: str) -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"void"))
    stream = end.streams[1]
    events = end.receive(frame)
    assert events == [Readable(stream), Writable(stream)]
    with pytest.raises(StreamReset, match=code):
        stream.read(None)
    with pytest.raises(StreamReset, match=code):
        stream.write(b"x", 0)
    with pytest.raises(StreamReset, match=code):
        stream.finish()


def test_y6_the_payload_of_a_reset_is_drained() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"payload", RST) + update(3, SYN))
    assert list(end.streams) == [1, 3]


def test_y18_a_reset_behind_fin_takes_nothing_back() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"all", FIN) + update(1, RST))
    stream = end.streams[1]
    assert [stream.read(None), stream.read(None)] == [b"all", b""]
    with pytest.raises(StreamReset):
        stream.write(b"x", 0)


def test_y18_what_came_before_the_connection_was_lost_can_be_read() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"some"))
    end.session.lose("the cable broke")
    stream = end.streams[1]
    assert stream.read(None) == b"some"
    with pytest.raises(ConnectionLost, match="the cable broke"):
        stream.read(None)
    with pytest.raises(ConnectionLost, match="the cable broke"):
        end.open()


@pytest.mark.parametrize(
    ("code", "kind"), [(0, PeerLeft), (1, ConnectionLost), (2, ConnectionLost)]
)
def test_y15_streams_tell_who_left_in_good_order_from_a_loss(
    code: int, kind: type[ConnectionLost]
) -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"last") + encode(GO_AWAY, 0, 0, code))
    stream = end.streams[1]
    assert stream.read(None) == b"last"
    for use in (lambda: stream.read(None), lambda: stream.write(b"x", 0), end.open):
        with pytest.raises(ConnectionLost, match=f"code {code:#x}") as caught:
            use()
        assert caught.type is kind


def test_y7_frames_for_unknown_streams_are_drained() -> None:
    end = listener()
    assert end.receive(data(9, b"late") + update(9, 0, 5) + update(9, FIN) + update(9, RST)) == []
    assert end.sent() == []


def test_y7_frames_for_streams_reset_here_are_drained() -> None:
    end = listener()
    end.receive(update(1, SYN))
    end.session.reset(end.streams[1], 7)
    end.session.reset(end.streams[1], 7)
    assert end.sent()[1:] == [Header(WINDOW_UPDATE, RST, 1, 7)]
    assert end.receive(data(1, bytes(INITIAL_WINDOW)) + update(1, FIN)) == []
    assert end.sent() == []


def test_y7_more_for_an_unknown_stream_than_any_window_is_a_protocol_error() -> None:
    end = listener(Yamux(max_stream_window=MIB))
    end.receive(data(9, bytes(MIB)))
    with pytest.raises(ProtocolError, match="unknown stream"):
        end.receive(encode(DATA, 0, 9, MIB + 1))


def test_y16_closing_sends_fin_and_whoever_sends_on_is_reset_once() -> None:
    end = listener()
    end.receive(update(1, SYN))
    end.session.close(end.streams[1])
    end.session.close(end.streams[1])
    assert end.sent()[1:] == [Header(WINDOW_UPDATE, FIN, 1, 0)]
    end.receive(update(1, 0, 100) + data(1, b""))
    assert end.sent() == []
    end.receive(data(1, b"more") + data(1, b"and more"))
    assert end.sent() == [Header(WINDOW_UPDATE, RST, 1, 0)]


@pytest.mark.parametrize("frame", [update(1, FIN), data(1, b"last", FIN), update(1, RST)])
def test_y16_a_stream_closed_here_is_forgotten_when_the_remote_is_done(frame: bytes) -> None:
    end = listener()
    end.receive(update(1, SYN))
    end.session.close(end.streams[1])
    end.sent()
    end.receive(frame)
    end.receive(data(1, b"late"))
    assert end.sent() == []


def test_y16_a_stream_closed_within_a_frame_is_forgotten_when_its_fin_came() -> None:
    end = listener()
    frame = data(1, b"half and half", FIN)
    end.receive(update(1, SYN) + frame[:18])
    end.session.close(end.streams[1])
    end.sent()
    end.receive(frame[18:])
    end.receive(data(1, b"late"))
    assert end.sent() == []


def test_y16_a_remote_that_waits_for_credit_is_reset_at_once() -> None:
    """It would wait for ever: what it has sent will not be read."""
    end = listener()
    end.receive(update(1, SYN) + data(1, bytes(INITIAL_WINDOW)))
    end.sent()
    end.session.close(end.streams[1])
    assert end.sent() == [Header(WINDOW_UPDATE, FIN, 1, 0), Header(WINDOW_UPDATE, RST, 1, 0)]


def test_y16_too_many_streams_that_only_we_closed_are_reset_oldest_first() -> None:
    end = listener(Yamux(max_streams=2 * MAX_LINGERING))
    for number in range(MAX_LINGERING + 2):
        end.receive(update(2 * number + 1, SYN))
    for stream in end.streams.values():
        end.session.close(stream)
    resets = [header.stream_id for header in end.sent() if header.flags & RST]
    assert resets == [1, 3]


def test_reset_after_close_ends_the_half_of_the_remote_too() -> None:
    end = listener()
    end.receive(update(1, SYN))
    end.session.close(end.streams[1])
    end.session.reset(end.streams[1], 3)
    assert end.sent()[1:] == [Header(WINDOW_UPDATE, FIN, 1, 0), Header(WINDOW_UPDATE, RST, 1, 3)]


def test_a_stream_both_ends_closed_needs_no_reset() -> None:
    dialer, other = session_pair()
    stream = dialer.open()
    stream.finish()
    dialer.receive(update(1, FIN))
    dialer.sent()
    dialer.session.reset(stream, 3)
    dialer.session.close(stream)
    assert dialer.sent() == []
    assert other.sent() == []


def test_closing_a_stream_gives_back_what_its_window_had_grown_by() -> None:
    end = listener(Yamux(max_connection_window=INITIAL_WINDOW))
    for stream_id in (1, 3):
        end.receive(update(stream_id, SYN))
        stream = end.streams[stream_id]
        end.session._pulse.round_trip = 1.0
        end.receive(data(stream_id, bytes(INITIAL_WINDOW)))
        while stream.read(None):
            pass
        stream.grant_credit(0.0)
        assert stream.window.size == 2 * INITIAL_WINDOW
        end.session.close(stream)
