"""Two hosts of p2pnet meet over a relay, and try to become direct: what comes of it.

::

    caller                                              called
      | opens, reserves, learns its NAT                   | likewise
      | -- calls over the relay -------------------------> |
      |      waits until it is direct, or one gives up     |
      | <-- a sample there and back ---------------------> |
      | both leave each other                              |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

import trio

from interop.natlab.peer_thread import Peer
from interop.natlab.stage import host_of
from p2pnet import DCUtR, presets
from p2pnet.connectivity.nat import Mapping
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.events import PunchAttemptFailed, PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.testing.kinds import ALL_KINDS, Kind
from p2pnet.testing.matrix import Punched, can_meet, cause_named, right_causes, speaking, use

PUNCH_SECONDS: Final = 3.0
LEARNS_NAT_SECONDS: Final = 10.0
"""At most: where UDP is blocked, a host that listens by QUIC never learns it."""
KNOWS_NAT_SECONDS: Final = 4.0
"""For a NAT whose ports are to be predicted, once it is known: they move before."""
CELL_SECONDS: Final = 90.0

Place = tuple[tuple[Kind, Kind], Punched]
"""Two kinds of homes, and what is spoken between them."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one pair."""

    a: str
    b: str
    transport: Punched
    expected: str
    outcome: str
    """"direct", "relayed" or "error"."""
    attempts: int
    seconds: float | None
    """From when both ends have the relayed connection until both have a direct one."""
    reason: str
    causes: str = ""
    """What ``explain`` names at the caller's end and at the other, if it stayed relayed."""
    round_trip: float = 0.04
    """Seconds from one home to another, and back."""

    @property
    def agrees(self) -> bool:
        return self.outcome == self.expected and (self.outcome != "relayed" or self.is_explained)

    @property
    def is_explained(self) -> bool:
        """Tell if both ends named the right cause."""
        due = right_causes(ALL_KINDS[self.a], ALL_KINDS[self.b], self.transport)
        return bool(self.reason) and self.causes == due


class Ended(NamedTuple):
    """What a ``Row`` says of the same names."""

    outcome: str
    attempts: int
    seconds: float | None = None
    reason: str = ""
    causes: str = ""


def hosts_of(a: Kind, b: Kind) -> tuple[str, str]:
    return host_of(a.name, "a"), host_of(b.name, "b")


def edge(kind: Kind, transport: Punched, relays: Sequence[str]) -> HostConfig:
    """Describe a peer, which speaks to its relays over what is measured.

    Where that does not get through, it has to find out, and speaks over TCP.
    """
    ways = [relay for relay in relays if f"/{'tcp' if transport == 'tcp' else 'udp'}/" in relay]
    if transport == "quic" and any(nat.udp_blocked for nat in kind.nats):
        ways = list(relays)
    config = speaking(transport, presets.edge(relays=ways, port_mapping=False))
    services = [
        replace(part, punch_timeout=PUNCH_SECONDS) if isinstance(part, DCUtR) else part
        for part in config.services
    ]
    return replace(config, services=services)


async def reserved(host: Host) -> None:
    """Wait until a host can be called, and knows its NAT as far as it ever will."""
    await host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )
    with trio.move_on_after(LEARNS_NAT_SECONDS):
        await host.nat.wait_for(
            lambda nats: any(nat.mapping is not Mapping.UNKNOWN for _, nat in nats.told)
        )
    await trio.sleep(KNOWS_NAT_SECONDS)


async def row_of(place: Place, caller: Peer, called: Peer) -> Row:
    """Let one call the other, and say what came of it."""
    (a, b), transport = place
    expected = "direct" if can_meet(a, b, transport) else "relayed"
    try:
        ended = await trio.to_thread.run_sync(meet, caller, called)
    except (*EXPECTED, TimeoutError, trio.TooSlowError, trio.RunFinishedError) as error:
        ended = Ended("error", 0, reason=repr(error))
    except ExceptionGroup as error:
        ended = Ended("error", 0, reason=repr(error.exceptions))
    return Row(a.name, b.name, transport, expected, *ended)


def meet(caller: Peer, called: Peer) -> Ended:
    """Let one call the other; in a thread that may wait."""
    ended = caller.perform(partial(call, called=called, peer_id=called.peer_id))
    if ended.outcome == "direct":
        ended = ended._replace(seconds=caller.became_direct_after(called))
    caller.leave(called.peer_id)
    called.leave(caller.peer_id)
    return ended


async def call(host: Host, called: Peer, peer_id: PeerId) -> Ended:
    with trio.fail_after(CELL_SECONDS), host.subscribe(PunchAttemptFailed) as failed:
        await host.connect(peer_id)
        reasons = await direct_or_given_up(host, called, peer_id)
        ask = partial(called.perform, partial(cause_there, peer_id=host.peer_id))
        causes = f"{cause_named(host, peer_id)} {await trio.to_thread.run_sync(ask)}"
        best = host.connections(peer_id)[0]
        await use(best)
        failures = [event.reason for event in failed.take_waiting() if event.peer_id == peer_id]
    if best.is_relayed:
        told = "; ".join(dict.fromkeys([*failures, *reasons]))
        attempts = max(len(failures), len(reasons))
        return Ended("relayed", attempts, reason=told, causes=causes)
    return Ended("direct", len(failures) + 1)


async def cause_there(host: Host, peer_id: PeerId) -> str:
    return cause_named(host, peer_id)


async def direct_or_given_up(host: Host, called: Peer, peer_id: PeerId) -> Sequence[str]:
    """Wait for a direct connection, or until one of the two gives up; return why it did."""
    reasons: Sequence[str] = ()
    with host.subscribe(PunchGivenUp) as given_up:
        async with trio.open_nursery() as nursery:

            async def direct() -> None:
                await host.wait_direct(peer_id)
                nursery.cancel_scope.cancel()

            async def given_up_here() -> None:
                nonlocal reasons
                async for event in given_up:
                    if event.peer_id == peer_id:
                        reasons = event.reasons
                        nursery.cancel_scope.cancel()

            async def given_up_there() -> None:
                nonlocal reasons
                wait = called.given_up(host.peer_id).result
                reasons = await trio.to_thread.run_sync(wait, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

            for wait in (direct, given_up_here, given_up_there):
                nursery.start_soon(wait)
    return reasons
