"""What sends on a connection, and what waits for it.

Senders put frames into the session's buffer and kick the writer. A little, that needs no
waiting, is sent then and there. For all else there is one task, which sends all that is ready
at once. Who has to wait does not send: a sender that was cancelled in the midst of a frame
would break the connection for all, and two hosts with full buffers, whose readers wait to send
before they read on, would wait for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import trio

from p2pnet.core.prompt import prompt_sender
from p2pnet.core.waiter import Waiter
from p2pnet.errors import P2PError
from p2pnet.muxers.yamux.machine import Session
from p2pnet.muxers.yamux.outgoing import MAX_TURN, MIN_TURN

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, P2PError)
"""How the stream below says that it can't go on."""
PIECE_BYTES = 65_536
"""Sent at once, or a turn if that is more; on a slow line progress is seen after so much."""
LITTLE_BYTES = 4096
"""So little that is left over goes with the piece before it: each piece costs a system call."""
PROMPT_BYTES = 16_384
"""More than that is sent by the task: other tasks should not wait for it."""
PROMPT_SENDS = 2
"""So many times in a row frames are sent by who wrote them; then the task takes a turn."""
CROWD = 4
"""Who reads so many events at once wakes several tasks, whose frames had better travel together."""
ALONG_SECONDS = 0.005
"""What is to go along with other bytes goes alone if there are none for so long."""
WAITED_SECONDS = 0.05
"""Who had to wait so long for room found the buffers below full, and then something left them."""

SLOW_SECONDS = 0.02
FAST_SECONDS = 0.002
"""Seconds a turn takes, above which the next is half of it, and below which it is twice."""


def cuts(length: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where each piece begins and ends; there is one, if of nothing."""
    start = 0
    while length - start > size + LITTLE_BYTES:
        yield start, start + size
        start += size
    yield start, length


class Writer:
    """Sends what a session has to send."""

    def __init__(self, session: Session, stream: trio.abc.SendStream) -> None:
        self.error: Exception | None = None
        """Why sending failed, once it did."""
        self._session = session
        self._stream = stream
        self._scope = trio.CancelScope(shield=True)
        self._idle = Waiter()
        self._nap = trio.CancelScope()
        self._nap_until = math.inf
        self._along_until = math.inf
        """When what is to go along goes alone."""
        self._send_now = prompt_sender(stream)
        self._is_sending = False
        self._is_crowded = False
        self._prompt_sends = 0
        self._turn = MIN_TURN
        self._flushed = Waiter()
        self._short_of_room: dict[Waiter, None] = {}

    async def run(self) -> None:
        """Send until ``stop`` is called or sending fails; being cancelled is not enough."""
        with self._scope:
            try:
                await self._send_forever()
            except BROKEN as error:
                self.error = error
        self._is_sending = False
        self._send_now = None
        self._flushed.wake()

    def stop(self) -> None:
        self._scope.cancel()

    async def _send_forever(self) -> None:
        while self.error is None:
            while self._is_sending or self._session.has_data_to_send:
                self._is_sending = True
                data = self._session.data_to_send(self._turn)
                self.wake_senders()
                await self._send(data)
                self._is_sending = False
            self._flushed.wake()
            self._rest()
            await self._idle.wait()

    def _rest(self) -> None:
        self._prompt_sends = 0 if self._is_crowded else PROMPT_SENDS

    async def _send(self, data: bytearray) -> None:
        """Send all, and tell the session whenever the remote must have taken something (Y12)."""
        first = trio.current_time()
        with memoryview(data) as view:
            for start, end in cuts(len(view), max(self._turn, PIECE_BYTES)):
                began = trio.current_time()
                with view[start:end] as piece:
                    await self._stream.send_all(piece)
                now = trio.current_time()
                if now - began >= WAITED_SECONDS:
                    self._session.progressed(now)
        self._adapt(len(data), trio.current_time() - first)

    def _adapt(self, size: int, seconds: float) -> None:
        """Let a turn be as large as goes out in no time, but small on a slow line (Y20)."""
        turn = self._turn
        if seconds > SLOW_SECONDS:
            turn = max(turn // 2, MIN_TURN)
        elif size >= turn and seconds < FAST_SECONDS:
            turn = min(turn * 2, MAX_TURN)
        if turn != self._turn:
            self._turn = turn
            self._session.set_turn(turn)

    def wake_senders(self) -> None:
        """Let those who wait for room look again."""
        if self._short_of_room:
            waiting, self._short_of_room = self._short_of_room, {}
            for waiter in waiting:
                waiter.wake()

    def heard(self, events: int) -> None:
        """Note how many events came together: those that they wake will write, or none."""
        self._is_crowded = events >= CROWD
        self._rest()

    def kick(self) -> None:
        """Send what is ready: now, if it is little and that needs no waiting, or else soon."""
        ready = self._session.bytes_to_send
        if ready and not (ready <= PROMPT_BYTES and self._sent_now()):
            self._idle.wake()

    def kick_soon(self) -> None:
        """Send what is ready, soon: more may join it until then."""
        if self._session.bytes_to_send:
            self._idle.wake()

    def kick_in_time(self) -> None:
        """Send what is ready with the next bytes, or in 5 ms if there are none."""
        self._along_until = min(self._along_until, trio.current_time() + ALONG_SECONDS)
        if self._nap.deadline > self._along_until:
            self._nap.deadline = self._along_until

    async def nap(self, until: float) -> None:
        """Wait until then; meanwhile send what was to go along, once it is to go alone.

        Not for the task that sends, which may have to wait for long.
        """
        self._nap_until = until
        while (now := trio.current_time()) < self._nap_until:
            if self._along_until <= now:
                self._along_until = math.inf
                self.kick()
            with trio.CancelScope(deadline=min(self._nap_until, self._along_until)) as self._nap:
                await trio.sleep_forever()

    def nap_on(self, until: float) -> None:
        """Let the nap last until then: the time that it was for has changed."""
        self._nap_until = until
        self._nap.deadline = min(until, self._along_until)

    def _sent_now(self) -> bool:
        """Send all that is ready, if nobody is at it and if it fits; return True if it did."""
        if not self._prompt_sends or self._is_sending or self._send_now is None:
            return False
        self._prompt_sends -= 1
        self._along_until = math.inf  # The nap may end all the same, for nothing.
        data = self._session.data_to_send()
        self.wake_senders()
        try:
            self._is_sending = not self._send_now(data)
        except BROKEN as error:
            self.error = error
            self._prompt_sends = 0
        return not self._is_sending and self.error is None

    async def flushed(self) -> None:
        """Wait until all is sent, or sending failed."""
        while self.error is None and (self._is_sending or self._session.has_data_to_send):
            self._idle.wake()
            await self._flushed.wait()

    async def wait_for_room(self, waiter: Waiter) -> None:
        """Wait until there may be room to write, or ``waiter`` is woken for another reason."""
        self._short_of_room[waiter] = None
        try:
            await waiter.wait()
        finally:
            self._short_of_room.pop(waiter, None)
