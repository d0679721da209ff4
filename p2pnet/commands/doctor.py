"""``p2pnet doctor``: find out who can reach this machine, and what would help."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from p2pnet.commands.checkup import (
    Report,
    Surroundings,
    essence,
    examine,
    fields,
    look_around,
    words,
)
from p2pnet.commands.output import Field, Output
from p2pnet.connectivity.causes import Cause
from p2pnet.connectivity.explain import can_test
from p2pnet.connectivity.nat import Filtering
from p2pnet.connectivity.probing import NatProbing
from p2pnet.core.addresses import Endpoint, parse, peer_id_of
from p2pnet.core.env import Env, Network
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.events import Reachability
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host, read_target
from p2pnet.host.opening import open_host

LOOK_INTERVAL = 0.25
QUIET_SECONDS = 1.5
"""Nothing has changed for so long: what there is to be known is known."""
PENDING = (Cause.RESERVING, Cause.TESTING, Cause.PUNCH_PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a doctor is asked for."""

    relays: Sequence[str] = ()
    targets: Sequence[str] = ()
    """Peers to be dialled and explained."""
    seconds: float = 10.0
    """How long to look at most."""
    watch: bool = False


async def doctor(config: HostConfig, output: Output, request: Request) -> int:
    """Print a report, or one after each change; 0 if this host and those peers can be reached."""
    env = config.env or Env.system()
    async with open_host(replace(config, env=env)) as host, trio.open_nursery() as nursery:
        patient = Patient(host, env.network, request, binds_udp=await binds_udp(env.network))
        for target in request.targets:
            nursery.start_soon(patient.dial, target)
        if request.watch:
            nursery.start_soon(watch, patient, output)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                await anext(signals)
        else:
            tell(await settle(patient, request.seconds), output)
        is_well = patient.is_well
        nursery.cancel_scope.cancel()
    return 0 if is_well else 1


async def binds_udp(network: Network) -> bool:
    """Tell if a UDP socket can be had. Whether anybody hears it is another question."""
    try:
        sock = await network.bind_udp(Endpoint("0.0.0.0", 0))
    except OSError:
        return False
    await sock.aclose()
    return True


@dataclass(slots=True)
class Patient:
    """A host that is looked at again and again."""

    host: Host
    network: Network
    request: Request
    binds_udp: bool
    relays: tuple[PeerId, ...] = field(init=False)
    peers: tuple[PeerId, ...] = field(init=False)
    undialled: set[str] = field(init=False)
    around: Surroundings = field(init=False)

    def __post_init__(self) -> None:
        found = (peer_id_of(parse(relay)) for relay in self.request.relays)
        self.relays = tuple(dict.fromkeys(peer for peer in found if peer is not None))
        self.peers = tuple(dict.fromkeys(read_target(t)[0] for t in self.request.targets))
        self.undialled = set(self.request.targets)
        self.around = look_around(self.network, binds_udp=self.binds_udp)

    async def dial(self, target: str) -> None:
        """Dial a peer; why that failed, if it did, is told by its explanation."""
        try:
            await self.host.connect(target)
        except EXPECTED:
            return
        finally:
            self.undialled.discard(target)

    def look(self) -> Report:
        try:
            self.around = look_around(self.network, binds_udp=self.binds_udp)
        except OSError:
            # A look takes a descriptor, which may be lacking; the last one has to do.
            return self._examine()
        return self._examine()

    def _examine(self) -> Report:
        report = examine(
            self.host, self.around, relays=self.relays, peers=self.peers, is_complete=True
        )
        return replace(report, is_complete=not self.undialled and is_settled(self.host, report))

    @property
    def is_well(self) -> bool:
        """This host can be found, and whoever was asked about is connected."""
        return self.look().can_be_found and all(map(self.host.connections, self.peers))


def is_settled(host: Host, report: Report) -> bool:
    """Tell if there is nothing to wait for: no answer of a relay, a server or a peer."""
    explanations = (report.explanation, *(told for _, told in report.peers))
    found = {finding.cause for each in explanations for finding in each.findings}
    if not found.isdisjoint(PENDING):
        return False
    unanswered = [
        each for each in report.relays if not each.is_held and not each.explanation.findings
    ]
    if unanswered:
        return False
    has_testers = any(
        can_test(connection.ref, host.peers.protocols(connection.peer_id) or ())
        for connection in host.connections()
    )
    if is_probing(host):
        return False
    is_filter_known = report.nat.tcp.filtering is not Filtering.UNKNOWN
    return not has_testers or is_filter_known or report.reachability is Reachability.PUBLIC


def is_probing(host: Host) -> bool:
    """Tell if more is about to be known of the NAT."""
    try:
        return host.service(NatProbing).is_busy
    except LookupError:
        return False


async def settle(patient: Patient, seconds: float) -> Report:
    """Wait until all is known and stays so for a while, or the time is over."""
    report = patient.look()
    seen, since = essence(fields(report)), trio.current_time()
    with trio.move_on_after(seconds):
        while not (report.is_complete and trio.current_time() - since >= QUIET_SECONDS):
            await trio.sleep(LOOK_INTERVAL)
            report = patient.look()
            if (now := essence(fields(report))) != seen:
                seen, since = now, trio.current_time()
    return report


async def watch(patient: Patient, output: Output) -> None:
    """Tell when something is new, and has stayed for a moment."""
    told: Field = None
    while True:
        report = patient.look()
        new = essence(fields(report))
        await trio.sleep(LOOK_INTERVAL)
        if new != told and new == essence(fields(patient.look())):
            tell(report, output)
            told = new


def tell(report: Report, output: Output) -> None:
    output.event("doctor", words(report), **fields(report))
