"""Two ends of a muxer, running over a raw stream in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.core.env import Env
from p2pnet.interfaces import MuxedStream, Muxer, Part, Role
from p2pnet.testing.conformance.identities import kit_of
from p2pnet.testing.conformance.judging import Broken, expect, named, one_of, outcome
from p2pnet.testing.conformance.running import Running
from p2pnet.testing.conformance.wires import Wire, wire_pair

MIB = 1_048_576
MAX_UNREAD = 20 * MIB
"""Bytes by which at the latest a sender has to wait for a remote that does not read."""
MAX_INBOUND = 4096
"""Streams by which at the latest a remote that serves none of them must have had enough."""


class End(Running):
    """A running end, and the raw stream below it."""

    def __init__(self, muxer: Muxer, wire: Wire, role: Role) -> None:
        super().__init__(muxer.start(wire, role))
        self.wire = wire


@dataclass(frozen=True)
class MuxerBench:
    """Builds connections of the muxer that is judged."""

    part: Part[Muxer]
    greedy: Part[Muxer]
    """The same muxer, which opens as many streams as it is let."""
    env: Env = field(default_factory=Env.system)

    def muxer(self, role: Role) -> Muxer:
        return self.part.build(kit_of(role, self.env))

    def end(self, wire: Wire, role: Role = Role.LISTENER) -> End:
        return End(self.muxer(role), wire, role)

    @asynccontextmanager
    async def running(
        self, wires: dict[Role, Wire] | None = None, *, is_greedy: bool = False
    ) -> AsyncGenerator[tuple[End, End], None]:
        """Run a dialer and a listener until the block is left."""
        wires = wires or wire_pair()
        part = self.greedy if is_greedy else self.part
        muxer = part.build(kit_of(Role.DIALER, self.env))
        dialer = End(muxer, wires[Role.DIALER], Role.DIALER)
        listener = self.end(wires[Role.LISTENER])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialer.run)
            nursery.start_soon(listener.run)
            yield dialer, listener
            for end in (dialer, listener):
                if not end.may_fail:
                    end.expect_good_order("nothing bad")
            nursery.cancel_scope.cancel()


@dataclass
class Torrent:
    """Sends much, for as long as the remote takes it."""

    stream: MuxedStream
    block: bytes
    error: Exception | None = None
    has_stopped: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        try:
            self.error = await outcome(self._send)
        finally:
            self.has_stopped.set()

    async def _send(self) -> None:
        for _ in range(MAX_UNREAD // len(self.block)):
            await self.stream.send_all(self.block)

    def expect_waiting(self) -> None:
        expect(
            not self.has_stopped.is_set() or self.error is not None,
            f"{MAX_UNREAD} bytes were taken from a sender whose remote reads nothing",
        )
        if self.error is not None:
            raise Broken(f"sending raised {named(self.error)}") from self.error

    def expect_stopped_by(self, *errors: type[Exception], after: str) -> None:
        if not isinstance(self.error, errors):
            what = "nothing" if self.error is None else named(self.error)
            raise Broken(
                f"waiting to send raised {what} after {after}, not {one_of(errors)}"
            ) from self.error
