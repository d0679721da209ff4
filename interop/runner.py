"""What the contracts of other projects' test runners have in common."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping

from p2pnet.errors import describe


class UnfitSettings(Exception):
    """The environment asks for what this program does not do, or does not say enough."""


def need(env: Mapping[str, str], name: str) -> str:
    """Return a variable.

    Raises:
        UnfitSettings: if it is missing or empty.
    """
    if not env.get(name):
        raise UnfitSettings(f"{name} is not set")
    return env[name]


async def exit_code(act: Callable[[], Awaitable[None]]) -> int:
    """Do it; whatever goes wrong, the runner gets it as an exit code, and its log the reason."""
    try:
        await act()
    except Exception as error:  # noqa: BLE001 - a runner asks for no more than yes or no
        print(f"failed: {describe(error)}", file=sys.stderr)
        return 1
    return 0


def latency(handshake_ms: float, ping_ms: float) -> str:
    """Say in the YAML of unified-testing what a handshake took with a round trip, and a ping."""
    return (
        "latency:\n"
        f"  handshake_plus_one_rtt: {handshake_ms:.3f}\n"
        f"  ping_rtt: {ping_ms:.3f}\n"
        "  unit: ms"
    )
