"""The trio face of a resumable stream, and the tasks that move bytes over its carriers."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pnet.core.tasks import bare_exceptions
from p2pnet.core.waiter import Waiter
from p2pnet.errors import ConnectionLost, NegotiationFailed, P2PError, ProtocolError, StreamReset
from p2pnet.interfaces import CircuitLimit, Connection, Stream
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.flow import restrain
from p2pnet.protocols.resume.halves import SMALL_PIECE
from p2pnet.protocols.resume.machine import Machine
from p2pnet.protocols.resume.messages import (
    MAX_CODE,
    MAX_DATA,
    PROTOCOL_ID,
    Data,
    Decoder,
    Frame,
    Refuse,
    Why,
    encode,
)

LINGER = 5.0
"""Seconds that a carrier which is no longer used has to come to its end."""
LASTING = 5.0
"""A carrier that lasted so many seconds was of use, even if there was nothing to say."""
MIN_TURN = 65_536
"""Bytes of the application that are handed to a carrier at once; at most MAX_DATA."""
TURNS_OF_CIRCUIT = 64
"""What was handed over is not counted yet where the limit of a circuit is watched (RS22)."""
SLOW_SECONDS = 0.02
FAST_SECONDS = 0.002
"""Seconds a turn takes, above which the next is half of it, and below which it is twice."""


class ResumableStream(Stream):
    """A stream that outlives its connection. ``connection`` is the one that carries it now.

    While none does, it is the last one. ``send_all`` returns when the bytes are kept here to
    be sent, and waits while those that the remote has yet to take fill the window.
    """

    def __init__(
        self,
        machine: Machine,
        protocol_id: str,
        connection: Connection,
        on_moved: Callable[[ResumableStream, Connection], None],
    ) -> None:
        self.machine = machine
        self.left_alone_at = self._carried_at = trio.current_time()
        """When the last carrier that was of any use was lost; matters only while there is none."""
        self.fruitless = 0
        """Carriers in a row that were lost soon, with nothing to show for it."""
        self._progress = 0
        self._protocol_id = protocol_id
        self._connection = connection
        self._on_moved = on_moved
        self._connections: dict[Carrier, Connection] = {}
        self._scopes: dict[Carrier, trio.CancelScope] = {}
        self._carried_by: Carrier | None = machine.current
        self._outlets: dict[Carrier, Waiter] = {}
        """Where the task waits that sends on a carrier."""
        self._readable = Waiter()
        self._writable = Waiter()
        self._changes = trio.lowlevel.ParkingLot()
        self._is_sending = False
        self._is_receiving = False
        self._is_finished = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Stream {self._protocol_id} to {self.peer_id}, resumable>"

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def protocol_id(self) -> str:
        return self._protocol_id

    # ---- what changes --------------------------------------------------------------------

    def stir(self) -> None:
        """Let all who wait look again."""
        current = self.machine.current
        if current is not self._carried_by:
            if self._carried_by is None:
                self._carried_at = trio.current_time()
            self._carried_by = current
            if current is None:
                self._note_loss()
            elif current in self._connections:
                before, self._connection = self._connection, self._connections[current]
                self._on_moved(self, before)
            self._release()
        elif self.machine.is_over:
            self._release()
        for outlet in self._outlets.values():
            outlet.wake()
        self._readable.wake()
        self._writable.wake()
        self._changes.unpark_all()

    def _note_loss(self) -> None:
        """See if the last carrier was of any use (RS20)."""
        now, progress = trio.current_time(), self.progress
        if progress > self._progress or now - self._carried_at >= LASTING:
            self.left_alone_at, self.fruitless = now, 0
        else:
            self.fruitless += 1
        self._progress = progress

    def _stir_flow(self) -> None:
        """Let those look again whom data and acknowledgements concern."""
        machine = self.machine
        if machine.is_over or machine.current is not self._carried_by:
            self.stir()
            return
        if machine.receiving.waiting or machine.receiving.has_ended:
            self._readable.wake()
        if machine.sending.room:
            self._writable.wake()
        self._stir_outlet()

    def _stir_outlet(self) -> None:
        """Let the current carrier send what there is."""
        current = self.machine.current
        if current in self._outlets and self.machine.has_data_to_send:
            self._outlets[current].wake()

    def _release(self) -> None:
        """See that no carrier that is used no more stays for long."""
        for carrier, scope in self._scopes.items():
            if carrier.is_dropped:
                scope.cancel()
            elif carrier.is_leaving or self.machine.is_over:
                scope.deadline = min(scope.deadline, trio.current_time() + LINGER)

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changes.park()

    @property
    def progress(self) -> int:
        """How much has arrived so far, at either end."""
        machine = self.machine
        return machine.is_accepted + machine.sending.base + machine.receiving.received

    def is_off(self, connection: Connection) -> bool:
        """Tell if nothing of it runs over a connection any more."""
        return connection not in self._connections.values()

    @property
    def is_closed(self) -> bool:
        """Tell if this side has closed or reset it."""
        return self._is_closed

    @property
    def is_carried(self) -> bool:
        return bool(self._connections)

    @property
    def keeps_data(self) -> bool:
        """Tell if something has come that may be read still."""
        return not self._is_closed and self.machine.receiving.waiting > 0

    def drop(self, carrier: Carrier) -> None:
        """Give a carrier up."""
        carrier.is_dropped = True
        self.machine.broke(carrier)
        self.stir()
        self._release()

    def restrain(self, leash: int) -> None:
        """Let no more than so many bytes be on their way while this carrier is used (RS22)."""
        if self.machine.current is not None:
            restrain(self.machine.current, leash)
            self.stir()

    def fail(self, failure: Callable[[], P2PError]) -> None:
        self.machine.fail(failure)
        self.stir()

    # ---- sending -------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        if isinstance(data, memoryview):
            data = data.cast("B")
        sent = self._write(data, 0)
        if sent == len(data):
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._is_sending = True
        try:
            while sent < len(data):
                await self._writable.wait()
                sent = self._write(data, sent)
        finally:
            self._is_sending = False

    def _write(self, data: bytes | bytearray | memoryview, start: int) -> int:
        if self._is_closed or self._is_finished:
            raise trio.ClosedResourceError("the end was sent already")
        sent = self.machine.write(data, start)
        if sent > start:
            self._stir_outlet()
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        self._check_sender()
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            while not (self._is_closed or self._might_send()):
                await self._writable.wait()
            if self._is_closed or self._is_finished:
                raise trio.ClosedResourceError("the end was sent already")
        finally:
            self._is_sending = False

    def _might_send(self) -> bool:
        machine = self.machine
        return machine.has_failed or machine.sending.is_stopped or machine.sending.room > 0

    async def send_eof(self) -> None:
        self._check_sender()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        if not self._is_finished:
            self.machine.finish()
            self._is_finished = True
            self.stir()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _check_sender(self) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")

    # ---- receiving -----------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._read(max_bytes)
        if data is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        self._is_receiving = True
        try:
            while data is None:
                await self._readable.wait()
                data = self._read(max_bytes)
        finally:
            self._is_receiving = False
        return data

    def _read(self, max_bytes: int | None) -> bytes | bytearray | None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream is closed")
        data = self.machine.read(max_bytes)
        if data and self.machine.is_over:
            self.stir()
        elif data and self.machine.receiving.owes_ack:
            self._stir_outlet()
        return data

    # ---- closing -------------------------------------------------------------------------

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.machine.close()
            self.stir()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        if not 0 <= code <= MAX_CODE:
            raise ValueError("the code of a reset has 32 bits")
        self._is_closed = True
        self.machine.reset(code)
        self.stir()

    # ---- carriers ------------------------------------------------------------------------

    async def carry(self, carrier: Carrier, muxed: Stream) -> None:
        """Move bytes over a carrier until it breaks, or is used no more."""
        self._connections[carrier] = muxed.connection
        self._outlets[carrier] = Waiter()
        self.stir()
        is_over = False
        try:
            with bare_exceptions():
                async with trio.open_nursery() as tasks:
                    self._scopes[carrier] = tasks.cancel_scope
                    self._release()
                    tasks.start_soon(self._send, carrier, muxed)
                    await self._receive(carrier, muxed)
            is_over = carrier.has_ended and not carrier.is_dropped
        except NegotiationFailed:
            # It said that it would; as it did not take the stream, there is none.
            if not self.machine.is_accepted:
                self.fail(lambda: StreamReset("the remote resumes no streams after all"))
        except ProtocolError as error:
            reason = error.reason
            self.fail(lambda: ProtocolError(PROTOCOL_ID, reason))
            raise
        except (P2PError, trio.BrokenResourceError, trio.ClosedResourceError):
            # RS9: the stream carries on over another one.
            await trio.lowlevel.checkpoint()
        finally:
            if not is_over:
                muxed.reset()
            self.machine.broke(carrier)
            del self._connections[carrier], self._outlets[carrier]
            self._scopes.pop(carrier, None)
            self.stir()
        await muxed.aclose()

    async def _receive(self, carrier: Carrier, muxed: Stream) -> None:
        while data := await muxed.receive_some():
            if self.machine.receive(carrier, data):
                self.stir()
            else:
                self._stir_flow()
        self.machine.ended(carrier)
        self.stir()

    async def _send(self, carrier: Carrier, muxed: Stream) -> None:
        outlet, turn = self._outlets[carrier], MIN_TURN
        most = longest_turn(muxed.connection.limit)
        while True:
            if parts := self.machine.data_to_send(carrier, turn):
                began = trio.current_time()
                for part in together(parts):
                    await muxed.send_all(part)
                taken = trio.current_time() - began
                turn = min(most, next_turn(turn, sum(map(len, parts)), taken))
            elif self.machine.is_silent(carrier):
                await muxed.send_eof()
                return
            else:
                await outlet.wait()


def longest_turn(limit: CircuitLimit | None) -> int:
    """Return how much is handed to a carrier at once: of a circuit, no large part of its limit."""
    if limit is None or limit.data_bytes is None:
        return MAX_DATA
    return min(MAX_DATA, max(MIN_TURN, limit.data_bytes // TURNS_OF_CIRCUIT))


def next_turn(turn: int, sent: int, seconds: float) -> int:
    """Let a turn be as large as goes out in no time, but small on a slow line.

    What was handed to a carrier has to go all the way over it, even if there is a better one.
    """
    if seconds > SLOW_SECONDS:
        return max(turn // 2, MIN_TURN)
    if 2 * sent >= turn and seconds < FAST_SECONDS:
        return min(turn * 2, MAX_DATA)
    return turn


def together(parts: list[Data]) -> list[Data]:
    """Join parts if they are small: to copy them costs less than to send them one by one."""
    if len(parts) == 1 or sum(map(len, parts)) >= SMALL_PIECE:
        return parts
    return [b"".join(parts)]


def lost() -> P2PError:
    return ConnectionLost("no connection has come to carry the stream on")


async def read_first(muxed: Stream, decoder: Decoder) -> Frame:
    """Read the first frame of a carrier, and not a byte beyond it."""
    while True:
        data = await muxed.receive_some(decoder.wanted())
        if not data:
            raise ProtocolError(PROTOCOL_ID, "the stream ended within its first frame")
        for item in decoder.feed(data):
            if isinstance(item, Data):  # RS5
                raise ProtocolError(PROTOCOL_ID, "data on a new carrier")
            return item


async def refuse(muxed: Stream, why: Why) -> None:
    await muxed.send_all(encode(Refuse(why)))
    await muxed.send_eof()
