"""What benchmarks say of their figures: does a curve bend upward?"""

from __future__ import annotations

import pytest

from benchmarks.growth import judge, steepness

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
