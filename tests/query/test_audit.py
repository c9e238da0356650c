"""Audits: every free image can be drawn, and the chance recorded with a draw is the true one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.query.audit import MAX_WEIGHT, AuditDraw, draw_audit

SCORES = np.array([0.2, np.nan, 0.9, 0.5, np.nan, 0.9, 0.1], np.float32)
FREE = np.array([6, 5, 4, 3, 2, 1])  # image 0 is labelled


def scores_of(n, seed=0):
    return np.random.default_rng(seed).random(n).astype(np.float32)


# ---- drawing --------------------------------------------------------------------------------


def test_the_chances_of_three_images_are_those_of_their_ranks():
    scores = np.array([0.1, 0.9, 0.5], np.float32)
    powers = np.array([1, 2 ** (-1 / 3), 3 ** (-1 / 3)])
    rank = {1: 0, 2: 1, 0: 2}
    for seed in range(20):
        indices, chances = draw_audit(scores, np.arange(3), 3, seed=seed)
        first, second, _ = (rank[int(i)] for i in indices)
        left = powers[second - (second > first)]  # among what is left the ranks are counted anew
        np.testing.assert_allclose(chances, [powers[first] / powers.sum(), left / powers[:2].sum(), 1])


def test_images_are_drawn_as_often_as_the_chances_say():
    """First and second draw: frequencies of each pair against the product of the two chances."""
    n = 6000
    times, expected = {}, {}
    for seed in range(n):
        indices, chances = draw_audit(SCORES, FREE, 2, seed=seed)
        pair = tuple(indices.tolist())
        times[pair] = times.get(pair, 0) + 1
        expected[pair] = n * chances.prod()
    assert len(expected) == 6 * 5
    assert sum(expected.values()) == pytest.approx(n)
    chi_squared = sum((times[pair] - e) ** 2 / e for pair, e in expected.items())
    assert chi_squared < 58.3  # the 99.9 % quantile with 29 degrees of freedom


def test_an_image_without_a_score_has_an_even_chance():
    chances = {
        int(i): c for s in range(200) for i, c in zip(*draw_audit(SCORES, FREE, 1, seed=s), strict=True)
    }
    assert chances[1] == chances[4] == pytest.approx(1 / 6)
    assert chances[2] > chances[5] > chances[3] > chances[6]  # ties go by index
    assert sum(chances.values()) == pytest.approx(1)


def test_without_any_score_all_chances_are_even():
    indices, chances = draw_audit(np.full(9, np.nan, np.float32), np.arange(9), 3, seed=1)
    assert len(set(indices.tolist())) == 3
    np.testing.assert_allclose(chances, [1 / 9, 1 / 8, 1 / 7])


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 100_000])
def test_no_image_stands_for_more_than_the_bound(n):
    indices, chances = draw_audit(scores_of(n), np.arange(n), 50, seed=n)
    assert (1 / (chances * (n - np.arange(len(indices)))) <= MAX_WEIGHT).all()


def test_the_last_rank_of_very_many_comes_close_to_the_bound():
    ranks = np.arange(1, 1_000_001) ** (-1 / 3)
    assert 0.99 * MAX_WEIGHT < ranks.sum() / ranks[-1] / len(ranks) < MAX_WEIGHT


def test_no_image_is_drawn_twice_and_none_that_is_labelled():
    for seed in range(50):
        indices, _ = draw_audit(SCORES, FREE, 4, seed=seed)
        assert len(set(indices.tolist())) == 4
        assert 0 not in indices


def test_all_come_where_there_are_fewer_than_asked_for():
    indices, chances = draw_audit(SCORES, FREE, 10, seed=0)
    assert sorted(indices.tolist()) == sorted(FREE.tolist())
    assert chances[-1] == 1
    assert (indices.dtype, chances.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize(("free", "n"), [([], 5), ([1, 2], 0)])
def test_nothing_is_drawn_from_nothing_or_for_nothing(free, n):
    indices, chances = draw_audit(SCORES, np.array(free, np.int64), n, seed=0)
    assert (indices.shape, indices.dtype, chances.shape) == ((0,), np.int64, (0,))


def test_the_draw_hangs_on_the_seed_and_not_on_the_order_of_the_free():
    first = draw_audit(scores_of(500), np.arange(500), 20, seed=3)
    again = draw_audit(scores_of(500), np.arange(500)[::-1], 20, seed=3)
    other = draw_audit(scores_of(500), np.arange(500), 20, seed=4)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != other[0]).any()


def test_a_zero_with_a_sign_is_a_zero():
    signed, plain = np.array([-0.0, 0.0, 1], np.float32), np.array([0.0, 0.0, 1], np.float32)
    for seed in range(10):
        np.testing.assert_array_equal(*(draw_audit(s, np.arange(3), 3, seed=seed) for s in (signed, plain)))


def test_a_million_images_take_a_fraction_of_a_second():
    scores, free = scores_of(1_000_000), np.arange(1_000_000)
    took = []
    for seed in range(3):
        started = time.perf_counter()
        draw_audit(scores, free, 12, seed=seed)
        took.append(time.perf_counter() - started)
    assert min(took) < 1  # 0.07 s on an idle machine


@pytest.mark.parametrize(
    ("scores", "free", "n", "message"),
    [
        (SCORES, FREE, -1, "n is -1; it must be 0 or more"),
        (SCORES, [1, 7], 1, "indices from 1 to 7; there are 7 images"),
        (SCORES, [-1, 2], 1, "indices from -1 to 2; there are 7 images"),
        (SCORES, [2, 1, 2], 1, "free holds an image more than once"),
        (SCORES * 2, FREE, 1, r"between 0 and 1\.8; they must be in \[0, 1\]"),
        (SCORES - 1, FREE, 1, r"they must be in \[0, 1\]"),
    ],
)
def test_what_makes_no_sense_is_told(scores, free, n, message):
    with pytest.raises(ConfigError, match=message):
        draw_audit(scores, np.array(free), n, seed=0)


# ---- records --------------------------------------------------------------------------------


def test_a_page_becomes_draws_that_count_its_earlier_ones():
    draws = AuditDraw.of_page([0.1, 0.2, 0.3, 0.4], [True, None, False, True], n_free=50, n_found=7)
    assert draws == [AuditDraw(0.1, 50, 7, True), AuditDraw(0.3, 48, 8, False), AuditDraw(0.4, 47, 8, True)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 5, 0, True), "chance of an audit is 0.0; it must be above 0"),
        ((1.1, 5, 0, True), "chance of an audit is 1.1"),
        ((float("nan"), 5, 0, True), "chance of an audit is nan"),
        ((0.5, 0, 0, True), "n_free=0 and n_found=0; at least 1 image"),
        ((0.5, 5, -1, True), "n_free=5 and n_found=-1"),
    ],
)
def test_a_draw_that_cannot_be_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        AuditDraw(*values)
