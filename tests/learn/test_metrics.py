from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from amatch_widgets.learn import metrics as metrics_module
from amatch_widgets.learn.metrics import Estimate, Metrics, evaluate

NAMES = ("auroc", "auprc", "precision_at_k")


def _values(metrics):
    return [getattr(metrics, name).value for name in NAMES]


def _sample(n=300, *, share=0.2, shift=1.5, decimals=8, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    truth[:4] = [True, True, False, False]
    return truth, np.round(rng.normal(size=n) + shift * truth, decimals)


# ---- the numbers ----------------------------------------------------------------------------


def test_three_images_of_a_class_by_hand():
    # ranks: anomaly, normal, anomaly, normal, normal, anomaly
    truth = np.array([True, False, True, False, False, True])
    scores = np.array([0.9, 0.8, 0.7, 0.3, 0.2, 0.1])
    got = evaluate(truth, scores)
    assert got.k == 3
    assert got.auroc.value == pytest.approx((3 + 2 + 0) / 9)  # normal images below each anomaly
    assert got.auprc.value == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)  # precision at each anomaly
    assert got.precision_at_k.value == pytest.approx(2 / 3)


def test_ties_by_hand():
    # one anomaly ahead; the other shares its score with two normal images
    truth = np.array([True, True, False, False])
    scores = np.array([0.9, 0.5, 0.5, 0.5])
    got = evaluate(truth, scores)
    assert got.auroc.value == pytest.approx((2 + 0.5 + 0.5) / 4)
    assert got.auprc.value == pytest.approx((1 + 2 / 4) / 2)
    assert got.precision_at_k.value == pytest.approx((1 + 1 / 3) / 2)  # the second place goes to one of three


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_auprc_are_those_of_scikit_learn(decimals, seed):
    truth, scores = _sample(decimals=decimals, seed=seed)
    got = evaluate(truth, scores, n_bootstrap=100)
    assert got.auroc.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert got.auprc.value == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 50, 300])
def test_precision_at_k_is_the_share_of_anomalies_among_the_first_k(k):
    truth, scores = _sample()
    expected = truth[np.argsort(-scores)[:k]].mean()
    assert evaluate(truth, scores, k=k, n_bootstrap=100).precision_at_k.value == pytest.approx(expected)


def test_precision_with_ties_is_the_mean_over_all_orders_of_the_tied():
    truth, scores = _sample(40, decimals=0)
    rng = np.random.default_rng(0)
    drawn = [truth[np.lexsort((rng.random(40), -scores))[:7]].mean() for _ in range(4000)]
    got = evaluate(truth, scores, k=7, n_bootstrap=100).precision_at_k.value
    assert got == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(4000))


def test_all_scores_alike_are_as_good_as_chance():
    truth, _ = _sample()
    got = evaluate(truth, np.zeros(len(truth)))
    assert _values(got) == pytest.approx([0.5, truth.mean(), truth.mean()])


def test_the_order_of_the_images_does_not_matter():
    truth, scores = _sample(decimals=1)
    turned = np.random.default_rng(1).permutation(len(truth))
    assert _values(evaluate(truth, scores)) == pytest.approx(_values(evaluate(truth[turned], scores[turned])))


def test_only_the_order_of_the_scores_matters():
    truth, scores = _sample()
    assert evaluate(truth, scores) == evaluate(truth, np.exp(scores))


def test_lists_of_plain_values_are_taken():
    assert evaluate([True, True, False, False], [0.9, 0.1, 0.5, 0.2]).auroc.value == pytest.approx(0.5)


# ---- the intervals --------------------------------------------------------------------------


def test_intervals_hold_the_value_and_shrink_with_the_counts():
    widths = []
    for n in (60, 600, 6000):
        got = evaluate(*_sample(n))
        for name in NAMES:
            estimate = getattr(got, name)
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        widths.append(got.auroc.high - got.auroc.low)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_the_same_seed_gives_the_same_intervals_and_another_one_others():
    sample = _sample()
    assert evaluate(*sample, seed=1) == evaluate(*sample, seed=1)
    assert evaluate(*sample, seed=1).auroc.low != evaluate(*sample, seed=2).auroc.low


def test_the_interval_is_that_of_a_bootstrap_written_with_a_loop():
    truth, scores = _sample(120, decimals=1)
    rng = np.random.default_rng(5)
    anomalies, normals = scores[truth], scores[~truth]
    y = np.r_[np.ones(len(anomalies)), np.zeros(len(normals))]
    aurocs, auprcs = [], []
    for _ in range(250):
        drawn = np.r_[rng.choice(anomalies, len(anomalies)), rng.choice(normals, len(normals))]
        aurocs.append(roc_auc_score(y, drawn))
        auprcs.append(average_precision_score(y, drawn))
    got = evaluate(truth, scores, n_bootstrap=2000)
    for estimate, sample in ((got.auroc, aurocs), (got.auprc, auprcs)):
        low, high = np.percentile(sample, (2.5, 97.5))
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.25 * (high - low))


def test_the_intervals_do_not_depend_on_how_much_fits_in_memory(monkeypatch):
    sample = _sample(decimals=0)
    in_one = evaluate(*sample, n_bootstrap=2000)
    monkeypatch.setattr(metrics_module, "_CHUNK", 1)
    in_many = evaluate(*sample, n_bootstrap=2000)
    assert _values(in_many) == _values(in_one)
    assert in_many.auroc.low == pytest.approx(in_one.auroc.low, abs=0.01)


