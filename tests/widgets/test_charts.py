from __future__ import annotations

import math

import pytest

from amatch_widgets.widgets.charts import Axis, at_most, curve, nice_ticks


@pytest.mark.parametrize(
    ("low", "high", "n", "expected"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 120, 3, [0, 50, 100]),
        (0.3, 0.71, 3, [0.4, 0.6]),
        (1, 2, 3, [1, 1.5, 2]),
    ],
)
def test_ticks_are_round_numbers_inside_the_range(low, high, n, expected):
    assert nice_ticks(low, high, n) == pytest.approx(expected)


def test_a_long_curve_is_thinned_but_keeps_its_ends_and_its_spikes():
    values = [0.0] * 10_000
    values[4_321] = 7.0
    values[8_765] = -3.0
    kept = at_most(500, values)
    assert len(kept) <= 500
    assert kept == sorted(set(kept))
    assert {0, 4_321, 8_765, 9_999} <= set(kept)


def test_a_short_curve_is_left_as_it_is():
    assert at_most(500, [3.0, 1.0, 2.0]) == [0, 1, 2]


def test_points_that_are_not_finite_are_left_out():
    x, y = Axis.x(0, 2), Axis.y(0, 1)
    assert curve(x, y, [0, 1, 2], [0.5, math.nan, 1.0]) == f"{x(0)},{y(0.5)} {x(2)},{y(1)}"
    assert curve(x, y, [], []) == ""


def test_an_axis_of_a_single_value_still_draws():
    axis = Axis.y(0.0, 0.0)
    assert math.isfinite(axis(0.0))
    assert axis.ticks()


def test_values_beyond_an_axis_are_drawn_at_its_end():
    axis = Axis.y(0, 1)
    assert axis(2.0) == axis(1.0)
    assert axis(-5.0) == axis(0.0)


def test_ticks_of_counts_are_whole_and_none_comes_twice():
    texts = [text for _, text in Axis.x(0.5, 2.5).ticks(6, whole=True)]
    assert texts == ["1", "2"]


def test_shares_are_written_as_percentages():
    assert [text for _, text in Axis.y(0, 1).ticks(2, percent=True)] == ["0 %", "50 %", "100 %"]
