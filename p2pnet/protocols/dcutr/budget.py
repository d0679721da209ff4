"""How often one place may be dialled, whoever asks for it. Pure. Rule: specs/dcutr.md (D25)."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_network

from p2pnet.core.addresses import Multiaddr, ip_of

REFILL_SECONDS = 60.0
MAX_TARGETS = 1024
LOOK_SECONDS = 0.1
"""All targets of a table without room are looked at no more often."""
PREFIX_BITS = {4: 24, 6: 48}


@dataclass(slots=True)
class Bucket:
    """What is left for one target, and when that was so."""

    left: float
    at: float


class Buckets:
    """Buckets of one size, by target; those that are full again are forgotten."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._looked_at = -math.inf

    def __len__(self) -> int:
        return len(self._buckets)

    def has(self, target: str, now: float) -> bool:
        """Tell if there is something left for a target, and room to note what is taken."""
        self._forget(now)
        if target not in self._buckets:
            return len(self._buckets) < MAX_TARGETS
        return self._left(self._buckets[target], now) >= 1

    def take(self, target: str, now: float) -> None:
        bucket = self._buckets.setdefault(target, Bucket(self._size, now))
        bucket.left, bucket.at = self._left(bucket, now) - 1, now
        self._buckets.move_to_end(target)

    def _left(self, bucket: Bucket, now: float) -> float:
        gained = (now - bucket.at) * self._size / REFILL_SECONDS
        return min(bucket.left + gained, float(self._size))

    def _forget(self, now: float) -> None:
        # In the order of their latest use. Behind one that was used up there may be many full ones.
        while self._buckets and self._is_full(next(iter(self._buckets.values())), now):
            self._buckets.popitem(last=False)
        if len(self._buckets) == MAX_TARGETS and now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            kept = [each for each in self._buckets.items() if not self._is_full(each[1], now)]
            self._buckets = OrderedDict(kept)

    def _is_full(self, bucket: Bucket, now: float) -> bool:
        return self._left(bucket, now) >= self._size


class TargetBudget:
    """What all peers together may have this host dial: so much at an IP, and in a network."""

    def __init__(self, *, per_ip: int, per_prefix: int) -> None:
        self._ips = Buckets(per_ip)
        self._prefixes = Buckets(per_prefix)

    def __len__(self) -> int:
        return len(self._ips) + len(self._prefixes)

    def take(self, address: Multiaddr, now: float) -> bool:
        """Take one dial out of the budget; False if it is used up."""
        ip = ip_of(address)
        if ip is None:
            return False
        prefix = str(ip_network((ip, PREFIX_BITS[ip.version]), strict=False))
        if not (self._ips.has(str(ip), now) and self._prefixes.has(prefix, now)):
            return False
        self._ips.take(str(ip), now)
        self._prefixes.take(prefix, now)
        return True
