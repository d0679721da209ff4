"""Birthday punching: where one NAT gives random ports, and the other one port for all.

The work is the transport's; here is who does what, how much, and how often. Rules:
specs/dcutr.md (D21 to D24).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Multiaddr, place_of
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import boundary
from p2pnet.errors import P2PError
from p2pnet.interfaces import ServiceHost, Spread
from p2pnet.protocols.dcutr.messages import Side
from p2pnet.protocols.dcutr.prediction import Forecast

logger = logging.getLogger("p2pnet.dcutr")

MAX_SOCKETS = 256
MAX_PROBES = 2048
MAX_SECONDS = 20.0
REST_SECONDS = 600.0
"""An IP is probed once in this time, whoever names it."""
MAX_RESTING = 256
CLOSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Birthday:
    """How much is done to find one of many random ports. Both sides must be willing."""

    sockets: int = MAX_SOCKETS
    """Opened behind a NAT with random ports; each takes a mapping of it for a while."""
    probes: int = MAX_PROBES
    """Sent from the other side; each takes an entry in the NAT's filter."""
    seconds: float = MAX_SECONDS

    def __post_init__(self) -> None:
        bounds = (
            ("sockets", self.sockets, MAX_SOCKETS),
            ("probes", self.probes, MAX_PROBES),
            ("seconds", self.seconds, MAX_SECONDS),
        )
        for name, value, most in bounds:
            if not 0 < value <= most:
                raise ValueError(f"{name} must be more than 0 and at most {most}, not {value}")


class Birthdays:
    """Does it for one peer at a time (D24)."""

    def __init__(self, host: ServiceHost, config: Birthday | None) -> None:
        self._host = host
        self._config = config
        self._is_busy = False
        self._resting: OrderedDict[str, float] = OrderedDict()

    def side(self, forecasts: Iterable[Forecast]) -> Side | None:
        """Tell what this host can do, and is willing to (D21)."""
        moves = self._host.ports_move("udp")
        if self._config is None or self._is_busy or moves is None:
            return None
        if not moves:
            return Side.EASY
        return None if any(each.transport == "udp" for each in forecasts) else Side.HARD

    @property
    def seconds(self) -> float:
        """How long it takes at most, with a moment to say what came of it."""
        return 0.0 if self._config is None else self._config.seconds + CLOSING_SECONDS

    async def run(
        self, peer_id: PeerId, side: Side, places: Sequence[Multiaddr], causes: list[BaseException]
    ) -> None:
        """Do our part at the peer's address; add to ``causes`` why nothing came of it."""
        address = next(filter(is_udp_ipv4, places), None)
        if self._config is None or self._is_busy or address is None:
            causes.append(P2PError("birthday punching: not now, or not there"))
            return
        self._is_busy = True
        try:
            with boundary(logger, f"birthday punching with {peer_id}") as stopped:
                causes.append(await self._take_part(peer_id, side, address, self._config))
            if stopped.error is not None:
                causes.append(stopped.error)
        finally:
            self._is_busy = False

    async def _take_part(
        self, peer_id: PeerId, side: Side, address: Multiaddr, config: Birthday
    ) -> BaseException:
        if side is Side.HARD:
            spread = Spread(config.sockets, config.seconds)
            try:
                await self._host.dial_from_many(peer_id, address, spread)
            except trio.TooSlowError:
                return P2PError(f"birthday punching: none of {spread.count} sockets got through")
            return P2PError("birthday punching: the connection that came of it is lost")
        if not self._may_probe(address):
            return P2PError("birthday punching: that address was probed a short time ago")
        spread = Spread(config.probes, config.seconds)
        await self._host.knock_at_many(address, spread)
        return P2PError(f"birthday punching: none of {spread.count} probes was answered")

    def found_at(self, address: Multiaddr) -> None:
        """Let an IP be probed again, as who was looked for there has proved to be there."""
        place = place_of(address)
        if place is not None:
            self._resting.pop(place.endpoint.host, None)

    def _may_probe(self, address: Multiaddr) -> bool:
        """Tell if an IP may be probed, and note that it is: nobody is to aim us at it again."""
        place, now = place_of(address), trio.current_time()
        while self._resting and next(iter(self._resting.values())) <= now:
            self._resting.popitem(last=False)
        if place is None or place.endpoint.host in self._resting:
            return False
        if len(self._resting) >= MAX_RESTING:
            return False
        self._resting[place.endpoint.host] = now + REST_SECONDS
        return True


def is_udp_ipv4(address: Multiaddr) -> bool:
    place = place_of(address)
    return place is not None and place.protocol == "udp" and not place.endpoint.is_ipv6
