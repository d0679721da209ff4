"""Sending at once: what a stream may be able to do besides ``send_all``, from whichever task.

A task that hands its bytes to another one to send pays for the change of tasks; one that sends
them itself must not be cancelled in the midst of a frame. What never waits can't be cancelled.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

SendNow = Callable[[bytes | bytearray], bool]
"""Sends without waiting, and returns False if something is left of it.

What is left is kept, and goes in front of what ``send_all`` sends next, which may be nothing.
Until then there is no sending at once. Raises what ``send_all`` raises.
"""


class Prompt:
    """A stream that may be able to send at once.

    A class and no protocol: each connection asks five times, and looking at what methods a
    stream has takes 13 µs.
    """

    def prompt_sender(self) -> SendNow | None:
        """Return what sends at once; None if something below can't."""
        return None


def prompt_sender(stream: trio.abc.SendStream) -> SendNow | None:
    """Return what sends at once on a stream; None if it can't."""
    return stream.prompt_sender() if isinstance(stream, Prompt) else None
