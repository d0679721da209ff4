"""Ends of streams that go by themselves, and what is lost around them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.core import Core, StreamData
from p2pnet.transports.quic.qh3_core import Qh3, Qh3Core
from p2pnet.transports.quic.qh3_ends import PATIENCE, LateEnds
from tests.transports.quic.test_aioquic_core import CLIENT, SERVER, exchange, pair, settings

both = pytest.mark.parametrize("library", [Aioquic, Qh3])


class Echo:
    """A client that has asked on a new stream, and a server that answers in packets to lose."""

    def __init__(self, library: type[Aioquic | Qh3]) -> None:
        self.client, self.server = pair(library(settings()), library(settings()))
        self.now = 0.2
        self.arrived: list[StreamData] = []
        self.pass_time()

    def pass_time(self, seconds: float = 1.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.01
            for end in (self.client, self.server):
                timer = end.timer()
                if timer is not None and timer <= self.now:
                    end.on_timer(self.now)
            exchange(self.client, self.server, self.now)
            self.read()

    def read(self) -> None:
        for core in (self.client, self.server):
            while (event := core.next_event()) is not None:
                if isinstance(event, StreamData):
                    core.consume(event.stream, len(event.data), self.now)
                    self.arrived += [event] if core is self.client else []

    def ask(self) -> int:
        stream = self.client.open_stream()
        assert stream is not None
        self.client.write(stream, b"?", is_last=True)
        self.pass_time()
        return stream

    def sent(self, core: Core) -> list[bytes]:
        self.now += 0.001
        return [data for data, _ in core.transmit(self.now)]


@both
def test_an_end_that_is_lost_with_the_data_before_it_arrives_later(
    library: type[Aioquic | Qh3],
) -> None:
    """Q9: seen with qh3, which never sent it again."""
    echo = Echo(library)
    stream = echo.ask()
    echo.server.write(stream, bytes(5000))
    lost = echo.sent(echo.server)
    while echo.server.unsent:
        lost += echo.sent(echo.server)
    assert len(lost) == 5
    echo.server.write(stream, b"", is_last=True)
    echo.sent(echo.server)
    echo.pass_time(5)
    assert sum(len(event.data) for event in echo.arrived) == 5000
    assert [event.is_last for event in echo.arrived].count(True) == 1


@both
def test_a_stream_is_over_though_its_end_came_before_the_data(
    library: type[Aioquic | Qh3],
) -> None:
    """Q12: else the remote may open one less, each time; it may have seven here."""
    echo = Echo(library)
    for count in range(1, 10):
        stream = echo.ask()
        echo.server.write(stream, bytes(1000))
        lost = echo.sent(echo.server)
        assert lost
        echo.server.write(stream, b"", is_last=True)
        for data in echo.sent(echo.server):
            echo.client.receive([data], SERVER, echo.now)
        echo.pass_time()
        assert [event.is_last for event in echo.arrived].count(True) == count


@both
def test_the_end_of_a_small_answer_goes_right_behind(library: type[Aioquic | Qh3]) -> None:
    """js-libp2p counts streams that are not over, and opens no second ping."""
    echo = Echo(library)
    stream = echo.ask()
    echo.server.write(stream, bytes(32))
    data = echo.sent(echo.server)
    echo.server.write(stream, b"", is_last=True)
    for each in (*data, *echo.sent(echo.server)):
        echo.client.receive([each], SERVER, echo.now)
    echo.read()
    assert echo.arrived[-1].is_last


def test_an_end_that_waits_asks_for_an_acknowledgement_at_once() -> None:
    echo = Echo(Qh3)
    stream = echo.ask()
    echo.server.write(stream, bytes(2000))
    data = echo.sent(echo.server) + echo.sent(echo.server)
    assert not echo.server.unsent
    echo.server.write(stream, b"", is_last=True)
    (asking,) = echo.sent(echo.server)
    for each in (*data, asking):
        echo.client.receive([each], SERVER, echo.now)
    for each in echo.sent(echo.client):  # No timer has fired.
        echo.server.receive([each], CLIENT, echo.now)
    for each in echo.sent(echo.server):
        echo.client.receive([each], SERVER, echo.now)
    echo.read()
    assert echo.arrived[-1].is_last


def test_an_end_is_put_off_if_all_before_it_waits_in_a_packet_for_room() -> None:
    """It would go alone, right behind: seen with qh3, which fills in no more."""
    echo = Echo(Qh3)
    bulk, stream = echo.ask(), echo.ask()
    echo.server.write(bulk, bytes(30_000))
    echo.sent(echo.server)  # The window is full.
    echo.server.write(stream, bytes(1000))
    echo.sent(echo.server)
    assert echo.server.unsent_on(stream) == 1000
    assert isinstance(echo.server, Qh3Core)
    echo.server.write(stream, b"", is_last=True)
    assert echo.server._late_ends
    echo.server.write(bulk, bytes(1))
    echo.server.write(bulk, b"", is_last=True)
    echo.pass_time(20)
    assert [event.is_last for event in echo.arrived].count(True) == 2
    assert not echo.server._late_ends


@both
def test_an_end_goes_with_the_last_data_if_it_can(library: type[Aioquic | Qh3]) -> None:
    echo = Echo(library)
    stream = echo.ask()
    echo.server.write(stream, b"all")
    echo.server.write(stream, b"", is_last=True)
    (only,) = echo.sent(echo.server)
    echo.client.receive([only], SERVER, echo.now)
    echo.read()
    assert echo.arrived[-1] == StreamData(stream, b"all", is_last=True)


@both
def test_nothing_is_settled_while_an_end_has_not_arrived(library: type[Aioquic | Qh3]) -> None:
    """Q15."""
    echo = Echo(library)
    stream = echo.ask()
    echo.server.write(stream, b"all")
    for data in echo.sent(echo.server):
        echo.client.receive([data], SERVER, echo.now)
    echo.server.write(stream, b"", is_last=True)
    echo.now += 0.05
    timer = echo.client.timer()
    assert timer is not None
    echo.client.on_timer(timer)
    for data in echo.sent(echo.client):
        echo.server.receive([data], CLIENT, echo.now)
    assert not echo.server.is_settled
    echo.pass_time()
    assert echo.server.is_settled
    assert echo.arrived[-1].is_last


def test_a_reset_takes_the_place_of_an_end_that_waits() -> None:
    echo = Echo(Qh3)
    stream = echo.ask()
    echo.server.write(stream, b"all")
    echo.sent(echo.server)
    echo.server.write(stream, b"", is_last=True)
    assert not echo.server.is_settled
    echo.server.reset(stream, 7)
    echo.pass_time()
    assert echo.server.is_settled
    assert not any(event.is_last for event in echo.arrived)


def test_what_goes_again_of_a_stream_that_is_over_by_then_harms_nothing() -> None:
    """Of three answers a copy waits for room as the acknowledgement comes, late."""
    echo = Echo(Qh3)
    streams, bulk = [echo.ask() for _ in range(3)], echo.ask()
    for stream in streams:
        echo.server.write(stream, bytes(700), is_last=True)
        for data in echo.sent(echo.server):
            echo.client.receive([data], SERVER, echo.now)
    late = echo.sent(echo.client)
    echo.server.write(bulk, bytes(30_000))
    echo.sent(echo.server)  # The window is full.
    timer = echo.server.timer()
    assert timer is not None
    echo.now = timer
    echo.server.on_timer(timer)
    assert len(echo.sent(echo.server)) == 2
    for data in late:
        echo.server.receive([data], CLIENT, echo.now)
    echo.server.write(bulk, b"", is_last=True)
    echo.pass_time(3)
    assert sum(len(event.data) for event in echo.arrived) == 3 * 700 + 30_000
    assert [event.is_last for event in echo.arrived].count(True) == 4


@dataclass
class Packets:
    """Those that were sent; acknowledged and lost by hand."""

    unanswered: list[int] = field(default_factory=list)
    loss_total: int = 0
    next_number: int = 0
    is_limited: bool = False
    round_trip: float = 0.0
    looks: int = 0

    @property
    def bytes_in_flight(self) -> int:
        return 1000 * len(self.unanswered)

    @property
    def outstanding_application_packets(self) -> list[tuple[int, int, int]]:
        self.looks += 1
        return [(number, 1000, 1) for number in self.unanswered]

    def send(self, count: int) -> None:
        self.unanswered += range(self.next_number, self.next_number + count)
        self.next_number += count

    def acknowledge(self, *numbers: int) -> None:
        self.unanswered = [number for number in self.unanswered if number not in numbers]

    def lose(self, *numbers: int) -> None:
        self.acknowledge(*numbers)
        self.loss_total += len(numbers)


def turn(ends: LateEnds, packets: Packets, count: int = 0, unsent: int = 0) -> list[int]:
    """Do as a connection does when it sends."""
    due = ends.due(packets, lambda stream: unsent, 0.0)
    packets.send(count)
    if ends.note(packets):
        due += ends.due(packets, lambda stream: unsent, 0.0)
    return due


def test_an_end_waits_for_all_that_was_sent_before_it_and_for_nothing_else() -> None:
    ends, packets = LateEnds(), Packets()
    assert ends.may_go(packets)
    packets.send(3)
    assert not ends.may_go(packets)
    ends.put_off(4)
    assert turn(ends, packets, 10) == []
    packets.acknowledge(0, 1)
    assert turn(ends, packets) == []
    packets.acknowledge(2)
    assert turn(ends, packets) == [4]
    assert not ends


def test_an_end_waits_for_little_only_where_something_was_lost() -> None:
    ends, packets = LateEnds(), Packets()
    packets.send(1)
    assert ends.may_go(packets)
    packets.lose(0)
    packets.send(1)
    assert turn(ends, packets) == []
    assert not ends.may_go(packets)


def test_an_end_waits_until_the_data_before_it_have_been_sent() -> None:
    ends, packets = LateEnds(), Packets()
    packets.send(1)
    ends.put_off(4)
    assert turn(ends, packets, 1, unsent=100) == []
    packets.acknowledge(0)
    assert turn(ends, packets, 1) == []
    packets.acknowledge(1)
    assert turn(ends, packets) == [4]


def test_after_a_loss_an_end_waits_until_what_goes_again_has_arrived() -> None:
    ends, packets = LateEnds(), Packets()
    packets.send(5)
    ends.put_off(4)
    assert turn(ends, packets) == []
    packets.lose(1)
    packets.acknowledge(0, 2)
    packets.is_limited = True
    assert turn(ends, packets) == []
    packets.acknowledge(3, 4)
    assert turn(ends, packets, 1) == []
    packets.is_limited = False
    assert turn(ends, packets, 1) == []
    packets.acknowledge(5)
    assert turn(ends, packets, 9) == []
    packets.acknowledge(6)
    assert turn(ends, packets) == [4]


def test_an_end_goes_at_once_when_there_will_be_no_other_occasion() -> None:
    """All has arrived, so nothing more comes: or it would go with the next ping."""
    ends, packets = LateEnds(), Packets(is_limited=True)
    packets.send(2)
    ends.put_off(4)
    packets.lose(0)
    assert turn(ends, packets, 1) == []
    packets.acknowledge(1, 2)
    packets.is_limited = False
    assert turn(ends, packets) == [4]


def test_what_was_lost_before_an_end_was_wanted_counts_as_well() -> None:
    ends, packets = LateEnds(), Packets(is_limited=True)
    packets.send(2)
    packets.lose(0, 1)
    assert not ends.may_go(packets)
    assert turn(ends, packets, 3) == []
    ends.put_off(4)
    packets.acknowledge(2, 3)
    assert turn(ends, packets) == []
    packets.is_limited = False
    assert turn(ends, packets) == []
    assert turn(ends, packets) == []
    packets.acknowledge(4)
    assert turn(ends, packets) == [4]


def test_an_end_does_not_wait_for_good_where_packets_are_lost_all_the_time() -> None:
    ends, packets = LateEnds(), Packets(is_limited=True)
    packets.send(10)
    ends.put_off(4)
    turns = 0
    while not turn(ends, packets, 10):
        turns += 1
        first, *others = packets.unanswered[:10]
        packets.lose(first)
        turn(ends, packets)
        packets.acknowledge(*others)
        assert turns < 100
    assert PATIENCE <= turns <= 2 * PATIENCE  # Each round is 20 packets: two of these turns.


def test_an_end_waits_however_many_packets_of_one_round_are_lost() -> None:
    ends, packets = LateEnds(), Packets(is_limited=True)
    packets.send(50)
    ends.put_off(4)
    for number in range(4 * PATIENCE):
        packets.lose(number)
        assert turn(ends, packets) == []


def test_an_end_that_is_not_wanted_any_more_is_forgotten() -> None:
    ends, packets = LateEnds(), Packets()
    packets.send(1)
    ends.put_off(4)
    ends.forget(4)
    ends.forget(8)
    packets.acknowledge(0)
    assert turn(ends, packets) == []
    assert not ends


def test_packets_under_way_are_looked_at_some_times_in_a_round_trip() -> None:
    """There are thousands of them on a long line, and something is sent as often."""
    ends, packets = LateEnds(), Packets(round_trip=1.0)
    packets.send(500)
    ends.put_off(4)
    millisecond = 0
    for millisecond in range(1, 3000):
        packets.send(1)
        packets.acknowledge(packets.unanswered[0])
        if ends.due(packets, lambda stream: 0, millisecond / 1000):
            break
    assert not ends
    assert millisecond == pytest.approx(500, abs=130)
    assert packets.looks <= 6


def test_an_end_behind_which_nothing_is_under_way_does_not_wait_for_the_next_look() -> None:
    ends, packets = LateEnds(), Packets(round_trip=1.0)
    packets.send(500)
    ends.put_off(4)
    assert ends.due(packets, lambda stream: 0, 1.0) == []
    packets.acknowledge(*range(500))
    assert ends.due(packets, lambda stream: 0, 1.001) == [4]
