"""What goes on the carrier in use: acknowledgements, data and the end. No I/O."""

from __future__ import annotations

from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.halves import Receiving, Sending
from p2pnet.protocols.resume.messages import Ack, Data, Fin, Mark, Seek, data_header, encode


def has_flow(carrier: Carrier, sending: Sending, receiving: Receiving | None) -> bool:
    """Tell if there is something to be sent; nothing is acknowledged without ``receiving``."""
    return (
        bool(carrier.control)
        or carrier.next_out < _most_out(carrier, sending)
        or (receiving is not None and receiving.owes_ack)
        or _may_finish(carrier, sending)
    )


def flow(
    carrier: Carrier, sending: Sending, receiving: Receiving | None, *, most: int
) -> list[Data]:
    """Return what is to be sent now, with ``most`` bytes of the application in it."""
    head = bytearray()
    parts: list[Data] = [head]
    if receiving is not None and receiving.owes_ack:
        head += encode(Ack(*receiving.take_ack()))
    # What the other side has meanwhile needs no sending.
    if carrier.next_out < sending.base:
        carrier.next_out = sending.base
        head += encode(Seek(sending.base))
    stop = min(_most_out(carrier, sending), carrier.next_out + most)
    if stop > carrier.next_out:
        data = sending.take(carrier.next_out, stop)
        size = sum(map(len, data))
        carrier.next_out += size
        if carrier.next_out - carrier.marked >= (carrier.leash or sending.window) // 4:  # RS6
            carrier.marked = carrier.next_out
            head += encode(Mark(carrier.next_out))
        head += data_header(size)
        parts += data
    if _may_finish(carrier, sending):
        carrier.is_fin_out = sending.is_fin_sent = True
        parts.append(encode(Fin()))
    return parts


def restrain(carrier: Carrier, leash: int) -> None:
    """Let no more than so many bytes be on their way on a carrier from now on (RS22)."""
    carrier.leash, carrier.marked = leash, carrier.next_out
    carrier.control += encode(Mark(carrier.next_out))


def _most_out(carrier: Carrier, sending: Sending) -> int:
    """Return up to where data may be sent by now."""
    stop = min(sending.end, sending.limit)
    return stop if carrier.leash is None else min(stop, sending.base + carrier.leash)


def _may_finish(carrier: Carrier, sending: Sending) -> bool:
    is_due = sending.is_finished and not (sending.is_done or carrier.is_fin_out)  # RS8
    return is_due and carrier.next_out == sending.end
