"""What a TCP connection holds of either direction: bytes not yet acknowledged, bytes not yet read.

Positions count from the SYN, which has position 0: the first byte of data has position 1, and
nothing wraps. Neither buffer copies more than the bytes that go in or out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

FIRST_BYTE = 1


class SendBuffer:
    """Bytes written and not yet acknowledged."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()  # deletes from its front without moving the rest
        self._start = FIRST_BYTE
        self.end = FIRST_BYTE
        """The position after the last byte written, where a FIN belongs."""

    @property
    def room(self) -> int:
        return self._limit - len(self._bytes)

    def append(self, data: bytes | bytearray | memoryview) -> int:
        """Take what there is room for, and say how much that was."""
        taken = min(len(data), self.room)
        self._bytes += data if taken == len(data) else memoryview(data)[:taken]
        self.end += taken
        return taken

    def copy(self, position: int, length: int) -> bytes:
        offset = position - self._start
        return bytes(self._bytes[offset : offset + length])

    def release(self, position: int) -> None:
        """Forget what stands before ``position``: it was acknowledged."""
        count = min(position, self.end) - self._start
        if count > 0:
            del self._bytes[:count]
            self._start += count

    def clear(self) -> None:
        self.release(self.end)


class ReceiveBuffer:
    """Bytes arrived: in order for the reader, out of order until the gap before them is filled."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # what was read of the first chunk
        self._starts: list[int] = []  # of what is out of order: sorted, and without overlap
        self._pieces: dict[int, bytes] = {}
        self._fin: int | None = None
        self.next = FIRST_BYTE
        """The position that is missing: what is acknowledged."""
        self.edge = FIRST_BYTE + limit
        """The first position there is no room for. It never moves back."""
        self.readable = 0
        self.finished = False
        """The FIN, and so all data, has arrived."""

    def insert(self, position: int, data: bytes, *, fin: bool = False) -> None:
        """Add bytes; what is there already or has no room is left out."""
        end = position + len(data)
        if fin and self._fin is None and self.next <= end < self.edge:
            self._fin = end
        last = self.edge if self._fin is None else min(self._fin, self.edge)
        if position < self.next or end > last:
            data = data[max(self.next - position, 0) : max(last - position, 0)]
            position = max(position, self.next)
        if data:
            if position == self.next and not self._starts:
                self._append(data)
            else:
                self._insert_between(position, data)
                self._join()
        if self.next == self._fin and not self.finished:
            self.finished = True
            self.next += 1

    def read(self, max_bytes: int) -> bytes:
        """Take up to ``max_bytes`` from the front; b"" if nothing is there."""
        taken: list[bytes] = []
        missing = count = max(min(max_bytes, self.readable), 0)
        while missing > 0:
            chunk = self._chunks[0]
            part = chunk[self._offset : self._offset + missing]
            taken.append(part)
            missing -= len(part)
            self._offset += len(part)
            if self._offset == len(chunk):
                self._chunks.popleft()
                self._offset = 0
        self.readable -= count
        self.edge += count
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self._offset = 0
        self._starts.clear()
        self._pieces.clear()
        self.readable = 0

    def _append(self, data: bytes) -> None:
        self._chunks.append(data)
        self.readable += len(data)
        self.next += len(data)

    def _insert_between(self, position: int, data: bytes) -> None:
        """Keep the parts of ``data`` that lie between the pieces already there."""
        starts = self._starts
        index = bisect_left(starts, position)
        if index:
            before = starts[index - 1]
            covered = before + len(self._pieces[before]) - position
            if covered > 0:
                data = data[covered:]
                position += covered
        while data:
            gap = len(data)
            if index < len(starts):
                gap = min(gap, starts[index] - position)
            if gap > 0:
                starts.insert(index, position)
                self._pieces[position] = data[:gap]
                index += 1
            if index == len(starts):
                return
            skipped = gap + len(self._pieces[starts[index]])
            data = data[skipped:]
            position += skipped
            index += 1

    def _join(self) -> None:
        """Hand the pieces to the reader that are in order now."""
        count = 0
        for start in self._starts:
            if start != self.next:
                break
            self._append(self._pieces.pop(start))
            count += 1
        del self._starts[:count]
