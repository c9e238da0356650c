"""The judgement between both tiers, and how they rank together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from amatch_widgets.query.blend import MIN_JUDGED, WEIGHTS, blend, judge

N = 1000


def _ranked(n: int, places: list[int]) -> np.ndarray:
    """Return scores of `n` images in [0, 1) that put the images 0, 1, ... at `places` from the top."""
    order = [i for i in range(n) if i >= len(places)]
    for image, place in sorted(enumerate(places), key=lambda pair: pair[1]):
        order.insert(place, image)
    scores = np.empty(n, np.float32)
    scores[order] = np.linspace(0.99, 0.01, n, dtype=np.float32)
    return scores


def test_a_model_that_ranks_held_out_anomalies_higher_takes_part() -> None:
    instant = _ranked(N, [200, 220, 240, 260, 280, 300])
    deep = _ranked(N, [10, 12, 9, 20, 11, 13])
    found = judge(instant, deep, np.arange(6), np.arange(6, N))
    assert found.weight in WEIGHTS
    assert found.gain > found.lower > 0
    assert found.n == 6
    assert str(found).startswith("judged better")


def test_a_model_that_ranks_them_lower_does_not() -> None:
    instant = _ranked(N, [10, 12, 9, 20, 11, 13])
    deep = _ranked(N, [200, 220, 240, 260, 280, 300])
    found = judge(instant, deep, np.arange(6), np.arange(6, N))
    assert found.weight == 0
    assert found.gain < 0
    assert str(found).startswith("not judged better")


def test_a_gain_that_may_be_chance_does_not_count() -> None:
    """One anomaly much higher, five a little lower: the mean gains, the interval holds 0."""
    instant = _ranked(N, [900, 20, 22, 24, 26, 28])
    deep = _ranked(N, [0, 30, 33, 36, 39, 42])
    found = judge(instant, deep, np.arange(6), np.arange(6, N))
    assert found.gain > 0 > found.lower
    assert found.weight == 0


def test_too_few_anomalies_judge_nothing() -> None:
    few = MIN_JUDGED - 1
    instant, deep = _ranked(N, [500 + i for i in range(few)]), _ranked(N, list(range(few)))
    found = judge(instant, deep, np.arange(few), np.arange(few, N))
    assert (found.weight, found.n) == (0, few)
    assert math.isnan(found.gain)
    assert str(found).endswith("to judge it, 4 of 5")


def test_images_without_a_score_are_left_out_of_the_judgement() -> None:
    instant, deep = _ranked(N, [200, 220, 240, 260, 280, 300]), _ranked(N, [0, 1, 2, 3, 4, 5])
    deep[[0, 1]] = np.nan
    assert judge(instant, deep, np.arange(6), np.arange(6, N)).n == 4


def test_a_copy_of_the_instant_tier_gains_nothing() -> None:
    instant = _ranked(N, [200, 220, 240, 260, 280])
    found = judge(instant, instant, np.arange(5), np.arange(5, N))
    assert found.gain == pytest.approx(0, abs=1e-9)
    assert found.weight == 0


def test_the_gain_is_the_log_of_the_looks_saved() -> None:
    """A model that puts the anomalies first, where each had 99 others above it: log(100)."""
    instant, deep = np.arange(1005, 0, -1).astype(np.float32), np.zeros(1005, np.float32)
    instant[:5] = instant[5 + 98] - 0.5  # all five below the 99th of the others
    deep[5:] = np.arange(1000) % 2  # tells nothing of the others
    deep[:5] = 1e6
    found = judge(instant, deep, np.arange(5), np.arange(5, 1005))
    assert found.gain <= np.log(100)
    assert found.gain > np.log(2)
    assert found.weight > 0


def test_no_more_than_4000_images_are_compared_with_and_the_draw_is_fixed() -> None:
    rng = np.random.default_rng(0)
    instant, deep = rng.random((2, 50_000)).astype(np.float32)
    first = judge(instant, deep, np.arange(30), np.arange(30, 50_000), seed=3)
    assert first == judge(instant, deep, np.arange(30), np.arange(30, 50_000), seed=3)
    assert first.weight == 0  # pure noise


def test_noise_is_judged_better_in_at_most_one_hunt_of_twenty() -> None:
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        instant, deep = rng.normal(size=(2, 600))
        instant[:10] += 2  # the instant tier knows something, the trained model nothing
        judged = judge(instant.astype(np.float32), deep.astype(np.float32), np.arange(10), np.arange(10, 600))
        wrong += judged.weight > 0
    assert wrong <= 10


def test_the_blend_deals_out_the_instant_scores_in_the_new_order() -> None:
    instant = np.array([0.9, 0.8, 0.2, 0.1], np.float32)
    deep = np.array([0.1, 0.9, 0.5, 0.3], np.float32)
    mixed = blend(instant, deep, 2.0)
    assert sorted(mixed) == sorted(instant)
    assert mixed.argmax() == 1
    assert mixed.dtype == np.float32


def test_a_blend_with_the_same_order_changes_nothing() -> None:
    instant = np.array([0.2, 0.9, np.nan, 0.4], np.float32)
    np.testing.assert_array_equal(blend(instant, instant, 1.0), instant)


def test_an_image_that_only_the_instant_tier_has_rated_keeps_its_place() -> None:
    instant = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    deep = instant.copy()
    deep[4] = np.nan
    mixed = blend(instant, deep, 1.0)
    assert mixed[4] == instant[4]
    np.testing.assert_array_equal(mixed, instant)


def test_no_scores_at_all_stay_none() -> None:
    nothing = np.full(3, np.nan, np.float32)
    assert np.isnan(blend(nothing, np.array([0.1, 0.2, 0.3], np.float32), 1.0)).all()
