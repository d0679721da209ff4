"""WebSocket conforms in a simulated world, plain and over TLS."""

from __future__ import annotations

import pytest

from p2pnet.testing.conformance import TransportCheck, transport_cases
from p2pnet.testing.world import World
from p2pnet.transports.websocket import WebSocket
from tests.transports.websocket.web_authority import Authority


@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_websocket_conforms_between_two_machines(
    rule: str, check: TransportCheck, world: World
) -> None:
    assert rule == check.rule
    here, there = world.machine(), world.machine()
    listen = f"/ip4/{here.addresses[0]}/tcp/0/ws"
    await check(WebSocket(), listen=listen, env=here.env, dialer_env=there.env)


@pytest.mark.parametrize("sni", ["", "/sni/a.example"])
@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_websocket_over_tls_conforms_between_two_machines(
    rule: str, check: TransportCheck, world: World, sni: str
) -> None:
    assert rule == check.rule
    here, there = world.machine(), world.machine()
    authority = Authority()
    issued = authority.issue(here.addresses[0], there.addresses[0], "a.example")
    part = WebSocket(certificate=issued.certificate, key=issued.key, authorities=authority.pem)
    listen = f"/ip4/{here.addresses[0]}/tcp/0/tls{sni}/ws"
    await check(part, listen=listen, env=here.env, dialer_env=there.env)
