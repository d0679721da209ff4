"""QUIC conforms on real sockets, too."""

from __future__ import annotations

import pytest

from p2pnet.core.env import Env
from p2pnet.testing.conformance import TransportCheck, transport_cases
from p2pnet.transports.quic import QUIC

pytestmark = pytest.mark.sockets


@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_quic_conforms_on_loopback(rule: str, check: TransportCheck) -> None:
    assert rule == check.rule
    # Where nobody answers, it takes all of it; else a busy machine may need its time.
    part = QUIC(handshake_timeout=2.0 if rule == "nobody" else 60.0)
    await check(part, listen="/ip4/127.0.0.1/udp/0/quic-v1", env=Env.system())
