"""What ranks, as one thing: the same scores in another process, and a place for images of no session."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amatch_widgets.archive.ranker import Ladder, Model, Ranker
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn import inference
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.embed import Embedder
from amatch_widgets.learn.inference import Inference
from amatch_widgets.learn.start import VectorClassifier, VectorShape

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


@pytest.fixture(scope="module", params=["deep", "instant", "both"])
def ranker(request, classifier, images):
    """What ranks, by the network's own head, by features of another side, or by both."""
    deep = Model.of(classifier, "test_resnet")
    start = vector_classifier(classifier)
    instant = Model.of(start, "test_resnet")
    options = {"image": IMAGE, "note": ""}
    if request.param == "both":
        scores = np.linspace(0.1, 0.9, 20, dtype=np.float32)
        return Ranker.blended((instant, scores), (deep, scores[::-1].copy()), 0.5, **options)
    return Ranker(ranked_by=request.param, instant=instant, deep=deep, **options)


def vector_classifier(base):
    embedder = Embedder(base, side=40, n_views=4, precision="float32")
    shape = VectorShape(side=40, n_views=4, n_features=embedder.n_features, dims=8)
    model = VectorClassifier(base, shape)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (model.matrix, model.shift, model.head.weight, model.head.bias):
            tensor.copy_(torch.randn(tensor.shape, generator=rng) / 10)
    return model


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_image_has_the_same_score_whatever_is_beside_it_and_on_any_number_of_threads(ranker, precision):
    """Bit by bit: a cluster of any workers gives the rows that one machine gives."""
    images = np.random.default_rng(1).integers(0, 256, (33, 32, 32, 3), dtype=np.uint8)
    ranker = replace(ranker, precision=precision)
    score, n_threads = ranker.ready("cpu"), torch.get_num_threads()
    wanted = score(images)
    assert len(np.unique(wanted)) > 25
    np.testing.assert_array_equal(score(images[::-1].copy())[::-1], wanted)
    for n in (1, 2, 3, 7, 32):
        np.testing.assert_array_equal(score(images[:n]), wanted[:n])
        np.testing.assert_array_equal(score(images[-n:]), wanted[-n:])
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            np.testing.assert_array_equal(ranker.ready("cpu")(images), wanted)
            np.testing.assert_array_equal(score(images[:5]), wanted[:5])
    finally:
        torch.set_num_threads(n_threads)


def test_the_precision_is_chosen_once_and_no_part_of_the_key(ranker, monkeypatch):
    timed = []
    monkeypatch.setattr(inference, "_chosen", {})
    monkeypatch.setattr(inference, "has_bfloat16", lambda _: True)
    monkeypatch.setattr(inference, "_faster", lambda *_: timed.append(1) or torch.bfloat16)
    assert ranker.choose_precision("cpu") == "bfloat16"
    assert len(timed) == 1
    chosen = replace(ranker, precision="bfloat16")
    assert chosen.key == ranker.key
    images = np.zeros((2, 32, 32, 3), np.uint8)
    copy = pickle.loads(pickle.dumps(chosen))
    monkeypatch.setattr(inference, "_faster", lambda *_: pytest.fail("it was chosen before"))
    monkeypatch.setattr(inference, "_chosen", {})
    np.testing.assert_array_equal(copy.ready("cpu")(images), chosen.ready("cpu")(images))


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
