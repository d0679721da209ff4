"""Where errors may stop: the only ``except Exception`` of the house, and bare exceptions.

A remote can never raise past a boundary, and there are three: an inbound connection being
upgraded, one stream handler, one attempt in a race of dials. What a remote did wrong is
logged in one line; anything else is our bug, or the user's, and is logged with its traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVarTuple, Unpack

import trio

from p2pnet.core.complaints import complain
from p2pnet.errors import HandshakeCut, P2PError, ProtocolError, SecurityError, describe

Ts = TypeVarTuple("Ts")

EXPECTED = (
    P2PError,
    OSError,
    trio.TooSlowError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


@dataclass(slots=True)
class Stopped:
    """What a boundary stopped, if it did."""

    error: Exception | None = None


@contextmanager
def boundary(
    logger: logging.Logger, what: str | Callable[[], str], *, expected: int = logging.DEBUG
) -> Generator[Stopped, None, None]:
    """Stop every error of the block here, and log it once.

    Misbehaviour of the remote (ProtocolError, SecurityError) is logged as a WARNING, if there
    is not too much of it, loss of connection and the like at ``expected``, and all else as an
    ERROR with its traceback. Who hangs up in a handshake does not misbehave: it has tried several
    ways at once, as it should, and another one was faster. Where texts cost much, ``what`` is made
    when it is needed.
    """
    stopped = Stopped()
    try:
        yield stopped
    except Exception as error:  # noqa: BLE001
        stopped.error = error
        log_stopped(logger, what if isinstance(what, str) else what(), error, expected=expected)


def log_stopped(logger: logging.Logger, what: str, error: Exception, *, expected: int) -> None:
    causes = leaves(error)
    bugs = [cause for cause in causes if not isinstance(cause, EXPECTED)]
    if bugs:
        logger.error("%s failed", what, exc_info=error)
    elif any(map(is_misbehaviour, causes)):
        complain(logger, f"{what}: {'; '.join(map(describe, causes))}")
    else:
        logger.log(expected, "%s: %s", what, "; ".join(map(describe, causes)))


def is_misbehaviour(cause: BaseException) -> bool:
    is_cut = isinstance(cause, HandshakeCut)
    return isinstance(cause, ProtocolError | SecurityError) and not is_cut


def leaves(error: BaseException) -> list[BaseException]:
    """Return the plain exceptions inside a tree of exception groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


@contextmanager
def bare_exceptions() -> Generator[None, None, None]:
    """Let a lone exception leave a nursery as itself, not in a group.

    If several failed at once, the first that is not a cancellation is raised, and the others
    stay visible as its ``__cause__`` group. An interrupt (Ctrl-C) goes before any error.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        real = [leaf for leaf in leaves(group) if not isinstance(leaf, trio.Cancelled)]
        if not real:
            raise
        if len(real) == 1:
            raise real[0] from real[0].__cause__
        first = next((leaf for leaf in real if not isinstance(leaf, Exception)), real[0])
        raise first from group


def start_in(
    nursery: trio.Nursery, task: Callable[[Unpack[Ts]], Awaitable[object]], *args: *Ts
) -> None:
    """Start a task for a service, from a stream's handler, which may outlive the service.

    Raises:
        trio.ClosedResourceError: if the service has ended, as its host takes its leave.
    """
    try:
        nursery.start_soon(task, *args)
    except RuntimeError as error:
        raise trio.ClosedResourceError("the service has ended") from error


class Closeable(Protocol):
    """Anything with an ``aclose`` that closes even when cancelled."""

    async def aclose(self) -> None: ...


async def close_at_once(resource: Closeable) -> None:
    """Close without politeness: for errors and for leaving, where nobody waits any more.

    A cancellation from outside waits until this is done: there may be more to close.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await resource.aclose()
