"""What benchmarks say of their figures: does a curve bend upward, has p2pnet become slow?"""

from __future__ import annotations

import pytest

from benchmarks.growth import judge, steepness
from benchmarks.guard import USUAL, best, too_slow
from benchmarks.relay import ensure

COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000)


@pytest.mark.parametrize(
    ("power", "bends"), [(0.0, False), (0.5, False), (1.0, False), (1.5, True), (2.0, True)]
)
def test_a_curve_bends_upward_if_cost_grows_faster_than_work(power: float, bends: bool) -> None:
    points = [(float(count), 0.003 * count**power) for count in COUNTS]
    assert steepness(points) == pytest.approx(power)
    assert bool(judge({"seconds for so many": points})) is bends


def test_a_curve_that_begins_to_bend_late_is_seen() -> None:
    points = [(float(count), count * (1 + (count / 1000) ** 2)) for count in COUNTS]
    assert judge({"seconds": points}) == ["bends upward: seconds: 2.70 decades in one"]


def test_a_curve_with_nothing_to_compare_does_not_bend() -> None:
    assert judge({"none": [], "one": [(1000.0, 0.01)], "zero": [(1.0, 0.0), (32.0, 0.0)]}) == []


# ---- the guard ---------------------------------------------------------------------------


def test_the_guard_lets_pass_what_is_usual_and_names_what_is_not() -> None:
    seen = {name: usual.ours for name, usual in USUAL.items()}
    assert too_slow(seen) == []
    for name, usual in USUAL.items():
        assert too_slow(seen | {name: usual.ours / 3.1}) == [name]
        assert too_slow(seen | {name: usual.py_libp2p / 2.1}) == [name]


def test_the_guard_takes_the_best_round_whichever_way_is_better() -> None:
    turns = [
        ({"upload": 2000.0, "echo_p50": 50.0}, {"upload": 200.0, "echo_p50": 500.0}),
        ({"upload": 2000.0, "echo_p50": 50.0}, {"upload": 600.0, "echo_p50": 100.0}),
        ({"upload": 2000.0}, {}),
    ]
    assert best("upload", turns) == pytest.approx(0.3)
    assert best("echo_p50", turns) == pytest.approx(0.5)
    assert best("streams", turns) == 0.0


# ---- a relay -----------------------------------------------------------------------------


def test_a_relay_that_carried_too_little_is_not_measured() -> None:
    ensure("circuits", 200, 200)
    with pytest.raises(RuntimeError, match="199 circuits at the end, not 200"):
        ensure("circuits", 199, 200)
