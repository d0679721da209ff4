from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.bus import EventBus, Subscription
from p2pnet.errors import EventsMissed


@dataclass(frozen=True)
class Rain:
    drops: int


@dataclass(frozen=True)
class Sun:
    hours: int


async def read(subscription: Subscription[Rain], count: int) -> list[int]:
    return [(await anext(subscription)).drops for _ in range(count)]


async def test_a_subscription_gets_its_kinds_in_the_order_they_happened() -> None:
    bus = EventBus()
    with bus.subscribe(Rain, Sun) as both, bus.subscribe(Sun) as sun:
        for event in (Rain(1), Sun(2), Rain(3)):
            bus.publish(event)
        assert [await anext(both) for _ in range(3)] == [Rain(1), Sun(2), Rain(3)]
        assert await anext(sun) == Sun(2)


async def test_iterating_waits_for_what_comes() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def collect() -> None:
        with bus.subscribe(Rain) as events:
            async for event in events:
                seen.append(event.drops)
                if event.drops == 3:
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        for drops in (1, 2, 3):
            await wait_all_tasks_blocked()
            bus.publish(Rain(drops))
    assert seen == [1, 2, 3]


def test_a_tap_is_called_with_each_event_of_its_kinds_as_it_happens() -> None:
    bus = EventBus()
    seen: list[object] = []
    with bus.tap(Rain, Sun, take=seen.append):
        bus.publish(Rain(1))
        bus.publish("hail")
        assert seen == [Rain(1)]
        bus.publish(Sun(2))
    bus.publish(Rain(3))
    assert seen == [Rain(1), Sun(2)]


async def test_nothing_is_collected_outside_the_block() -> None:
    bus = EventBus()
    bus.publish(Rain(1))
    with bus.subscribe(Rain) as events:
        bus.publish(Rain(2))
    bus.publish(Rain(3))
    assert await read(events, 1) == [2]
    with trio.move_on_after(0) as scope:
        await anext(events)
    assert scope.cancelled_caught


async def test_a_slow_reader_is_told_what_it_missed_where_the_gap_is() -> None:
    bus = EventBus()
    with bus.subscribe(Rain, limit=2) as events:
        for drops in range(5):
            bus.publish(Rain(drops))
        assert await read(events, 1) == [0]
        bus.publish(Rain(5))  # behind the gap: it must not come before the news of it
        assert await read(events, 1) == [1]
        with pytest.raises(EventsMissed) as caught:
            await anext(events)
        assert caught.value.count == 4
        bus.publish(Rain(6))
        assert await read(events, 1) == [6]


async def test_a_reader_that_is_always_behind_learns_of_the_gap_too() -> None:
    bus = EventBus()
    with bus.subscribe(Rain, limit=2) as events:
        for drops in range(3):
            bus.publish(Rain(drops))
        for _ in range(2):
            await anext(events)
            bus.publish(Rain(0))
        with pytest.raises(EventsMissed):
            await anext(events)


async def test_two_readers_of_one_subscription_share_the_events() -> None:
    bus = EventBus()
    seen: list[int] = []

    async def take_one(events: Subscription[Rain]) -> None:
        seen.extend(await read(events, 1))

    with bus.subscribe(Rain) as events:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_one, events)
            nursery.start_soon(take_one, events)
            await wait_all_tasks_blocked()
            bus.publish(Rain(1))
            await wait_all_tasks_blocked()
            bus.publish(Rain(2))
    assert sorted(seen) == [1, 2]


async def test_a_cancelled_reader_loses_no_event() -> None:
    bus = EventBus()
    with bus.subscribe(Rain) as events:
        with trio.CancelScope() as scope:
            scope.cancel()
            bus.publish(Rain(1))
            await anext(events)
        assert scope.cancelled_caught
        assert await read(events, 1) == [1]


async def test_what_waits_can_be_taken_without_waiting_and_a_gap_is_told_later() -> None:
    bus = EventBus()
    with bus.subscribe(Rain, limit=2) as rain:
        assert rain.take_waiting() == ()
        for number in range(3):
            bus.publish(Rain(number))
        assert rain.take_waiting() == (Rain(0), Rain(1))
        with pytest.raises(EventsMissed):
            await anext(rain)
        bus.publish(Rain(4))
        assert await anext(rain) == Rain(4)
