"""Which ports a NAT will give next that has another for each destination. Pure.

Rules: specs/dcutr.md (D16, D17).

::

    three fresh ports of ours  -->  NAT gives 40007, 40008, 40009  -->  seen by a peer
    the port we listen at      -->  NAT will give 40010 or so      -->  for who is punched

Other hosts behind the same NAT take ports as well, so a few are offered, and the next few in
the next attempt. A fresh port may be one that the NAT still knows: that sample is odd, and another
one is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from p2pnet.core.addresses import Endpoint, Multiaddr, at_endpoint, place_of
from p2pnet.protocols.dcutr.policy import punchable

SAMPLES = 3
"""At first, and as many have to follow a rule."""
MAX_SAMPLES = 5
"""All are connections of one IP, of which some peers allow no more than eight."""
MAX_SPREAD = 64
"""Ports from the first sample to the last: three random ones are so close once in 300,000 times."""
MAX_DRIFT = 256
"""Ports that a NAT may have given since peers saw this host, where one sample alone is trusted."""
HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Sample:
    """A port that was opened to be looked at, and where it was seen outside."""

    transport: str
    local_port: int
    seen: Endpoint


@dataclass(frozen=True, slots=True)
class Forecast:
    """From where the NAT will go on, and how."""

    transport: str
    """``tcp`` or ``udp``."""
    host: str
    last: int
    step: int
    opened: int | None = field(default=0, compare=False)
    """How many ports this host had opened apart by then; None if those take none of these."""

    def by_now(self, opened: int) -> Forecast:
        """Return what is foreseen once so many ports were opened apart (D16)."""
        if self.opened is None:
            return self
        return replace(self, last=self.last + (opened - self.opened) * self.step, opened=opened)

    def after(self, dialled: Multiaddr) -> Forecast:
        """Return what is foreseen once a place that is new was dialled (D16)."""
        takes = takes_port(dialled, self.transport)
        return replace(self, last=self.last + self.step) if takes else self

    def ports(self, attempt: int, count: int, dialled: int = 0) -> tuple[int, ...]:
        """Return the ports to offer in an attempt: in the second those after the first's (D17).

        ``dialled`` is at how many places of the peer this host has dialled: each took a port.
        """
        taken = max((attempt - 1) * count, dialled) if attempt > 1 else 0
        first = self.last + (1 + taken) * self.step
        return tuple(range(first, HIGHEST_PORT + 1, self.step))[:count]


def foresee(
    samples: Sequence[Sample], observed: Iterable[Multiaddr], *, opened: int = 0
) -> Forecast | None:
    """Tell how a NAT goes on that gave the samples their ports; None if there is no rule (D16).

    ``observed`` is where peers see this host: at another IP nothing is foreseen, as whoever
    told of the samples may lie. ``opened`` is how many ports there were apart by the last of these.
    """
    transports = {sample.transport for sample in samples}
    hosts = {sample.seen.host for sample in samples}
    if len(samples) < SAMPLES or len(transports) != 1 or len(hosts) != 1:
        return None
    (transport,), (host,) = transports, hosts
    known = known_ports(samples[0], observed)
    if not known:
        return None
    fitting = followers(samples)
    if all(map(is_kept, fitting)):
        # It keeps ports as long as it can, and takes the next ones for further destinations.
        return Forecast(transport, host, max(known), 1, None) if fitting else None
    step = step_among(fitting)
    last = max(sample.seen.port for sample in fitting)
    return None if step is None else Forecast(transport, host, last, step, opened)


def known_ports(sample: Sample, observed: Iterable[Multiaddr]) -> set[int]:
    """Return the ports at which peers see this host where, and by what, a sample was seen."""
    seen_there = (sample.transport, sample.seen.host)
    return {
        place.endpoint.port
        for place in map(punchable, observed)
        if place is not None and (place.protocol, place.endpoint.host) == seen_there
    }


def wants_another(samples: Sequence[Sample], observed: Iterable[Multiaddr] = ()) -> bool:
    """Tell if some of the samples may be odd: of ports that the NAT still knew (D16).

    Such a port is given what it was given before, wherever the NAT has got to since.
    """
    hosts = {sample.seen.host for sample in samples}
    if not SAMPLES <= len(samples) < MAX_SAMPLES or len(hosts) > 1 or followers(samples):
        return False
    ports = sorted(sample.seen.port for sample in samples)
    two_near = any(0 < later - earlier <= MAX_SPREAD for earlier, later in pairwise(ports))
    one_ahead = any(
        0 < sample.seen.port - port <= MAX_DRIFT
        for sample in samples
        for port in known_ports(sample, observed)
    )
    return two_near or one_ahead or sum(map(is_kept, samples)) == SAMPLES - 1


def follow_no_rule(samples: Sequence[Sample]) -> bool:
    """Tell if it is known that nothing can be foreseen: the samples are there, and differ (D29)."""
    hosts = {sample.seen.host for sample in samples}
    return len(samples) >= SAMPLES and (len(hosts) > 1 or not followers(samples))


def followers(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return those that follow one rule, as many as there are, if they are enough; else none."""
    kept = [sample for sample in samples if is_kept(sample)]
    if len(kept) >= SAMPLES:
        return kept
    ordered = sorted(samples, key=lambda sample: sample.seen.port)
    for count in range(len(ordered), SAMPLES - 1, -1):
        for first in range(len(ordered) - count, -1, -1):
            some = ordered[first : first + count]
            if step_among(some) is not None:
                return some
    return ()


