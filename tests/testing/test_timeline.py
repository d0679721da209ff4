"""The timeline of a simulated world."""

from __future__ import annotations

import math
from functools import partial

import trio
from trio.testing import MockClock

from p2pnet.testing.timeline import Timeline


async def test_actions_happen_at_their_time_and_in_the_order_of_planning(
    autojump_clock: MockClock,
) -> None:
    timeline, seen = Timeline(), list[tuple[str, float]]()

    def note(name: str) -> None:
        seen.append((name, trio.current_time()))

    for name, time in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
        timeline.at(time, partial(note, name))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timeline.run)
        await trio.sleep(1.5)
        assert timeline.next_time == 2.0
        timeline.after(0.25, partial(note, "sooner than what it sleeps for"))
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    early = [("a", 1.0), ("b", 1.0), ("sooner than what it sleeps for", 1.75)]
    assert seen == [*early, ("c", 2.0), ("d", 2.0)]
    assert timeline.next_time == math.inf


async def test_what_is_called_off_does_not_happen(autojump_clock: MockClock) -> None:
    timeline, seen = Timeline(), list[int]()
    timer = timeline.at(1.0, partial(seen.append, 1))
    timeline.at(2.0, partial(seen.append, 2))
    timer.cancel()
    assert timer.is_off
    assert timeline.next_time == 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timeline.run)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert seen == [2]


async def test_an_action_may_plan_others_for_the_same_moment(autojump_clock: MockClock) -> None:
    timeline, seen = Timeline(), list[float]()

    def again() -> None:
        seen.append(trio.current_time())
        if len(seen) < 500:
            timeline.after(0.0, again)

    timeline.at(1.0, again)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timeline.run)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert seen == [1.0] * 500