def test_intervals_hold_the_true_auroc_about_as_often_as_they_claim():
    shift = 1.0
    true = 0.5 * (1 + math.erf(shift / 2))  # P(N(shift, 1) > N(0, 1))
    hits = 0
    for seed in range(200):
        got = evaluate(*_sample(150, shift=shift, seed=seed), n_bootstrap=200, seed=seed).auroc
        hits += got.low <= true <= got.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize(("n_anomalies", "n_normals", "m"), [(2, 2, 2), (3, 97, 3), (50, 10, 10)])
def test_a_perfect_ranking_of_few_does_not_claim_certainty(n_anomalies, n_normals, m):
    truth = np.r_[np.ones(n_anomalies, bool), np.zeros(n_normals, bool)]
    got = evaluate(truth, -np.arange(len(truth)))
    for name in NAMES:
        estimate = getattr(got, name)
        assert (estimate.value, estimate.high) == (1, 1)
        # Wilson's interval for m of m, m images of the rarer class
        assert estimate.low == pytest.approx(m / (m + 1.96**2), abs=1e-4)


def test_a_ranking_that_is_all_wrong_does_not_claim_certainty_either():
    got = evaluate([False, False, False, True, True, True], [0.9, 0.8, 0.7, 0.3, 0.2, 0.1]).auroc
    assert (got.value, got.low) == (0, 0)
    assert got.high == pytest.approx(1 - 3 / (3 + 1.96**2), abs=1e-4)


def test_a_thousand_labels_take_less_than_a_fifth_of_a_second():
    sample = _sample(1000)
    times = []
    for _ in range(3):
        start = time.process_time()
        evaluate(*sample)
        times.append(time.process_time() - start)
    assert min(times) < 0.2


# ---- too few, and wrong input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_anomalies", "n_normals", "text"),
    [
        (0, 0, "0 anomalies of 0 held out"),
        (1, 19, "1 anomaly of 20 held out"),
        (0, 20, "0 anomalies of 20 held out"),
        (19, 1, "19 anomalies of 20 held out"),
    ],
)
def test_too_few_of_a_class_give_a_reason_instead_of_a_number(n_anomalies, n_normals, text):
    truth = np.r_[np.ones(n_anomalies, bool), np.zeros(n_normals, bool)]
    got = evaluate(truth, np.arange(len(truth)) / 100)
    for name in NAMES:
        estimate = getattr(got, name)
        assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
        assert (estimate.n_anomalies, estimate.n_total) == (n_anomalies, n_anomalies + n_normals)
        assert repr(estimate) == f"too few to say: {text}, at least 2 of each class are needed"
    assert got.k == max(1, n_anomalies)


def test_precision_beyond_the_held_out_labels_has_a_reason_instead_of_a_number():
    got = evaluate([True, True, False, False], [0.9, 0.8, 0.2, 0.1], k=5)
    assert got.auroc.value == 1
    assert (got.precision_at_k.value, got.precision_at_k.low) == (None, None)
    assert repr(got.precision_at_k) == "k = 5 is more than the 4 labels held out"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(
        ValueError, match=r"1 of 4 scores are NaN or infinite\. Leave images without a score out"
    ):
        evaluate([True, True, False, False], [0.1, bad, 0.2, 0.3])


@pytest.mark.parametrize(("truth", "scores"), [([True], [0.1, 0.2]), ([[True]], [[0.1]]), (True, 0.5)])
def test_shapes_that_do_not_fit_are_refused(truth, scores):
    with pytest.raises(ValueError, match=r"both must be \(n,\)"):
        evaluate(truth, scores)


def test_truth_that_is_not_bool_is_refused():
    with pytest.raises(ValueError, match="must be bool, True for an anomaly"):
        evaluate([1, 0, 2], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(("options", "match"), [({"k": 0}, "k is 0"), ({"n_bootstrap": 10}, "at least 100")])
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        evaluate(*_sample(), **options)


# ---- what is handed out ---------------------------------------------------------------------


def test_an_estimate_never_shows_a_bare_number():
    assert repr(Estimate(0.9411, 0.913, 0.9637, 12, 400)) == "0.941 [0.913, 0.964], 12 anomalies of 400"
    assert repr(Estimate(1.0, 0.2, 1.0, 1, 2)) == "1.000 [0.200, 1.000], 1 anomaly of 2"


def test_metrics_show_all_three_in_one_line():
    text = repr(evaluate(*_sample()))
    assert text.startswith("Metrics(auroc=0.")
    assert "\n" not in text
    assert "precision@" in text


@pytest.mark.parametrize("sample", [_sample(), ([], [])], ids=["values", "too few"])
def test_metrics_survive_json(sample):
    metrics = evaluate(*sample)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    assert Metrics.from_dict(json.loads(text)) == metrics


def test_fields_of_a_later_version_are_left_aside():
    metrics = evaluate(*_sample())
    record = metrics.to_dict()
    record["auroc"]["colour"] = record["f1"] = "x"
    assert Metrics.from_dict(record) == metrics


def test_metrics_become_a_table_of_one_row_each():
    metrics = evaluate(*_sample())
    frame = metrics.to_pandas()
    assert list(frame.index) == ["auroc", "auprc", f"precision_at_{metrics.k}"]
    assert list(frame.columns) == ["value", "low", "high", "n_anomalies", "n_total", "reason"]
    assert frame.loc["auroc", "value"] == metrics.auroc.value


def test_a_table_of_too_few_has_nan_and_the_reason():
    frame = evaluate([], []).to_pandas()
    assert frame["value"].isna().all()
    assert frame["reason"].str.startswith("too few to say").all()
