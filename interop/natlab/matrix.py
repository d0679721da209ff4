"""``matrix``: p2pnet itself in a laboratory, in homes of each pair of kinds, over TCP and QUIC.

The relays and the two peers of a cell are hosts of p2pnet, each in a thread that is in a network
namespace; the NATs are the kernel's. Of each kind there are two homes, so that it can meet itself;
in a home there is one peer at a time. A peer that calls waits until the other is there::

    called                                      caller
      | opens, reserves, "here I am" ---------->  opens, calls over the relay
      |                                           waits until it is direct, or given up
      | <-------------------------------------->  a sample there and back
      | is told to end <------------------------  tells what came of it
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations_with_replacement, product
from typing import Final, Protocol

import trio

from interop.natlab.building import Town
from interop.natlab.stage import host_of, settle
from p2pnet import DCUtR, open_host, presets
from p2pnet.connectivity.nat import Mapping
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED, bare_exceptions
from p2pnet.demo.namespaces import Laboratory
from p2pnet.events import PunchAttemptFailed, PunchGivenUp
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.testing.kinds import ALL_KINDS, MATRIX, Kind
from p2pnet.testing.matrix import (
    ECHO,
    TRANSPORTS,
    Punched,
    can_meet,
    cause_named,
    echo,
    right_causes,
    speaking,
    use,
)

__all__ = [
    "AT_ONCE",
    "TRANSPORTS",
    "Place",
    "Row",
    "hosts_of",
    "measure_all",
    "meet_p2pnet",
    "pairs_of",
    "run_matrix",
    "settled",
]

DELAY: Final = 0.02
"""Seconds from one home to another."""
RELAYS: Final = {"relay-1": "11.0.0.1", "relay-2": "11.0.200.1"}
"""In networks of their own, so that a peer can tell how its NAT maps."""
STEP: Final = 3
"""In the sample each kind calls the third behind it; neighbours are much alike."""
AT_ONCE: Final = 6
PUNCH_SECONDS: Final = 3.0
LEARNS_NAT_SECONDS: Final = 10.0
"""At most: where UDP is blocked, a host that listens by QUIC never learns it."""
KNOWS_NAT_SECONDS: Final = 4.0
"""For a NAT whose ports are to be predicted, once it is known: they move before."""
CELL_SECONDS: Final = 90.0
READY_SECONDS: Final = 40.0


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
    """From the call's end, at the caller, until it is direct there."""
    reason: str
    causes: str = ""
    """What ``explain`` names at the caller's end and at the other, if it stayed relayed."""

    @property
    def agrees(self) -> bool:
        return self.outcome == self.expected and (self.outcome != "relayed" or self.is_explained)

    @property
    def is_explained(self) -> bool:
        """Tell if both ends named the right cause."""
        due = right_causes(ALL_KINDS[self.a], ALL_KINDS[self.b], self.transport)
        return bool(self.reason) and self.causes == due


Report = Callable[[Row], None]


class Meet(Protocol):
    """Lets one peer call another, each on a host of the laboratory; says what came of it."""

    async def __call__(
        self, laboratory: Laboratory, place: Place, relays: Sequence[str]
    ) -> Row: ...


def pairs_of(kinds: Sequence[Kind] | None, *, sample: bool) -> list[tuple[Kind, Kind]]:
    """Give all pairs of some kinds; or as a sample two for each kind: it calls, and is called."""
    chosen = list(kinds or MATRIX.values())
    if sample:
        return [(kind, chosen[(number + STEP) % len(chosen)]) for number, kind in enumerate(chosen)]
    return list(combinations_with_replacement(chosen, 2))


def run_matrix(
    pairs: Sequence[tuple[Kind, Kind]], transports: Sequence[Punched], *, as_json: bool
) -> int:
    """Measure in a private world; 0 if all came out as theory says."""
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        print(json.dumps(asdict(row)) if as_json else in_words(row), flush=True)

    kinds = {kind.name: kind for pair in pairs for kind in pair}
    with settled(list(kinds.values())) as laboratory, bare_exceptions():
        cells = list(product(pairs, transports))
        trio.run(partial(measure_all, laboratory, cells, report=report))
    wrong = sum(not row.agrees for row in rows)
    if as_json:
        print(json.dumps({"event": "done", "measured": len(rows), "disagreeing": wrong}))
    else:
        print(f"\n{len(rows)} measured, {wrong} of them otherwise than expected")
    return 1 if wrong else 0


