"""Watch: a value one can wait on. For state; facts go over the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Watch(Generic[T]):
    """A value one can wait on. Readers may miss values in between, never the last."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"Watch({self._value!r})"

    @property
    def value(self) -> T:
        return self._value

    def set(self, value: T) -> None:
        """Change the value; whoever waits looks at it again. An equal value wakes nobody."""
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = trio.Event()

    async def wait_for(self, condition: Callable[[T], bool], /) -> T:
        """Wait until the value satisfies ``condition``, and return it."""
        await trio.lowlevel.checkpoint()
        while not condition(self._value):
            await self._changed.wait()
        return self._value