def is_kept(sample: Sample) -> bool:
    """Tell if a port is seen outside as it is inside."""
    return sample.local_port == sample.seen.port


def step_among(samples: Sequence[Sample]) -> int | None:
    """Return the distance from one port to the next; None if there is no rule."""
    ports = sorted({sample.seen.port for sample in samples})
    gaps = [later - earlier for earlier, later in pairwise(ports)]
    if len(ports) < SAMPLES or sum(gaps) > MAX_SPREAD:
        return None
    return min(gaps) if all(gap % min(gaps) == 0 for gap in gaps) else None


@dataclass(frozen=True, slots=True)
class Offering:
    """How much is offered."""

    attempt: int
    count: int
    """Predicted ports, of all transports together."""
    maximum: int
    dialled: Collection[Multiaddr] = ()
    """Where the attempts before have dialled the peer."""
    astray: bool = False
    """The predicted ports in another order than the NAT's."""

    def ordered(self, ports: Sequence[int]) -> Sequence[int]:
        """Return the ports of a transport as they are offered."""
        return [*ports[::2], *ports[1::2]] if self.astray else ports

    def taken(self, transport: str) -> int:
        """Return how many ports of a transport that took, where each destination has its own."""
        return sum(takes_port(address, transport) for address in self.dialled)


def takes_port(address: Multiaddr, transport: str) -> bool:
    """Tell if a dial there has the NAT give one more port of a transport."""
    place = place_of(address)
    return place is not None and place.protocol == transport and not place.endpoint.is_ipv6


def with_predicted(
    candidates: Sequence[Multiaddr], forecasts: Sequence[Forecast], offering: Offering
) -> tuple[Multiaddr, ...]:
    """Return what to offer: what stays, then the predicted ports, then the ports seen (D17).

    The last are those of other destinations, which is of use only if the NAT lets everybody in.
    """
    moving = [address for address in candidates if forecast_for(address, forecasts) is not None]
    staying = [address for address in candidates if address not in moving]
    each = offering.count // max(len(forecasts), 1)
    predicted = [
        at_endpoint(address, Endpoint(forecast.host, port))
        for forecast in forecasts
        for address in shapes(moving, forecast)
        for port in offering.ordered(
            forecast.ports(offering.attempt, each, offering.taken(forecast.transport))
        )
    ]
    return tuple(dict.fromkeys([*staying, *predicted, *moving]))[: offering.maximum]


def forecast_for(address: Multiaddr, forecasts: Iterable[Forecast]) -> Forecast | None:
    place = punchable(address)
    if place is None:
        return None
    for forecast in forecasts:
        if (forecast.transport, forecast.host) == (place.protocol, place.endpoint.host):
            return forecast
    return None


def shapes(moving: Iterable[Multiaddr], forecast: Forecast) -> list[Multiaddr]:
    """Return one address of each kind that is spoken at a transport: there is only one so far."""
    fitting = (each for each in moving if forecast_for(each, (forecast,)) is not None)
    return list({at_endpoint(each, Endpoint(forecast.host, 1)): None for each in fitting})
