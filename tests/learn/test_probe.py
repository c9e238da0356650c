"""The head starts as a balanced logistic regression on the features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amatch_widgets.learn.augment import to_float
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.feed import LabelledImages
from amatch_widgets.learn.probe import start_head

LIGHT = "test_resnet"


def labelled(n_anomalies=4, n_normals=12, seed=0):
    """Bright anomalies and dark normal images, with noise."""
    rng = np.random.default_rng(seed)
    classes = np.array([1] * n_anomalies + [0] * n_normals)
    level = np.where(classes == 1, 190, 60)[:, None, None, None]
    images = np.clip(level + rng.normal(0, 20, (len(classes), 32, 32, 3)), 0, 255).astype(np.uint8)
    return LabelledImages(images, classes)


@pytest.fixture
def model():
    return build_classifier(LIGHT, weights="random")


@torch.no_grad()
def scores(model, images):
    model.eval()
    return model(to_float(torch.from_numpy(images).permute(0, 3, 1, 2))).softmax(1)[:, 1].numpy()


def test_the_head_tells_the_labelled_images_apart_and_others_like_them(model):
    start_head(model, labelled())
    for seed in (0, 1):
        images = labelled(seed=seed)
        found = scores(model, images.images)
        assert found[images.classes == 1].min() > found[images.classes == 0].max()


def test_no_image_starts_above_the_confidence_threshold(model):
    start_head(model, labelled())
    found = scores(model, labelled(20, 20, seed=2).images)
    assert 0.05 < found.min() < found.max() < 0.95


def test_classes_count_alike_however_many_there_are(model):
    start_head(model, labelled(2, 40))
    found = labelled(2, 40)
    values = scores(model, found.images)
    assert values[found.classes == 1].mean() > 0.5 > values[found.classes == 0].mean()


def test_one_image_of_each_class_is_enough(model):
    start_head(model, labelled(1, 1))
    assert np.isfinite(scores(model, labelled().images)).all()


def test_equal_images_of_both_classes_give_an_even_score(model):
    images = np.full((4, 32, 32, 3), 100, np.uint8)
    start_head(model, LabelledImages(images, np.array([0, 0, 1, 1])))
    np.testing.assert_allclose(scores(model, images), 0.5, atol=1e-3)


@pytest.mark.parametrize("is_training", [True, False])
def test_only_the_head_changes_and_the_mode_stays(model, is_training):
    model.train(is_training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_head(model, labelled())
    assert model.training is is_training
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "network.fc.weight",
        "network.fc.bias",
    }


def test_the_head_does_not_depend_on_the_order_of_the_labels_or_the_batches(model, monkeypatch):
    found = labelled(4, 13)
    start_head(model, found)
    first = model.head.weight.detach().clone()
    turned = LabelledImages(found.images[::-1].copy(), found.classes[::-1].copy())
    monkeypatch.setattr("amatch_widgets.learn.probe._BATCH", 5)
    start_head(model, turned)
    torch.testing.assert_close(model.head.weight, first, rtol=1e-3, atol=1e-5)
