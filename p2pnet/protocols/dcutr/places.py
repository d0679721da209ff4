"""Room for so many procedures at a time, and who gives way when others wait for it.

Rules: specs/dcutr.md (D32).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.protocols.dcutr.policy import latest_ends


@dataclass(slots=True, eq=False)
class Place:
    """What one procedure has, or waits for."""

    free: trio.Event = field(default_factory=trio.Event)


class Places:
    """Given to those who come first; while others wait, nobody keeps one for long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[Place] = set()
        self._queue: deque[Place] = deque()
        self._conversing: dict[Place, tuple[float, trio.CancelScope]] = {}
        """Since when; the longest first."""

    def may_keep(self, place: Place) -> bool:
        """Tell if one has a place, and nobody waits for it."""
        return place in self._taken and not self._queue

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[Place]:
        """Have a place, as soon as all who came before have theirs."""
        place = Place()
        await self.take(place)
        try:
            yield place
        finally:
            self.leave(place)

    async def take(self, place: Place) -> None:
        """Come behind all who wait."""
        place.free = trio.Event()
        self._queue.append(place)
        self._fill()
        try:
            await place.free.wait()
        except BaseException:
            self.leave(place)
            raise

    def leave(self, place: Place) -> None:
        """Let the next one have it, or wait for it no more."""
        self._taken.discard(place)
        if place in self._queue:
            self._queue.remove(place)
        self._fill()

    @contextmanager
    def conversation(self, place: Place) -> Generator[None]:
        """End what goes on here if it is the longest, and too long for those who wait (D32).

        Raises:
            TooSlowError: if it was ended; one of them has the place then.
        """
        scope = trio.CancelScope()
        self._conversing[place] = trio.current_time(), scope
        self._hurry()
        try:
            with scope:
                yield
        finally:
            del self._conversing[place]
            if scope.cancelled_caught:
                self.leave(place)
            self._hurry()
        if scope.cancelled_caught:
            raise trio.TooSlowError

    def _fill(self) -> None:
        while self._queue and len(self._taken) < self._most:
            place = self._queue.popleft()
            self._taken.add(place)
            place.free.set()
        self._hurry()

    def _hurry(self) -> None:
        """Have as many give way as wait."""
        ends = latest_ends((began for began, _ in self._conversing.values()), len(self._queue))
        for end, (_, scope) in zip(ends, self._conversing.values(), strict=True):
            scope.deadline = end
