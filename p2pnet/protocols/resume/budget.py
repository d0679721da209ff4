"""How much streams may keep, and how many there are, with something left for others. Pure.

Rules: specs/resume.md (RS15, RS23).
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.peer_id import PeerId
from p2pnet.swarm.arrivals import prefix_of

Place: TypeAlias = PeerId | str
"""Where the first connection of a stream led; where it moves to makes no difference."""
SHARE = 2
"""A place may have one stream more while it has fewer than half of what there is room for ..."""
KEY_SHARE = 8
"""... or an eighth if it is but a key; and an eighth of all is not for these ..."""
LARGE_SHARE = 16
"""... and one with large windows while it has fewer than a sixteenth."""


def place_of(peer_id: PeerId, address: Multiaddr) -> Place:
    """Return the place of a connection: what one stranger has for next to nothing.

    Behind a relay or a proxy are many who know nothing of each other: there it is the peer.
    """
    return prefix_of(address) or peer_id


class Budget:
    """Bytes that all streams together may hold, and the windows that each gets of them.

    A stream holds no more than its two windows, and all windows are ``total`` at most (RS15).
    """

    def __init__(
        self, total: int, *, streams: int, first: int, smallest: int, largest: int
    ) -> None:
        self._left = total
        self._free = streams
        self._of = Counter[Place]()
        """How many streams each place has."""
        self._not_for_keys = min(streams, total // (2 * smallest)) // KEY_SHARE
        """Streams that places which are but keys leave to the others."""
        self._for_new = total // 2
        """What windows that grow leave for new streams."""
        self._for_small = total // 4
        """What new streams with the first windows leave for those with the smallest."""
        self._first = first
        self._smallest = smallest
        self._largest = largest

    @property
    def left(self) -> int:
        """Bytes that are not given out."""
        return self._left

    def take(self, place: Place) -> int | None:
        """Return how large both windows of a new stream are; None if nothing is left for it."""
        room, share = min(self._free, self._left // (2 * self._smallest)), SHARE
        if isinstance(place, PeerId):
            room, share = room - self._not_for_keys, KEY_SHARE
        of_place = self._of[place]
        if share * of_place >= room:  # RS23
            return None
        window = self._first
        is_large = LARGE_SHARE * of_place < room
        if not is_large or self._left - 2 * window < self._for_small:
            window = self._smallest
        self._left -= 2 * window
        self._count(place, 1)
        return window

    def grow(self, window: int) -> int:
        """Return by how much a window may grow."""
        more = min(window, self._largest - window)
        if more <= 0 or self._left - more < self._for_new:
            return 0
        self._left -= more
        return more

    def give_back(self, place: Place, windows: int) -> None:
        """Take back both windows of a stream that is over."""
        self._left += windows
        self._count(place, -1)

    def _count(self, place: Place, change: int) -> None:
        self._free -= change
        self._of[place] += change
        if not self._of[place]:
            del self._of[place]
