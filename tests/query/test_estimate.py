"""What is left to find: unbiased in adaptive hunts, and with an interval that holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import gamma, poisson

from amatch_widgets.errors import ConfigError
from amatch_widgets.query.audit import AuditDraw, draw_audit
from amatch_widgets.query.estimate import _mid_p_gamma, estimate

N, RARE, HUNTS, PAGES, PAGE, AUDITS = 800, 50, 200, 6, 24, 12
BOUND = "At most 93 more (95 %); the 10 found are at least 9 % of all. From 40 audited images, no anomaly."
MANY = (
    "About 50 more anomalies (95 %: 10 to 181); the 12 found are 19 % (6 % to 54 %) of all. "
    "From 40 audited images, 2 anomalies."
)
ONE = (
    "About 1 more anomaly (95 %: 0 to 1); the 4 found are 80 % (80 % to 100 %) of all. "
    "From 1 audited image, 1 anomaly."
)
SHIFTS = {"good": (1.5, 3), "useless": (0, 0), "misleading": (-1, -1)}


def evenly(n_draws, hits=(), n=1000, n_found=10):
    """Draws with even chances from a set whose other images are never labelled."""
    return [AuditDraw(1 / n, n, n_found, i in hits) for i in range(n_draws)]


def hunt(ranking, seed):
    """Label the top of an improving ranking and 12 audits a page; return the draws, found and free."""
    rng = np.random.default_rng(seed)
    is_anomaly = np.arange(N) < RARE
    free, noise = np.arange(3, N), rng.normal(size=N)
    draws, n_found = [], 3
    for shift in np.linspace(*SHIFTS[ranking], PAGES):
        scores = (1 / (1 + np.exp(-noise - shift * is_anomaly))).astype(np.float32)
        audited, chances = draw_audit(scores, free, AUDITS, seed=int(rng.integers(2**32)))
        draws += AuditDraw.of_page(chances, is_anomaly[audited], n_free=len(free), n_found=n_found)
        free = np.setdiff1d(free, audited)
        top = np.argsort(-scores[free])[: PAGE - AUDITS]
        n_found += int(is_anomaly[audited].sum() + is_anomaly[free[top]].sum())
        free = np.delete(free, top)
    return draws, n_found, len(free)


@pytest.fixture(scope="module", params=SHIFTS)
def estimates(request):
    played = [hunt(request.param, seed) for seed in range(HUNTS)]
    return [estimate(draws, n_found=n_found, n_free=n_free) for draws, n_found, n_free in played]


# ---- hunts ----------------------------------------------------------------------------------


def test_over_many_hunts_the_estimate_is_neither_high_nor_low(estimates):
    unbiased = np.array([e.unbiased for e in estimates])
    assert abs(unbiased.mean() - RARE) < 3 * unbiased.std(ddof=1) / math.sqrt(HUNTS)


def test_the_interval_holds_the_truth_in_nine_to_all_but_one_of_a_hundred(estimates):
    """The benchmark of the same name tries more kinds of hunts; here 3 to 5 hits are expected."""
    covered = np.mean([e.total.low <= RARE <= e.total.high for e in estimates])
    assert 0.9 <= covered <= 0.99


def test_the_interval_tells_more_than_what_is_certain_anyway(estimates):
    widths = [(e.total.high - e.total.low) / e.n_free for e in estimates]
    assert np.median(widths) < 0.25


def test_what_is_certain_always_holds(estimates):
    for e in estimates:
        assert e.n_found <= e.total.low <= e.total.high <= e.n_found + e.n_free
        assert e.remaining.low == e.total.low - e.n_found
        assert e.remaining.high == e.total.high - e.n_found
        assert 0 < e.recall.low <= e.recall.high <= 1
        for part in (e.total, e.remaining, e.recall):
            assert part.value is None or part.low <= part.value <= part.high


# ---- numbers --------------------------------------------------------------------------------


def test_three_draws_by_hand():
    draws = [AuditDraw(0.01, 100, 4, False), AuditDraw(0.02, 90, 6, True), AuditDraw(0.01, 80, 8, False)]
    found = estimate(draws, n_found=9, n_free=70)
    weights = np.sqrt([1, 2, 3]) / np.sqrt([1, 2, 3]).sum()
    assert found.unbiased == pytest.approx(weights @ [4, 6 + 50, 8])
    assert found.total.value == found.unbiased
    assert found.remaining.value == pytest.approx(found.unbiased - 9)
    assert found.recall.value == pytest.approx(9 / found.unbiased)
    assert (found.n_draws, found.n_hits, found.n_found, found.n_free) == (3, 1, 9, 70)


@pytest.mark.parametrize(
    ("n_hits", "below"),  # below the low end: all 5 % while that is under 3 hits, from 8 hits on the half
    [(1, 0.05), (3, 0.05), (6, 0.05), (8, 0.025), (40, 0.025)],
)
def test_with_equal_weights_it_is_the_mid_p_interval_of_poisson(n_hits, below):
    low, high = _mid_p_gamma(np.full(n_hits, 2.0), 2.0)

    def mid_p(mean):
        return poisson.cdf(n_hits - 1, mean) + poisson.pmf(n_hits, mean) / 2

    assert low == pytest.approx(2 * brentq(lambda m: mid_p(m) - 1 + below, 0.01, 100))
    assert high == pytest.approx(2 * brentq(lambda m: mid_p(m) - 0.025, 0.01, 100))


def test_between_both_rules_the_low_end_is_the_high_one_without_a_hit():
    assert _mid_p_gamma(np.ones(7), 1.0)[0] == pytest.approx(3.06, abs=0.005)
    assert _mid_p_gamma(np.ones(7), 1.1)[0] == _mid_p_gamma(np.empty(0), 1.1)[1]


def test_whatever_poisson_mean_is_true_nine_in_ten_intervals_hold_it_and_95_in_100_on_average():
    counts, means = np.arange(80), np.geomspace(0.02, 25, 2000)
    low, high = np.array([_mid_p_gamma(np.ones(n), 1.0) for n in counts]).T
    is_in = (low <= means[:, None]) & (means[:, None] <= high)
    covered = (poisson.pmf(counts, means[:, None]) * is_in).sum(1)
    assert covered.min() > 0.9
    assert 0.945 < covered[means > 0.5].mean() < 0.96
    assert covered[means > 0.5].max() < 0.987  # no rule does much better: the counts are whole numbers


def test_with_any_weights_it_is_the_mixture_of_both_gammas():
    hits = np.array([1.0, 5.0, 0.2])
    ends = _mid_p_gamma(hits, 3.0)
    halves = []
    for weights in (hits, np.append(hits, 3.0)):
        y, v = weights.sum(), (weights**2).sum()
        halves.append(gamma.cdf(ends, y * y / v, scale=v / y))
    np.testing.assert_allclose(np.mean(halves, 0), [0.05, 0.975])


def test_many_hits_and_a_tiny_next_one_have_an_interval():
    low, high = _mid_p_gamma(np.ones(100_000), 1e-9)
    assert 99_300 < low < 99_400
    assert 100_600 < high < 100_700


def test_without_a_hit_the_bound_is_that_of_the_rule_of_three():
    found = estimate(evenly(200), n_found=10, n_free=1000)
    weights = np.sqrt(np.arange(1, 201))
    assert found.remaining.high == math.floor(
        -math.log(0.05) * 1.25 * 1000 * (weights / weights.sum()).mean()
    )
    assert found.remaining.low == 0


def test_a_hit_that_counts_for_less_than_was_found_leaves_none():
    found = estimate([*evenly(50, hits={0}), *evenly(50, n_found=90)], n_found=95, n_free=300)
    assert found.unbiased < 95
    assert (found.total.value, found.remaining.value, found.recall.value) == (95, 0, 1)


def test_more_audits_narrow_the_interval():
    few, many = (estimate(evenly(n, range(0, n, 20)), n_found=30, n_free=900) for n in (40, 400))
    assert many.total.high - many.total.low < 0.5 * (few.total.high - few.total.low)


def test_when_nothing_is_left_the_total_is_known():
    found = estimate(evenly(5), n_found=10, n_free=0)
    assert (found.total.value, found.total.low, found.total.high, found.recall.value) == (10, 10, 10, 1)


def test_with_nothing_found_there_is_a_recall_still():
    found = estimate(evenly(40, n_found=0), n_found=0, n_free=900)
    assert (found.recall.value, found.recall.low, found.recall.high) == (None, 0, 1)


# ---- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draws", "n_found", "n_free", "said"),
    [
        ([], 5, 100, "Nothing can be said yet of what is left: 0 audited images."),
        (evenly(1), 10, 999, "Nothing can be said yet of what is left: 1 audited image, no anomaly."),
        ([], 5, 0, "All images are labelled: 5 anomalies."),
        (evenly(40, n_found=0), 0, 900, "At most 93 more (95 %). From 40 audited images, no anomaly."),
        (evenly(40), 10, 900, BOUND),
        (evenly(40, hits={10, 30}), 12, 900, MANY),
        ([AuditDraw(0.5, 2, 3, True)], 4, 1, ONE),
    ],
)
def test_it_says_in_plain_words_what_is_known(draws, n_found, n_free, said):
    assert str(estimate(draws, n_found=n_found, n_free=n_free)) == said


# ---- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_found", "n_free"), [(-1, 5), (5, -1)])
def test_counts_below_zero_are_refused(n_found, n_free):
    with pytest.raises(ConfigError, match="they must be 0 or more"):
        estimate([], n_found=n_found, n_free=n_free)


def test_a_draw_with_more_found_than_now_is_refused():
    with pytest.raises(ConfigError, match=r"counts 11 anomalies found, and now there are 10\. Count both by"):
        estimate(evenly(3, hits={1}), n_found=10, n_free=5)
