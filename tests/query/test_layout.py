from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amatch_widgets.errors import ConfigError, MissingExtraError
from amatch_widgets.query.layout import plane


def usable(vectors):
    return np.ones(len(vectors), np.bool_)


@pytest.fixture
def cloud():
    """200 images in 8 dimensions, of which the first spreads most, then the second."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 8)) * [6, 3, 1, 1, 1, 1, 1, 1]).astype(np.float16)


def test_points_on_a_line_stay_in_order_and_the_other_coordinate_is_the_middle():
    steps = np.array([0, 1, 2, 4, 3], np.float16)
    vectors = 5 + np.outer(steps, np.array([3, 4, 0], np.float16))
    indices, places = plane(vectors.astype(np.float16), usable(vectors), seed=0)
    assert_array_equal(indices, [0, 1, 2, 3, 4])
    assert (indices.dtype, places.dtype, places.shape) == (np.int64, np.float32, (5, 2))
    assert_array_equal(np.argsort(places[:, 0]), [0, 1, 2, 4, 3])  # towards the larger numbers
    assert_allclose(places[[0, 2, 3], 0], [0, 0.5, 1], atol=1e-6)
    assert_allclose(places[:, 1], 0.5)


def test_the_two_widest_directions_are_shown_the_widest_first(cloud):
    _, places = plane(cloud, usable(cloud), seed=0)
    for k in (0, 1):
        assert abs(np.corrcoef(places[:, k], np.arcsinh(cloud[:, k].astype(float) / [6, 3][k]))[0, 1]) > 0.97
    assert (places.min(), places.max()) == (0, 1)


def test_the_same_images_and_seed_give_the_same_map_and_another_seed_another_sample(cloud):
    first, again, other = (plane(cloud, usable(cloud), n=50, seed=seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


def test_the_sample_has_all_that_must_be_there_once_and_nothing_without_a_vector(cloud):
    is_usable = usable(cloud)
    is_usable[100:] = False
    indices, places = plane(cloud, is_usable, n=10, always=[7, 3, 3, 150], seed=0)
    assert {3, 7} <= set(indices.tolist())
    assert (np.diff(indices) > 0).all()
    assert 10 <= len(indices) <= 12
    assert indices.max() < 100
    assert len(places) == len(indices)


def test_images_that_must_be_there_do_not_turn_the_map(cloud):
    indices, places = plane(cloud, usable(cloud), n=100, seed=0)
    more, others = plane(cloud, usable(cloud), n=100, always=np.arange(200), seed=0)
    assert len(more) == 200
    common = others[np.isin(more, indices)]
    for k in (0, 1):
        assert np.corrcoef(common[:, k], places[:, k])[0, 1] == pytest.approx(1, abs=1e-4)


def test_whitened_columns_are_weighed_by_their_place():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2000, 6)) * [1, 1, 1, 1, 1, 1.2]
    vectors = vectors.astype(np.float16)
    _, plain = plane(vectors, usable(vectors), seed=0)
    _, weighed = plane(vectors, usable(vectors), spaces=[slice(0, 6)], seed=0)
    assert abs(np.corrcoef(plain[:, 0], vectors[:, 5])[0, 1]) > 0.9
    assert abs(np.corrcoef(weighed[:, 0], vectors[:, 0])[0, 1]) > 0.9


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((4, 3)), np.ones((1, 3)), np.full((5, 3), 6e4), np.eye(2), np.arange(4.0)[:, None]],
    ids=["zeros", "one image", "large and equal", "two images", "one column"],
)
def test_what_has_no_extent_is_still_finite(vectors):
    vectors = vectors.astype(np.float16)
    _, places = plane(vectors, usable(vectors), seed=0)
    assert np.isfinite(places).all()
    assert places.min() >= 0
    assert places.max() <= 1


def test_no_image_at_all_is_an_empty_map(cloud):
    indices, places = plane(cloud, np.zeros(len(cloud), np.bool_), always=[3], seed=0)
    assert (indices.shape, places.shape) == ((0,), (0, 2))


def test_umap_is_called_with_the_sample_and_its_seed(cloud, monkeypatch):
    calls = []

    class Reducer:
        def __init__(self, **options):
            calls.append(options)

        def fit_transform(self, rows):
            assert rows.dtype == np.float32
            return rows[:, :2] - 7

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Reducer))
    indices, places = plane(cloud, usable(cloud), n=40, method="umap", seed=5)
    assert calls == [{"n_components": 2, "metric": "cosine", "random_state": 5, "n_jobs": 1}]
    assert (len(indices), places.shape, places.dtype) == (40, (40, 2), np.float32)
    assert (places.min(), places.max()) == (0, 1)


def test_without_umap_the_message_is_the_line_to_type(cloud, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[umap\]'"):
        plane(cloud, usable(cloud), method="umap", seed=0)


def test_an_unknown_method_is_refused(cloud):
    with pytest.raises(ConfigError, match=r"'tsne'.*'pca' and 'umap'"):
        plane(cloud, usable(cloud), method="tsne", seed=0)
