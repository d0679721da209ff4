"""TCP conforms on real sockets, too."""

from __future__ import annotations

import pytest

from p2pnet.core.env import Env
from p2pnet.testing.conformance import TransportCheck, transport_cases
from p2pnet.transports.tcp import TCP

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_tcp_conforms_on_loopback(rule: str, check: TransportCheck) -> None:
    assert rule == check.rule
    await check(TCP(), listen="/ip4/127.0.0.1/tcp/0", env=Env.system())
