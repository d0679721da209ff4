from __future__ import annotations

import logging

import pytest
import trio

from p2pnet.core.tasks import bare_exceptions, boundary, close_at_once, leaves, start_in
from p2pnet.errors import ConnectionLost, HandshakeCut, ProtocolError, StreamTampered

logger = logging.getLogger("p2pnet.test")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "p2pnet.test")
    return caplog


# ---- boundary ----------------------------------------------------------------------------


def test_a_boundary_makes_its_text_only_when_it_is_needed(log: pytest.LogCaptureFixture) -> None:
    made: list[str] = []

    def what() -> str:
        made.append("it")
        return "it"

    with boundary(logger, what):
        pass
    assert made == []
    with boundary(logger, what):
        raise ConnectionLost("gone")
    assert made == ["it"]
    assert log.messages == ["it: gone"]


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        (ProtocolError("/x", "bad"), logging.WARNING, "misbehaving peer: it: /x: bad"),
        (StreamTampered("changed"), logging.WARNING, "misbehaving peer: it: changed"),
        (ConnectionLost("gone"), logging.DEBUG, "it: gone"),
        (HandshakeCut("hung up"), logging.DEBUG, "it: hung up"),
        (OSError(111, "refused"), logging.DEBUG, "it: ConnectionRefusedError"),
        (trio.TooSlowError(), logging.DEBUG, "it: timed out"),
        (trio.BrokenResourceError(), logging.DEBUG, "it: BrokenResourceError"),
        (
            ExceptionGroup("", [ConnectionLost("gone"), ProtocolError("/x", "bad")]),
            logging.WARNING,
            "misbehaving peer: it: gone; /x: bad",
        ),
    ],
)
async def test_a_boundary_stops_an_error_and_logs_it_in_one_line(
    log: pytest.LogCaptureFixture, error: Exception, level: int, words: str
) -> None:
    with boundary(logger, "it") as stopped:
        raise error
    assert stopped.error is error
    (record,) = log.records
    assert record.levelno == level
    assert record.getMessage().startswith(words)
    assert record.exc_info is None


@pytest.mark.parametrize(
    "error",
    [KeyError("ours"), ExceptionGroup("", [ConnectionLost("gone"), KeyError("ours")])],
)
def test_a_bug_is_logged_as_an_error_with_its_traceback(
    log: pytest.LogCaptureFixture, error: Exception
) -> None:
    with boundary(logger, "it"):
        raise error
    (record,) = log.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    log.clear()


def test_what_is_expected_is_logged_at_the_level_asked_for(log: pytest.LogCaptureFixture) -> None:
    with boundary(logger, "it", expected=logging.INFO):
        raise ConnectionLost("gone")
    assert log.records[0].levelno == logging.INFO


def test_a_block_without_error_is_left_alone(log: pytest.LogCaptureFixture) -> None:
    with boundary(logger, "it") as stopped:
        pass
    assert stopped.error is None
    assert not log.records


async def test_a_boundary_lets_cancellation_pass(log: pytest.LogCaptureFixture) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        with boundary(logger, "it"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not log.records


def test_a_boundary_lets_ctrl_c_pass() -> None:
    with pytest.raises(KeyboardInterrupt), boundary(logger, "it"):
        raise KeyboardInterrupt


# ---- exceptions out of nurseries ---------------------------------------------------------


def test_the_leaves_of_a_tree_of_groups_are_its_plain_exceptions() -> None:
    one, two, three = ValueError("1"), ValueError("2"), ValueError("3")
    assert leaves(ExceptionGroup("", [one, ExceptionGroup("", [two, three])])) == [one, two, three]
    assert leaves(one) == [one]


def test_a_lone_exception_leaves_as_itself() -> None:
    cause = OSError("why")
    error = ValueError("it")
    error.__cause__ = cause
    with pytest.raises(ValueError, match="it") as caught, bare_exceptions():
        raise ExceptionGroup("", [ExceptionGroup("", [error])])
    assert caught.value is error
    assert error.__cause__ is cause


def test_of_several_the_first_is_raised_and_the_others_stay_visible() -> None:
    group = ExceptionGroup("", [ValueError("first"), KeyError("second")])
    with pytest.raises(ValueError, match="first") as caught, bare_exceptions():
        raise group
    assert caught.value.__cause__ is group


def test_an_interrupt_goes_before_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), bare_exceptions():
        raise BaseExceptionGroup("", [ValueError("first"), KeyboardInterrupt()])


def test_what_is_in_no_group_is_left_alone() -> None:
    with pytest.raises(ValueError, match="plain"), bare_exceptions():
        raise ValueError("plain")


async def test_cancellation_gives_way_to_a_real_error() -> None:
    async def fail() -> None:
        raise ValueError("real")

    async def run() -> None:
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(fail)

    with pytest.raises(ValueError, match="real"):
        await run()


async def test_mere_cancellation_passes() -> None:
    with trio.CancelScope() as scope:
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught


# ---- closing -----------------------------------------------------------------------------


class Polite:
    """Says goodbye for as long as it is let, and closes in any case."""

    def __init__(self) -> None:
        self.is_closed = False
        self.said_goodbye = False

    async def aclose(self) -> None:
        try:
            await trio.sleep(10)
            self.said_goodbye = True
        finally:
            self.is_closed = True


async def test_closing_at_once_waits_for_no_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    resource = Polite()
    started = trio.current_time()
    await close_at_once(resource)
    assert resource.is_closed
    assert not resource.said_goodbye
    assert trio.current_time() == started


async def test_closing_at_once_works_under_cancellation() -> None:
    resource = Polite()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_at_once(resource)
        assert resource.is_closed
        await trio.sleep_forever()
    assert scope.cancelled_caught


class Door:
    def __init__(self) -> None:
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


async def test_all_is_closed_at_once_also_by_a_task_that_is_cancelled() -> None:
    doors = [Door(), Door()]
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            for door in doors:
                await close_at_once(door)
    assert all(door.is_closed for door in doors)


# ---- tasks for services ------------------------------------------------------------------


async def test_a_task_starts_in_a_nursery_that_is_open() -> None:
    done: list[int] = []

    async def note(number: int) -> None:
        done.append(number)

    async with trio.open_nursery() as nursery:
        start_in(nursery, note, 1)
    assert done == [1]
    with pytest.raises(trio.ClosedResourceError, match="has ended"):
        start_in(nursery, note, 2)
    assert done == [1]
