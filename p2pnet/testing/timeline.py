"""The timeline: what happens when, in virtual time; the only task of a simulated internet.

Everything a network does by itself (a packet arrives, a timer runs out) is an action at a
time. Actions of one time happen in the order in which they were planned, so that a run with
the same actions is the same run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

import trio

ACTIONS_PER_CHECKPOINT = 64
"""The tasks that wait for what happened get their turn after this many actions at most."""


class Timer:
    """An action to come; can be called off."""

    __slots__ = ("_action", "time")

    def __init__(self, time: float, action: Callable[[], None]) -> None:
        self.time = time
        self._action: Callable[[], None] | None = action

    @property
    def is_off(self) -> bool:
        return self._action is None

    def cancel(self) -> None:
        self._action = None

    def fire(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Timeline:
    """A heap of timers, and the task that lets them happen."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._planned = 0
        self._asleep: trio.CancelScope | None = None

    def at(self, time: float, action: Callable[[], None]) -> Timer:
        """Plan an action; a time that has passed means as soon as possible."""
        timer = Timer(time, action)
        self._planned += 1
        heappush(self._heap, (time, self._planned, timer))
        if self._asleep is not None and time < self._asleep.deadline:
            self._asleep.deadline = time
        return timer

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        return self.at(trio.current_time() + seconds, action)

    @property
    def next_time(self) -> float:
        """When the next action is due; infinity if none is."""
        while self._heap and self._heap[0][2].is_off:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    async def run(self) -> None:
        """Let things happen until cancelled."""
        while True:
            now = trio.current_time()
            for _ in range(ACTIONS_PER_CHECKPOINT):
                if self.next_time > now:
                    break
                heappop(self._heap)[2].fire()
            else:
                await trio.lowlevel.checkpoint()
                continue
            with trio.CancelScope(deadline=self.next_time) as self._asleep:
                await trio.sleep_forever()
            self._asleep = None
