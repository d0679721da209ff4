"""Switch frames between the ports of a namespace, each of them late by a fixed time.

A laboratory's public network needs a delay for whatever depends on packets that cross on
their way. The kernel's netem would do, but many kernels lack it, and a packet socket is
everywhere. Half of the delay is on each port's line, and who sits in the middle has none::

    home ---- delay/2 ---- switch ---- delay/2 ---- home
                             |
                      a relay, say, with a port that is "near"

The switch runs as a script in a process of its own, ``python delay.py SECONDS``:
it writes a line when it is ready, and goes on until its standard input is closed.
"""

import itertools
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heappop, heappush
from typing import Final

PORT_PREFIX: Final = "port"
"""How the devices begin that are ports of the switch; it leaves others alone."""
NEAR_PREFIX: Final = "port-near"
"""How those of them begin that no time lies behind."""

MAX_FRAMES: Final = 4096
"""Frames on their way at most; like a router's, a full queue loses what comes."""

# From <linux/if_ether.h>, <linux/if_packet.h> and <linux/virtio_net.h>.
_ETH_P_ALL: Final = 3
_ETH_P_ARP: Final = 0x0806
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_OFFLOAD_HEADER: Final = 10  # Bytes before each frame.
_LARGEST: Final = _OFFLOAD_HEADER + 18 + 65535


class DelayLine:
    """A learning switch whose frames leave ``delay`` seconds after they came, in order.

    It is half of that between a port that is near and another one, and none between two such.
    ARP passes at once: between real routers there is none, and it would lengthen the first
    exchange of two hosts by a round trip.
    """

    def __init__(
        self,
        delay: float,
        *,
        send: Callable[[str, bytes], None],
        all_ports: Callable[[], Iterable[str]],
    ) -> None:
        self._delay = delay
        self._send = send
        self._all_ports = all_ports
        self._ports: dict[bytes, str] = {}
        self._waiting: list[tuple[float, int, str, bytes]] = []
        self._numbers = itertools.count()

    def receive(self, port: str, frame: bytes, *, now: float) -> None:
        ethernet = frame[_OFFLOAD_HEADER : _OFFLOAD_HEADER + 14]
        self._ports[ethernet[6:12]] = port
        if int.from_bytes(ethernet[12:14]) == _ETH_P_ARP:
            self._forward(port, frame)
        elif len(self._waiting) < MAX_FRAMES:
            due = now + self._line(port) + self._line(self._ports.get(ethernet[:6], ""))
            heappush(self._waiting, (due, next(self._numbers), port, frame))

    def _line(self, port: str) -> float:
        return 0.0 if port.startswith(NEAR_PREFIX) else self._delay / 2

    def release(self, now: float) -> float | None:
        """Send what is due; give the seconds until the next frame is, None without any."""
        while self._waiting:
            due, _, port, frame = self._waiting[0]
            if due > now:
                return due - now
            heappop(self._waiting)
            self._forward(port, frame)
        return None

    def _forward(self, source: str, frame: bytes) -> None:
        known = self._ports.get(frame[_OFFLOAD_HEADER : _OFFLOAD_HEADER + 6])
        for port in self._all_ports() if known is None else (known,):
            if port != source:
                self._send(port, frame)


def _open_packet_socket() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    # Frames keep the note which checksums and segments are still to be made, so that
    # whoever receives them in the end knows; without it they would count as damaged.
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    return opened


def _is_port(device: str) -> bool:
    return device.startswith(PORT_PREFIX)


def _run(packets: socket.socket, delay: float) -> None:
    def send(port: str, frame: bytes) -> None:
        with suppress(OSError):  # A port that is gone or full loses the frame.
            packets.sendto(frame, (port, 0))

    def all_ports() -> list[str]:
        return [device for _, device in socket.if_nameindex() if _is_port(device)]

    line = DelayLine(delay, send=send, all_ports=all_ports)
    while True:
        wait = line.release(time.monotonic())
        readable, _, _ = select.select([packets, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            return
        if packets in readable:
            frame, address = packets.recvfrom(_LARGEST)
            if _is_port(address[0]):
                line.receive(address[0], frame, now=time.monotonic())


if __name__ == "__main__":
    with _open_packet_socket() as opened:
        print("ready", flush=True)
        _run(opened, float(sys.argv[1]))
