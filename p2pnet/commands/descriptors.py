"""File descriptors: as many as the system lets this program have. Rule: specs/cli.md (C19)."""

from __future__ import annotations

import logging
import sys

if sys.platform != "win32":
    import resource

logger = logging.getLogger("p2pnet.commands")

ENOUGH = 65_536
"""What to ask for where the system names no bound, and may refuse to go without one."""
SPARE = 64
"""What is open beside connections: listeners, logs, the system's own."""


def raise_limit() -> int | None:
    """Take all that may be had; return how many that are, or None if there is no bound."""
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = max(soft, ENOUGH) if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as error:
        logger.info("no more than %d open files: %s", soft, error)
        return soft
    return wanted


def warn_if_fewer(available: int | None, connections: int) -> None:
    """Say on stderr that a relay will run out of descriptors before it reaches its limits."""
    if available is not None and available < connections + SPARE:
        logger.warning(
            "room for %d connections, but no more than %d open files: over TCP each takes one. "
            "Raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower max_circuits and "
            "max_reservations",
            connections,
            available,
        )