@contextmanager
def settled(kinds: Sequence[Kind]) -> Iterator[Laboratory]:
    """Have a laboratory with two homes of each kind, and hosts for the relays."""
    town = Town(delay=DELAY)
    with town.built():
        settle(town, kinds, "kernel")
        for name, address in RELAYS.items():
            town.laboratory.add_public(name, address)
        yield town.laboratory


def in_words(row: Row) -> str:
    seconds = "" if row.seconds is None else f" after {row.seconds:.2f} s, attempt {row.attempts}"
    verdict = "" if row.agrees else f"  NOT AS EXPECTED: {row.expected}"
    reason = f" {row.causes}: {row.reason}" if row.reason else ""
    return f"{row.transport:5}{row.a:27}{row.b:27}{row.outcome}{seconds}{reason}{verdict}"


async def meet_p2pnet(laboratory: Laboratory, place: Place, relays: Sequence[str]) -> Row:
    """Let two hosts of p2pnet meet, each in a thread."""
    (a, b), transport = place
    configs = edge(a, transport, relays), edge(b, transport, relays)
    return await Meeting(laboratory, hosts_of(a, b), configs).row(a, b, transport)


async def measure_all(
    laboratory: Laboratory,
    cells: Sequence[Place],
    *,
    report: Report,
    meet: Meet = meet_p2pnet,
    seconds: float = math.inf,
    at_once: int = AT_ONCE,
) -> None:
    """Measure a few at once, never two in one home; begin no more after so many seconds."""
    waiting, busy, freed = list(cells), set[str](), [trio.Event()]
    end = trio.current_time() + seconds

    async def measure(cell: Place, relays: Sequence[str]) -> None:
        report(await meet(laboratory, cell, relays))
        busy.difference_update(hosts_of(*cell[0]))
        freed[0].set()

    with relaying(laboratory) as relays:
        async with trio.open_nursery() as nursery:
            while waiting and trio.current_time() < end:
                free = [cell for cell in waiting if busy.isdisjoint(hosts_of(*cell[0]))]
                if not free or len(busy) >= 2 * at_once:
                    await freed[0].wait()
                    freed[0] = trio.Event()
                    continue
                waiting.remove(free[0])
                busy.update(hosts_of(*free[0][0]))
                nursery.start_soon(measure, free[0], relays)


def hosts_of(a: Kind, b: Kind) -> tuple[str, str]:
    return host_of(a.name, "a"), host_of(b.name, "b")


# ---- hosts in threads --------------------------------------------------------------------


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


@contextmanager
def relaying(laboratory: Laboratory) -> Iterator[list[str]]:
    """Have the relays for a while, and give where they are."""
    config = speaking("quic", presets.relay())
    peers = [Peer(laboratory, name, config) for name in RELAYS]
    try:
        yield [
            f"/ip4/{address}/{way}/p2p/{peer.peer_id.result(READY_SECONDS)}"
            for peer, address in zip(peers, RELAYS.values(), strict=True)
            for way in ("tcp/4001", "udp/4001/quic-v1")
        ]
    finally:
        for peer in peers:
            peer.end()


class Peer:
    """A host in a thread of its own that waits until it is told to end."""

    def __init__(
        self,
        laboratory: Laboratory,
        name: str,
        config: HostConfig,
        ready: Callable[[Host], Awaitable[None]] | None = None,
    ) -> None:
        self.peer_id: Future[PeerId] = Future()
        """Known as soon as it is ready."""
        self._laboratory = laboratory
        self._name = name
        self._config = config
        self._ready = ready
        self._host: Host | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self.given_up: Future[Sequence[str]] = Future()
        """Done when it has given up to get a direct connection, with the causes."""
        self._cancel: Future[Callable[[], None]] = Future()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            with self._laboratory.entered(self._name):
                trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 (whoever waits for it hears of it)
            for awaited in (self.peer_id, self._cancel):
                if not awaited.done():
                    awaited.set_exception(error)

    async def _serve(self) -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            self._cancel.set_result(partial(token.run_sync_soon, scope.cancel))
            async with open_host(self._config) as host:
                host.handle(ECHO, echo)
                self._host, self._token = host, token
                if self._ready is not None:
                    await self._ready(host)
                with host.subscribe(PunchGivenUp) as events:
                    self.peer_id.set_result(host.peer_id)
                    self.given_up.set_result((await anext(events)).reasons)
                await trio.sleep_forever()

    def cause_named(self, peer_id: PeerId) -> str:
        """Ask it, from another thread, why it is not connected directly to a peer."""
        if self._host is None or self._token is None:
            raise RuntimeError("it has not begun")
        ask = partial(cause_named, self._host, peer_id)
        try:
            return trio.from_thread.run_sync(ask, trio_token=self._token)
        except trio.RunFinishedError:
            return "NONE"  # It has ended since.

    def end(self) -> None:
        """Tell it to end, and wait for that."""
        if self._cancel.exception(READY_SECONDS) is None:
            with suppress(trio.RunFinishedError):
                self._cancel.result()()
        self._thread.join(READY_SECONDS)
        self.given_up.cancel()


