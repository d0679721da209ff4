"""One resumable stream: its halves, and the carriers that come and go under it. No I/O.

::

    opener                                                      responder
      | == carrier 1 ============================================ |
      | -- OPEN(secret, limit, protocol) DATA ... --------------> |
      | <------------------------------ ACCEPT(limit) DATA ... -- |
      | == carrier 2, on a better connection ==================== |
      | -- MOVE(name, number, proof, received, limit, alive) ---> |   from here on it sends on 2,
      | <-- MOVED(received, limit) SEEK(offset) DATA ... -------- |   and says LEAVE on 1
      | -- SEEK(offset) DATA ... -------------------------------> |
      | -- LEAVE on carrier 1 ----------------------------------> |   both read 1 to its end

If the old carrier is alive, each side goes on in the new one where it stopped in the old one:
nothing is sent twice, and what is still under way in the old one fills the gap. If the old one
turns out to be dead with the gap unfilled, the receiver says AGAIN. If it was dead from the
beginning, each side goes on from what the other has received.

Whoever drives this calls ``data_to_send`` for each carrier after each other call.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pnet.errors import (
    ConnectionLost,
    NegotiationFailed,
    P2PError,
    ProtocolError,
    StreamReset,
)
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.flow import flow, has_flow
from p2pnet.protocols.resume.halves import Receiving, Sending
from p2pnet.protocols.resume.messages import (
    MAX_DATA,
    PROTOCOL_ID,
    SMALLEST_WINDOW,
    Accept,
    Ack,
    Again,
    Data,
    Decoder,
    Fin,
    Frame,
    Leave,
    Mark,
    Move,
    Moved,
    Open,
    Refuse,
    Reset,
    Seek,
    Stop,
    Why,
    encode,
)
from p2pnet.protocols.resume.policy import Tokens

MAX_CARRIERS = 3
"""The current one, the one before, and one on which a MOVE waits for its answer."""


class StaleMove(Exception):
    """A MOVE that was overtaken by a later one."""


class Machine:
    """The state of one stream at one end."""

    def __init__(
        self,
        tokens: Tokens,
        window: int,
        *,
        is_opener: bool,
        grow: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self.tokens = tokens
        self.is_opener = is_opener
        self.number = 0
        """Of the last MOVE that was sent or seen."""
        self.is_accepted = not is_opener
        self.current: Carrier | None = None
        self.sending = Sending(window, SMALLEST_WINDOW, grow)
        self.receiving = Receiving(window, grow)
        self._carriers: list[Carrier] = []
        self._failure: Callable[[], P2PError] | None = None
        self._is_closed = self._has_said_stop = self.was_one_too_many = False

    # ---- for the application -------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview, start: int) -> int:
        """Take data to be sent, as far as there is room; return how far that was.

        Raises:
            StreamReset, ConnectionLost, ProtocolError: if the stream has failed.
        """
        self._raise_failure()
        if self.sending.is_stopped:
            raise StreamReset("the remote reads no more")
        return self.sending.write(data, start)

    def read(self, max_bytes: int | None) -> bytes | bytearray | None:
        """Return what has come, ``b""`` at the end, None if nothing is there yet.

        Raises:
            StreamReset, ConnectionLost, ProtocolError: if the stream failed before its end.
        """
        data = self.receiving.read(max_bytes)
        if data is None:
            self._raise_failure()
        return data

    def finish(self) -> None:
        """Say that there is no more to send."""
        if not self.sending.is_stopped:
            self._raise_failure()
        self.sending.is_finished = True

    def close(self) -> None:
        """Finish, and read no more."""
        self._is_closed = True
        self.sending.is_finished = True
        if self.receiving.waiting:
            self._say_stop()
        self.receiving.discard()

    def reset(self, code: int) -> None:
        """End both directions at once."""
        if self._failure is None and not self.is_over:
            for carrier in self._carriers:
                if not carrier.is_leaving:
                    carrier.control += encode(Reset(code))
        self.fail(lambda: StreamReset("this side has reset the stream"))
        self.receiving.discard()

    def fail(self, failure: Callable[[], P2PError]) -> None:
        """Give the stream up; what had come before can be read still."""
        if self._failure is None and not self.is_over:
            self._failure = failure
        self.sending.clear()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure()

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    @property
    def is_over(self) -> bool:
        """Tell if neither side has anything more to say."""
        return self._failure is not None or (self.sending.is_done and self.receiving.is_done)

    @property
    def is_orphaned(self) -> bool:
        """Tell if nothing carries it, and something should."""
        return self.current is None and not self.is_over

    # ---- carriers that come --------------------------------------------------------------

    def open(self, protocol: str) -> Carrier:
        """Begin; the carrier is of the opener."""
        carrier = self._add(Carrier(Decoder(), awaits=Accept))
        frame = Open(self.tokens.secret, self.receiving.told_limit, protocol)
        carrier.control += encode(frame)
        self.current = carrier
        return carrier

    def accept(self, opened: Open, decoder: Decoder) -> Carrier:
        """Begin; the carrier brought OPEN."""
        carrier = self._add(Carrier(decoder, awaits=None))
        self.sending.limit = opened.limit
        carrier.control += encode(Accept(self.receiving.told_limit))
        self.current = carrier
        return carrier

    def move(self) -> Carrier:
        """Ask to carry on over another carrier; the old one goes on until the answer."""
        self.number += 1
        carrier = self._add(Carrier(Decoder(), awaits=Moved))
        received, limit = self.receiving.take_ack()
        # The answer may never come: that does not count as told.
        self.receiving.owe_ack()
        name, proof = self.tokens.name, self.tokens.proof("move", self.number)
        is_alive = self.current is not None
        carrier.control += encode(Move(name, self.number, proof, received, limit, is_alive))
        return carrier

    def answer(self, move: Move, decoder: Decoder) -> Carrier:
        """Carry on over the carrier that brought a MOVE, whose proof was checked.

        Raises:
            StaleMove: if another MOVE has overtaken it.
            ProtocolError: if it claims what cannot be.
        """
        if move.number <= self.number:  # RS12
            raise StaleMove
        self.sending.acknowledge(move.received)
        self.sending.allow(move.limit)
        self.number = move.number
        carrier = self._add(Carrier(decoder, awaits=None))
        carrier.control += encode(Moved(*self.receiving.take_ack()))
        self._make_current(carrier, is_alive=move.is_alive)
        return carrier

    def _add(self, carrier: Carrier) -> Carrier:
        # RS11: the oldest that is not in use gives way.
        while len(self._carriers) >= MAX_CARRIERS:
            oldest = next(other for other in self._carriers if other is not self.current)
            oldest.is_dropped = True
            self._remove(oldest)
        self._carriers.append(carrier)
        self._mend()
        return carrier

    def _make_current(self, carrier: Carrier, *, is_alive: bool) -> None:
        old, self.current = self.current, carrier
        carrier.next_out = self.sending.base
        if old is not None:
            if is_alive:
                carrier.next_out = max(old.next_out, self.sending.base)
            old.is_leaving = True
            old.control += encode(Leave())
            if old.has_ended:
                self._remove(old)
        self._begin(carrier)
        # What was said in the old one since may be lost with it.
        self.receiving.owe_ack()
        self._say_stop_again()

    # ---- carriers that go ----------------------------------------------------------------

    def ended(self, carrier: Carrier) -> None:
        """Learn that nothing more comes on a carrier: it was closed in good order."""
        carrier.has_ended = True
        waits = carrier is self.current and carrier.is_left and self._is_moving
        if carrier in self._carriers and not waits:
            self.broke(carrier)

    def broke(self, carrier: Carrier) -> None:
        """Learn that a carrier is gone."""
        if carrier not in self._carriers:
            return
        self._remove(carrier)
        if carrier is self.current:
            self.current = None
        if self.current is not None and self.current.has_ended and not self._is_moving:
            self.broke(self.current)
        self._mend()

    def _remove(self, carrier: Carrier) -> None:
        self._carriers.remove(carrier)
        carrier.held.clear()

    def has(self, carrier: Carrier) -> bool:
        return carrier in self._carriers

    @property
    def _is_moving(self) -> bool:
        return any(carrier.awaits is Moved for carrier in self._carriers)

    def _mend(self) -> None:
        """Ask for what nobody will bring any more (RS10)."""
        current = self.current
        if current is None or current.has_asked_again:
            return
        others = [c for c in self._carriers if c is not current and not c.has_ended]
        if current.position > self.receiving.received and not others:
            current.has_asked_again = True
            current.control += encode(Again(self.receiving.received))

    # ---- what comes ----------------------------------------------------------------------

    def receive(self, carrier: Carrier, data: bytes | bytearray) -> bool:
        """Take bytes from a carrier; tell if there was more in them than data and ACK.

        Raises:
            ProtocolError: if the remote broke a rule; the stream is to be given up.
        """
        is_notable = False
        for item in carrier.decoder.feed(data):
            if self._failure is not None or carrier not in self._carriers:
                return True
            if isinstance(item, Data):
                self._take_data(carrier, item)
                continue
            is_notable = is_notable or not isinstance(item, Ack | Mark)
            if carrier.awaits is not None:
                self._take_answer(carrier, item)
            elif not self._take_flow(carrier, item):
                self._take_end(carrier, item)
            carrier.check_control()
        return is_notable

    def _take_data(self, carrier: Carrier, piece: Data) -> None:
        if carrier.awaits is not None or carrier.is_left:  # RS5
            raise ProtocolError(PROTOCOL_ID, "data out of turn")
        receiving, start = self.receiving, carrier.position
        carrier.position += len(piece)
        receiving.check(carrier.position)
        if start > receiving.received:
            carrier.held += piece
            receiving.check_held(sum(len(other.held) for other in self._carriers))
            return
        if carrier.position > receiving.received:
            known = receiving.received - start
            receiving.deliver(piece[known:] if known else piece)
            self._absorb()
        if self._is_closed and not receiving.has_ended:
            self._say_stop()

    def _absorb(self) -> None:
        """Deliver what had come ahead of its time, if that time has come."""
        for carrier in self._carriers:
            start = carrier.position - len(carrier.held)
            if carrier.held and start <= self.receiving.received:
                held, carrier.held = carrier.held, bytearray()
                if carrier.position > self.receiving.received:
                    with memoryview(held) as view:
                        self.receiving.deliver(view[self.receiving.received - start :])

    def _take_answer(self, carrier: Carrier, frame: Frame) -> None:
        match frame:
            case Accept(limit) if carrier.awaits is Accept:
                carrier.awaits = None
                self.is_accepted = True
                self.sending.allow(limit)
            case Moved(received, limit) if carrier.awaits is Moved:
                carrier.awaits = None
                self.is_accepted = True
                self.sending.acknowledge(received)
                self.sending.allow(limit)
                self._make_current(carrier, is_alive=True)
            case Refuse(Why.STALE) if carrier.awaits is Moved:
                carrier.is_dropped = True
                self.broke(carrier)
            case Refuse(why):
                self.refused(why)
            case Reset(code):
                self._take_reset(code)
            case _:
                raise ProtocolError(PROTOCOL_ID, f"{type(frame).__name__} before the answer")

    def _take_flow(self, carrier: Carrier, frame: Frame) -> bool:
        match frame:
            case Ack(received, limit):
                self.sending.acknowledge(received)
                self.sending.allow(limit)
            case Seek(offset):
                self.receiving.check(offset)
                carrier.position = offset
                carrier.held.clear()
                carrier.has_asked_again = False
                self._mend()
            case Mark(offset):
                self.receiving.mark(offset)
            case Again(received):
                self.sending.acknowledge(received)
                self._send_again(carrier)
            case _:
                return False
        return True

    def _take_end(self, carrier: Carrier, frame: Frame) -> None:
        match frame:
            case Fin():
                if self._has_more_than(carrier.position):  # RS8
                    raise ProtocolError(PROTOCOL_ID, "the end comes before data")
                self.receiving.end_at(carrier.position)
            case Stop():
                self.sending.stop()
            case Reset(code):
                self._take_reset(code)
            case Leave():
                carrier.is_left = True
            case _:
                raise ProtocolError(PROTOCOL_ID, f"{type(frame).__name__} out of turn")

    def _has_more_than(self, offset: int) -> bool:
        return any(carrier.held and carrier.position > offset for carrier in self._carriers)

    def _send_again(self, carrier: Carrier) -> None:
        if carrier is self.current:
            carrier.next_out, carrier.is_fin_out = self.sending.base, False
            self._begin(carrier)

    def _begin(self, carrier: Carrier) -> None:
        """Say where the data begins."""
        carrier.marked = carrier.next_out
        carrier.control += encode(Seek(carrier.next_out))

    def _take_reset(self, code: int) -> None:
        if not self.receiving.has_ended:
            self.receiving.discard()
        self.fail(lambda: StreamReset(f"the remote reset the stream (code {code:#x})"))

    def refused(self, why: Why) -> None:
        """Learn that the other side does not know the stream, or will not have it."""
        sending, receiving = self.sending, self.receiving
        if why is Why.NOT_SERVED:
            self.fail(lambda: NegotiationFailed(["the protocol that was asked for"]))
        elif why is Why.TOO_MANY:
            self.was_one_too_many = True
            self.fail(lambda: StreamReset("the remote keeps no more streams"))
        elif sending.is_finished and receiving.has_ended:  # RS14
            self.fail(lambda: StreamReset("the stream is over"))
        elif self.is_accepted:
            self.fail(lambda: StreamReset("the remote knows the stream no more"))
        else:
            self.fail(lambda: ConnectionLost("the connection was lost within the opening"))

    # ---- what goes -----------------------------------------------------------------------

    @property
    def has_data_to_send(self) -> bool:
        """Tell if there is something to be sent on the current carrier."""
        receiving = self.receiving if self.is_accepted else None
        return self.current is not None and has_flow(self.current, self.sending, receiving)

    def data_to_send(self, carrier: Carrier, most: int = MAX_DATA) -> list[Data]:
        """Return what is to be sent on a carrier now, in its order; empty if there is nothing.

        There are ``most`` bytes of the application in it, MAX_DATA at most.
        """
        out, carrier.control = carrier.control, bytearray()
        parts: list[Data] = [out]
        if carrier is self.current and self._failure is None and not carrier.is_leaving:
            receiving = self.receiving if self.is_accepted else None
            parts += flow(carrier, self.sending, receiving, most=most)
        return [part for part in parts if part]

    def is_silent(self, carrier: Carrier) -> bool:
        """Tell if nothing will be sent on a carrier any more."""
        gone = carrier.is_leaving or self.is_over or carrier not in self._carriers
        return gone and not carrier.control

    def _say_stop(self) -> None:
        if not self._has_said_stop and not self.receiving.has_ended:
            self._has_said_stop = True
            self._say_stop_again()

    def _say_stop_again(self) -> None:
        """STOP belongs to the stream: what carries it on has to know as well."""
        if self._has_said_stop and self.current is not None and not self.receiving.has_ended:
            self.current.control += encode(Stop())
