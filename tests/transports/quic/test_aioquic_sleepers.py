"""Q25: streams of aioquic that nobody looks at are looked at again when anything happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from aioquic.quic.stream import QuicStream

from p2pnet.transports.quic.aioquic_core import Aioquic, AioquicCore
from p2pnet.transports.quic.core import Event, StreamData, StreamReset, StreamStopped
from tests.transports.quic.test_aioquic_core import (
    CLIENT,
    SERVER,
    WINDOW,
    events_of,
    pair,
    settings,
)

TICK = 0.02
STREAMS = 20
MOST_BYTES = 3000


class Line:
    """Two cores, and what becomes of the datagrams between them."""

    def __init__(self) -> None:
        roomy = replace(
            settings(),
            max_streams=STREAMS,
            connection_window=8 * WINDOW,
            max_connection_window=8 * WINDOW,
        )
        dialled, accepted = pair(Aioquic(roomy), Aioquic(roomy))
        assert isinstance(dialled, AioquicCore)
        assert isinstance(accepted, AioquicCore)
        self.cores = (dialled, accepted)
        self.heard: tuple[list[object], list[object]] = ([], [])
        self.now = 1.0
        self.is_lost: Callable[[], bool] = lambda: False
        self.pass_time(0.5)

    def open(self) -> int:
        """Open a stream that both know, and that has nothing to say."""
        number = self.cores[0].open_stream()
        assert number is not None
        self.cores[0].write(number, b"hello")
        self.pass_time(0.5)
        return number

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            for side, core in enumerate(self.cores):
                timer = core.timer()
                if timer is not None and timer <= self.now:
                    core.on_timer(self.now)
                self._carry(side)
            self.now += TICK

    def _carry(self, side: int) -> None:
        core, other = self.cores[side], self.cores[1 - side]
        going = [data for data, _ in core.transmit(self.now) if not self.is_lost()]
        if going:
            other.receive(going, (CLIENT, SERVER)[side], self.now)
        for event in events_of(other):
            self.heard[1 - side].append(event)
            if isinstance(event, StreamData):
                other.consume(event.stream, len(event.data), self.now)

    def lose_one_flight(self, side: int) -> None:
        assert self.cores[side].transmit(self.now)

    def data(self, side: int, number: int) -> bytes:
        """Return what was heard on a stream."""
        found = [e for e in self.heard[side] if isinstance(e, StreamData) and e.stream == number]
        return b"".join(event.data for event in found)


def sleepers(core: AioquicCore) -> set[int]:
    return set(core._connection._asleep)


Say = Callable[[AioquicCore, int], None]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("say", "heard"),
    [
        (lambda core, n: core.write(n, b"more"), StreamData(0, b"more", is_last=False)),
        (lambda core, n: core.write(n, b"", is_last=True), StreamData(0, b"", is_last=True)),
        (lambda core, n: core.reset(n, 7), StreamReset(0, 7)),
        (lambda core, n: core.stop(n, 7), StreamStopped(0, 7)),
    ],
    ids=["data", "end", "reset", "stop"],
)
def test_what_was_lost_of_a_stream_that_sleeps_goes_again(
    say: Say, heard: Event, side: int
) -> None:
    line = Line()
    first, other = line.open(), line.open()
    assert first == 0
    core = line.cores[side]
    assert sleepers(core) == {first, other}
    say(core, first)
    line.lose_one_flight(side)
    for _ in range(3):
        core.write(other, b"beside")
        assert core.transmit(line.now)
    assert first in sleepers(core), "all that it had to say has gone"
    line.pass_time(2)
    assert heard in line.heard[1 - side]


def test_credit_that_was_lost_goes_again() -> None:
    """Q13."""
    line = Line()
    dialled, accepted = line.cores
    number = line.open()
    before = dialled.room(number)
    assert accepted.consume(number, WINDOW, line.now)  # As if so much had been there to read.
    line.lose_one_flight(1)
    line.pass_time(2)
    assert dialled.room(number) >= before + WINDOW


def test_credit_is_looked_at_only_where_there_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    numbers = [line.open() for _ in range(5)]
    (_, accepted) = line.cores
    looked_at: list[int | None] = []
    write = accepted._connection._write_stream_limits

    def note(builder: object, space: object, stream: QuicStream) -> None:
        looked_at.append(stream.stream_id)
        write(builder, space, stream)  # type: ignore[arg-type]

    monkeypatch.setattr(accepted._connection, "_write_stream_limits", note)
    accepted.write(numbers[0], b"no news")
    line.pass_time(0.5)
    assert not looked_at
    accepted.consume(numbers[3], WINDOW, line.now)
    line.pass_time(0.5)
    assert looked_at == [numbers[3]]


def test_no_credit_is_given_on_a_stream_whose_end_has_come() -> None:
    line = Line()
    dialled, accepted = line.cores
    number = line.open()
    dialled.write(number, b"", is_last=True)
    line.pass_time(0.5)
    assert accepted.consume(number, WINDOW, line.now)
    assert not accepted.transmit(line.now)


@pytest.mark.parametrize(
    "say",
    [lambda core, n: core.write(n, b"", is_last=True), lambda core, n: core.reset(n, 7)],
    ids=["end", "reset"],
)
def test_a_stream_is_over_once_its_last_word_is_acknowledged(say: Say) -> None:
    """Q12: nothing but the acknowledgement comes, and that names no stream."""
    line = Line()
    dialled, accepted = line.cores
    number = line.open()
    dialled.write(number, b"", is_last=True)
    line.pass_time(0.5)
    say(accepted, number)
    line.pass_time(TICK)
    assert not accepted.transmit(line.now)
    assert number in accepted._connection.streams
    line.pass_time(0.5)
    assert accepted._connection.streams == {}
    assert dialled._connection.streams == {}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_said_and_lost_all_is_heard_and_all_streams_are_over(seed: int) -> None:
    """Some are reset or stopped; of all others each byte and the end arrive, and none is left."""
    random = Random(seed)
    line = Line()
    opened = [line.open() for _ in range(STREAMS)]
    line.is_lost = lambda: random.random() < 0.2
    said = {(side, number): b"" for side in (0, 1) for number in opened}
    said.update({(0, number): b"hello" for number in opened})
    broken: set[tuple[int, int]] = set()
    ended: set[tuple[int, int]] = set()
    for _ in range(150):
        key = side, number = random.randrange(2), random.choice(opened)
        core = line.cores[side]
        match random.choice(["write"] * 6 + ["end", "reset", "stop"]):
            case "write" if key not in ended | broken:
                data = random.randbytes(random.randrange(MOST_BYTES))
                core.write(number, data)
                said[key] += data
            case "end" if key not in broken:
                core.write(number, b"", is_last=True)
                ended.add(key)
            case "reset" if random.random() < 0.3:
                core.reset(number, 1)
                broken.add(key)
            case "stop" if random.random() < 0.3:
                core.stop(number, 1)
                broken.add((1 - side, number))
            case _:
                pass
        line.pass_time(random.choice([0.0, 0.0, TICK, 0.1]))
    for side, number in set(said) - ended - broken:
        line.cores[side].write(number, b"", is_last=True)
    line.pass_time(30)
    for side, number in set(said) - broken:
        assert line.data(1 - side, number) == said[side, number]
    for core in line.cores:
        core.bound(opened[0], 1)  # Somebody may ask for it later, and nothing is to stay of that.
        assert core._connection.streams == {}
        assert (core._tallies, core._writing, core.unsent) == ({}, set(), 0)
        assert (core._connection._asleep, core._connection._woken) == ({}, [])
    assert line.cores[0].open_stream() is not None
