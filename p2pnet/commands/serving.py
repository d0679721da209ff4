"""``p2pnet node`` and ``p2pnet relay``: run until told to stop, and tell what happens."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import trio

from p2pnet.commands.checkup import fields_of_findings
from p2pnet.commands.echo import ECHO, serve_echo
from p2pnet.commands.metrics import PATH as METRICS_PATH
from p2pnet.commands.metrics import exposition, serve_metrics
from p2pnet.commands.output import CommandError, Output, remedy_to_listen
from p2pnet.commands.telling import hint_of
from p2pnet.connectivity.journal import finding_of_relay
from p2pnet.core.addresses import Endpoint, Multiaddr, with_peer
from p2pnet.core.bus import Subscription
from p2pnet.core.complaints import Allowance
from p2pnet.core.env import Env
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import EventsMissed, describe
from p2pnet.events import (
    AddressesChanged,
    CircuitClosed,
    CircuitNearLimit,
    CircuitOpened,
    ConnectionClosed,
    ConnectionOpened,
    HolePunched,
    PunchGivenUp,
    RelayRefusedRequest,
    ReservationAccepted,
    ReservationEnded,
    ReservationFailed,
    ReservationGranted,
    ReservationLost,
)
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host

NODE_EVENTS = (
    AddressesChanged,
    ReservationAccepted,
    ReservationFailed,
    ReservationLost,
    ConnectionOpened,
    ConnectionClosed,
    HolePunched,
    PunchGivenUp,
    CircuitNearLimit,
)
RELAY_EVENTS = (
    AddressesChanged,
    ConnectionOpened,
    ConnectionClosed,
    ReservationGranted,
    ReservationEnded,
    RelayRefusedRequest,
    CircuitOpened,
    CircuitClosed,
)


async def node(config: HostConfig, output: Output, *, with_echo: bool) -> int:
    """Run an edge node until SIGINT or SIGTERM."""
    return await serve(config, output, NODE_EVENTS, lambda host: offer_echo(host, with_echo))


async def relay(config: HostConfig, output: Output, *, metrics: Endpoint | None = None) -> int:
    """Run a relay until SIGINT or SIGTERM; tell its metrics at an endpoint, if there is one."""
    env = config.env or Env.system()

    async def tell_metrics(host: Host, nursery: trio.Nursery) -> None:
        if metrics is None:
            return
        serving = partial(serve_metrics, env.network, metrics, partial(exposition, host))
        try:
            at: Endpoint = await nursery.start(serving)
        except OSError as error:
            remedy = remedy_to_listen(error.errno, "--metrics", "/ip4/127.0.0.1/tcp/9464")
            where = f"{metrics.host}, port {metrics.port}"
            raise CommandError(f"no metrics at {where}: {describe(error)}", remedy) from error
        url = f"http://{f'[{at.host}]' if at.is_ipv6 else at.host}:{at.port}{METRICS_PATH}"
        output.event("metrics", f"metrics at {url}", url=url)

    config = replace(config, env=env)
    with bare_exceptions():
        return await serve(config, output, RELAY_EVENTS, lambda host: None, beside=tell_metrics)


def offer_echo(host: Host, wanted: bool) -> None:
    if wanted:
        host.handle(ECHO, serve_echo)


async def serve(
    config: HostConfig,
    output: Output,
    kinds: tuple[type[object], ...],
    prepare: Callable[[Host], None],
    *,
    beside: Callable[[Host, trio.Nursery], Awaitable[None]] | None = None,
) -> int:
    heard: list[Subscription[object]] = []
    with ExitStack() as hearing:

        def hear(host: Host) -> None:
            heard.append(hearing.enter_context(host.subscribe(*kinds)))

        async with open_host(config, before=hear) as host, trio.open_nursery() as nursery:
            # Before anything is told: who hears it may end this program at once.
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                prepare(host)
                teller = Teller(host, output)
                teller.listening(host.addresses.value)
                nursery.start_soon(tell, heard[0], teller)
                if beside is not None:
                    await beside(host, nursery)
                await anext(signals)
                nursery.cancel_scope.cancel()
            # By Python's own handler a second one would have to wait until goodbye is said.
            hearing.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return 0


async def tell(events: Subscription[object], teller: Teller) -> None:
    while True:
        try:
            teller.tell(await anext(events))
        except EventsMissed as error:
            teller.output.event("missed", str(error), count=error.count)


class Teller:
    """Puts events into words and fields. Each address is told once."""

    def __init__(self, host: Host, output: Output) -> None:
        self._host = host
        self._told: set[Multiaddr] = set()
        self._refusals = Allowance(counted_at=trio.current_time())
        self.output = output

    def listening(self, addresses: tuple[Multiaddr, ...]) -> None:
        for address in addresses:
            if address not in self._told:
                self._told.add(address)
                text = str(address)
                self.output.event("listening", f"listening on {text}", address=text)

    def tell(self, event: object) -> None:
        match event:
            case AddressesChanged(addresses):
                self.listening(addresses)
            case ReservationAccepted():
                self._reservation(event)
            case ReservationFailed() | ReservationLost():
                self._no_reservation(event)
            case ConnectionOpened() | ConnectionClosed():
                self._connection(event)
            case HolePunched() | PunchGivenUp():
                self._punch(event)
            case CircuitNearLimit():
                self._near_limit(event)
            case RelayRefusedRequest():
                self._refusal(event)
            case _:
                self._relaying(event)

    def _no_reservation(self, event: ReservationFailed | ReservationLost) -> None:
        relay, reason = str(event.relay), event.reason
        if isinstance(event, ReservationLost):
            words = f"lost the reservation at {relay}: {reason}"
            self.output.event("reservation_lost", words, relay=relay, reason=reason)
            return
        wait = event.retry_seconds
        remedy = finding_of_relay(event).cause.remedy
        self.output.event(
            "reservation_failed",
            f"no reservation at {relay}: {reason}; next try in {wait:.1f} s; to do: {remedy}",
            relay=relay,
            reason=reason,
            retry_seconds=wait,
            remedy=remedy,
        )

    def _reservation(self, event: ReservationAccepted) -> None:
        relay = str(event.relay)
        for address in event.addresses:
            full = str(with_peer(address, self._host.peer_id))
            words = f"{'renewed' if event.renewal else 'reserved'} {full} for {event.seconds:.0f} s"
            self.output.event(
                "reservation",
                words,
                relay=relay,
                address=full,
                seconds=event.seconds,
                renewal=event.renewal,
            )

    def _connection(self, event: ConnectionOpened | ConnectionClosed) -> None:
        ref = event.connection
        peer, address = str(ref.peer_id), str(ref.remote_address)
        if isinstance(event, ConnectionClosed):
            words = f"closed {peer} at {address}: {event.reason}"
            self.output.event("closed", words, peer=peer, address=address, reason=event.reason)
            return
        kind = "relayed" if ref.is_relayed else "direct"
        way = "from" if ref.is_inbound else "to"
        self.output.event(
            "connection",
            f"{kind} connection {way} {peer} at {address}",
            peer=peer,
            address=address,
            relayed=ref.is_relayed,
            inbound=ref.is_inbound,
        )

    def _punch(self, event: HolePunched | PunchGivenUp) -> None:
        peer = str(event.peer_id)
        if isinstance(event, PunchGivenUp):
            reasons = "; ".join(dict.fromkeys(event.reasons))
            told = self._host.explain(event.peer_id)
            remedy, hint = told.remedy, hint_of(self._host, told)
            words = f"no direct connection to {peer}: {reasons}; to do: {remedy}"
            words += f"; to know more: {hint}" if hint else ""
            self.output.event(
                "not_direct",
                words,
                peer=peer,
                reasons=event.reasons,
                findings=fields_of_findings(told),
                remedy=remedy,
                hint=hint,
            )
            return
        address = str(event.address)
        self.output.event(
            "direct",
            f"direct to {peer} at {address} (attempt {event.attempt}, {event.seconds:.2f} s)",
            peer=peer,
            address=address,
            attempt=event.attempt,
            seconds=event.seconds,
        )

    def _near_limit(self, event: CircuitNearLimit) -> None:
        peer, relay = str(event.peer_id), str(event.relay)
        words = (
            f"the circuit to {peer} has used {event.used:.0f} of its {event.maximum:.0f} "
            f"{event.limit}, and will be cut"
        )
        self.output.event(
            "near_limit",
            words,
            peer=peer,
            relay=relay,
            limit=event.limit,
            used=event.used,
            maximum=event.maximum,
        )

    def _refusal(self, event: RelayRefusedRequest) -> None:
        """Tell a refusal, but not as many as anybody can cause: this may go to a disk."""
        untold = self._refusals.untold
        if not self._refusals.spend(trio.current_time()):
            return
        if untold:
            self._refusals.untold = 0
            self.output.event("refused_more", f"{untold} more were refused", count=untold)
        peer = str(event.peer_id)
        self.output.event(
            "refused",
            f"refused a {event.request} of {peer}: {event.status}: {event.reason}",
            peer=peer,
            request=event.request,
            status=event.status,
            reason=event.reason,
            limit=event.limit,
        )

    def _relaying(self, event: object) -> None:
        match event:
            case ReservationGranted(peer, seconds, renewal):
                words = f"{'renewed' if renewal else 'granted'} a reservation to {peer}"
                self.output.event(
                    "granted", words, peer=str(peer), seconds=seconds, renewal=renewal
                )
            case ReservationEnded(peer, reason):
                words = f"the reservation of {peer} ended: {reason}"
                self.output.event("ended", words, peer=str(peer), reason=reason)
            case CircuitOpened(source, destination):
                words = f"circuit from {source} to {destination}"
                self.output.event(
                    "circuit", words, source=str(source), destination=str(destination)
                )
            case CircuitClosed(source, destination, forward, backward, reason):
                words = f"circuit from {source} to {destination} ended: {reason}"
                self.output.event(
                    "circuit_closed",
                    words,
                    source=str(source),
                    destination=str(destination),
                    bytes_forward=forward,
                    bytes_backward=backward,
                    reason=reason,
                )
            case _:
                return
