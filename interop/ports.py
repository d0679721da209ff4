"""Ports for programs that can't be told to take any, or have to share one."""

from __future__ import annotations

import random
import socket

NEVER_GIVEN = (10_000, 30_000)
"""Below all that Linux (32768), macOS and Windows (49152) give to whoever asks for any port: so
nobody is given one between the moment in which it was found free and that in which it is bound."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free, and stays so unless somebody wants that very one."""
    for _ in range(1000):
        port = random.randrange(*NEVER_GIVEN)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError("no port is free")
