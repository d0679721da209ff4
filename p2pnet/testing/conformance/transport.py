"""The rules for transports, and their check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from p2pnet.core.env import Env
from p2pnet.interfaces import Part, Transport
from p2pnet.testing.conformance import transport_cases as cases
from p2pnet.testing.conformance.judging import judge, judge_all, promise_of
from p2pnet.testing.conformance.transport_bench import TransportBench

TransportCase = Callable[[TransportBench], Awaitable[None]]

RULES: tuple[tuple[str, TransportCase], ...] = (
    ("addresses", cases.knows_its_addresses),
    ("unsupported", cases.refuses_other_addresses),
    ("listen", cases.listens_somewhere),
    ("both-ends", cases.both_ends_know_each_other),
    ("streams", cases.carries_streams),
    ("nobody", cases.nobody_is_an_error),
    ("wrong-peer", cases.others_are_refused),
    ("closed-listener", cases.a_closed_listener_says_so),
    ("outliving", cases.connections_outlive_the_listener),
    ("many-at-once", cases.serves_many_at_once),
    ("any-port", cases.dials_from_any_port),
    ("swapped-roles", cases.roles_can_be_swapped),
    ("cancelled-dial", cases.a_cancelled_dial_leaves_nothing),
    ("sent-away", cases.who_comes_can_be_sent_away),
    ("failed-upgrade", cases.a_failed_upgrade_closes),
    ("close", cases.closing_leaves_nothing),
)


@dataclass(frozen=True)
class TransportCheck:
    """One rule; call it with a part to check that."""

    rule: str
    case: TransportCase

    async def __call__(
        self,
        part: Part[Transport],
        *,
        listen: str | Callable[[], str],
        env: Env,
        dialer_env: Env | None = None,
    ) -> None:
        """See ``check_transport``. Raises ConformanceFailure."""
        bench = TransportBench(part, env, dialer_env or env, listen)
        await judge(part, self.rule, promise_of(self.case), partial(self.case, bench))


def transport_cases() -> tuple[tuple[str, TransportCheck], ...]:
    """Return the name and the check of every rule, for ``pytest.mark.parametrize``."""
    return tuple((rule, TransportCheck(rule, case)) for rule, case in RULES)


async def check_transport(
    part: Part[Transport],
    *,
    listen: str | Callable[[], str],
    env: Env,
    dialer_env: Env | None = None,
) -> None:
    """Hold a transport against all rules, on the network of ``env``.

    ``listen`` is an address to listen at, with port 0 if it has ports, or makes one each time.
    It is certain (not ``0.0.0.0``), and ``dialer_env``, where the other end runs if not in the
    same place, reaches it without a NAT in between: the ends must agree on their addresses.

    Raises:
        ConformanceFailure: naming every rule that is broken.
    """
    checks = [
        partial(check, part, listen=listen, env=env, dialer_env=dialer_env)
        for _, check in transport_cases()
    ]
    await judge_all(part, checks)
