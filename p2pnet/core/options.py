"""Options of the sockets of the operating system, and what they are for."""

from __future__ import annotations

import socket
import struct

from p2pnet.core.addresses import Endpoint


def only_ipv6(sock: socket.socket, local: Endpoint) -> None:
    """Leave the IPv4 half of the port to a socket of its own."""
    if local.is_ipv6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def share_port(sock: socket.socket) -> None:
    """Let dials leave from the port that is listened on: hole punching needs it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def retransmissions(sock: socket.socket) -> int:
    """Return how often in a row the kernel repeated something in vain; 0 where it does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    state_and_counters = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return state_and_counters[2]  # tcpi_retransmits


def reset_when_closed(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
