"""Tells whoever races a dial with others that its remote has answered.

A context variable, as the word crosses layers that have nothing to do with it, and nobody
has to pass it on: the upgrader says it for every transport that hands it a raw stream. One
that does its handshakes itself (QUIC), or one more before (WebSocket), says it by itself.
Who says nothing loses nothing but time: the next address is dialled without regard to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[], None]

_listening: ContextVar[Listener | None] = ContextVar("answered", default=None)
_overhearing: ContextVar[Listener | None] = ContextVar("overheard", default=None)


def answered() -> None:
    """Say that the remote of the dial under way in this task has answered anything at all.

    May be said any number of times, and where nobody listens.
    """
    for listener in (_listening.get(), _overhearing.get()):
        if listener is not None:
            listener()


@contextmanager
def hearing(listener: Listener) -> Iterator[None]:
    """Call ``listener`` whenever ``answered`` is said in the block, or in a task born in it."""
    token = _listening.set(listener)
    try:
        yield
    finally:
        _listening.reset(token)


@contextmanager
def overhearing(listener: Listener) -> Iterator[None]:
    """Do so, too, if it is said to somebody else, who is ``hearing`` within the block."""
    token = _overhearing.set(listener)
    try:
        yield
    finally:
        _overhearing.reset(token)
