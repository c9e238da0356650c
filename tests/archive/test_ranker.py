"""What ranks, as one thing: the same scores in another process, and a place for images of no session."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amatch_widgets.archive.ranker import Ladder, Model, Ranker
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.inference import Inference

IMAGE = Preprocess(size=32)


@pytest.fixture(scope="module")
def classifier():
    return build_classifier("test_resnet", weights="random", seed=3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def test_a_copy_in_another_place_gives_the_same_scores(classifier, images):
    ranker = Ranker(ranked_by="deep", image=IMAGE, note="", deep=Model.of(classifier, "test_resnet"))
    copy = pickle.loads(pickle.dumps(ranker))
    assert copy.key == ranker.key
    found = copy.ready("cpu")(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ranker.ready("cpu")(images))
    np.testing.assert_allclose(found, Inference(classifier).scores(images), atol=2e-3)


def test_the_key_says_what_gives_other_scores(classifier):
    model = Model.of(classifier, "test_resnet")
    other = Model.of(build_classifier("test_resnet", weights="random", seed=4), "test_resnet")
    keys = {
        Ranker(ranked_by="deep", image=IMAGE, note="", deep=model).key,
        Ranker(ranked_by="deep", image=IMAGE, note="", deep=other).key,
        Ranker(ranked_by="deep", image=Preprocess(size=48), note="", deep=model).key,
        Ranker(ranked_by="instant", image=IMAGE, note="", instant=model).key,
    }
    assert len(keys) == 4
    assert Ranker(ranked_by="deep", image=IMAGE, note="another", deep=model).key in keys


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.lists(st.floats(-2e3, 2e3), min_size=2))
def test_a_ladder_never_falls(sample, asked):
    x = np.array(sample)
    found = Ladder.between(x, np.sort(x) * 2 + 1)(np.sort(np.array(asked)))
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-6 * np.abs(found).max(initial=1)).all()


def test_a_ladder_goes_on_beyond_its_ends():
    x = np.linspace(-3, 3, 2000)
    ladder = Ladder.between(x, 2 * x + 1)
    np.testing.assert_allclose(ladder([-30, -3, 0.1, 3, 30]), [-59, -5, 1.2, 7, 61], atol=1e-6)


def test_an_image_beyond_all_of_the_session_is_above_them():
    """In a blend, too: of 10^8 images, more than the top of a session are better than its best."""
    rng = np.random.default_rng(0)
    ladder = Ladder.between(rng.normal(size=500), rng.normal(size=500))
    beyond = ladder([5.0, 6.0, 7.0])
    assert (np.diff(beyond) > 0).all()
    assert beyond[0] > ladder.y.max()
