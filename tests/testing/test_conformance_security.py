"""Noise conforms, plaintext as far as it can; and each rule is one that can be broken."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from p2pnet.security.noise import Noise
from p2pnet.testing.conformance import (
    ConformanceFailure,
    SecurityCheck,
    check_security,
    security_cases,
)
from p2pnet.testing.insecure import Insecure
from tests.testing.security_saboteurs import SABOTEURS

RULES = [rule for rule, _ in security_cases()]
SLOW = ("cut-handshake", "changed-handshake")
"""These do hundreds of handshakes."""


@pytest.mark.parametrize(("rule", "check"), security_cases())
async def test_noise_conforms(rule: str, check: SecurityCheck, autojump_clock: MockClock) -> None:
    assert rule == check.rule
    await check(Noise())


async def test_plaintext_conforms_by_the_clock_on_the_wall_but_for_what_needs_encryption() -> None:
    await check_security(Insecure(), encrypts=False)


async def test_plaintext_breaks_every_rule_that_needs_encryption(
    autojump_clock: MockClock,
) -> None:
    with pytest.raises(ConformanceFailure) as caught:
        await check_security(Insecure())
    assert caught.value.rules == (
        "recorded-peer",
        "secrecy",
        "freshness",
        "changed-message",
        "repeated-message",
        "disorder",
        "missing-message",
        "cut-message",
    )
    without = [rule for rule, _ in security_cases(encrypts=False)]
    assert [*without, *caught.value.rules] == RULES


@pytest.mark.parametrize("rule", RULES)
async def test_a_broken_security_fails_on_its_rule_and_no_other_quick_one(
    rule: str, autojump_clock: MockClock
) -> None:
    broken = {}
    for other, check in security_cases():
        if other in SLOW and other != rule:
            continue
        try:
            await check(SABOTEURS[rule])
        except ConformanceFailure as failure:
            broken[other] = failure.text
    assert list(broken) == [rule], broken


def test_every_rule_has_a_name_of_its_own_and_says_what_it_demands() -> None:
    assert len(set(RULES)) == len(RULES)
    assert set(SABOTEURS) == set(RULES)
    for _, check in security_cases():
        assert (check.case.__doc__ or "").partition("\n\n")[0].strip().endswith(".")
