"""A network interface of a router that is a program: whole IPv4 packets in and out.

What arrives is read by a packet socket, beside the kernel; what leaves is left to the
kernel's routing and ARP by way of a raw socket that is bound to the interface.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, Self

from interop.natlab.headers import as_on_the_wire
from p2pnet.errors import ProtocolError

# From <linux/if_ether.h>, <linux/if_packet.h> and <linux/virtio_net.h>.
_ETH_P_IP: Final = 0x0800
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_STATISTICS: Final = 6
_PACKET_HOST: Final = 0
_OFFLOAD: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 1
_WITH_ECN: Final = 0x80
_ONE_PACKET: Final = 0  # Else there are segments of a kind, to be cut apart.
_SEGMENTS: Final = {1: "TCP", 5: "UDP"}
_ETHERNET_BYTES: Final = 14
_LARGEST: Final = _OFFLOAD.size + _ETHERNET_BYTES + 65535

_BUFFER_BYTES: Final = 4 * 1024 * 1024  # The kernel takes off what it does not permit.
_AT_ONCE: Final = 64  # Receptions before somebody else has a turn.


class PacketInterface:
    """The interface ``name`` of the current network namespace.

    Raises:
        OSError: There is none of that name, or the right to open such sockets is missing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._receiving = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sending = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        try:
            self._receiving.setblocking(False)
            self._receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            # Tells which checksums and segments are still to be made.
            self._receiving.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._receiving.bind((name, _ETH_P_IP))
            self._sending.setblocking(False)
            self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._sending.setsockopt(
                socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0"
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._receiving.close()
        self._sending.close()

    def fileno(self) -> int:
        """Give what to wait for until something can be received."""
        return self._receiving.fileno()

    def receive(self) -> Iterator[bytes | ProtocolError]:
        """Give packets that are there, each as it would be on a wire, or what is wrong with it.

        Only those sent to this machine itself: neither broadcasts nor what goes past.
        """
        for _ in range(_AT_ONCE):
            try:
                received, address = self._receiving.recvfrom(_LARGEST)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN):  # It may come up again.
                    return
                raise
            if address[2] == _PACKET_HOST:
                yield from _packets(received)

    def send(self, packet: bytes) -> None:
        """Send a packet out here, to its destination or the gateway on the way there.

        Raises:
            OSError: It cannot be sent.
        """
        self._sending.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))

    def count_overruns(self) -> int:
        """Count what came since the last time but found the buffer full."""
        counts = self._receiving.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        _, losses = struct.unpack("=II", counts)
        return int(losses)


def _packets(received: bytes) -> Iterator[bytes | ProtocolError]:
    flags, kind, _, segment_bytes, _, _ = _OFFLOAD.unpack_from(received)
    kind &= ~_WITH_ECN
    try:
        if kind != _ONE_PACKET and kind not in _SEGMENTS:
            raise ProtocolError("ipv4", f"segments of the unknown kind {kind}")
        yield from as_on_the_wire(
            received[_OFFLOAD.size + _ETHERNET_BYTES :],
            checksum_missing=bool(flags & _NEEDS_CHECKSUM),
            segment_bytes=segment_bytes if kind in _SEGMENTS else 0,
        )
    except ProtocolError as error:
        yield error
