"""Rules V7 to V12: from the results of tests to a verdict."""

from __future__ import annotations

import pytest

from p2pnet.connectivity.contacts import MAX_CONTACTS, MEMORY, Contacts
from p2pnet.connectivity.nat import Filtering, NatClass
from p2pnet.connectivity.verdict import Cases, DialBack, Status, Verdict, Weights, reduce
from p2pnet.core.addresses import parse
from p2pnet.events import Reachability

X, Y = parse("/ip4/5.5.5.5/tcp/4001"), parse("/ip4/5.5.5.5/tcp/4002")
STRICT = NatClass(filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT)
WEIGHTS = Weights(lifetime=100.0, max_networks=4)


def cases(*results: bool, begin: float = 0.0) -> Cases:
    """Let one network after the other try to dial X."""
    made = Cases(WEIGHTS)
    tell(made, *results, begin=begin)
    return made


def tell(made: Cases, *results: bool, begin: float = 0.0) -> None:
    for number, reached in enumerate(results):
        network = f"8.8.8.{number}"
        made.record(X, DialBack(begin + number, network, reached, f"server {number}"))


def status(made: Cases, nat: NatClass = STRICT, now: float = 10.0) -> Status:
    return made.judge(X, nat, now).status


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ((), Status.UNKNOWN),
        ((True,), Status.REACHABLE),
        ((False,), Status.UNREACHABLE),
        ((True, False), Status.UNKNOWN),
        ((True, False, True), Status.REACHABLE),
        ((True, False, False), Status.UNREACHABLE),
        ((False, False, True, True), Status.REACHABLE),
    ],
)
def test_v8_the_newest_of_three_networks_decide(
    results: tuple[bool, ...], expected: Status
) -> None:
    assert status(cases(*results)) is expected


def test_v7_a_network_has_one_word_the_last() -> None:
    made = Cases(WEIGHTS)
    for time in range(5):
        made.record(X, DialBack(time, "8.8.8.8", time == 4, "server"))
    assert made.judge(X, STRICT, 10.0).reasons[0] == "server got through"
    assert len(made.judge(X, STRICT, 10.0).reasons) == 2


def test_v7_a_result_counts_for_a_time() -> None:
    made = cases(True)
    assert made.judge(X, STRICT, 99.0).expires == 100.0
    assert status(made, now=100.0) is Status.UNKNOWN


def test_v7_so_many_networks_are_kept() -> None:
    made = cases(*[True] * 9)
    assert len(made._cases[X].tests) == 4


def test_v9_two_who_disagree_leave_things_as_they_are_but_less_sure() -> None:
    made = cases(True)
    sure = made.judge(X, STRICT, 10.0).confidence
    tell(made, True, False, begin=20.0)
    verdict = made.judge(X, STRICT, 30.0)
    assert verdict.status is Status.REACHABLE
    assert 0 < verdict.confidence < sure


def test_confidence_grows_with_the_number_that_agree() -> None:
    sure = [cases(*[True] * n).judge(X, STRICT, 10.0).confidence for n in (1, 2, 3)]
    assert sure == sorted(sure)
    assert 0.5 < sure[0] < sure[2] < 1
    assert cases(True, False, True).judge(X, STRICT, 10.0).confidence < sure[2]


@pytest.mark.parametrize(
    ("filtering", "expected"),
    [
        (Filtering.UNKNOWN, Status.UNKNOWN),
        (Filtering.ENDPOINT_INDEPENDENT, Status.REACHABLE),
        (Filtering.ADDRESS_DEPENDENT, Status.FILTERED),
        (Filtering.ADDRESS_AND_PORT_DEPENDENT, Status.REACHABLE),
    ],
)
def test_v10_who_is_no_stranger_proves_nothing_by_itself(
    filtering: Filtering, expected: Status
) -> None:
    assert status(cases(True, True, True), NatClass(filtering=filtering)) is expected


def test_v10_two_strangers_prove_it_and_one_may_lie() -> None:
    nat = NatClass(filtering=Filtering.ADDRESS_DEPENDENT)
    made = cases(True)
    made.record_stranger(X, "9.9.9.1", 5.0)
    made.record_stranger(X, "9.9.9.1", 6.0)
    assert status(made, nat) is Status.FILTERED
    made.record_stranger(X, "9.9.9.2", 7.0)
    assert status(made, nat) is Status.REACHABLE
    assert status(made, nat, now=99.5) is Status.REACHABLE
    assert status(made, nat, now=106.5) is Status.UNKNOWN


def test_v10_strangers_need_no_test() -> None:
    made = Cases(WEIGHTS)
    for network in ("9.9.9.1", "9.9.9.2"):
        made.record_stranger(X, network, 5.0)
    assert status(made) is Status.REACHABLE


def test_v10_whom_this_host_has_dialled_is_no_stranger_for_long() -> None:
    contacts = Contacts()
    contacts.spoke_to("8.8.8.8", 0.0)
    assert not contacts.is_stranger("8.8.8.8", MEMORY - 1)
    assert contacts.is_stranger("8.8.8.8", MEMORY)
    assert contacts.is_stranger("9.9.9.9", 0.0)
    for number in range(MAX_CONTACTS):
        contacts.spoke_to(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", 1.0)
    assert len(contacts.times) == MAX_CONTACTS
    assert contacts.is_stranger("8.8.8.8", 1.0)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], Reachability.UNKNOWN),
        ([Status.UNKNOWN], Reachability.UNKNOWN),
        ([Status.UNREACHABLE, Status.REACHABLE], Reachability.PUBLIC),
        ([Status.UNREACHABLE, Status.UNKNOWN], Reachability.PRIVATE),
        ([Status.FILTERED], Reachability.PRIVATE),
    ],
)
def test_v11_one_word_is_made_of_all(found: list[Status], expected: Reachability) -> None:
    verdicts = {address: Verdict(each) for address, each in zip((X, Y), found, strict=False)}
    assert reduce(verdicts) is expected


def test_v12_what_is_no_candidate_any_more_is_forgotten() -> None:
    made = cases(True)
    made.keep_only([Y])
    assert status(made) is Status.UNKNOWN
    made = cases(True)
    made.forget()
    assert status(made) is Status.UNKNOWN
