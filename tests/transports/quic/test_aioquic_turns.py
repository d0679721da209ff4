"""Rule Q25: streams of aioquic take turns, and who has nothing to send isn't asked."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from types import FrameType

from aioquic.quic import connection as library_connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.stream import QuicStream, QuicStreamSender
from aioquic.tls import Epoch

from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.core import Core, StreamData
from tests.transports.quic.private_names import names_used
from tests.transports.quic.test_aioquic_core import (
    CLIENT,
    SERVER,
    events_of,
    exchange,
    pair,
    settings,
)

BUSY = 5
SIZE = 10_000
PACKET = 1150
OF_STREAMS = re.compile(r"self\._streams(_queue)?\b")


def upload(streams: int, size: int) -> tuple[list[int], Counter[str]]:
    """Send so much on each stream, beside idle ones; return whose bytes came, and what it took."""
    dialled, accepted = pair(Aioquic(settings()), Aioquic(settings()))
    numbers = [number for _ in range(7) if (number := dialled.open_stream()) is not None]
    for number in numbers:
        dialled.write(number, b"hello")
    exchange(dialled, accepted, 0.3)
    events_of(accepted)
    for number in numbers[:streams]:
        dialled.write(number, bytes(size), is_last=True)
    arrived: list[int] = []
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code is QuicStreamSender.get_frame.__code__:
            calls["get_frame"] += 1

    now = 1.0
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        while len(arrived) < streams * size // PACKET or dialled.unsent:
            now = step(dialled, accepted, now)
            arrived += [e.stream for e in events_of(accepted) if isinstance(e, StreamData)]
            assert now < 60
    finally:
        sys.setprofile(before)
    return arrived, calls


def step(dialled: Core, accepted: Core, now: float) -> float:
    exchange(dialled, accepted, now)
    for core in (dialled, accepted):
        timer = core.timer()
        if timer is not None and timer <= now:
            core.on_timer(now)
    return now + 0.05


def test_streams_take_turns_a_packet_each() -> None:
    """Q25."""
    arrived, _ = upload(BUSY, SIZE)
    rounds = [arrived[n : n + BUSY] for n in range(0, BUSY * (SIZE // PACKET - 1), BUSY)]
    assert [len(set(one)) for one in rounds] == [BUSY] * len(rounds)


def test_a_stream_is_asked_for_a_frame_about_once_for_each_packet() -> None:
    """Among ten streams, the library asked all of the others for each packet, in vain."""
    arrived, calls = upload(BUSY, SIZE)
    assert calls["get_frame"] < 1.5 * len(arrived)


def test_streams_that_are_over_make_room_for_others() -> None:
    """Q12: the library takes them out where it asks streams for frames."""
    dialled, accepted = pair(Aioquic(settings()), Aioquic(settings()))
    for turn in range(20):
        number = dialled.open_stream()
        assert number == 4 * turn
        dialled.write(number, b"question", is_last=True)
        exchange(dialled, accepted, 1.0 + turn)
        accepted.write(number, b"answer", is_last=True)
        exchange(dialled, accepted, 1.1 + turn)


def test_the_private_names_used_for_that_are_there() -> None:
    stream = QuicStream(stream_id=0)
    assert stream.sender.buffer_is_empty
    assert stream.sender._buffer_fin is None
    assert stream.sender._reset_error_code is None
    for name in (
        "_get_or_create_stream",
        "_get_or_create_stream_for_send",
        "_write_application",
        "_write_stream_frame",
        "_write_stream_limits",
        "stop_stream",
    ):
        assert callable(getattr(QuicConnection, name))
    connection = QuicConnection(configuration=QuicConfiguration())
    assert connection._streams_queue == []
    assert connection._streams == {}
    connection.connect(("1.2.3.4", 5), 0.0)
    assert connection._spaces[Epoch.ONE_RTT].ack_at is None
    assert names_used("aioquic_turns") == {
        "_buffer_fin",
        "_loss",
        "_pacer",
        "_reset_error_code",
        "_spaces",
    }


def test_the_library_walks_over_its_streams_where_it_did() -> None:
    """Over all for their credit alone, and else over the queue: we leave most of them out."""
    lines = [line.strip() for line in inspect.getsource(library_connection).splitlines()]
    assert Counter(line for line in lines if OF_STREAMS.search(line)) == Counter(
        [
            "self._streams: dict[int, QuicStream] = {}",
            *3 * ["stream = self._streams.get(stream_id, None)"],
            "stream = self._streams[new_stream_id] = QuicStream(",
            "stream = self._streams[stream_id] = QuicStream(",
            "return is_opened and stream_id not in self._streams",
            "for stream in self._streams.values():",
            "self._streams.pop(stream.stream_id)",
            "self._streams_queue: list[QuicStream] = []",
            *2 * ["self._streams_queue.append(stream)"],
            "for stream in self._streams_queue",
            "for stream in self._streams_queue:",
            "self._streams_queue = [",
            "self._streams_queue.extend(sent)",
        ]
    )
    following = lines[lines.index("for stream in self._streams.values():") + 1]
    assert following.startswith("self._write_stream_limits(")


def test_who_has_something_to_say_acknowledges_along_with_it() -> None:
    """The library would send a datagram for the acknowledgement alone, a millisecond later."""
    dialled, accepted = pair(Aioquic(settings()), Aioquic(settings()))
    number = dialled.open_stream()
    assert number is not None
    dialled.write(number, b"question")
    for data, _ in dialled.transmit(1.0):
        accepted.receive([data], CLIENT, 1.0)
    accepted.write(number, b"answer")
    (answer,) = accepted.transmit(1.0)
    assert dialled.is_owed
    dialled.receive([answer[0]], SERVER, 1.0)
    assert not dialled.is_owed, "it was acknowledged"
    assert not accepted.transmit(1.1)
