"""Which ports are taken, so that the next free one is found without trying them all."""

from __future__ import annotations

from bisect import bisect_left, insort


class TakenPorts:
    """The ports of one address that are taken, in order."""

    def __init__(self) -> None:
        self._taken: list[int] = []

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, port: int) -> None:
        insort(self._taken, port)

    def remove(self, port: int) -> None:
        del self._taken[bisect_left(self._taken, port)]

    def free_in(self, first: int, last: int) -> int | None:
        """Return the lowest free port from the first to the last, or None.

        Ports that are taken without a gap grow by one from place to place, so that the first gap
        can be searched for by halving.
        """
        begin = bisect_left(self._taken, first)
        low, high = begin, len(self._taken)
        while low < high:
            middle = (low + high) // 2
            if self._taken[middle] - first == middle - begin:
                low = middle + 1
            else:
                high = middle
        port = first + low - begin
        return port if port <= last else None
