"""TCP conforms in a simulated world; and each rule for transports is one that can be broken."""

from __future__ import annotations

from contextlib import suppress

import pytest
from trio.testing import MockClock

from p2pnet.testing.conformance import (
    ConformanceFailure,
    TransportCheck,
    check_transport,
    transport_cases,
)
from p2pnet.testing.world import Leaked, World
from p2pnet.transports.tcp import TCP
from tests.testing.transport_saboteurs import SABOTEURS

RULES = [rule for rule, _ in transport_cases()]


@pytest.mark.parametrize(("rule", "check"), transport_cases())
async def test_tcp_conforms_between_two_machines(
    rule: str, check: TransportCheck, world: World
) -> None:
    assert rule == check.rule
    here, there = world.machine(), world.machine()
    listen = f"/ip4/{here.addresses[0]}/tcp/0"
    await check(TCP(), listen=listen, env=here.env, dialer_env=there.env)


async def test_tcp_conforms_on_one_machine_and_where_the_address_is_made_anew(
    world: World,
) -> None:
    machine = world.machine()
    asked = 0

    def next_address() -> str:
        nonlocal asked
        asked += 1
        return f"/ip4/{machine.addresses[0]}/tcp/{5000 + asked}"

    await check_transport(TCP(), listen=next_address, env=machine.env)
    assert asked > len(RULES)


@pytest.mark.parametrize("rule", RULES)
async def test_a_broken_transport_fails_on_its_rule_and_no_other(
    rule: str, autojump_clock: MockClock
) -> None:
    broken = {}
    with suppress(Leaked):
        async with World() as world:
            here, there = world.machine(), world.machine()
            listen = f"/ip4/{here.addresses[0]}/tcp/0"
            for other, check in transport_cases():
                try:
                    await check(SABOTEURS[rule], listen=listen, env=here.env, dialer_env=there.env)
                except ConformanceFailure as failure:
                    broken[other] = failure.text
    assert list(broken) == [rule], broken


def test_every_rule_has_a_name_of_its_own_and_says_what_it_demands() -> None:
    assert len(set(RULES)) == len(RULES)
    assert set(SABOTEURS) == set(RULES)
    for _, check in transport_cases():
        assert (check.case.__doc__ or "").partition("\n\n")[0].strip().endswith(".")
