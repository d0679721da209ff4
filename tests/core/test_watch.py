from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pnet.core.watch import Watch


async def test_a_watch_returns_at_once_what_fits_already() -> None:
    assert await Watch(3).wait_for(lambda value: value == 3) == 3


async def test_a_watch_wakes_whoever_waits_when_the_value_fits() -> None:
    watch = Watch(0)
    seen: list[int] = []

    async def wait_for(least: int) -> None:
        seen.append(await watch.wait_for(lambda value: value >= least))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, 1)
        nursery.start_soon(wait_for, 2)
        await wait_all_tasks_blocked()
        watch.set(1)
        await wait_all_tasks_blocked()
        assert seen == [1]
        watch.set(5)
    assert seen == [1, 5]
    assert watch.value == 5


async def test_a_reader_may_miss_values_in_between_but_never_the_last() -> None:
    watch = Watch("first")
    seen: list[str] = []

    async def read() -> None:
        seen.append(await watch.wait_for(lambda value: value != "first"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        watch.set("second")
        watch.set("third")
    assert seen == ["third"]


async def test_an_equal_value_wakes_nobody() -> None:
    watch = Watch([1])
    looks = 0

    def look(value: list[int]) -> bool:
        nonlocal looks
        looks += 1
        return len(value) > 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.wait_for, look)
        await wait_all_tasks_blocked()
        watch.set([1])
        await wait_all_tasks_blocked()
        assert looks == 1
        watch.set([1, 2])
    assert looks == 2


async def test_waiting_can_be_cancelled_even_if_the_value_fits() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await Watch(1).wait_for(lambda value: True)
        pytest.fail("wait_for did not reach a checkpoint")
    assert scope.cancelled_caught


def test_a_watch_shows_its_value() -> None:
    assert repr(Watch(3)) == "Watch(3)"
