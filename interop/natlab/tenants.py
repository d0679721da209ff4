"""Hosts that stay in their homes for several meetings, each with somebody else.

To open a host, to reserve and to learn its NAT takes eight seconds and most of a meeting's work, so
whoever wants many meetings lets the host in a home stay for as long as it meets peers that it has
not met. What it learned, and what its NAT remembers of others, is there then, as it would be in the
field; the next host is another peer, at another port.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import trio

from interop.natlab.meeting import Place, Row, edge, hosts_of, reserved, row_of
from interop.natlab.peer_thread import Peer
from p2pnet.demo.namespaces import Laboratory
from p2pnet.testing.matrix import Punched


@dataclass
class Tenant:
    """The host in a home."""

    peer: Peer
    transport: Punched
    met: set[str] = field(default_factory=set)
    """The homes with which it has met, or is about to."""


class Tenants:
    """Let two meet in their homes, over and over; ends them all with the block."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}

    @classmethod
    @contextmanager
    def housed(cls) -> Iterator[Self]:
        tenants = cls()
        try:
            yield tenants
        finally:
            for home in list(tenants._tenants):
                tenants._end(home)

    async def __call__(self, laboratory: Laboratory, place: Place, relays: Sequence[str]) -> Row:
        (a, b), transport = place
        homes = hosts_of(a, b)
        for kind, home, other in zip((a, b), homes, reversed(homes), strict=True):
            there = self._tenants.get(home)
            if there is None or there.transport != transport or other in there.met:
                await trio.to_thread.run_sync(self._end, home)
                peer = Peer(laboratory, home, edge(kind, transport, relays), reserved)
                there = self._tenants[home] = Tenant(peer, transport)
            there.met.add(other)
        caller, called = (self._tenants[home].peer for home in homes)
        row = await row_of(place, caller, called)
        if row.outcome == "error":
            for home in homes:
                await trio.to_thread.run_sync(self._end, home)
        return row

    def _end(self, home: str) -> None:
        tenant = self._tenants.pop(home, None)
        if tenant is not None:
            tenant.peer.end()
