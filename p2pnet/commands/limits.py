"""The limits of ``p2pnet relay``: read from ``--limit NAME=VALUE``, shown by ``--limits``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from p2pnet.commands.output import CommandError, Output
from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.limits import COUNTS, room_for

NONE = "none"
FOLLOWING = ("max_connections", "max_inbound_per_prefix")
"""Bounds of the swarm that follow from the limits."""


def read_limits(settings: Sequence[str]) -> RelayServer:
    """Make the limits of a relay; those that are not given are the default.

    Raises:
        CommandError: if one does not exist, or its value makes no sense.
    """
    known = [name for name, _ in RelayServer().items()]
    given: dict[str, float | None] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise CommandError(f"--limit {setting}: no such limit", "see `p2pnet relay --limits`")
        given[name] = None if value == NONE else read_number(setting, value, whole=name in COUNTS)
    try:
        return RelayServer(**given)  # type: ignore[arg-type]
    except ValueError as error:
        raise CommandError(f"--limit: {error}") from None


def read_number(setting: str, value: str, *, whole: bool) -> float:
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        kind = "a whole number" if whole else "a number"
        raise CommandError(f"--limit {setting}: {value!r} is not {kind}, nor {NONE!r}")
    return number


def show_limits(limits: RelayServer, output: Output) -> int:
    """Print every limit, and what follows (R44); ``none`` stands for one that is absent."""
    told = {name: value or None for name, value in limits.items()}
    room = room_for(limits)
    connections: dict[str, float | None] = {name: getattr(room, name) for name in FOLLOWING}
    words = f"{table(told)}\nwhat follows for connections:\n{table(connections)}"
    output.event("limits", words, limits=told, connections=connections)
    return 0


def table(values: Mapping[str, float | None]) -> str:
    width = max(map(len, values))
    return "\n".join(
        f"{name:{width}}  {NONE if value is None else f'{value:.15g}'}"
        for name, value in values.items()
    )
