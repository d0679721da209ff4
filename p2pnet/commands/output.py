"""What the command prints: JSON lines for programs, or words for people."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnet.errors import (
    AddressUnsupported,
    DialError,
    NegotiationFailed,
    PeerIdMismatch,
    ProtocolError,
    RelayRefused,
    describe,
)

Field = str | int | float | bool | None | Sequence[str] | Sequence[Mapping[str, str]]


class CommandError(Exception):
    """A subcommand cannot go on; the text says why, and ``remedy`` what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Output:
    """Prints events on stdout, one a line; or on stderr, where stdout carries data."""

    as_json: bool = False
    on_stderr: bool = False

    def event(self, name: str, words: str, **fields: Field) -> None:
        """Print an event: its fields as a JSON object, or ``words``."""
        text = json.dumps({"event": name, **fields}) if self.as_json else words
        print(text, file=sys.stderr if self.on_stderr else sys.stdout, flush=True)

    def error(self, error: BaseException) -> None:
        """Print why it did not work, every cause, and what to do about it."""
        remedy = remedy_for(error)
        if self.as_json:
            causes = [
                {"address": str(attempt.address), "cause": describe(attempt.cause)}
                for attempt in (error.attempts if isinstance(error, DialError) else ())
            ]
            fields: dict[str, Field] = {
                "message": put_in_words(error),
                "kind": type(error).__name__,
                "causes": causes,
                "remedy": remedy,
            }
            self.event("error", "", **fields)
        else:
            words = str(error) if isinstance(error, DialError) else put_in_words(error)
            print(f"error: {words}", file=sys.stderr)
            if remedy:
                print(f"what to do: {remedy}", file=sys.stderr)


def nobody_reads() -> int:
    """Give the exit code for when stdout has lost its reader, and leave it nothing to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def put_in_words(error: BaseException) -> str:
    """Say an error in one line; those of the command itself need no name."""
    return str(error) if isinstance(error, CommandError) else describe(error)


def remedy_for(error: BaseException) -> str:
    """Say what a person can do about an error; empty if nothing comes to mind."""
    match error:
        case DialError(attempts=attempts) if attempts:
            told = [remedy_for(attempt.cause) for attempt in attempts]
            return "; ".join(dict.fromkeys(filter(None, told)))
        case CommandError(remedy=remedy):
            return remedy
        case RelayRefused(status=status):
            return REFUSED.get(status, "")
        case ProtocolError(protocol_id="/multistream/1.0.0"):
            return "something else listens there: is the port right?"
        case OSError(errno=errno.EADDRINUSE):
            return "another program listens there already: give another port with --listen"
    return next((remedy for kind, remedy in REMEDIES if isinstance(error, kind)), "")


FULL = "the relay is full: try again later, or another relay"
REFUSED = {
    "NO_RESERVATION": "the peer holds no reservation there: start it with --relay, and wait for it",
    "RESOURCE_LIMIT_EXCEEDED": FULL,
    "RESERVATION_REFUSED": FULL,
    "PERMISSION_DENIED": "the relay does not serve this peer: use another one",
}
REMEDIES: tuple[tuple[type[BaseException], str], ...] = (
    (DialError, "give an address that ends in /p2p/<peer id>, or --relay with its relay"),
    (NegotiationFailed, "the peer does not serve this protocol: is it started with --echo?"),
    (PeerIdMismatch, "another peer answers there: is the peer id right?"),
    (AddressUnsupported, "only TCP is spoken: give an address such as /ip4/192.0.2.1/tcp/4001"),
    (ConnectionRefusedError, "nobody listens there: is the peer running, and the port right?"),
)
