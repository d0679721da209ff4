"""What the tests of ping, identify and DCUtR share: a world in memory, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from tests.protocols.memory_world import MemoryWorld


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """A world without hosts; its tasks are cancelled when the test is over.

    The clock has to be an argument of the test itself: pytest-trio looks nowhere else.
    """
    assert isinstance(trio.lowlevel.current_clock(), MockClock), "the test needs autojump_clock"
    # Under an autojump clock a deadlock would spin for ever, but not past a deadline.
    with trio.fail_after(1_000_000):
        async with trio.open_nursery() as nursery:
            yield MemoryWorld(nursery)
            nursery.cancel_scope.cancel()
