"""The dial that needs no hole, beside the conversation. Rules: specs/dcutr.md (D3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from p2pnet.interfaces import Connection

ANSWER_PATIENCE = 0.05
"""Seconds: CONNECT is asked for in one flight with identify, and so the answers are."""


@dataclass(slots=True)
class PlainDial:
    """A dial that needs no hole, if it works."""

    identified: trio.Event
    """It waits until the peer has said where it can be dialled, or will not."""
    head_start: float
    """Seconds for which the punches wait for it, and it for identify."""
    patience: float
    """Seconds that it waits for the peer's CONNECT then: that may make it needless."""
    answered: trio.Event = field(default_factory=trio.Event)
    is_needless: bool = False
    """The same addresses are punched at, at once."""
    began: trio.Event = field(default_factory=trio.Event)
    began_at: float = 0.0
    ended: trio.Event = field(default_factory=trio.Event)
    connection: Connection | None = None

    async def run(self, dial: Callable[[], Awaitable[Connection | None]]) -> None:
        """Dial the peer where it says that it can be dialled, beside the punches (D3)."""
        await self.identified.wait()
        with trio.move_on_after(self.patience):
            await self.answered.wait()
        if self.is_needless:
            await trio.sleep(self.head_start)
        self.began_at = trio.current_time()
        self.began.set()
        try:
            self.connection = await dial()
        finally:
            self.ended.set()

    async def give_head_start(self) -> None:
        """Wait for it, or the word that there is none, but not for long (D3)."""
        self.answered.set()
        with trio.move_on_after(self.head_start):
            await self.began.wait()
        if self.began.is_set():
            with trio.move_on_at(self.began_at + self.head_start):
                await self.ended.wait()

    async def found(self) -> Connection | None:
        """Wait for its end, if it has begun; return what came of it."""
        if self.began.is_set():
            await self.ended.wait()
        return self.connection
