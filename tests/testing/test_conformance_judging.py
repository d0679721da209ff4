"""How cases are judged, and what the streams in memory do that the cases rest on."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pnet.errors import ConnectionLost, ProtocolError
from p2pnet.interfaces import Role
from p2pnet.testing.conformance.judging import (
    PATIENCE,
    Broken,
    ConformanceFailure,
    expect,
    expect_raises,
    judge,
    judge_all,
    outcome,
    pattern,
    promise_of,
)
from p2pnet.testing.conformance.wires import read_exactly, wire_pair

PART = object()


async def failure_of(error: BaseException) -> ConformanceFailure:
    async def case() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error

    with pytest.raises(ConformanceFailure) as caught:
        await judge(PART, "some-rule", "It works.", case)
    assert (caught.value.part, caught.value.rule) == (PART, "some-rule")
    assert str(caught.value) == f"{PART!r} breaks some-rule: {caught.value.text}"
    return caught.value


async def test_a_failure_says_what_was_demanded_and_what_happened() -> None:
    cause = KeyError("x")
    broken = Broken("it does not")
    broken.__cause__ = cause
    failure = await failure_of(broken)
    assert failure.text == "It works. But it does not."
    assert failure.__cause__ is cause


async def test_any_other_error_is_the_cause_itself() -> None:
    for error, text in (
        (KeyError("x"), "there was KeyError: 'x'"),
        (ConnectionLost("it is gone"), "there was ConnectionLost: it is gone"),
        (AssertionError("b'' == b'x'"), "trio's check failed: b'' == b'x'"),
    ):
        failure = await failure_of(error)
        assert failure.text == f"It works. But {text}."
        assert failure.__cause__ is error


async def test_a_case_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    with pytest.raises(ConformanceFailure, match="But it hangs"):
        await judge(PART, "some-rule", "It works.", trio.sleep_forever)
    assert trio.current_time() == PATIENCE


async def test_what_keeps_its_promise_raises_nothing() -> None:
    await judge(PART, "some-rule", "It works.", trio.lowlevel.checkpoint)
    await judge_all(PART, [trio.lowlevel.checkpoint] * 2)


async def test_the_check_of_everything_goes_on_after_a_failure() -> None:
    done = []

    async def fail() -> None:
        done.append("fail")
        await trio.lowlevel.checkpoint()
        raise ConformanceFailure(PART, f"rule {len(done)}", "It works. But not.")

    with pytest.raises(ConformanceFailure) as caught:
        await judge_all(PART, [fail, trio.lowlevel.checkpoint, fail])
    assert caught.value.rules == ("rule 1", "rule 2")
    assert [failure.rules for failure in caught.value.failures] == [("rule 1",), ("rule 2",)]


def test_an_expectation_is_met_or_named() -> None:
    expect([1], "there is nothing")
    with pytest.raises(Broken, match="there is nothing"):
        expect([], "there is nothing")
    with expect_raises(KeyError, ValueError, by="asking"):
        raise ValueError
    with pytest.raises(Broken, match="asking raised nothing, where KeyError or ValueError was due"):
        with expect_raises(KeyError, ValueError, by="asking"):
            pass
    with pytest.raises(Broken, match="asking raised TypeError, not KeyError"):
        with expect_raises(KeyError, by="asking"):
            raise TypeError
    with pytest.raises(Broken, match="within"):
        with expect_raises(KeyError, by="asking"):
            raise Broken("within")


async def test_the_outcome_of_an_action_is_its_error_whatever_that_is() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise IndexError

    assert await outcome(trio.lowlevel.checkpoint) is None
    assert isinstance(await outcome(fail), IndexError)


def test_a_promise_is_the_first_paragraph_of_a_docstring() -> None:
    def case() -> None:
        """Say something
        in two lines.

        And more.
        """

    assert promise_of(case) == "Say something in two lines."


def test_patterns_differ_by_name_only() -> None:
    assert pattern("a", 100) == pattern("a", 200)[:100] != pattern("b", 100)


# ---- wires -------------------------------------------------------------------------------


async def test_a_wire_can_be_cut_slowed_and_changed() -> None:
    wires = wire_pair()
    sender, receiver = wires[Role.DIALER], wires[Role.LISTENER]
    receiver.most = 2
    receiver.flips = lambda at: 1 if at == 2 else 0
    receiver.cut = 3
    await sender.send_all(b"abcde")
    assert [await receiver.receive_some() for _ in range(3)] == [b"ab", b"b", b""]
    assert (receiver.received, bytes(sender.sent)) == (3, b"abcde")
    with pytest.raises(Broken, match="after 0 of 2 bytes"):
        await read_exactly(receiver, 2)


async def test_a_wire_can_hold_back_and_inject() -> None:
    wires = wire_pair()
    sender, receiver = wires[Role.DIALER], wires[Role.LISTENER]
    sender.held = []
    await sender.send_all(b"held")
    await sender.inject(b"injected")
    assert sender.held == [b"held"]
    assert await receiver.receive_some() == b"injected"


async def test_a_wire_that_fails_wakes_whoever_receives() -> None:
    wire = wire_pair()[Role.DIALER]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            with pytest.raises(ProtocolError):
                await wire.receive_some()

        await trio.testing.wait_all_tasks_blocked()
        await wire.fail(ProtocolError("/test", "no"))
    with pytest.raises(ProtocolError):
        await wire.receive_some()
