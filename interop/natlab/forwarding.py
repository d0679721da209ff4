"""What a router does with packets, without sockets and without a clock."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable

from interop.natlab.headers import build, one_hop_further, read, readdressed
from interop.natlab.nat_chain import NatChain
from interop.natlab.slow_line import SlowLine
from p2pnet.errors import ProtocolError
from p2pnet.testing.nat import Dropped, Hop, Side
from p2pnet.testing.packet import Packet

Send = Callable[[Side, bytes], None]


class Forwarder:
    """Forward packets between inside and outside, as the NATs rule.

    Args:
        nats: Judge each packet.
        outgoing: The line to the internet, behind the NATs.
        incoming: The line from the internet, before the NATs.
        own_address: The router's inside; what is for it is the kernel's business.
        send: Puts a packet out; may raise `OSError`.
    """

    def __init__(
        self,
        nats: NatChain,
        *,
        outgoing: SlowLine,
        incoming: SlowLine,
        own_address: str,
        send: Send,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._nats = nats
        self._outgoing = outgoing
        self._incoming = incoming
        self._own_address = own_address
        self._send = send

    def from_inside(self, raw: bytes, now: float) -> None:
        packet = read(raw)
        if packet.destination.host != self._own_address:
            self._pass_on(raw, packet, self._nats.outbound(packet, now), now)

    def from_outside(self, raw: bytes, now: float) -> None:
        self._enter(self._incoming, raw, now)

    def release(self, now: float) -> float:
        """Send on what has been on the line long enough; give when to be called again."""
        for raw in self._incoming.leave(now):
            packet = read(raw)
            self._pass_on(raw, packet, self._nats.inbound(packet, now), now)
        for raw in self._outgoing.leave(now):
            self._emit(Side.OUTSIDE, raw)
        return min(self._incoming.due(), self._outgoing.due())

    def drop(self, reason: str, packets: int = 1) -> None:
        if packets:
            self.counts[f"dropped: {reason}"] += packets

    def _pass_on(self, raw: bytes, packet: Packet, ruling: Hop | Dropped, now: float) -> None:
        if isinstance(ruling, Dropped):
            self.drop(ruling.reason)
            return
        try:
            if ruling.packet.payload == packet.payload:
                further = one_hop_further(raw)
                onward = readdressed(further, ruling.packet.source, ruling.packet.destination)
            else:
                onward = build(ruling.packet)
                self.counts["answered"] += 1
        except ProtocolError as error:
            self.drop(error.reason)
            return
        if ruling.to is Side.OUTSIDE:
            self._enter(self._outgoing, onward, now)
        else:
            self._emit(Side.INSIDE, onward)

    def _enter(self, line: SlowLine, raw: bytes, now: float) -> None:
        lost = line.enter(raw, now)
        if lost is not None:
            self.drop(lost)

    def _emit(self, side: Side, raw: bytes) -> None:
        try:
            self._send(side, raw)
        except OSError as error:
            self.drop(f"not sent, {errno.errorcode.get(error.errno or 0, str(error))}")
        else:
            self.counts[f"sent {side.value}"] += 1
