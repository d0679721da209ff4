"""The rules for securities, and their check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from p2pnet.interfaces import Part, Security
from p2pnet.testing.conformance import security_channels as channels
from p2pnet.testing.conformance import security_handshakes as handshakes
from p2pnet.testing.conformance.judging import judge, judge_all, promise_of
from p2pnet.testing.conformance.security_bench import SecurityBench

SecurityCase = Callable[[SecurityBench], Awaitable[None]]

RULES: tuple[tuple[str, SecurityCase], ...] = (
    ("protocol-id", handshakes.has_a_protocol_id),
    ("identity", handshakes.ends_know_each_other),
    ("expected-peer", handshakes.others_are_refused),
    ("early-muxer", handshakes.one_muxer_is_agreed_on),
    ("no-buffers", handshakes.handshakes_without_buffers),
    ("read-ahead", handshakes.reads_not_too_far),
    ("cut-handshake", handshakes.cut_handshakes_fail),
    ("changed-handshake", handshakes.changed_handshakes_fail),
    ("garbage", handshakes.garbage_is_refused),
    ("cancelled-handshake", handshakes.a_cancelled_handshake_closes),
    ("big-data", channels.carries_both_ways),
    ("pieces", channels.carries_pieces),
    ("trio-stream", channels.is_a_trio_stream),
    ("clean-end", channels.ends_cleanly),
)
ENCRYPTED: tuple[tuple[str, SecurityCase], ...] = (
    ("recorded-peer", handshakes.a_recorded_peer_is_refused),
    ("secrecy", channels.hides_what_it_carries),
    ("freshness", channels.same_text_looks_different),
    ("changed-message", channels.changes_are_noticed),
    ("repeated-message", channels.repetitions_are_noticed),
    ("disorder", channels.disorder_is_noticed),
    ("missing-message", channels.gaps_are_noticed),
    ("cut-message", channels.cut_messages_are_noticed),
)
"""What only a security that encrypts can promise."""


@dataclass(frozen=True)
class SecurityCheck:
    """One rule; call it with a part to check that."""

    rule: str
    case: SecurityCase

    async def __call__(self, part: Part[Security]) -> None:
        """See ``check_security``. Raises ConformanceFailure."""
        await judge(part, self.rule, promise_of(self.case), partial(self.case, SecurityBench(part)))


def security_cases(*, encrypts: bool = True) -> tuple[tuple[str, SecurityCheck], ...]:
    """Return the name and the check of every rule, for ``pytest.mark.parametrize``.

    Those that only a security which ``encrypts`` can pass are left out for another.
    """
    rules = RULES + (ENCRYPTED if encrypts else ())
    return tuple((rule, SecurityCheck(rule, case)) for rule, case in rules)


async def check_security(part: Part[Security], *, encrypts: bool = True) -> None:
    """Hold a security against all rules, or, if it openly does not encrypt, against the others.

    Raises:
        ConformanceFailure: naming every rule that is broken.
    """
    cases = security_cases(encrypts=encrypts)
    await judge_all(part, [partial(check, part) for _, check in cases])
