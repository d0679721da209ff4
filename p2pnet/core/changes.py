"""The system's word that this machine's links, addresses or routes have changed.

Linux tells whoever listens on a netlink socket. Elsewhere nobody tells, and who wants to know
has to look.
"""

from __future__ import annotations

import errno
import socket
import struct
from enum import IntEnum
from typing import Protocol

import trio

NETLINK_ROUTE = 0
KERNEL = 0
"""The port of the kernel: what comes from any other was not said by it."""
LINKS, IPV4_ADDRESSES, IPV4_ROUTES, IPV6_ADDRESSES, IPV6_ROUTES = 0x1, 0x10, 0x40, 0x100, 0x400
GROUPS = LINKS | IPV4_ADDRESSES | IPV4_ROUTES | IPV6_ADDRESSES | IPV6_ROUTES
HEADER = struct.Struct("=IHHII")
NEW_ADDRESS, NEW_ROUTE, DELETED_ROUTE = 20, 24, 25
HEAD_BYTES = HEADER.size + 2
"""What is read of a message: its header, and of an address or a route family and prefix length."""
MAX_AT_ONCE = 256
"""Messages until other tasks have their turn."""
PAUSE = 1.0
"""Seconds without reading after routes changed that are not default ones: some machines' do all
the time. If it is more than the kernel has room for, it tells that."""


class Weight(IntEnum):
    """How a message matters."""

    NONE = 0
    """It is of a route to a part of the world."""
    SOME = 1
    SET = 2
    """An IPv4 address or a default route was set."""


class Changes(Protocol):
    """Tells of changes since it was made."""

    async def wait(self) -> bool:
        """Wait until something may have changed that was not told of yet. Raises OSError.

        True: an IPv4 address or a default route was set, perhaps as it was before.
        """
        ...

    def close(self) -> None: ...


class NoChanges:
    """Nobody tells."""

    async def wait(self) -> bool:
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

    async def wait(self) -> bool:
        await trio.lowlevel.checkpoint()
        while not (told := self._take()) or max(told) is Weight.NONE:
            if not told:
                await trio.lowlevel.wait_readable(self._sock)
            else:
                await trio.sleep(PAUSE)
        return max(told) is Weight.SET

    def _take(self) -> set[Weight]:
        """Take what the kernel has said; tell how it matters."""
        told = set()
        for _ in range(MAX_AT_ONCE):
            try:
                head, (sender, _) = self._sock.recvfrom(HEAD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                told.add(Weight.SET)  # More was said than there was room for.
            else:
                told.add(weigh(head) if sender == KERNEL else Weight.NONE)
        return told

    def close(self) -> None:
        self._sock.close()


def weigh(head: bytes) -> Weight:
    """Tell how a message matters, by how it begins."""
    if len(head) < HEAD_BYTES:
        return Weight.NONE
    kind = HEADER.unpack_from(head)[1]
    family, prefix_length = head[HEADER.size :]
    if kind in (NEW_ROUTE, DELETED_ROUTE) and prefix_length:
        return Weight.NONE
    # Routers have the lifetimes of IPv6 addresses set again and again.
    is_set = kind == NEW_ROUTE or (kind == NEW_ADDRESS and family == socket.AF_INET)
    return Weight.SET if is_set else Weight.SOME


def open_changes() -> Changes:
    """Return what the system tells from now on: nothing, where it does not."""
    if not hasattr(socket, "AF_NETLINK"):
        return NoChanges()
    try:
        return KernelChanges()
    except OSError:
        return NoChanges()
