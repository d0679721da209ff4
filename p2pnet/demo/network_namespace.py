"""Make network namespaces, and have a thread be in one of them for a while.

The module makes system calls, so it is an exception to the rule that `p2pnet.core.env` is the
only door to the system.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from p2pnet.demo.private_world import LaboratoryError

_CLONE_NEWNET: Final = 0x40000000  # From <linux/sched.h>.


def new_network_namespace() -> int:
    """Make a network namespace; it lives as long as the descriptor returned is open.

    Raises:
        LaboratoryError: Not permitted.
    """
    with _returning():
        _system_call(ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET), "unshare")
        return _current_namespace()


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Have the calling thread be in a namespace for a while; nothing may be awaited there.

    Raises:
        LaboratoryError: Not permitted.
    """
    with _returning():
        _move_to(namespace)
        yield


@contextmanager
def _returning() -> Iterator[None]:
    """Move the thread back in the end to the namespace where it is now."""
    before = _current_namespace()
    try:
        yield
    finally:
        try:
            _move_to(before)
        finally:
            os.close(before)


def _current_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _move_to(fd: int) -> None:
    _system_call(ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET), "setns")


def _system_call(result: int, name: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise LaboratoryError(f"{name} of a network namespace failed: {reason}")
