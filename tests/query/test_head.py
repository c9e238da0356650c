from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from amatch_widgets.demo import sky
from amatch_widgets.errors import LabelError
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.embed import Embedder, Projection
from amatch_widgets.query import _evidence
from amatch_widgets.query.head import InstantHead, Outside

N, WIDTH = 3000, 24
SPACES = (slice(0, WIDTH), slice(WIDTH, 2 * WIDTH))
RARE = np.arange(40)  # the first images are the rare ones
COMMON = np.arange(40, N)


def made_up(rare_in, *, shift=3.0, n=N, seed=0):
    """Whitened spaces in which the rare images lie off in some of the spaces, along one column."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 2 * WIDTH))
    for space in rare_in:
        vectors[: len(RARE), SPACES[space].start] += shift
    return (vectors / np.sqrt(WIDTH)).astype(np.float16)


def everywhere(vectors):
    return np.ones(len(vectors), np.bool_)


def labels(anomalies, normals=()):
    return {**{int(i): 1 for i in anomalies}, **{int(i): 0 for i in normals}}


def share_above(scores, anomalies):
    """The share of all pairs in which the anomaly has the higher score."""
    return (scores[anomalies][:, None] > scores[COMMON][None]).mean()


def held_back(vectors, spaces):
    """Scale the columns as for 5 anomalies or fewer: those in which the pool varies little count less."""
    z = vectors.astype(np.float64)
    for space in spaces:
        z[:, space] *= z[:, space].std(0)
        z[:, space] /= np.sqrt(z[:, space].var(0).sum())
    return z


@pytest.fixture(scope="module")
def vectors():
    return made_up([0, 1])


@pytest.fixture(scope="module")
def head(vectors):
    return InstantHead(vectors, SPACES, everywhere(vectors))


# ---- ranking --------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_anomalies", "floor"), [(1, 0.85), (2, 0.9), (5, 0.97), (20, 0.99)])
def test_a_few_labels_find_the_others(head, n_anomalies, floor):
    fit = head.fit(labels(RARE[:n_anomalies], COMMON[:10]))
    assert fit.kind == "labels"
    assert (fit.n_anomalies, fit.n_normals) == (n_anomalies, 10)
    assert share_above(fit.scores, RARE[n_anomalies:]) > floor


def test_without_normals_the_pool_stands_in(head):
    assert share_above(head.fit(labels(RARE[:5])).scores, RARE[5:]) > 0.97


def test_swapped_labels_turn_the_ranking(head):
    assert share_above(head.fit(labels(COMMON[:10], RARE[:30])).scores, RARE[30:]) < 0.2


def test_the_direction_is_that_of_the_recipe():
    # Fewer images than the sample of the pool has room for, and one anomaly: all can be done by hand.
    vectors = made_up([0], n=400)
    z = held_back(vectors, SPACES)
    normals = [50, 51, 60]
    others = np.setdiff1d(np.arange(400), [3, *normals])

    def standard(direction):
        return direction / (z @ direction).std()

    towards = z[3] - 0.75 * z[normals].mean(0)
    prototypes = sum(
        0.5 * standard(np.where((np.arange(48) >= s.start) & (np.arange(48) < s.stop), towards, 0))
        for s in SPACES
    )
    weights = np.r_[1.0, np.full(3, 1 / 3), np.full(len(others), 1 / len(others))]
    regression = LogisticRegression(C=100, tol=1e-8, max_iter=1000).fit(
        z[np.r_[3, normals, others]], np.arange(len(weights)) == 0, sample_weight=weights
    )
    direction = standard(prototypes) + standard(regression.coef_[0])
    margin = z @ direction - (z @ direction).mean()

    scores = InstantHead(vectors, SPACES, everywhere(vectors)).fit(labels([3], normals)).scores
    # With a single anomaly, 3 standard deviations above the pool is where one is expected.
    x = (margin / (z @ direction).std() - 1.5) / 1.5 * (0.76 / 0.24)
    assert_allclose(scores, 0.5 + 0.5 * x / (1 + np.abs(x)), atol=0.01)


def test_the_space_in_which_anomalies_find_each_other_gets_the_weight():
    vectors = made_up([1])
    fit = InstantHead(vectors, SPACES, everywhere(vectors)).fit(labels(RARE[:8], COMMON[:10]))
    assert sum(fit.space_weights) == pytest.approx(1)
    assert fit.space_weights[1] > 0.9


def test_one_anomaly_weighs_all_spaces_alike(head):
    fit = head.fit(labels(RARE[:1], COMMON[:5]))
    assert fit.space_weights == (0.5, 0.5)
    assert np.isnan(fit.held_out_log_rank)


def test_the_held_out_rank_tells_whether_anomalies_find_each_other(head):
    of_a_kind = head.fit(labels(RARE[:10], COMMON[:10])).held_out_log_rank
    of_no_kind = head.fit(labels(COMMON[:10], COMMON[10:20])).held_out_log_rank
    assert of_a_kind < -4  # on average above the best 2 % of the pool
    assert of_no_kind > -2  # a random ranking: -1


def test_the_held_out_rank_is_that_of_anomalies_left_out_one_at_a_time():
    # One space, no normals: the mixture is the prototype itself and everything fits in a line.
    vectors = made_up([0], shift=1.5, n=500)
    z, known = held_back(vectors, [slice(0, 48)]), [0, 1, 2]
    pool = z[3:]
    ranks = []
    for left_out in known:
        prototype = z[[i for i in known if i != left_out]].mean(0)
        ranks.append(np.log((1 + (pool @ prototype > z[left_out] @ prototype).sum()) / (1 + len(pool))))
    fit = InstantHead(vectors, [slice(0, 48)], everywhere(vectors)).fit(labels(known))
    assert fit.held_out_log_rank == pytest.approx(np.mean(ranks), abs=0.01)
    assert fit.space_weights == (1.0,)


def test_columns_of_little_variance_are_held_back_while_there_are_few_anomalies():
    vectors = made_up([], n=1000)
    vectors[:, 1] /= 8
    vectors[:20, :2] += np.float16([0.5, 0.1])  # to be seen in both columns
    head = InstantHead(vectors, [slice(0, 48)], everywhere(vectors))

    def share_of_the_small_column(n_anomalies):
        z = vectors.astype(np.float64) - vectors.astype(np.float64).mean(0)
        scores = head.fit(labels(range(n_anomalies))).scores
        x = 2 * scores - 1
        margin = x / (1 - np.abs(x))  # what is linear in the vectors
        direction = np.linalg.lstsq(z, margin - margin.mean(), rcond=None)[0]
        return abs(direction[1] / direction[0])

    assert share_of_the_small_column(5) < share_of_the_small_column(15) / 2


# ---- scores ---------------------------------------------------------------------------------


def test_the_pool_is_at_an_eighth_and_what_is_expected_of_an_anomaly_at_seven_eighths(head):
    scores = head.fit(labels(RARE[:20], COMMON[:30])).scores
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert np.median(scores[COMMON]) == pytest.approx(0.12, abs=0.03)
    assert np.median(scores[RARE[20:]]) == pytest.approx(0.88, abs=0.08)  # it was not shown these


def test_the_best_are_not_tied(vectors):
    far = vectors.copy()
    far[: len(RARE), 0] += np.linspace(5, 6, len(RARE)).astype(np.float16)  # 25 standard deviations off
    scores = InstantHead(far, SPACES, everywhere(far)).fit(labels(RARE[:10], COMMON[:10])).scores
    best = np.sort(scores)[-100:]
    assert (np.diff(best) > 0).all()
    assert best[-1] < 1


def test_anomalies_that_do_not_find_each_other_do_not_turn_the_scale():
    rng = np.random.default_rng(3)
    vectors = (rng.standard_normal((N, 2 * WIDTH)) / np.sqrt(WIDTH)).astype(np.float16)
    vectors[1] = -vectors[0]
    scores = InstantHead(vectors, SPACES, everywhere(vectors)).fit(labels([0, 1], COMMON[:9])).scores
    assert not np.isnan(scores).any()
    assert scores[0] + scores[1] > 2 * np.median(scores)


@pytest.mark.parametrize(
    "given",
    [{}, labels([], [1, 2]), labels([0]), labels([0, 1]), labels([0, 1], [2])],
    ids=["none", "normals", "one anomaly", "anomalies", "all"],
)
def test_vectors_that_are_all_the_same_give_finite_scores(given):
    for vectors in (np.zeros((3, 4), np.float16), np.ones((3, 4), np.float16)):
        scores = InstantHead(vectors, [slice(0, 2), slice(2, 4)], everywhere(vectors)).fit(given).scores
        assert np.isfinite(scores).all()


def test_the_order_of_the_labels_does_not_matter(vectors, head):
    given = labels(RARE[:12], COMMON[:30])
    backwards = dict(reversed(given.items()))
    again = InstantHead(vectors, SPACES, everywhere(vectors))
    assert_array_equal(head.fit(given).scores, again.fit(backwards).scores)


def test_blocks_and_files_give_what_memory_gives(vectors, head, tmp_path, monkeypatch):
    vectors.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float16, "r", shape=vectors.shape)
    monkeypatch.setattr("amatch_widgets.query._blocks._ROWS", 700)
    in_parts = InstantHead(mapped, SPACES, everywhere(vectors))
    for given in (labels(RARE[:5], COMMON[:9]), labels([], COMMON[:9])):
        assert_allclose(in_parts.fit(given).scores, head.fit(given).scores, atol=1e-5)


# ---- images without a vector ----------------------------------------------------------------


def test_images_without_a_vector_have_no_score_and_their_labels_no_effect(vectors):
    is_usable = everywhere(vectors)
    is_usable[[2, 7, 100]] = False
    spoiled = vectors.copy()
    spoiled[~is_usable] = 0
    head = InstantHead(spoiled, SPACES, is_usable)
    fit = head.fit(labels([0, 1, 2, 7], [50, 100]))
    assert_array_equal(np.isnan(fit.scores), ~is_usable)
    assert (fit.n_anomalies, fit.n_normals) == (2, 1)
    assert_array_equal(fit.scores, head.fit(labels([0, 1], [50])).scores)
    assert_array_equal(np.isnan(head.fit({}).scores), ~is_usable)


@pytest.mark.parametrize("n", [0, 3])
def test_no_vector_at_all_gives_no_scores(n):
    head = InstantHead(np.zeros((n, 4), np.float16), [slice(0, 4)], np.zeros(n, np.bool_))
    fit = head.fit(dict.fromkeys(range(n), 1))
    assert (fit.kind, fit.n_anomalies) == ("novelty", 0)
    assert np.isnan(fit.scores).all()


def test_every_image_may_be_labelled():
    vectors = made_up([0], n=30)[10:40]
    head = InstantHead(vectors, SPACES, everywhere(vectors))
    assert np.isfinite(head.fit(labels(range(5), range(5, len(vectors)))).scores).all()
    assert np.isfinite(head.fit(labels(range(len(vectors)))).scores).all()


# ---- novelty --------------------------------------------------------------------------------


def test_without_labels_what_is_far_from_the_bulk_comes_first():
    vectors = made_up([0, 1], shift=5)
    fit = InstantHead(vectors, SPACES, everywhere(vectors)).fit({})
    assert fit.kind == "novelty"
    assert np.isnan(fit.held_out_log_rank)
    assert share_above(fit.scores, RARE) > 0.9
    by_rank = np.sort(fit.scores)
    assert_allclose(by_rank, (np.arange(N) + 0.5) / N, atol=1e-6)  # by rank: none are tied


def test_what_looks_like_a_labelled_normal_goes_down():
    vectors = made_up([0, 1], shift=5)
    head = InstantHead(vectors, SPACES, everywhere(vectors))
    fit = head.fit(labels([], RARE[:3]))
    assert fit.kind == "novelty"
    assert fit.n_normals == 3
    assert share_above(fit.scores, RARE[3:]) < 0.3 < share_above(head.fit({}).scores, RARE[3:])


def test_equal_images_keep_their_order():
    vectors = np.ones((5, 4), np.float16)
    scores = InstantHead(vectors, [slice(0, 4)], everywhere(vectors)).fit({}).scores
    assert_array_equal(np.argsort(-scores), np.arange(5))


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, N])
def test_an_index_that_is_not_there_is_refused(head, index):
    with pytest.raises(LabelError, match=f"no image {index}.*0 to {N - 1}"):
        head.fit({index: 1})


def test_a_label_that_is_neither_is_refused(head):
    with pytest.raises(LabelError, match="label of image 5 is 2; it must be 1"):
        head.fit({5: 2})


def test_shapes_that_do_not_fit_are_refused(vectors):
    with pytest.raises(ValueError, match=r"must be \(N, D\) and \(N,\)"):
        InstantHead(vectors, SPACES, np.ones(5, np.bool_))
    with pytest.raises(ValueError, match="spaces is empty"):
        InstantHead(vectors, [], everywhere(vectors))


# ---- time -----------------------------------------------------------------------------------


def test_a_fit_is_quick():
    vectors = np.tile(made_up([0, 1]).repeat(10, axis=1)[:, :512], (10, 1))
    head = InstantHead(vectors, [slice(0, 256), slice(256, 512)], everywhere(vectors))
    times = []
    for _ in range(3):
        start = time.process_time()
        head.fit(labels(range(0, 5000, 100), range(1, 30000, 100)))
        times.append(time.process_time() - start)
    assert min(times) < 1  # 0.15 s for 30,000 images


def test_threads_may_fit_at_the_same_time(head):
    expected = {n: head.fit(labels(RARE[:n], COMMON[:9])).scores for n in (2, 5, 9)}
    got = {}

    def work(n):
        got[n] = head.fit(labels(RARE[:n], COMMON[:9])).scores

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, scores in expected.items():
        assert_array_equal(got[n], scores)


def test_only_so_many_anomalies_are_left_out_in_turn(head, monkeypatch):
    given = labels(RARE, COMMON[:9])
    all_of_them = head.fit(given)
    monkeypatch.setattr(_evidence, "_LEFT_OUT", 10)
    some = head.fit(given)
    assert some.held_out_log_rank != all_of_them.held_out_log_rank
    assert some.held_out_log_rank < -4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_labelled_anomaly_and_no_normal_bring_its_like_to_the_top(seed):
    source = sky(300, size=48, prevalence=0.06, seed=seed)
    images, _ = PixelPool(source, Preprocess(size=48)).batch(np.arange(300))
    embedder = Embedder(build_classifier("tf_efficientnet_lite0"), side=64, n_views=1, precision="float32")
    raw = embedder.raw(images)
    projection = Projection.fit(raw, embedder.blocks, seed=0)
    head = InstantHead(projection.apply(raw), projection.spaces, everywhere(raw))
    kinds = np.array([source.kinds[i] for i in source.ids])
    ranks = []  # of the others of its kind, as a share of all images: 0.5 by chance
    for label in np.flatnonzero([source.truth[i] == "anomaly" for i in source.ids]):
        order = np.argsort(-head.fit({int(label): 1}).scores)
        like = np.flatnonzero(kinds == kinds[label])
        ranks.append(np.median(np.flatnonzero(np.isin(order, like[like != label]))) / len(order))
    # Measured for the seeds 0, 1, 2: on average 0.06, 0.09, 0.07, and 0.03, 0.03, 0.03 in the middle.
    assert np.mean(ranks) < 0.15, ranks
    assert np.median(ranks) < 0.08, ranks


def test_labels_from_outside_are_learnt_from_and_not_ranked():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float16)
    head = InstantHead(vectors, [slice(0, 4), slice(4, 8)], np.ones(200, bool))
    inside = head.fit({3: 1, 4: 0})
    outside = Outside(vectors[[3, 4]], np.array([1, 0]))
    alone = head.fit({}, outside)
    assert (alone.kind, alone.n_anomalies, alone.n_normals) == ("labels", 1, 1)
    assert alone.scores.shape == (200,)
    assert np.corrcoef(alone.scores, inside.scores)[0, 1] > 0.95
    both = head.fit({3: 1, 4: 0}, Outside(vectors[[9]], np.array([1])))
    assert both.scores[9] > inside.scores[9]
    assert (both.n_anomalies, both.n_normals) == (2, 1)
    nothing = head.fit({3: 1, 4: 0}, Outside.nothing())
    np.testing.assert_array_equal(nothing.scores, inside.scores)
    normals = head.fit({}, Outside(vectors[[9]], np.array([0])))
    assert (normals.kind, normals.n_normals) == ("novelty", 1)
    assert normals.scores[9] < head.fit({}).scores[9]
