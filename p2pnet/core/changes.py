"""The system's word that this machine's links, addresses or routes have changed.

Linux tells whoever listens on a netlink socket. Elsewhere nobody tells, and who wants to know
has to look.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Protocol

import trio

NETLINK_ROUTE = 0
KERNEL = 0
"""The port of the kernel: what comes from any other was not said by it."""
LINKS, IPV4_ADDRESSES, IPV4_ROUTES, IPV6_ADDRESSES, IPV6_ROUTES = 0x1, 0x10, 0x40, 0x100, 0x400
GROUPS = LINKS | IPV4_ADDRESSES | IPV4_ROUTES | IPV6_ADDRESSES | IPV6_ROUTES
HEADER = struct.Struct("=IHHII")
NEW_ROUTE, DELETED_ROUTE = 24, 25
HEAD_BYTES = HEADER.size + 2
"""What is read of a message: its header, and of a route the family and the prefix length."""
MAX_AT_ONCE = 256
"""Messages until other tasks have their turn."""
PAUSE = 1.0
"""Seconds without reading after routes changed that are not default ones: some machines' do all
the time. If it is more than the kernel has room for, it tells that."""


class Changes(Protocol):
    """Tells of changes since it was made."""

    async def wait(self) -> None:
        """Wait until something may have changed that was not told of yet. Raises OSError."""
        ...

    def close(self) -> None: ...


class NoChanges:
    """Nobody tells."""

    async def wait(self) -> None:
        await trio.sleep_forever()

    def close(self) -> None:
        pass


class KernelChanges:
    """What the kernel of Linux tells.

    Raises:
        OSError: if it tells nobody here, as in some sandboxes.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._sock = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
        try:
            self._sock.bind((0, GROUPS))
        except BaseException:
            self._sock.close()
            raise

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while not (told := self._take()):
            if told is None:
                await trio.lowlevel.wait_readable(self._sock)
            else:
                await trio.sleep(PAUSE)

    def _take(self) -> bool | None:
        """Take what the kernel has said; tell if it matters, None if it has said nothing."""
        told = None
        for _ in range(MAX_AT_ONCE):
            try:
                head, (sender, _) = self._sock.recvfrom(HEAD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                told = True  # More was said than there was room for.
            else:
                told = told or (sender == KERNEL and matters(head))
        return told

    def close(self) -> None:
        self._sock.close()


def matters(head: bytes) -> bool:
    """Tell if a message is of a link, an address or a default route, by how it begins."""
    if len(head) < HEAD_BYTES:
        return False
    kind = HEADER.unpack_from(head)[1]
    prefix_length = head[HEADER.size + 1]
    return kind not in (NEW_ROUTE, DELETED_ROUTE) or prefix_length == 0


def open_changes() -> Changes:
    """Return what the system tells from now on: nothing, where it does not."""
    if not hasattr(socket, "AF_NETLINK"):
        return NoChanges()
    try:
        return KernelChanges()
    except OSError:
        return NoChanges()
