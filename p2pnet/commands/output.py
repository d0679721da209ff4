"""What the command prints: JSON lines for programs, or words for people."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pnet.connectivity.causes import Cause, cause_of
from p2pnet.errors import DialError, NegotiationFailed, describe

Field = str | int | float | bool | None | Sequence["Field"] | Mapping[str, "Field"]


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
                "cause": (cause := cause_for(error)) and cause.name.lower(),
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


def cause_for(error: BaseException) -> Cause | None:
    """Tell the cause of an error of the network; None for those of arguments and files."""
    if isinstance(error, CommandError | OSError):
        return None
    cause = cause_of(error)
    return None if cause is Cause.UNKNOWN else cause


def remedy_for(error: BaseException) -> str:
    """Say what a person can do about an error; empty if nothing comes to mind."""
    match error:
        case CommandError(remedy=remedy):
            return remedy
        case OSError(errno=code):
            return remedy_to_listen(code, "--listen", "/ip4/0.0.0.0/tcp/0")
        case NegotiationFailed():
            return "the peer does not serve this protocol: is it started with --echo, or --perf?"
    cause = cause_for(error)
    return "" if cause is None else WITH_OPTIONS.get(cause, cause.remedy)


LISTENING = {
    errno.EADDRINUSE: "another program listens there already: give another port with {option}",
    errno.EADDRNOTAVAIL: "give an address of this machine with {option}, or {usual}",
    errno.EACCES: "give a port from 1024 on with {option}, or run as a user who may take this one",
}
"""Nothing but listening lets an error of the system come so far."""


def remedy_to_listen(code: int | None, option: str, usual: str) -> str:
    """Say what to do if the address that an option gave cannot be listened at."""
    return LISTENING.get(code or 0, "").format(option=option, usual=usual)


WITH_OPTIONS = {
    Cause.NO_ADDRESS: "give an address that ends in /p2p/<peer id>, or --relay with its relay",
    Cause.NOT_RESERVED: "start the peer with --relay, and wait for its reservation",
}
"""Remedies that are options of the command."""
