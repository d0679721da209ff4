"""Yamux conforms; and each rule for muxers is one that a muxer can break."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from p2pnet.muxers.yamux import Yamux
from p2pnet.testing.conformance import (
    ConformanceFailure,
    MuxerCheck,
    check_muxer,
    muxer_cases,
)
from tests.testing.muxer_saboteurs import GREEDY, SABOTEURS, ClosesOnce, Nameless, Sabotaged

RULES = [rule for rule, _ in muxer_cases()]
SLOW = ("damage", "inbound-limit")
"""These run hundreds of connections, or open thousands of streams."""


@pytest.mark.parametrize(("rule", "check"), muxer_cases())
async def test_yamux_conforms(rule: str, check: MuxerCheck, autojump_clock: MockClock) -> None:
    assert rule == check.rule
    await check(Yamux(), greedy=GREEDY)


async def test_yamux_conforms_by_the_clock_on_the_wall() -> None:
    await check_muxer(Yamux())


@pytest.mark.parametrize("rule", RULES)
async def test_a_broken_muxer_fails_on_its_rule_and_no_other_quick_one(
    rule: str, autojump_clock: MockClock
) -> None:
    broken = {}
    for other, check in muxer_cases():
        if other in SLOW and other != rule:
            continue
        try:
            await check(SABOTEURS[rule], greedy=GREEDY if rule == "inbound-limit" else None)
        except ConformanceFailure as failure:
            broken[other] = failure.text
    assert list(broken) == [rule], broken


async def test_all_that_is_broken_is_told_at_once(autojump_clock: MockClock) -> None:
    part = Sabotaged(connection=ClosesOnce, muxer=Nameless)
    with pytest.raises(ConformanceFailure) as caught:
        await check_muxer(part)
    failure = caught.value
    assert failure.part is part
    assert failure.rules == ("protocol-id", "close-twice")
    assert failure.rule == "protocol-id, close-twice"
    assert "it is 'yamux'" in failure.text
    assert "closed already" in str(failure)
    assert isinstance(failure.__cause__, ExceptionGroup)
    assert failure.__cause__.exceptions == failure.failures


def test_every_rule_has_a_name_of_its_own_and_says_what_it_demands() -> None:
    assert len(set(RULES)) == len(RULES)
    assert set(SABOTEURS) == set(RULES)
    for _, check in muxer_cases():
        assert (check.case.__doc__ or "").partition("\n\n")[0].strip().endswith(".")
