"""Room for dials that would be of no use if they waited. Rule: specs/dialing.md (DI29)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

import trio

from p2pnet.errors import LimitExceeded


class PromptSlots(AbstractAsyncContextManager[None]):
    """As ``trio.CapacityLimiter``, but who finds all taken is refused."""

    def __init__(self, limit: str, maximum: int) -> None:
        self._limit = limit
        self._maximum = maximum
        self._taken = 0

    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._taken >= self._maximum:
            raise LimitExceeded(self._limit, self._maximum)
        self._taken += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._taken -= 1
