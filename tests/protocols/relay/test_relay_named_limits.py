"""Every limit that says no is named: to the owner in the event, the reason and the count. R33."""

from __future__ import annotations

from dataclasses import fields

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.addresses import parse
from p2pnet.events import CircuitClosed, RelayRefusedRequest
from p2pnet.protocols.relay.limits import RelayLimits
from p2pnet.protocols.relay.messages import HOP, STOP
from tests.protocols.relay.fakes import FakeNet
from tests.protocols.relay.test_relay_server import (
    Relay,
    refusal,
    relay_with,
    settle,
    silent,
)

REFUSING = {
    "max_reservations": 1,
    "max_reservations_per_prefix": 1,
    "max_circuits": 1,
    "max_circuits_per_peer": 1,
    "max_circuits_per_prefix": 1,
    "requests_per_minute_per_peer": 1,
    "requests_per_minute_per_prefix": 1,
    "max_pending_per_peer": 1,
    "stop_timeout": 1,
}
CUTTING = {"circuit_seconds": 60, "circuit_bytes": 10}
SLOWING = {
    "reservation_seconds",  # Told in the answer; what is not renewed ends, "expired".
    "circuit_bytes_per_second",
    "bytes_per_second",
    "request_timeout",
    "buffer_bytes",
    "window_bytes",
}
PLACE = parse("/ip4/5.6.7.8/tcp/1")


def test_every_limit_refuses_or_cuts_or_has_others_wait() -> None:
    assert {*REFUSING, *CUTTING, *SLOWING} == {field.name for field in fields(RelayLimits)}


async def use_up(relay: Relay, net: FakeNet, limit: str) -> str:
    """Do what the limit allows once, and then once more; return the status of that."""
    links = [net.connect(net.host(n), relay.host, dialer_place=PLACE) for n in (5, 6)]
    if limit.startswith("max_circuits"):
        first = await relay.target(1)
        # Each limit alone: all circuits, or all of one end, or all of one network.
        other = first if limit == "max_circuits_per_peer" else await relay.target(2)
        await relay.connect(links[0], first.owner.peer_id)
        source = relay.peer(7) if limit == "max_circuits" else links[1]
        return await refusal(relay, source, other.owner.peer_id)
    if limit == "stop_timeout":
        silent_one = await relay.target(1)
        silent_one.owner.handlers[STOP] = silent
        return await refusal(relay, links[0], silent_one.owner.peer_id)
    if limit == "max_pending_per_peer":
        await (await links[0].open_stream(HOP)).send_all(b"\x02\x08")
        await settle()
    else:
        assert await refusal(relay, links[0]) == "OK"
    is_of_peer = limit in ("requests_per_minute_per_peer", "max_pending_per_peer")
    return await refusal(relay, links[0] if is_of_peer else links[1])


@pytest.mark.parametrize("limit", REFUSING)
async def test_r33_a_limit_that_refuses_is_named(
    net: FakeNet, autojump_clock: MockClock, limit: str
) -> None:
    relay = await relay_with(net, **{limit: REFUSING[limit]})
    status = await use_up(relay, net, limit)
    await settle()
    (event,) = [event for event in relay.events if isinstance(event, RelayRefusedRequest)]
    assert (event.status, event.limit) == (status, limit)
    assert event.reason == f"{limit} = 1 reached"
    ((counted, times),) = relay.service.statistics().refused.items()
    assert (counted.status, counted.limit, times) == (status, limit, 1)


@pytest.mark.parametrize("limit", CUTTING)
async def test_r33_a_limit_that_cuts_a_circuit_is_named(
    net: FakeNet, autojump_clock: MockClock, limit: str
) -> None:
    relay = await relay_with(net, **{limit: CUTTING[limit]})
    target, source = await relay.target(1), relay.peer(2)
    stream = await relay.connect(source, target.owner.peer_id)
    await stream.send_all(bytes(11))
    await trio.sleep(61)
    assert relay.service.statistics().circuits_closed == {limit: 1}
    (closed,) = [event for event in relay.events if isinstance(event, CircuitClosed)]
    assert closed.reason in ("time limit of 60 s", "forward: limit of 10 bytes")