async def reserved(host: Host) -> None:
    await host.addresses.wait_for(
        lambda addresses: any("/p2p-circuit" in str(address) for address in addresses)
    )
    with trio.move_on_after(LEARNS_NAT_SECONDS):
        await host.nat.wait_for(
            lambda nats: any(nat.mapping is not Mapping.UNKNOWN for _, nat in nats.told)
        )
    await trio.sleep(KNOWS_NAT_SECONDS)


Ended = tuple[str, int, float | None, str, str]
"""Outcome, attempts, seconds, reason and causes of a ``Row``."""


class Meeting:
    """One peer calls another."""

    def __init__(
        self, laboratory: Laboratory, hosts: tuple[str, str], configs: tuple[HostConfig, HostConfig]
    ) -> None:
        self._laboratory = laboratory
        self._hosts = hosts
        self._configs = configs

    async def row(self, a: Kind, b: Kind, transport: Punched) -> Row:
        """Let them meet, in threads, and say what came of it."""
        expected = "direct" if can_meet(a, b, transport) else "relayed"
        try:
            ended = await trio.to_thread.run_sync(self._meet)
        except (*EXPECTED, TimeoutError, trio.TooSlowError, ExceptionGroup) as error:
            ended = ("error", 0, None, repr(error), "")
        return Row(a.name, b.name, transport, expected, *ended)

    def _meet(self) -> Ended:
        caller, other = self._hosts
        called = Peer(self._laboratory, other, self._configs[1], reserved)
        try:
            with self._laboratory.entered(caller):
                return trio.run(self._call, called)
        finally:
            called.end()

    async def _call(self, called: Peer) -> Ended:
        with trio.fail_after(CELL_SECONDS):
            async with open_host(self._configs[0]) as host:
                await reserved(host)
                peer_id = await trio.to_thread.run_sync(called.peer_id.result, READY_SECONDS)
                with host.subscribe(PunchAttemptFailed) as failed:
                    await host.connect(peer_id)
                    began = trio.current_time()
                    reasons = await direct_or_given_up(host, called)
                    seconds = trio.current_time() - began
                    ask = partial(called.cause_named, host.peer_id)
                    causes = f"{cause_named(host, peer_id)} {await trio.to_thread.run_sync(ask)}"
                    best = host.connections(peer_id)[0]
                    await use(best)
                    failures = [event.reason for event in failed.take_waiting()]
        if best.is_relayed:
            told = "; ".join(dict.fromkeys([*failures, *reasons]))
            return "relayed", max(len(failures), len(reasons)), None, told, causes
        return "direct", len(failures) + 1, round(seconds, 3), "", ""


async def direct_or_given_up(host: Host, called: Peer) -> Sequence[str]:
    """Wait for a direct connection, or until one of the two gives up; return why it did."""
    reasons: Sequence[str] = ()
    with host.subscribe(PunchGivenUp) as given_up:
        async with trio.open_nursery() as nursery:

            async def direct() -> None:
                await host.wait_direct(called.peer_id.result())
                nursery.cancel_scope.cancel()

            async def given_up_here() -> None:
                nonlocal reasons
                reasons = (await anext(given_up)).reasons
                nursery.cancel_scope.cancel()

            async def given_up_there() -> None:
                nonlocal reasons
                wait = called.given_up.result
                reasons = await trio.to_thread.run_sync(wait, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()

            for wait in (direct, given_up_here, given_up_there):
                nursery.start_soon(wait)
    return reasons
