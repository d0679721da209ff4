"""Watches for relayed connections, and has them upgraded. Rules: specs/dcutr.md."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import trio

from p2pnet.core.bus import Subscription
from p2pnet.errors import EventsMissed
from p2pnet.events import (
    CircuitOffered,
    ConnectionClosed,
    ConnectionOpened,
    ConnectionRef,
    DialPlanned,
    IdentifyFailed,
    NetworkChanged,
    PeerIdentified,
)
from p2pnet.interfaces import Kit, ServiceHost
from p2pnet.protocols.dcutr.birthday import Birthday
from p2pnet.protocols.dcutr.initiator import Initiator
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID
from p2pnet.protocols.dcutr.policy import CoolDown
from p2pnet.protocols.dcutr.puncher import Bounds, Puncher
from p2pnet.protocols.dcutr.responder import Responder
from p2pnet.protocols.dcutr.upgrade import Persistence

Heard = (
    DialPlanned
    | CircuitOffered
    | ConnectionOpened
    | PeerIdentified
    | IdentifyFailed
    | ConnectionClosed
    | NetworkChanged
)
KINDS: tuple[type[Heard], ...] = (
    DialPlanned,
    CircuitOffered,
    ConnectionOpened,
    PeerIdentified,
    IdentifyFailed,
    ConnectionClosed,
    NetworkChanged,
)


MAY_BE_OFF = ("allow_private", "predicted_ports")
MAX_PREDICTED = 8
"""More are not dialled by a peer that keeps to D7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DCUtR:
    """Direct connection upgrade through relay, ``/libp2p/dcutr``. Needs ``Identify``."""

    attempts: int = 3
    """Conversations about one connection, each with its punch; also how many we answer."""
    direct_timeout: float = 5.0
    """Seconds for the plain dial to a peer that says it can be dialled ..."""
    head_start: float = 1.0
    """... and for how long the punches wait for it, and it for identify."""
    address_timeout: float = 5.0
    """Seconds to wait until somebody has told at which address he sees this host."""
    exchange_timeout: float = 10.0
    """Seconds for CONNECT, CONNECT and SYNC."""
    punch_timeout: float = 10.0
    """Seconds from the agreed moment until an attempt is given up."""
    retry_pause: float = 1.0
    """Seconds between two attempts."""
    shortest_pause: float = 0.01
    """Seconds; a refused dial is repeated after a random pause of up to a round trip, or this."""
    max_redials: int = 50
    """How often a dial that was refused is repeated, for each address and attempt."""
    cool_down: float = 60.0
    """Seconds to leave a peer alone after all attempts failed; doubles each time ..."""
    longest_cool_down: float = 3600.0
    """... up to this, a fifth more or less, at random."""
    max_cooling: int = 1024
    """Peers of which that is remembered."""
    max_parallel: int = 16
    """Peers with which this host initiates at the same time; others wait."""
    close_relayed_after: float | None = 5.0
    """Seconds after a success until the relayed connection is closed, if no stream uses it;
    None leaves that to the relay's limit."""
    allow_private: bool = False
    """Punch at private and loopback addresses too: for tests, and networks of one's own."""
    predicted_ports: int = 6
    """Ports offered beside those seen, for TCP and UDP together, where the NAT gives each
    destination another one by a rule; 0 predicts none."""
    sample_timeout: float = 2.0
    """Seconds to see which ports it gives."""
    dials_per_ip: int = 512
    """Dials begun at one IP in a minute, for all peers together, repeats of refused ones too ..."""
    dials_per_prefix: int = 1024
    """... and at one IPv4 /24 or IPv6 /48."""
    birthday: Birthday | None = None
    """Over QUIC, with a p2pnet peer that is willing, too: look for one of the random ports of a
    NAT by very many packets. ``Birthday()`` allows it."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = None if setting.name == "birthday" else getattr(self, setting.name)
            is_off = value == 0 and setting.name in MAY_BE_OFF
            if value is not None and value <= 0 and not is_off:
                raise ValueError(f"{setting.name} must be positive, not {value}")
        if self.predicted_ports > MAX_PREDICTED:
            raise ValueError(f"predicted_ports must be at most {MAX_PREDICTED}")

    def build(self, kit: Kit) -> DCUtRService:
        return DCUtRService(self, kit)


class DCUtRService:
    """Made by the part ``DCUtR``; works on its own, and tells by events how that goes."""

    def __init__(self, config: DCUtR, kit: Kit) -> None:
        self._config = config
        self._kit = kit

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        initiator, responder = self._sides(host)
        with host.subscribe(*KINDS) as events:
            async with trio.open_nursery() as nursery:
                # D2: always served; if there is no address to offer, that is said then.
                host.handle(PROTOCOL_ID, partial(responder.answer, nursery))
                begin_with_all(host, initiator, nursery)
                task_status.started()
                while True:
                    await hear(host, events, (initiator, responder), nursery)

    def _sides(self, host: ServiceHost) -> tuple[Initiator, Responder]:
        config = self._config
        bounds = Bounds(
            attempts=config.attempts,
            address_timeout=config.address_timeout,
            direct_timeout=config.direct_timeout,
            punch_timeout=config.punch_timeout,
            shortest_pause=config.shortest_pause,
            max_redials=config.max_redials,
            allow_private=config.allow_private,
            predicted_ports=config.predicted_ports,
            sample_timeout=config.sample_timeout,
            birthday=config.birthday,
            dials_per_ip=config.dials_per_ip,
            dials_per_prefix=config.dials_per_prefix,
        )
        persistence = Persistence(
            attempts=config.attempts,
            head_start=config.head_start,
            retry_pause=config.retry_pause,
            exchange_timeout=config.exchange_timeout,
            max_parallel=config.max_parallel,
            close_relayed_after=config.close_relayed_after,
            jitter=self._kit.env.jitter,
        )
        cool_down = CoolDown(
            first=config.cool_down, longest=config.longest_cool_down, max_peers=config.max_cooling
        )
        puncher = Puncher(host, bounds, self._kit.env.jitter)
        self._kit.foreword.speaker = puncher.foreword  # D30
        initiator = Initiator(host, puncher, persistence, cool_down)
        responder = Responder(
            host,
            puncher,
            initiator,
            attempts=config.attempts,
            exchange_timeout=config.exchange_timeout,
        )
        return initiator, responder


async def hear(
    host: ServiceHost,
    events: Subscription[Heard],
    sides: tuple[Initiator, Responder],
    nursery: trio.Nursery,
) -> None:
    initiator, responder = sides
    try:
        react(await anext(events), initiator, responder, nursery)
    except EventsMissed:
        # That may have been among them. Rests go on, as remotes can have events missed.
        initiator.network_may_have_changed()
        initiator.forget_closed()
        responder.forget_closed()
        begin_with_all(host, initiator, nursery)


def react(event: Heard, initiator: Initiator, responder: Responder, nursery: trio.Nursery) -> None:
    """Do what an event asks for."""
    match event:
        case DialPlanned(_, plan):
            responder.plan([address for _, address in plan], nursery)
        case CircuitOffered():
            initiator.prepare(nursery)
        case ConnectionOpened(ref):
            if ref.is_relayed and not ref.is_inbound:
                responder.prepare(ref.number, nursery)
            elif is_ours_to_upgrade(ref):
                initiator.called_anew(ref.peer_id, is_answered=responder.is_answering(ref.peer_id))
                initiator.begin(ref.peer_id, nursery, identified=False)
        case ConnectionClosed(ref):
            responder.connection_closed(ref.number)
            initiator.connection_closed(ref, nursery)
        case PeerIdentified(ref) | IdentifyFailed(ref):
            if is_ours_to_upgrade(ref):
                initiator.begin(ref.peer_id, nursery, identified=True)
        case NetworkChanged():
            initiator.network_changed()


def is_ours_to_upgrade(ref: ConnectionRef) -> bool:
    """Tell if this host is the one to initiate: the one that was called over a relay (D2)."""
    return ref.is_relayed and ref.is_inbound


def begin_with_all(host: ServiceHost, initiator: Initiator, nursery: trio.Nursery) -> None:
    """Begin with the relayed connections that are there already."""
    for connection in host.connections():
        if is_ours_to_upgrade(connection.ref):
            known = host.peers.protocols(connection.peer_id) is not None
            initiator.begin(connection.peer_id, nursery, identified=known)
