"""TLS against the rules for every security of p2pnet."""

from __future__ import annotations

import pytest

from p2pnet.core.keys import PrivateKey
from p2pnet.interfaces import Kit
from p2pnet.security.tls import TLS, TLSSecurity
from p2pnet.testing.conformance import SecurityCheck, security_cases


class BuiltOnce:
    """The part, but for one key it is built once: making a certificate takes its time."""

    def __init__(self, part: TLS) -> None:
        self._part = part
        self._built: dict[PrivateKey, TLSSecurity] = {}

    def build(self, kit: Kit) -> TLSSecurity:
        if kit.key not in self._built:
            self._built[kit.key] = self._part.build(kit)
        return self._built[kit.key]


@pytest.mark.parametrize(("rule", "check"), security_cases())
async def test_tls_conforms(rule: str, check: SecurityCheck, autojump_clock: object) -> None:
    assert rule == check.rule
    await check(BuiltOnce(TLS()))
