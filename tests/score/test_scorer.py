"""Scores of all images: each beside its own index, the unreadable left out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from amatch_widgets.demo import DemoSource, sky
from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn import inference
from amatch_widgets.learn.augment import to_float
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.score.scorer import score_batches

N = 21


class Holey(DemoSource):
    """A sky in which some images cannot be read."""

    bad = ()

    def read(self, index, *, min_side=None):
        if index in self.bad:
            raise ImageReadError(self.ids[index], "it has a hole")
        return super().read(index, min_side=min_side)


@pytest.fixture(scope="module")
def model():
    return build_classifier("test_resnet", weights="random")


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Keep to the precision that the numbers below are compared in."""
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: False)


def pool_of(source, **options):
    return PixelPool(source, Preprocess(size=32), **options)


def scores_of(model, pool, **options):
    indices, scores = zip(*score_batches(model, pool, **options), strict=True)
    return np.concatenate(indices), np.concatenate(scores)


@torch.no_grad()
def test_each_score_is_the_models_probability_of_an_anomaly(model):
    source = sky(N, size=32)
    indices, scores = scores_of(model, pool_of(source), batch_size=8)
    assert indices.tolist() == list(range(N))
    assert scores.dtype == np.float32
    images = torch.from_numpy(np.stack([source.read(i) for i in range(N)])).permute(0, 3, 1, 2)
    wanted = model.eval()(to_float(images)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert len(np.unique(scores)) > N / 2


def test_the_mode_before_does_not_matter(model):
    pool = pool_of(sky(N, size=32))
    model.train()
    before = [value.clone() for value in model.state_dict().values()]
    first = scores_of(model, pool)[1]
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    model.eval()
    np.testing.assert_array_equal(first, scores_of(model, pool)[1])


def test_the_precision_that_is_faster_changes_no_more_than_its_rounding(model, monkeypatch):
    pool = pool_of(sky(N, size=32))
    wanted = scores_of(model, pool)[1]
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(inference, "_chosen", {})
    monkeypatch.setattr(inference, "_faster", lambda network, x: torch.bfloat16)
    scores = scores_of(model, pool)[1]
    assert not np.array_equal(scores, wanted)
    np.testing.assert_allclose(scores, wanted, atol=1e-3)


@pytest.mark.parametrize("budget_bytes", [0, 5 * 32 * 32 * 3, 2**20])
def test_the_size_of_batches_and_of_the_cache_do_not_matter(model, budget_bytes):
    pool = pool_of(sky(N, size=32), budget_bytes=budget_bytes)
    wanted = scores_of(model, pool, batch_size=N)[1]
    for batch_size in (1, 4, 100):
        np.testing.assert_allclose(scores_of(model, pool, batch_size=batch_size)[1], wanted, atol=1e-5)


def test_unreadable_images_get_no_score_and_nobody_elses(model):
    source = Holey(N, size=32)
    whole = scores_of(model, pool_of(source))[1]
    source.bad = {0, 7, 20}
    pool = pool_of(source)
    indices, scores = scores_of(model, pool, batch_size=4)
    assert indices.tolist() == [i for i in range(N) if i not in source.bad]
    np.testing.assert_allclose(scores, whole[indices], atol=1e-5)
    assert set(pool.problems) == {source.ids[i] for i in source.bad}


def test_where_nothing_can_be_read_there_is_no_batch(model):
    source = Holey(3, size=32)
    source.bad = range(3)
    assert list(score_batches(model, pool_of(source))) == []


def test_the_consumer_does_not_run_in_inference_mode(model):
    for _ in score_batches(model, pool_of(sky(N, size=32)), batch_size=8):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_a_scoring_that_is_closed_leaves_no_thread(model):
    before = set(threading.enumerate())
    batches = score_batches(model, pool_of(sky(N, size=32)), batch_size=2)
    next(batches)
    batches.close()
    assert set(threading.enumerate()) <= before
