"""The yamux session: specs/yamux.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import ConnectionLost, LimitExceeded, ProtocolError
from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.machine import (
    Acknowledged,
    Event,
    GoneAway,
    Writable,
)
from p2pnet.muxers.yamux.messages import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW,
    PING,
    RESOURCE_LIMIT,
    RST,
    SYN,
    WINDOW_UPDATE,
    Header,
    encode,
)
from tests.muxers.yamux.ends import End, data, headers, listener, session_pair, transfer, update

MIB = 1_048_576


# ---- opening -----------------------------------------------------------------------------


def test_y17_syn_and_the_first_data_leave_together_and_nothing_is_sent_before() -> None:
    end = End(is_dialer=True)
    stream = end.open()
    assert not end.session.wants_flush
    assert stream.write(b"hello", 0) == 5
    assert end.session.wants_flush
    assert end.session.data_to_send() == update(1, SYN) + data(1, b"hello")


def test_y17_the_acknowledgement_waits_for_company() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"hello"))
    assert not end.session.wants_flush
    end.streams[1].write(b"hi", 0)
    assert end.session.data_to_send() == update(1, ACK) + data(1, b"hi")


def test_many_acknowledgements_are_company_enough() -> None:
    end = listener()
    for number in range(100):
        end.receive(update(2 * number + 1, SYN))
    assert end.session.wants_flush


def test_y4_dialers_open_odd_streams_and_listeners_even_ones() -> None:
    dialer, other = session_pair()
    assert [dialer.open().id, dialer.open().id] == [1, 3]
    assert [other.open().id, other.open().id] == [2, 4]


@pytest.mark.parametrize("frame", [update(2, SYN), data(2, b"x", SYN)])
def test_y4_the_remote_must_not_open_streams_with_our_ids(frame: bytes) -> None:
    end = listener()
    with pytest.raises(ProtocolError, match="may not open stream 2"):
        end.receive(frame)
    assert end.sent() == [Header(GO_AWAY, 0, 0, 1)]


def test_y4_a_stream_that_is_open_is_not_opened_again() -> None:
    end = listener()
    end.receive(update(1, SYN))
    with pytest.raises(ProtocolError, match="open already"):
        end.receive(update(1, SYN))


def test_y4_a_stream_that_was_closed_only_here_is_not_opened_again() -> None:
    end = listener()
    end.receive(update(1, SYN))
    end.session.close(end.streams[1])
    with pytest.raises(ProtocolError, match="open already"):
        end.receive(update(1, SYN))


def test_y4_ids_may_come_in_any_order() -> None:
    end = listener()
    end.receive(update(7, SYN) + update(3, SYN))
    assert list(end.streams) == [7, 3]


def test_y5_a_stream_too_many_is_reset_and_drained_and_the_others_live() -> None:
    end = listener(Yamux(max_streams=2))
    end.receive(update(1, SYN) + update(3, SYN) + data(5, b"what", SYN) + data(5, b"more"))
    end.receive(data(3, b"fine"))
    assert list(end.streams) == [1, 3]
    assert end.sent()[-1] == Header(WINDOW_UPDATE, RST, 5, RESOURCE_LIMIT)
    assert end.streams[3].read(None) == b"fine"


def test_y5_a_stream_that_was_reset_counts_until_its_owner_has_noticed() -> None:
    """Otherwise SYN and RST by turns would start handlers without end."""
    end = listener(Yamux(max_streams=1))
    end.receive(update(1, SYN) + update(1, RST))
    end.receive(update(3, SYN))
    assert list(end.streams) == [1]
    end.session.close(end.streams[1])
    end.receive(update(5, SYN))
    assert list(end.streams) == [1, 5]


def test_y17_the_opener_waits_while_too_many_are_unacknowledged() -> None:
    dialer, other = session_pair(Yamux(max_unacknowledged=2))
    dialer.open()
    dialer.open()
    assert not dialer.session.may_open
    transfer(dialer, other)
    transfer(other, dialer)
    assert dialer.events == [Acknowledged(), Acknowledged()]
    assert dialer.session.may_open


@pytest.mark.parametrize("frame", [data(1, b"x"), update(1, FIN), update(1, RST), update(1, 0, 9)])
def test_y17_whatever_the_remote_says_about_a_stream_acknowledges_it(frame: bytes) -> None:
    end = End(is_dialer=True, config=Yamux(max_unacknowledged=1))
    end.open()
    end.receive(frame)
    assert end.session.may_open


def test_y17_a_stream_reset_here_needs_no_acknowledgement_but_a_closed_one_does() -> None:
    end = End(is_dialer=True, config=Yamux(max_unacknowledged=1))
    end.session.reset(end.open(), 0)
    assert end.session.may_open
    end.session.close(end.open())
    assert not end.session.may_open
    end.receive(update(3, ACK))
    assert end.session.may_open


def test_y17_both_sides_streams_count_against_the_limit_for_opening() -> None:
    end = End(is_dialer=True, config=Yamux(max_outbound_streams=3))
    end.receive(update(2, SYN))
    end.open()
    end.open()
    with pytest.raises(LimitExceeded, match="max_outbound_streams = 3"):
        end.open()


def test_y16_streams_closed_here_give_way_to_a_new_one() -> None:
    end = End(is_dialer=True, config=Yamux(max_outbound_streams=2))
    first = end.open()
    end.open()
    end.session.close(first)
    end.sent()
    assert end.open().id == 5
    assert end.sent() == [Header(WINDOW_UPDATE, RST, 1, 0), Header(WINDOW_UPDATE, SYN, 5, 0)]


def test_ids_run_out_with_an_error() -> None:
    end = End(is_dialer=True)
    end.session._next_id = 2**32 - 1
    assert end.open().id == 2**32 - 1
    with pytest.raises(LimitExceeded, match="streams of one connection"):
        end.open()


# ---- data and credit ---------------------------------------------------------------------


def test_y8_no_more_is_sent_than_the_remote_gave_credit_for() -> None:
    end = End(is_dialer=True)
    stream = end.open()
    assert stream.write(bytes(MIB), 0) == INITIAL_WINDOW
    assert not stream.has_credit
    assert stream.write(b"x", 0) == 0
    assert end.receive(update(1, ACK, 5))[-1] == Writable(stream)
    assert stream.write(bytes(10), 0) == 5


def test_frames_are_cut_at_the_maximum() -> None:
    end = End(is_dialer=True, config=Yamux(max_frame=1000))
    end.open().write(bytes(2500), 0)
    assert [header.length for header in end.sent()] == [0, 1000, 1000, 500]


def test_writers_stop_when_the_buffer_is_full_and_go_on_when_it_was_taken() -> None:
    end = End(is_dialer=True, config=Yamux(max_unsent=1000, max_frame=400))
    stream = end.open()
    sent = stream.write(bytes(5000), 0)
    assert sent == 1200
    assert not stream.has_room
    assert stream.write(bytes(5000), sent) == sent
    other = end.open()
    assert other.write(bytes(5000), 0) == 400
    assert end.session.may_open
    assert end.open().write(bytes(5000), 0) == 400
    assert not end.session.has_room
    assert not end.session.may_open
    assert len(end.session.data_to_send()) < 2 * 1000 + 400
    assert stream.write(bytes(5000), sent) == sent + 1200


def test_y8_data_beyond_the_credit_is_a_protocol_error() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, bytes(INITIAL_WINDOW)))
    with pytest.raises(ProtocolError, match="on a credit of 0"):
        end.receive(data(1, b"x"))
    assert end.sent()[-1] == Header(GO_AWAY, 0, 0, 1)


def test_y8_credit_is_judged_by_the_header_before_the_payload_comes() -> None:
    end = listener()
    with pytest.raises(ProtocolError):
        end.receive(update(1, SYN) + encode(DATA, 0, 1, INITIAL_WINDOW + 1))


def test_y8_credit_beyond_32_bits_is_a_protocol_error() -> None:
    end = End(is_dialer=True)
    end.open()
    with pytest.raises(ProtocolError, match="32 bits"):
        end.receive(update(1, ACK, 2**32 - 1))


def test_y8_syn_and_ack_may_bring_credit() -> None:
    end = listener()
    end.receive(update(1, SYN, 100))
    assert end.streams[1].write(bytes(MIB), 0) == INITIAL_WINDOW + 100


def test_y9_credit_is_given_back_when_the_application_reads_not_before() -> None:
    dialer, other = session_pair()
    stream = dialer.open()
    stream.write(bytes(INITIAL_WINDOW), 0)
    transfer(dialer, other)
    other.sent()
    arrived = other.streams[1]
    left = INITIAL_WINDOW // 2 - 1
    while left:
        left -= len(arrived.read(left) or b"")
        assert not arrived.owes_credit
    assert arrived.read(1) == b"\0"
    assert arrived.owes_credit
    arrived.grant_credit(0.0)
    assert other.sent() == [
        Header(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW // 2),
        Header(PING, SYN, 0, 1),
    ]


def test_y9_no_credit_is_given_for_a_half_that_has_ended() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, bytes(INITIAL_WINDOW), FIN))
    end.sent()
    assert end.streams[1].read(None) == bytes(INITIAL_WINDOW)
    end.streams[1].grant_credit(0.0)
    assert end.sent() == []


def test_y10_a_fast_reader_is_given_a_larger_window() -> None:
    dialer, other = session_pair()
    stream = dialer.open()
    now = 0.0
    for _ in range(9):
        stream.write(bytes(16 * MIB), 0)
        while transfer(dialer, other, now=now):
            stream.write(bytes(16 * MIB), 0)
        arrived = other.streams[1]
        while arrived.read(None):
            if arrived.owes_credit:
                arrived.grant_credit(now)
        now += 0.1
        transfer(other, dialer, now=now)
        transfer(dialer, other, now=now)
    assert other.streams[1].window.size == 64 * MIB


def test_data_is_read_in_order_whatever_the_pieces() -> None:
    end = listener()
    end.receive(update(1, SYN) + b"".join(data(1, bytes([n]) * n) for n in range(1, 100)))
    stream = end.streams[1]
    expected = b"".join(bytes([n]) * n for n in range(1, 100))
    got = b"".join(iter(lambda: stream.read(7) or b"", b""))
    assert got == expected
    assert stream.read(None) is None


def test_a_reader_without_limit_is_given_what_is_there_at_once() -> None:
    end = listener()
    end.receive(update(1, SYN) + b"".join(data(1, bytes(60_000)) for _ in range(4)))
    stream = end.streams[1]
    assert len(stream.read(1000) or b"") == 1000
    assert len(stream.read(None) or b"") == 239_000


@given(st.lists(st.integers(1, 900), min_size=1, max_size=30), st.integers(1, 2000))
def test_a_reader_is_never_given_more_than_it_asks_for(sizes: list[int], most: int) -> None:
    end = listener()
    end.receive(update(1, SYN) + b"".join(data(1, bytes(size)) for size in sizes))
    got = []
    while chunk := end.streams[1].read(most):
        got.append(len(chunk))
    assert max(got) <= most
    assert sum(got) == sum(sizes)


def test_tiny_frames_do_not_cost_more_memory_than_their_bytes() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b"x") * 100_000)
    assert len(end.streams[1]._inbox) < 100_000 / 4096


def test_an_empty_data_frame_is_nothing() -> None:
    end = listener()
    end.receive(update(1, SYN) + data(1, b""))
    assert end.streams[1].read(None) is None


# ---- the whole session -------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 0x1006, 2**32 - 1])
def test_y15_a_remote_may_go_away_with_any_code(code: int) -> None:
    end = listener()
    end.receive(update(1, SYN))
    events = end.receive(encode(GO_AWAY, 0, 0, code) + b"whatever")
    assert events == [GoneAway(code)]
    with pytest.raises(ConnectionLost):
        end.streams[1].read(None)


def test_y15_after_our_goodbye_nothing_is_taken_in() -> None:
    end = listener()
    end.session.go_away(0, reason="closed")
    end.session.go_away(1, reason="closed twice")
    assert end.sent() == [Header(GO_AWAY, 0, 0, 0)]
    assert end.receive(data(1, b"x", SYN) + encode(PING, SYN, 0, 1) + update(2, SYN)) == []
    assert end.sent() == []


def test_y19_the_goodbye_of_the_remote_is_heard_after_ours() -> None:
    end = listener()
    partial = data(1, b"half and half", SYN)
    end.receive(partial[:18])
    end.session.go_away(0, reason="closed")
    assert end.receive(partial[18:] + data(1, b"more") + encode(GO_AWAY, 0, 0, 0)) == [GoneAway(0)]
    assert end.streams[1].read(None) == b"half a"
    assert end.receive(b"garbage" * 9) == []


def test_after_a_broken_rule_nothing_is_understood() -> None:
    end = listener()
    with pytest.raises(ProtocolError):
        end.receive(b"garbage" * 9)
    assert end.receive(b"garbage" * 9) == []


def test_data_written_before_the_goodbye_goes_before_it() -> None:
    end = End(is_dialer=True)
    stream = end.open()
    stream.write(b"last", 0)
    stream.finish()
    end.session.go_away(0, reason="closed")
    assert [header.kind for header in end.sent()] == [WINDOW_UPDATE, DATA, WINDOW_UPDATE, GO_AWAY]


def test_a_hang_up_loses_nothing_only_between_frames_and_with_all_streams_done() -> None:
    end = listener()
    assert end.session.may_be_cut
    end.receive(update(1, SYN))
    assert not end.session.may_be_cut
    end.receive(update(1, FIN))
    assert not end.session.may_be_cut
    end.streams[1].finish()
    assert end.session.may_be_cut
    end.receive(b"\0")
    assert not end.session.may_be_cut


def test_y14_a_remote_that_causes_answers_without_reading_any_is_dropped() -> None:
    end = listener(Yamux(max_streams=1, max_control=1024))
    end.receive(update(1, SYN))
    with pytest.raises(ProtocolError, match="does not read"):
        end.receive(b"".join(update(2 * n + 3, SYN) for n in range(100)))


@pytest.mark.parametrize(
    "frame", [b"\1" + bytes(11), encode(4, 0, 0, 0), encode(DATA, 0, 0, 0), update(0, SYN)]
)
def test_y2_y3_bad_headers_end_the_session_with_a_goodbye(frame: bytes) -> None:
    end = listener()
    with pytest.raises(ProtocolError):
        end.receive(frame)
    assert end.sent() == [Header(GO_AWAY, 0, 0, 1)]


def test_y2_unknown_flags_mean_nothing() -> None:
    end = listener()
    end.receive(update(1, SYN | 0xFF00))
    assert list(end.streams) == [1]


def test_payload_that_comes_by_itself_is_handed_on_uncopied() -> None:
    end = listener()
    end.receive(update(1, SYN) + encode(DATA, 0, 1, 100_000))
    chunk = bytes(100_000)
    end.receive(chunk)
    assert end.streams[1].read(None) is chunk


@pytest.mark.parametrize(("payload", "is_kept"), [(40_000, False), (60_000, True)])
def test_a_chunk_is_kept_only_for_half_of_it_at_least(payload: int, is_kept: bool) -> None:
    end = listener()
    end.receive(update(1, SYN) + update(3, SYN))
    half = b"a" * payload
    chunk = bytearray(encode(DATA, 0, 1, payload) + half + encode(DATA, 0, 3, 100_000))
    chunk += bytes(100_000 - len(chunk))
    end.receive(chunk)
    end.session.reset(end.streams[3], 0)
    try:
        chunk.append(0)  # Impossible while there is a view of it.
    except BufferError:
        assert is_kept
    else:
        assert not is_kept
    assert end.streams[1].read(None) == half


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=8), st.data())
def test_any_chunking_gives_the_same_streams(payloads: list[bytes], draw: st.DataObject) -> None:
    whole = update(1, SYN) + b"".join(data(1, payload) for payload in payloads) + update(1, FIN)
    end = listener()
    rest = whole
    while rest:
        cut = draw.draw(st.integers(1, max(1, min(len(rest), 1500))))
        end.receive(rest[:cut])
        rest = rest[cut:]
    stream = end.streams[1]
    got = b"".join(iter(lambda: stream.read(None) or b"", b""))
    assert got == b"".join(payloads)
    assert stream.read(None) == b""
    assert end.session.frames == len(payloads) + 2


FRAMES = st.builds(
    lambda kind, flags, stream_id, length, payload: (
        encode(kind, flags, stream_id, len(payload) if kind == DATA else length)
        + (payload if kind == DATA else b"")
    ),
    st.sampled_from([DATA, DATA, WINDOW_UPDATE, PING, GO_AWAY]),
    st.integers(0, 15),
    st.integers(0, 6),
    st.integers(0, 2**32 - 1) | st.integers(0, 100),
    st.binary(max_size=50),
)


@given(st.lists(st.one_of(FRAMES, FRAMES, FRAMES, st.binary(max_size=20)), max_size=30))
def test_whatever_comes_only_a_protocol_error_is_raised(chunks: list[bytes]) -> None:
    end = listener(Yamux(max_streams=2))
    opened: list[Event] = []
    end.open()
    for chunk in chunks:
        try:
            opened += end.receive(chunk)
        except ProtocolError:
            assert headers(end.session.data_to_send())[-1] == Header(GO_AWAY, 0, 0, 1)
            break
    for stream in end.streams.values():
        end.session.close(stream)
    for stream in end.streams.values():
        end.session.reset(stream, 0)
