"""EventBus: facts for whoever asked. It never blocks the publisher, and never loses silently."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, Protocol, Self, TypeVar

import trio

from p2pnet.errors import EventsMissed

E = TypeVar("E")

DEFAULT_BUFFER = 1024


class Subscription(Generic[E]):
    """The events of some kinds, in the order they happened; iterate with ``async for``."""

    def __init__(self, kinds: tuple[type[E], ...], limit: int) -> None:
        self._kinds = kinds
        self._limit = limit
        self._events: deque[E] = deque()
        self._missed = 0
        self._arrived = trio.Event()

    def offer(self, event: object) -> None:
        if isinstance(event, self._kinds):
            # Once one is missed, so are all until the reader knows: else it would learn of the
            # gap after events from behind it, or never.
            if len(self._events) < self._limit and not self._missed:
                self._events.append(event)
            else:
                self._missed += 1
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Wait for the next event.

        Raises:
            EventsMissed: once, when more events came than were read, and those before the gap
                have been; then go on reading.
        """
        if self._events:
            await trio.lowlevel.checkpoint()
        while not self._events:
            if self._missed:
                missed, self._missed = self._missed, 0
                raise EventsMissed(missed)
            if self._arrived.is_set():
                self._arrived = trio.Event()
            await self._arrived.wait()
        return self._events.popleft()

    def take_waiting(self) -> tuple[E, ...]:
        """Take what is unread, without waiting; a gap is left to whoever waits for the next."""
        waiting = tuple(self._events)
        self._events.clear()
        return waiting


class Tap(Generic[E]):
    """Has a function called with the events of some kinds, as they happen."""

    def __init__(self, kinds: tuple[type[E], ...], take: Callable[[E], None]) -> None:
        self._kinds = kinds
        self._take = take

    def offer(self, event: object) -> None:
        if isinstance(event, self._kinds):
            self._take(event)


class Reader(Protocol):
    """Whoever is offered all events."""

    def offer(self, event: object) -> None: ...


class EventBus:
    """Hands each published event to every subscription that asked for its kind."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []

    def publish(self, event: object) -> None:
        for reader in self._readers:
            reader.offer(event)

    @contextmanager
    def subscribe(
        self, *kinds: type[E], limit: int = DEFAULT_BUFFER
    ) -> Generator[Subscription[E], None, None]:
        """Collect events of these kinds (at most ``limit`` unread ones) inside the block."""
        subscription = Subscription(kinds, limit)
        with self._offering(subscription):
            yield subscription

    @contextmanager
    def tap(self, *kinds: type[E], take: Callable[[E], None]) -> Generator[None, None, None]:
        """Call ``take`` with each event of these kinds inside the block; it costs no task a turn.

        For bookkeeping: it runs within ``publish``, so it must not raise, nor publish.
        """
        with self._offering(Tap(kinds, take)):
            yield

    @contextmanager
    def _offering(self, reader: Reader) -> Generator[None, None, None]:
        self._readers.append(reader)
        try:
            yield
        finally:
            self._readers.remove(reader)
