"""The judgement of the trained model: honest where people label what ranks high."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtri

from amatch_widgets.query import blend, judge
from amatch_widgets.query.judge import MIN_JUDGED, Judgement, normal_scores

N, RARE, PAGE, PAGES = 5000, 40, 20, 5
SEEDS = range(200)
TOO_FEW = "too few labels since to judge it (3 anomalies and 20 normals; 5 of each needed)"
TOO_UNSURE = "not judged better (94 % sure that it adds, 95 % needed; 9 anomalies and 63 normals since)"
MEAN, SD = np.array([0, 1, 0]), np.array([10, 2, 0.5])


def hunt(seed, kind, shift=2.5, pages=PAGES):
    """Label the top of the instant score; return the normal scores of both, and the truth."""
    rng = np.random.default_rng(seed)
    is_anomaly = np.arange(N) < RARE
    instant, own = rng.normal(size=(2, N)) + shift * is_anomaly * np.array([[1], [kind == "helpful"]])
    deep = 0.8 * instant + 0.6 * own if kind == "blurred" else own
    at = np.argsort(-instant)[: pages * PAGE]
    instant, deep = instant.astype(np.float32), deep.astype(np.float32)
    return normal_scores(instant, at), normal_scores(deep, at), is_anomaly[at]


def share_taking_part(kind, **options):
    return np.mean([judge.judge(*hunt(seed, kind, **options)).weight > 0 for seed in SEEDS])


# ---- normal scores --------------------------------------------------------------------------


def test_normal_scores_of_three_images_are_the_quartiles():
    z = normal_scores(np.array([0.3, 0.9, 0.5], np.float32), np.array([1, 0]))
    np.testing.assert_allclose(z, [0.6744898, -0.6744898])
    assert z.dtype == np.float64


def test_ties_count_half():
    scores = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
    np.testing.assert_allclose(normal_scores(scores, np.array([1, 2])), 0, atol=1e-12)


def test_an_image_without_a_score_has_none_and_is_not_counted():
    scores = np.array([0.1, np.nan, 0.2, np.inf, 0.3], np.float32)
    z = normal_scores(scores, np.arange(5))
    assert np.isnan(z[[1, 3]]).all()
    np.testing.assert_allclose(z[[0, 2, 4]], ndtri([0.25, 0.5, 0.75]))


def test_where_no_image_has_a_score_there_is_none():
    assert np.isnan(normal_scores(np.full(3, np.nan, np.float32), np.array([0, 2]))).all()


def test_they_are_those_that_the_blend_ranks_by():
    scores = np.random.default_rng(0).integers(0, 50, 500).astype(np.float32)
    at = np.array([3, 499, 0, 77])
    np.testing.assert_allclose(normal_scores(scores, at), blend._normal(scores)[at])


# ---- hunts ----------------------------------------------------------------------------------


def test_noise_takes_part_in_at_most_7_of_100_hunts():
    assert share_taking_part("noise") <= 0.07


@pytest.mark.parametrize("shift", [2.5, 3.5])
def test_a_blurred_copy_of_the_instant_tier_takes_part_as_seldom(shift):
    """The harder case: both tiers learn from the same labels, and resemble one another."""
    assert share_taking_part("blurred", shift=shift) <= 0.07


def test_the_instant_tier_itself_adds_nothing():
    for seed in range(50):
        instant, _, is_anomaly = hunt(seed, "noise", shift=3.5)
        assert judge.judge(instant, instant, is_anomaly).weight == 0


def test_a_model_with_information_of_its_own_takes_part_in_most_hunts():
    assert share_taking_part("helpful") >= 0.95


def test_a_model_that_is_wrong_does_not_take_part():
    for seed in range(20):
        instant, deep, is_anomaly = hunt(seed, "helpful")
        found = judge.judge(instant, -deep, is_anomaly)
        assert found.weight == 0
        assert found.probability < 0.05


def test_normals_that_a_promoted_model_brings_lower_what_is_thought_of_it():
    instant, deep, is_anomaly = hunt(0, "helpful")
    before = judge.judge(instant, deep, is_anomaly)
    wrong = np.full(PAGE, 3.0)
    after = judge.judge(
        np.append(instant, wrong - 2), np.append(deep, wrong), np.append(is_anomaly, np.zeros(PAGE, bool))
    )
    assert before.weight > 0
    assert after.probability < before.probability


def long_hunt(seed, kind, weight):
    """Label ten pages that newer and newer instant fits choose, alone or with the deep model."""
    rng = np.random.default_rng(seed)
    is_anomaly, n_pages = np.arange(N) < 100, 10
    noise, own = rng.normal(size=(2, N))
    first = noise + 1.5 * is_anomaly
    deep = {"noise": own, "blurred": 0.8 * first + 0.6 * own, "helpful": own + 1.5 * is_anomaly}[kind]
    deep, pages, instant = deep.astype(np.float32), [], []
    for shift in np.linspace(1.5, 2.5, n_pages):
        fit = (noise + shift * is_anomaly).astype(np.float32)
        ranking = np.argsort(-(blend.blend(fit, deep, weight) if weight else fit))
        pages.append(ranking[~np.isin(ranking, pages)][:PAGE])
        instant.append(normal_scores(fit, pages[-1]))
        noise = 0.8 * noise + 0.6 * rng.normal(size=N)  # a fit resembles the one before
    at = np.concatenate(pages)
    return judge.judge(np.concatenate(instant), normal_scores(deep, at), is_anomaly[at])


def long_hunts(kind, weight):
    return [long_hunt(seed, kind, weight) for seed in range(100)]


def test_a_useful_model_that_takes_part_in_choosing_keeps_its_part():
    """Tested by the instant fit of its training instead, it did so in 13 of 100 hunts."""
    found, without = long_hunts("helpful", 1), long_hunts("helpful", 0)
    assert np.mean([judgement.weight > 0 for judgement in found]) >= 0.95
    assert np.mean([j.n_anomalies for j in found]) > np.mean([j.n_anomalies for j in without]) + 3


@pytest.mark.parametrize("kind", ["noise", "blurred"])
def test_a_useless_model_that_takes_part_in_choosing_loses_it(kind):
    assert np.mean([judgement.weight > 0 for judgement in long_hunts(kind, 1)]) <= 0.07


def test_noise_takes_part_as_seldom_while_the_instant_tier_improves():
    assert np.mean([judgement.weight > 0 for judgement in long_hunts("noise", 0)]) <= 0.07


# ---- the fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "blurred", "helpful"])
def test_mode_and_covariance_agree_with_scipy(kind):
    instant, deep, is_anomaly = hunt(1, kind)
    x = np.column_stack([np.ones(len(deep)), instant, deep])
    weights = np.random.default_rng(2).uniform(0, 1, len(deep))

    def minus_log_posterior(b):
        sign = np.where(is_anomaly, -1, 1)
        return (weights * np.logaddexp(0, sign * (x @ b))).sum() + 0.5 * (((b - MEAN) / SD) ** 2).sum()

    mode, covariance = judge._posterior(x, is_anomaly, weights)
    wanted = minimize(minus_log_posterior, np.zeros(3), tol=1e-10, method="Nelder-Mead")
    np.testing.assert_allclose(mode, wanted.x, atol=1e-4)
    h = 1e-3 * np.eye(3)
    hessian = [
        [
            (
                minus_log_posterior(mode + h[i] + h[j])
                - minus_log_posterior(mode + h[i] - h[j])
                - minus_log_posterior(mode - h[i] + h[j])
                + minus_log_posterior(mode - h[i] - h[j])
            )
            / 4e-6
            for j in range(3)
        ]
        for i in range(3)
    ]
    np.testing.assert_allclose(covariance, np.linalg.inv(hessian), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_records_told_apart_without_error_stay_finite(sign):
    z = sign * np.repeat([4.0, -4.0], 500)
    found = judge.judge(z, z, np.repeat([True, False], 500))
    assert np.isfinite([found.weight, found.probability]).all()
    assert (found.n_anomalies, found.n_normals) == (500, 500)


def test_extreme_records_end_the_fit_all_the_same():
    z = np.linspace(-40, 40, 200)
    rng = np.random.default_rng(3)
    found = judge.judge(z, rng.permutation(z), rng.random(200) < 0.5)
    assert 0 <= found.probability <= 1


def test_two_records_of_half_the_weight_count_as_one():
    instant, deep, is_anomaly = hunt(4, "helpful")
    once = judge.judge(instant, deep, is_anomaly)
    twice = judge.judge(
        np.tile(instant, 2), np.tile(deep, 2), np.tile(is_anomaly, 2), np.full(2 * len(deep), 0.5)
    )
    assert twice.weight == pytest.approx(once.weight)
    assert twice.probability == pytest.approx(once.probability)


def test_what_counts_nothing_leaves_the_prior():
    found = judge.judge(*hunt(4, "helpful"), np.zeros(PAGES * PAGE))
    assert (found.weight, found.probability) == (0, pytest.approx(0.5))


def test_the_weight_is_the_ratio_of_the_slopes_and_at_most_2():
    instant, deep, is_anomaly = hunt(5, "helpful")
    mode, _ = judge._posterior(
        np.column_stack([np.ones(len(deep)), instant, deep]), is_anomaly, np.ones(len(deep))
    )
    assert judge.judge(instant, deep, is_anomaly).weight == pytest.approx(mode[2] / mode[1])
    noise = np.random.default_rng(0).normal(size=len(deep))
    assert judge.judge(noise, 3 * is_anomaly + noise[::-1], is_anomaly).weight == 2


def test_records_without_both_scores_are_left_out():
    instant, deep, is_anomaly = hunt(6, "helpful")
    holes = deep.copy()
    holes[:3], instant[3] = np.nan, np.inf
    assert judge.judge(instant, holes, is_anomaly) == judge.judge(instant[4:], deep[4:], is_anomaly[4:])


@pytest.mark.parametrize(("n_anomalies", "n_normals"), [(4, 50), (50, 4), (0, 0)])
def test_too_few_labels_judge_nothing(n_anomalies, n_normals):
    z = np.linspace(-1, 1, n_anomalies + n_normals)
    found = judge.judge(z, z, np.arange(len(z)) < n_anomalies)
    assert (found.weight, found.n_anomalies, found.n_normals) == (0, n_anomalies, n_normals)
    assert math.isnan(found.probability)
    assert str(found).startswith("too few")


def test_five_of_each_are_enough():
    z = np.linspace(-1, 1, 2 * MIN_JUDGED)
    assert not math.isnan(judge.judge(z, z, z > 0).probability)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            Judgement(0.0, math.nan, 3, 20),
            TOO_FEW,
        ),
        (
            Judgement(0.0, math.nan, 1, 1),
            "too few labels since to judge it (1 anomaly and 1 normal; 5 of each needed)",
        ),
        (
            Judgement(0.0, 0.9499, 9, 63),
            TOO_UNSURE,
        ),
        (
            Judgement(0.8, 0.996, 9, 63),
            "judged better (99 % sure that it adds, weight 0.8; 9 anomalies and 63 normals since)",
        ),
    ],
)
def test_it_says_in_plain_words_why(found, text):
    assert str(found) == text
