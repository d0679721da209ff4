"""When the end of a stream may go by itself, with qh3: once all before it has arrived. Pure.

An end rides along with the last data where it can. If these were sent before, and it goes alone,
qh3 (2.1.0) forgets it if it is lost while some of them are unacknowledged: the remote waits for
good. And it forgets that the end was acknowledged if that is told before they are: the stream is
never over, and the remote may open one less. So an end that comes late waits, but for one behind
a single packet on a line that has lost nothing so far::

    last data -------------->        a loss: what was lost goes again when the window lets it,
    end wanted     |                 and the wait begins anew when it has
                   |   <---- acknowledged, all that was sent before
                   end  ---->
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

PATIENCE = 8
"""Rounds, in each of which all is answered that was sent before it. Where the window is always full
and something is always lost, nobody can tell what has gone again: after so many it has."""
LITTLE_BYTES = 1232
"""What one datagram carries."""
LOOK_EVERY = 1 / 8
"""Round trips from one look at the packets to the next: the library lists thousands for each."""
NEVER = 2**62
"""No packet has this number."""


class Sent(Protocol):
    """What a connection tells of the packets it has sent."""

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of packets that are to be acknowledged, and were not so far."""
        ...

    @property
    def loss_total(self) -> int:
        """How many packets were given up."""
        ...

    @property
    def round_trip(self) -> float:
        """Seconds."""
        ...

    @property
    def outstanding_application_packets(self) -> list[tuple[int, int, int]]:
        """The numbers of packets without an answer, in order, and more about each."""
        ...

    @property
    def is_limited(self) -> bool:
        """True if something may wait to be sent until the network has room."""
        ...


class LateEnds:
    """The ends that wait."""

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}
        """Streams, and the rounds since all their data were sent."""
        self._last: dict[int, int] = {}
        """Of those whose data are in packets for certain: the last of these."""
        self._losses = 0
        """Packets that were lost when nothing waited to be sent again, the last time."""
        self._round_ends = -1
        self._look_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def may_go(self, sent: Sent) -> bool:
        """Return True if an end may go now.

        All that was sent has arrived; or it is so little, and nothing was ever lost, that the end
        hardly can be with all of it: js-libp2p has no second ping while the first is not over.
        """
        if sent.loss_total == 0:
            return sent.bytes_in_flight <= LITTLE_BYTES
        return sent.bytes_in_flight == 0 and sent.loss_total == self._losses

    def put_off(self, stream: int) -> None:
        self._waiting[stream] = 0

    def forget(self, stream: int) -> None:
        self._waiting.pop(stream, None)
        self._last.pop(stream, None)

    def due(self, sent: Sent, unsent_on: Callable[[int], int], now: float) -> list[int]:
        """Return the streams whose end may go, and forget them. To be asked before sending."""
        # Where nothing is under way there may be no other occasion, and the look costs nothing.
        if not self._waiting or (now < self._look_at and sent.bytes_in_flight):
            return []
        self._look_at = now + LOOK_EVERY * sent.round_trip
        oldest, newest = unanswered(sent)
        is_new_round = oldest > self._round_ends
        if is_new_round:
            self._round_ends = newest
        is_certain = sent.loss_total == self._losses
        if not is_certain:
            self._last.clear()
        for stream in [stream for stream in self._waiting if not unsent_on(stream)]:
            self._waiting[stream] += is_new_round
            if is_certain:
                self._last.setdefault(stream, newest)
        found = [
            stream
            for stream, rounds in self._waiting.items()
            if oldest > self._last.get(stream, NEVER) or rounds > PATIENCE
        ]
        for stream in found:
            self.forget(stream)
        return found

    def note(self, sent: Sent) -> bool:
        """See if what was lost has gone again; return True if ``due`` is to be asked once more.

        To be called after sending.
        """
        if sent.loss_total == self._losses or sent.is_limited:
            return False
        self._losses = sent.loss_total
        self._last.clear()
        return bool(self._waiting)


def unanswered(sent: Sent) -> tuple[int, int]:
    """Return the numbers of the oldest and of the newest packet to which an answer is due."""
    # What only acknowledges is among them, but nobody has to answer that.
    packets = sent.outstanding_application_packets if sent.bytes_in_flight else []
    return (packets[0][0], packets[-1][0]) if packets else (NEVER, -1)
