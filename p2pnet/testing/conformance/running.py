"""Connections that run, and streams between them."""

from __future__ import annotations

import math

import trio

from p2pnet.errors import ConnectionLost, StreamReset
from p2pnet.interfaces import MuxedConnection, MuxedStream
from p2pnet.testing.conformance.judging import Broken, expect, named, one_of, outcome
from p2pnet.testing.conformance.wires import read_exactly

ENDED = (ConnectionLost, StreamReset, trio.ClosedResourceError)
"""How operations say that there is nothing left to operate on."""


class Running:
    """One end of a connection: what its remote opened, and how it ended."""

    def __init__(self, connection: MuxedConnection) -> None:
        self.connection = connection
        self.ended = trio.Event()
        self.error: Exception | None = None
        """What ``run`` raised."""
        self.may_fail = False
        """True if it is part of the case that ``run`` raises."""
        self.scope = trio.CancelScope()
        """Around ``run``."""
        self.accepted = 0
        self._put, self._take = trio.open_memory_channel[MuxedStream](math.inf)

    async def run(self) -> None:
        try:
            with self.scope:
                self.error = await outcome(self._run)
        finally:
            self.ended.set()

    async def _run(self) -> None:
        await self.connection.run(self._accept)

    def _accept(self, stream: MuxedStream) -> None:
        self.accepted += 1
        self._put.send_nowait(stream)

    async def open(self) -> MuxedStream:
        return await self.connection.open_stream()

    async def next_stream(self) -> MuxedStream:
        return await self._take.receive()

    def expect_good_order(self, after: str) -> None:
        if self.error is not None:
            raise Broken(f"run raised {named(self.error)} after {after}") from self.error

    def expect_error(self, *errors: type[Exception], after: str) -> None:
        if not isinstance(self.error, errors):
            what = "nothing" if self.error is None else named(self.error)
            raise Broken(f"run raised {what} after {after}, not {one_of(errors)}") from self.error


async def stream_between(opener: Running, acceptor: Running) -> tuple[MuxedStream, MuxedStream]:
    """Open a stream, and return both its ends."""
    ours = await opener.open()
    await ours.send_all(b"!")
    theirs = await acceptor.next_stream()
    expect(await read_exactly(theirs, 1) == b"!", "the first byte of a stream was another")
    return ours, theirs


async def converse(one: MuxedStream, two: MuxedStream, what: bytes = b"are you there?") -> None:
    """Send something there and back, and make sure that it arrives."""
    for sender, receiver in ((one, two), (two, one)):
        await sender.send_all(what)
        got = await read_exactly(receiver, len(what))
        expect(got == what, f"{got!r} arrived, not {what!r}")
