"""The rules for muxers, and their check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from p2pnet.interfaces import Muxer, Part
from p2pnet.testing.conformance import muxer_endings as endings
from p2pnet.testing.conformance import muxer_streams as streams
from p2pnet.testing.conformance.judging import judge, judge_all, promise_of
from p2pnet.testing.conformance.muxer_bench import MuxerBench

RULES: tuple[tuple[str, Callable[[MuxerBench], Awaitable[None]]], ...] = (
    ("protocol-id", endings.has_a_protocol_id),
    ("both-ways", streams.carries_both_ways),
    ("half-close", streams.half_closes),
    ("trio-stream", streams.is_a_trio_stream),
    ("reset", streams.reset_ends_both_directions),
    ("reset-wakes", streams.reset_wakes_whoever_waits),
    ("many-streams", streams.keeps_many_streams_apart),
    ("big-data", streams.carries_much),
    ("back-pressure", streams.waits_for_slow_readers),
    ("independence", streams.streams_do_not_hinder_one_another),
    ("simultaneous-open", streams.both_ends_open_at_once),
    ("open-at-once", streams.opens_without_a_round_trip),
    ("silent-open", streams.a_silent_stream_arrives),
    ("cancelled-sender", streams.a_cancelled_sender_spoils_nothing_else),
    ("cancelled-receiver", streams.a_cancelled_receiver_loses_nothing),
    ("good-order", endings.ends_in_good_order),
    ("close-twice", endings.closing_twice_is_closing),
    ("close-cancelled", endings.closes_even_when_cancelled),
    ("close-unused", endings.closes_what_never_ran),
    ("cancelled-run", endings.a_cancelled_run_closes),
    ("after-the-end", endings.nothing_works_after_the_end),
    ("broken-below", endings.a_broken_stream_below_is_a_loss),
    ("tampered-below", endings.tampering_is_told),
    ("garbage", endings.garbage_is_refused),
    ("damage", endings.damage_is_survived),
    ("inbound-limit", endings.inbound_streams_are_bounded),
)


@dataclass(frozen=True)
class MuxerCheck:
    """One rule; call it with a part to check that."""

    rule: str
    case: Callable[[MuxerBench], Awaitable[None]]

    async def __call__(self, part: Part[Muxer], *, greedy: Part[Muxer] | None = None) -> None:
        """See ``check_muxer``. Raises ConformanceFailure."""
        bench = MuxerBench(part, greedy or part)
        await judge(part, self.rule, promise_of(self.case), partial(self.case, bench))


def muxer_cases() -> tuple[tuple[str, MuxerCheck], ...]:
    """Return the name and the check of every rule, for ``pytest.mark.parametrize``."""
    return tuple((rule, MuxerCheck(rule, case)) for rule, case in RULES)


async def check_muxer(part: Part[Muxer], *, greedy: Part[Muxer] | None = None) -> None:
    """Hold a muxer against all rules.

    ``greedy`` is the same muxer, set to open as many streams as it is let: against it the limit
    on inbound streams is tried. Without it only the two limits together are.

    Raises:
        ConformanceFailure: naming every rule that is broken.
    """
    await judge_all(part, [partial(check, part, greedy=greedy) for _, check in muxer_cases()])
