"""Links: how long a packet takes, and whether it arrives."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from p2pnet.testing.packet import Packet


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a link does to packets, the same in both directions."""

    latency: float = 0.005
    """Seconds, one way."""
    jitter: float = 0.0
    """Seconds by which a packet may take longer; the order stays."""
    loss: float = 0.0
    """Probability that a packet is lost; so with the next two."""
    duplicate: float = 0.0
    reorder: float = 0.0
    """... is held back for ``reorder_by``, so that later ones overtake it."""
    reorder_by: float = 0.02
    """Seconds."""
    bandwidth: float | None = None
    """Bits per second; None is without limit."""
    queue_bytes: int = 1_000_000
    """What waits for a link that is busy; what comes beyond is lost."""
    mtu: int = 1500
    """Bytes of the largest packet."""

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "reorder_by"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError("bandwidth must be positive")
        if self.mtu < 576 or self.queue_bytes < self.mtu:
            raise ValueError("mtu must be at least 576, and fit into the queue")

    @property
    def is_plain(self) -> bool:
        """Tell if all it does is to take its time."""
        return not (self.jitter or self.loss or self.duplicate or self.reorder or self.bandwidth)


class Lane:
    """One direction of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free_at = 0.0
        self._last_arrival = 0.0
        self._packets = 0
        self._doomed: set[int] = set()

    def drop_nth(self, *numbers: int) -> None:
        """Lose the packets with these numbers, counted from the next one, which is 1."""
        self._doomed.update(self._packets + number for number in numbers)

    def carry(self, packet: Packet, now: float) -> tuple[float, ...] | str:
        """Return when a packet arrives (twice, if it is duplicated), or why it does not."""
        quality, chance = self._link.quality, self._link.chance
        self._packets += 1
        if self._link.is_cut:
            return "link cut"
        if self._packets in self._doomed:
            self._doomed.discard(self._packets)
            return "dropped on command"
        if packet.size > quality.mtu:
            return "larger than the MTU"
        if quality.is_plain:
            return (now + quality.latency,)
        if quality.loss and chance.random() < quality.loss:
            return "lost"
        leaves = self._queue(packet.size, now)
        if leaves is None:
            return "queue full"
        arrival = leaves + quality.latency + quality.jitter * chance.random()
        if quality.reorder and chance.random() < quality.reorder:
            return (arrival + quality.reorder_by,)
        self._last_arrival = arrival = max(arrival, self._last_arrival)
        if quality.duplicate and chance.random() < quality.duplicate:
            return (arrival, arrival)
        return (arrival,)

    def _queue(self, size: int, now: float) -> float | None:
        """Return when the last bit of a packet has left; None if the queue is full."""
        bandwidth = self._link.quality.bandwidth
        if bandwidth is None:
            return now
        begin = max(now, self._free_at)
        if (begin - now) * bandwidth / 8 + size > self._link.quality.queue_bytes:
            return None
        self._free_at = begin + size * 8 / bandwidth
        return self._free_at


class Link:
    """What joins a machine or a router to a realm."""

    def __init__(self, quality: Quality, chance: Random) -> None:
        self.quality = quality
        """May be replaced at any time."""
        self.chance = chance
        self.is_cut = False
        """While True nothing gets through."""
        self.up = Lane(self)
        """From the machine."""
        self.down = Lane(self)
