"""Tells by the first word on a connection which role the remote plays. Rule: specs/dcutr.md (D15).

A dialer begins with the header of multistream and a proposal. A listener waits for them, or
begins with the header alone, and then waits.
"""

from __future__ import annotations

import trio

from p2pnet.core.rewound import RewoundStream
from p2pnet.interfaces import Role
from p2pnet.negotiation.machine import HEADER_LINE, WHOLE_GREETING


async def role_left(
    stream: trio.abc.HalfCloseableStream, patience: float
) -> tuple[trio.abc.HalfCloseableStream, Role]:
    """Listen for up to ``patience`` seconds; return the role that the remote leaves to us.

    From then on the stream returned takes the place of ``stream``: it has what was heard.
    What is no header is the dialer's fault, as ever: whoever listens next will say so.
    """
    heard = bytearray()
    with trio.move_on_after(patience):
        while HEADER_LINE.startswith(heard):
            data = await stream.receive_some(WHOLE_GREETING - len(heard))
            if not data:
                break
            heard += data
        return RewoundStream(stream, heard), Role.LISTENER
    return RewoundStream(stream, heard), Role.DIALER
