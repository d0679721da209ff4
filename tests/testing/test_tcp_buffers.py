"""The buffers of the simulated internet's TCP, compared with plain bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.testing.tcp_buffers import FIRST_BYTE, ReceiveBuffer, SendBuffer

TEXT = bytes(range(60))


@given(
    st.integers(1, 80),
    st.lists(
        st.one_of(
            st.tuples(st.integers(-5, 70), st.integers(0, 30)),  # a segment: start and length
            st.integers(0, 20),  # a read
        ),
        max_size=60,
    ),
)
def test_any_segments_in_any_order_give_the_text_once(
    limit: int, events: list[tuple[int, int] | int]
) -> None:
    buffer = ReceiveBuffer(limit)
    there = [False] * len(TEXT)
    read = b""
    for event in events:
        if isinstance(event, int):
            room = min(event, buffer.readable)
            data = buffer.read(event)
            assert len(data) == room
            read += data
        else:
            start, length = max(event[0], 0), event[1]
            end = max(min(event[0] + length, len(TEXT)), start)
            edge = len(read) + limit
            buffer.insert(start + FIRST_BYTE, TEXT[start:end])
            for index in range(start, min(end, edge)):
                there[index] = True
        known = [*there, False].index(False)
        assert buffer.next == known + FIRST_BYTE
        assert buffer.readable == known - len(read)
        assert buffer.edge == len(read) + limit + FIRST_BYTE
    assert read + buffer.read(100) == TEXT[: buffer.next - FIRST_BYTE]


def test_what_follows_the_fin_is_left_out() -> None:
    buffer = ReceiveBuffer(100)
    buffer.insert(3, b"c", fin=True)
    buffer.insert(2, b"bcdef")
    buffer.insert(5, b"more", fin=True)
    assert not buffer.finished
    buffer.insert(1, b"a")
    assert buffer.finished
    assert buffer.next == 5
    buffer.insert(5, b"x", fin=True)
    assert buffer.next == 5
    assert buffer.read(100) == b"abc"


def test_fin_before_bytes_that_have_arrived_is_not_believed() -> None:
    buffer = ReceiveBuffer(100)
    buffer.insert(1, b"abc")
    buffer.insert(1, b"a", fin=True)
    assert not buffer.finished
    buffer.insert(4, b"d", fin=True)
    assert buffer.finished
    assert buffer.read(100) == b"abcd"


def test_fin_without_room_has_to_come_again() -> None:
    buffer = ReceiveBuffer(3)
    buffer.insert(1, b"abc", fin=True)
    assert not buffer.finished
    assert buffer.read(1) == b"a"
    buffer.insert(4, b"", fin=True)
    assert buffer.finished


def test_reading_nothing_takes_nothing() -> None:
    buffer = ReceiveBuffer(10)
    buffer.insert(1, b"abc")
    assert buffer.read(0) == buffer.read(-1) == b""
    assert buffer.readable == 3
    buffer.clear()
    assert buffer.read(10) == b""


@given(
    st.integers(1, 40), st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 20)), max_size=60)
)
def test_bytes_written_can_be_copied_until_they_are_released(
    limit: int, events: list[bytes | int]
) -> None:
    buffer = SendBuffer(limit)
    written, released = b"", 0
    for event in events:
        if isinstance(event, int):
            buffer.release(released + event + FIRST_BYTE)
            released = min(released + event, len(written))
        else:
            taken = buffer.append(event)
            assert taken == min(len(event), limit - (len(written) - released))
            written += event[:taken]
        assert buffer.end == len(written) + FIRST_BYTE
        assert buffer.room == limit - (len(written) - released)
        assert buffer.copy(released + FIRST_BYTE, 100) == written[released:]
        assert buffer.copy(released + FIRST_BYTE + 2, 5) == written[released + 2 :][:5]
    buffer.clear()
    assert buffer.room == limit
