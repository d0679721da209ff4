"""Which server is asked about which address, and when."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.autonat.policy import Outcome
from p2pnet.protocols.autonat.schedule import Pace, Probe, Rounds, Schedule, Server

HERE, THERE = parse("/ip4/11.0.0.1/tcp/1"), parse("/ip4/11.0.0.2/tcp/1")
SIX = parse("/ip6/2a00::1/tcp/1")
HONEST = Outcome.REACHED

Says = Callable[[Server, Multiaddr, float], Outcome]


def server(seed: int, network: str = "", *, is_ipv6: bool = False) -> Server:
    peer_id = PeerId.from_public_key(PrivateKey.from_seed(bytes([seed]) * 32).public_key)
    return Server(peer_id, network or f"net {seed}", is_ipv6)


SERVERS = [server(seed) for seed in range(1, 8)]


class Play:
    """Lets time pass; servers answer at once, or after ``takes`` seconds."""

    def __init__(self, says: Says, *, servers: list[Server], takes: float = 0.0) -> None:
        self.schedule = Schedule(Pace())
        self.says = says
        self.servers = servers
        self.takes = takes
        self.candidates: list[Multiaddr] = [HERE]
        self.now = 0.0
        self.asked: list[tuple[float, Probe]] = []
        self.under_way: list[tuple[float, Probe]] = []

    def until(self, end: float) -> list[tuple[float, Server]]:
        """Return who was asked, and when."""
        before = len(self.asked)
        steps = 0
        while self.now <= end:
            steps += 1
            assert steps < 5000, "it goes round and round"
            self.schedule.look(self.candidates, self.now)
            for probe in self.schedule.due(self.servers, self.now):
                self.asked.append((self.now, probe))
                self.under_way.append((self.now + self.takes, probe))
            ready = [each for each in self.under_way if each[0] <= self.now]
            for each in ready:
                self.under_way.remove(each)
                outcome = self.says(each[1].server, each[1].address, self.now)
                self.schedule.finished(each[1], outcome, self.now)
            if ready:
                continue
            next_time = self.schedule.next_time(self.servers, self.now)
            assert next_time > self.now
            self.now = min([next_time, *(time for time, _ in self.under_way)])
        self.now = end
        return [(time, probe.server) for time, probe in self.asked[before:]]


def always(outcome: Outcome) -> Says:
    return lambda server, address, now: outcome


def test_a_new_address_is_tested_by_three_networks_once_it_has_settled() -> None:
    """AN26."""
    play = Play(always(HONEST), servers=SERVERS)
    assert play.until(0.9) == []
    assert play.until(29.0) == [(1.0, each) for each in SERVERS[:3]]


def test_then_one_server_every_30_seconds_the_one_used_longest_ago() -> None:
    """AN26."""
    play = Play(always(HONEST), servers=SERVERS[:4])
    play.until(2.0)
    turns = play.until(200.0)
    assert turns == [(31.0 + 30.0 * n, SERVERS[(3 + n) % 4]) for n in range(6)]


def test_servers_of_one_network_count_as_one() -> None:
    """AN25."""
    same = [server(seed, "net") for seed in range(1, 6)]
    assert len(Play(always(HONEST), servers=same).until(20.0)) == 1
    both = [*same, server(9, "other")]
    assert len(Play(always(HONEST), servers=both).until(20.0)) == 2


def test_with_one_server_its_word_counts_and_is_checked() -> None:
    """AN26."""
    turns = Play(always(HONEST), servers=SERVERS[:1]).until(100.0)
    assert [time for time, _ in turns] == [1.0, 31.0, 61.0, 91.0]


def test_a_server_that_comes_later_is_asked_at_once_if_it_was_missing() -> None:
    """AN26."""
    play = Play(always(HONEST), servers=SERVERS[:1])
    play.until(10.0)
    play.servers = SERVERS[:5]
    assert play.until(20.0) == [(10.0, SERVERS[1]), (10.0, SERVERS[2])]


def test_a_contradiction_has_others_asked_at_once() -> None:
    """AN27: the port forward is gone."""
    gone_at = 70.0
    play = Play(
        lambda server, address, now: HONEST if now < gone_at else Outcome.NOT_REACHED,
        servers=SERVERS[:5],
        takes=8.0,
    )
    play.until(gone_at)
    turns = play.until(gone_at + 50.0)
    # One recheck, and two more as soon as it says something new.
    assert [time for time, _ in turns[:3]] == [91.0, 99.0, 99.0]
    assert len({each.network for _, each in turns[:3]}) == 3
    assert turns[2][0] + play.takes - gone_at < 60.0


def test_two_servers_suffice_to_ask_the_other() -> None:
    """AN27."""
    play = Play(
        lambda server, address, now: HONEST if now < 50.0 else Outcome.NOT_REACHED,
        servers=SERVERS[:2],
    )
    play.until(40.0)
    turns = play.until(62.0)
    assert [time for time, _ in turns] == [61.0, 61.0]


def test_a_liar_costs_two_tests_more_each_time_and_no_storm() -> None:
    """AN27."""
    liar = SERVERS[2]
    play = Play(
        lambda server, address, now: Outcome.NOT_REACHED if server == liar else HONEST,
        servers=SERVERS[:3],
    )
    turns = play.until(3600.0)
    assert len(turns) < 3 + 3600 / 30 * 5 / 3 + 5
    assert all(len([1 for t, s in turns if s == each and t < 60.0]) <= 5 for each in SERVERS[:3])


def test_all_restarts_in_another_network() -> None:
    """AN28."""
    play = Play(always(HONEST), servers=SERVERS[:3], takes=5.0)
    play.until(2.0)
    (_, old), *_ = play.under_way
    play.schedule.restart(2.0)
    assert not play.schedule.finished(old, HONEST, 3.0)
    play.under_way = []
    # The servers that are still at work on what nobody wants to know any more are not asked.
    turns = play.until(10.0)
    assert turns == [(3.0, old.server)]


def test_an_address_that_is_gone_is_forgotten() -> None:
    """AN26."""
    play = Play(always(HONEST), servers=SERVERS[:3])
    play.until(10.0)
    play.candidates = []
    assert play.until(100.0) == []
    play.candidates = [HERE]
    assert [time for time, _ in play.until(120.0)] == [101.0] * 3


def test_eight_addresses_are_tested_three_at_the_same_time() -> None:
    """AN26."""
    many = [parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 12)]
    play = Play(always(Outcome.NOT_REACHED), servers=SERVERS, takes=8.0)
    play.candidates = many
    play.until(60.0)
    assert {probe.address for _, probe in play.asked} == set(many[:8])
    for moment in range(60):
        running = {p.address for t, p in play.asked if t <= moment < t + play.takes}
        assert len(running) <= 3
        busy = [p.server for t, p in play.asked if t <= moment < t + play.takes]
        assert len(busy) == len(set(busy)), "a server is asked once at a time"


def test_a_server_is_asked_five_times_a_minute_at_most() -> None:
    """AN26."""
    play = Play(always(HONEST), servers=SERVERS[:1])
    play.candidates = [parse(f"/ip4/11.0.0.1/tcp/{port}") for port in range(1, 9)]
    times = [time for time, _ in play.until(600.0)]
    for time in times:
        assert sum(time <= other < time + 60.0 for other in times) <= 5
    assert len(times) > 45


@pytest.mark.parametrize(
    ("outcome", "times"),
    [
        (Outcome.REJECTED, [1.0, 121.0, 241.0]),
        (Outcome.REFUSED, [1.0, 121.0, 241.0]),
        (Outcome.TOO_DEAR, [1.0, 121.0, 241.0]),
        (Outcome.UNDECIDED, [1.0, 6.0, 16.0, 36.0, 76.0, 156.0]),
        (Outcome.LIED, [1.0]),
    ],
)
def test_a_server_of_no_use_is_left_alone(outcome: Outcome, times: list[float]) -> None:
    """AN22."""
    play = Play(always(outcome), servers=SERVERS[:1])
    assert [time for time, _ in play.until(300.0)] == times


def test_a_liar_is_asked_again_after_an_hour() -> None:
    """AN22."""
    play = Play(always(Outcome.LIED), servers=SERVERS[:1])
    assert [time for time, _ in play.until(4000.0)] == [1.0, 3601.0]


def test_who_refuses_one_address_is_asked_about_others() -> None:
    """AN22."""
    play = Play(
        lambda server, address, now: Outcome.REFUSED if address == SIX else HONEST,
        servers=SERVERS[:2],
    )
    play.candidates = [SIX, HERE]
    play.until(20.0)
    asked = [(probe.address, probe.server) for _, probe in play.asked]
    assert sorted(asked, key=str) == sorted(
        [(SIX, SERVERS[0]), (SIX, SERVERS[1]), (HERE, SERVERS[0]), (HERE, SERVERS[1])], key=str
    )


def test_for_a_server_without_verdict_another_is_asked() -> None:
    """AN26."""
    useless = {SERVERS[0], SERVERS[2]}
    play = Play(
        lambda server, address, now: Outcome.UNDECIDED if server in useless else HONEST,
        servers=SERVERS[:5],
    )
    turns = play.until(1.5)
    assert {each for _, each in turns} == set(SERVERS[:5])


def test_a_back_off_has_an_end_and_a_success_ends_it() -> None:
    """AN22."""
    schedule = Schedule(Pace())
    peer_id = SERVERS[0].peer_id
    for _ in range(100):
        schedule.rate(peer_id, Outcome.UNDECIDED, 0.0)
    assert schedule.is_resting(peer_id, 299.0)
    assert not schedule.is_resting(peer_id, 300.0)
    schedule.rate(peer_id, HONEST, 10.0)
    assert not schedule.is_resting(peer_id, 10.0)


def test_only_so_many_servers_are_remembered_for_resting() -> None:
    schedule = Schedule(Pace(max_resting=2))
    for each in SERVERS[:3]:
        schedule.rate(each.peer_id, Outcome.LIED, 0.0)
    assert [schedule.is_resting(each.peer_id, 1.0) for each in SERVERS[:3]] == [False, True, True]


def test_servers_of_the_same_ip_version_come_first() -> None:
    """AN26."""
    sixes = [server(seed, is_ipv6=True) for seed in range(10, 13)]
    play = Play(always(HONEST), servers=[*SERVERS[:3], *sixes])
    play.candidates = [SIX]
    assert [each for _, each in play.until(20.0)] == sixes


def test_without_servers_or_addresses_there_is_nothing_to_wait_for() -> None:
    schedule = Schedule(Pace())
    assert schedule.next_time(SERVERS, 0.0) == math.inf
    schedule.look([HERE, THERE], 0.0)
    assert schedule.next_time([], 0.0) == math.inf
    assert schedule.next_time(SERVERS, 0.0) == 1.0


def test_a_day_with_many_passing_servers_needs_bounded_memory() -> None:
    play = Play(always(HONEST), servers=[])
    for hour in range(200):
        play.servers = [server(hour, f"net {hour} {n}") for n in range(2)]
        play.until(float(40 * hour))
    (case,) = play.schedule._cases.values()
    for table in (case.results, case.asked, case.fresh, case.tried):
        assert len(table) <= 64
    assert len(play.schedule._requests) <= 4


def test_paces_are_positive() -> None:
    with pytest.raises(ValueError, match="recheck_interval"):
        Pace(recheck_interval=0)


# ---- filtering ---------------------------------------------------------------------------


def rounds() -> Rounds:
    return Rounds(settle_seconds=1.0, interval=600.0, retry_seconds=30.0, enough=3)


def test_a_round_begins_soon_again_with_more_servers_and_then_rarely() -> None:
    """AN30."""
    each = rounds()
    assert not each.look(0, 0.0)
    assert each.next_time == math.inf
    assert not each.look(1, 5.0)
    assert each.next_time == 6.0
    assert each.look(1, 6.0)
    assert each.next_time == math.inf
    assert not each.look(2, 7.0)  # it is under way
    each.ended(8.0, useful=True)
    assert each.look(2, 8.0)
    each.ended(9.0, useful=True)
    assert not each.look(3, 10.0)
    assert each.look(3, 11.0)
    each.ended(12.0, useful=True)
    assert not each.look(50, 13.0)
    assert each.next_time == 612.0
    assert each.look(3, 612.0)


def test_a_round_that_told_nothing_is_tried_again() -> None:
    """AN30."""
    each = rounds()
    each.look(3, 0.0)
    assert each.look(3, 1.0)
    each.ended(2.0, useful=False)
    assert each.next_time == 32.0
    assert each.look(3, 32.0)
    each.ended(33.0, useful=False)
    assert each.next_time == 93.0
    assert each.look(3, 93.0)
    each.ended(94.0, useful=True)
    assert each.look(3, 694.0)
    each.ended(695.0, useful=False)
    assert each.next_time == 725.0


def test_in_another_network_rounds_begin_anew() -> None:
    """AN28."""
    each = rounds()
    each.look(3, 0.0)
    each.look(3, 1.0)
    each.ended(2.0, useful=True)
    each.restart()
    assert not each.look(3, 50.0)
    assert each.next_time == 51.0
