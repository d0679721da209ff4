"""Run a program in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio.testing import MockClock

T = TypeVar("T")


def run(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` under a clock that jumps to the next deadline when all tasks wait."""
    return trio.run(main, clock=MockClock(autojump_threshold=0))
