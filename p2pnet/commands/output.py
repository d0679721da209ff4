"""What the command prints: JSON lines for programs, or words for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnet.errors import DialError, NegotiationFailed, P2PError, RelayRefused, describe

Field = str | int | float | bool | None | Sequence[str] | Sequence[Mapping[str, str]]


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
                "message": describe(error),
                "kind": type(error).__name__,
                "causes": causes,
                "remedy": remedy,
            }
            self.event("error", "", **fields)
        else:
            words = str(error) if isinstance(error, DialError) else describe(error)
            print(f"error: {words}", file=sys.stderr)
            if remedy:
                print(f"what to do: {remedy}", file=sys.stderr)


def nobody_reads() -> int:
    """Give the exit code for when stdout has lost its reader, and leave it nothing to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def remedy_for(error: BaseException) -> str:
    """Say what a person can do about an error; empty if nothing comes to mind."""
    match error:
        case DialError(attempts=attempts) if attempts:
            told = [remedy_for(attempt.cause) for attempt in attempts]
            return "; ".join(dict.fromkeys(filter(None, told)))
        case DialError():
            return "give an address that ends in /p2p/<peer id>, or --relay with its relay"
        case RelayRefused(status="NO_RESERVATION"):
            return "the peer holds no reservation there: start it with --relay, and wait for it"
        case RelayRefused(status="RESOURCE_LIMIT_EXCEEDED" | "RESERVATION_REFUSED"):
            return "the relay is full: try again later, or another relay"
        case RelayRefused(status="PERMISSION_DENIED"):
            return "the relay does not serve this peer: use another one"
        case NegotiationFailed():
            return "the peer does not serve this protocol: is it started with --echo?"
        case ConnectionRefusedError():
            return "nobody listens there: is the peer running, and the port right?"
        case TimeoutError() | P2PError() | OSError():
            return ""
        case _:
            return ""
