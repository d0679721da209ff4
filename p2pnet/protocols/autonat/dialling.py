"""The dial that a server makes for a client, and what it says there. Rules: specs/autonat.md."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, log_stopped
from p2pnet.errors import (
    AddressUnsupported,
    DialError,
    LimitExceeded,
    NegotiationFailed,
    ProtocolError,
    SecurityError,
    describe,
)
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.autonat.channels import Telling
from p2pnet.protocols.autonat.dialogue import deliver
from p2pnet.protocols.autonat.messages import DIAL_BACK, DialResponse, DialStatus, Status
from p2pnet.protocols.autonat.policy import Choice

logger = logging.getLogger("p2pnet.autonat")

OUR_FAULTS = frozenset(
    {
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
"""Why a dial may fail that says nothing about whom it was for."""


@dataclass(frozen=True, slots=True)
class Dial:
    """What a client has asked for."""

    client: PeerId
    choice: Choice
    nonce: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long it may take, in seconds, and how much may be sent."""

    dial: float
    dial_back: float
    unanswered_bytes: int | None = None
    """In datagrams, until somebody has answered; None is without bound."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """What came of it."""

    response: DialResponse
    """What to tell the client."""
    found_another: bool = False
    """Somebody is there, who is not the client."""


async def dial_back(host: ServiceHost, dial: Dial, bounds: Bounds) -> Dialled:
    """Dial as a stranger, once, and say the nonce (AN14, AN15)."""
    try:
        spending = bounds.unanswered_bytes
        async with host.apart(stranger=True, unanswered_bytes=spending) as apart:
            with trio.fail_after(bounds.dial):
                connection = await apart.dial(dial.client, dial.choice.address)
            return told(dial, await say(connection, dial.nonce, bounds.dial_back))
    except (DialError, trio.TooSlowError) as error:
        logger.debug("dial of %s for %s: %s", dial.choice.address, dial.client, describe(error))
        if is_our_fault(error):
            return Dialled(DialResponse(Status.E_INTERNAL_ERROR))
        return told(dial, DialStatus.E_DIAL_ERROR, found_another=is_another(error))


def told(dial: Dial, status: DialStatus, *, found_another: bool = False) -> Dialled:
    return Dialled(DialResponse(Status.OK, dial.choice.index, status), found_another)


async def say(connection: Connection, nonce: int, seconds: float) -> DialStatus:
    """Say the nonce to whoever answered."""
    try:
        with trio.fail_after(seconds):
            stream = await connection.open_stream(DIAL_BACK)
            try:
                await deliver(Telling(stream), nonce)
            except BaseException:
                stream.reset()
                raise
            await stream.aclose()
    except EXPECTED as error:
        what = f"dial-back to {connection.peer_id} at {connection.remote_address}"
        log_stopped(logger, what, error, expected=logging.DEBUG)
        return DialStatus.E_DIAL_BACK_ERROR
    return DialStatus.OK


def causes_of(error: DialError | trio.TooSlowError) -> list[BaseException]:
    return [a.cause for a in error.attempts] if isinstance(error, DialError) else [error]


def is_our_fault(error: DialError | trio.TooSlowError) -> bool:
    """Tell if a dial failed for what is the matter here, not there."""
    return any(
        isinstance(cause, AddressUnsupported | LimitExceeded)
        or (isinstance(cause, OSError) and cause.errno in OUR_FAULTS)
        for cause in causes_of(error)
    )


def is_another(error: DialError | trio.TooSlowError) -> bool:
    """Tell if a dial failed because somebody else answered."""
    wrong = SecurityError | NegotiationFailed | ProtocolError
    return any(isinstance(cause, wrong) for cause in causes_of(error))
