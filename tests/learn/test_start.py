"""The deep tier starts where the instant tier stands, and moves on from there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amatch_widgets.learn.augment import to_float
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.checkpoint import load_checkpoint, save_checkpoint
from amatch_widgets.learn.details import read_details
from amatch_widgets.learn.embed import Embedder, Projection
from amatch_widgets.learn.health import HealthMonitor
from amatch_widgets.learn.start import Start, VectorClassifier, VectorShape
from amatch_widgets.learn.trainer import Trainer
from amatch_widgets.query.head import InstantHead, logit_of
from amatch_widgets.score.scorer import score_batches

SIDE = 48  # the images of the pool have 32


@pytest.fixture(scope="module")
def images(small_pool):
    return small_pool.batch(np.arange(len(small_pool)))[0]


@pytest.fixture(scope="module")
def fit_and_start(images):
    """Give what the instant tier makes of the images, with 4 labels, and the start from there."""
    model = build_classifier("test_resnet", weights="random")
    embedder = Embedder(model, side=SIDE, n_views=1, precision="float32")
    raw = embedder.raw(images)
    projection = Projection.fit(raw, embedder.blocks, seed=0)
    head = InstantHead(projection.apply(raw), projection.spaces, np.ones(len(raw), bool))
    fit = head.fit({0: 1, 4: 1, 1: 0, 2: 0})
    return fit, Start(projection, SIDE, 1, fit.weights, fit.bias, np.array([8, 12]), logit_of(fit.scores))


@pytest.fixture
def start(fit_and_start):
    return fit_and_start[1]


@pytest.fixture
def make(light, start):
    def make(**changes):
        trainer = Trainer(light(backbone="test_resnet", weights="random", **changes), 3, shape=start.shape)
        trainer.start = start
        return trainer

    return make


def logits(model, images):
    x = to_float(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.no_grad():
        return model.eval()(x).diff(dim=1)[:, 0].numpy()


def test_at_the_start_the_model_ranks_as_the_instant_tier_does(fit_and_start, images):
    fit, start = fit_and_start
    model = VectorClassifier(build_classifier("test_resnet", weights="random"), start.shape)
    model.begin(start)
    found = logits(model, images)
    far = np.clip(fit.scores.astype(float), 1e-6, 1 - 1e-6)  # x / (1 + |x|) undone
    centred = 2 * far - 1
    wanted = centred / (1 - np.abs(centred)) / (0.76 / 0.24) * 2
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.02)  # float16 lies between


def test_the_pool_starts_at_minus_2_and_is_mostly_unsure(fit_and_start, images):
    _, start = fit_and_start
    model = VectorClassifier(build_classifier("test_resnet", weights="random"), start.shape)
    model.begin(start)
    assert logits(model, images).mean() == pytest.approx(-2, abs=0.05)


def test_before_it_begins_it_gives_every_image_the_same(start, images):
    model = VectorClassifier(build_classifier("test_resnet", weights="random"), start.shape)
    assert (logits(model, images) == 0).all()


def test_training_moves_the_network_and_the_head_but_not_the_projection(make, make_feed):
    trainer = make(learning_rate=0.01, frozen_stages=1)
    before = None
    for record in trainer.steps(3, make_feed(trainer.config)):
        before = before or {n: v.clone() for n, v in trainer.model.state_dict().items()}
        assert record.loss > 0
    after = trainer.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"vector_head.weight", "vector_head.bias"} <= changed
    assert any(name.startswith("network.layer4") for name in changed)
    assert not changed & {"matrix", "shift", "network.fc.weight", "network.conv1.0.weight"}


def test_the_average_begins_as_the_start_and_soon_follows(make, make_feed, start):
    trainer = make(learning_rate=0.01)
    next(trainer.steps(1, make_feed(trainer.config)))
    trained, average = (m.vector_head.weight[1].detach().numpy() for m in (trainer.model, trainer.average))
    begun = start.weights / 2
    # after step k it keeps k / (k + 9) of itself: a tenth after the first
    np.testing.assert_allclose(average, 0.1 * begun + 0.9 * trained, atol=1e-6)
    assert np.abs(trained - begun).max() > 1e-5


def test_a_restart_takes_the_newest_start(make, make_feed, start):
    trainer = make(restart=True, learning_rate=1e-12)
    list(trainer.steps(1, make_feed(trainer.config)))
    newer = Start(start.projection, SIDE, 1, start.weights[::-1].copy(), 0.5, start.likely, start.logits)
    trainer.start = newer
    list(trainer.steps(1, make_feed(trainer.config)))
    np.testing.assert_allclose(trainer.model.head.weight.diff(dim=0)[0].detach(), newer.weights, atol=1e-6)
    trainer.start = None  # the embeddings are gone: the pooled maps and a probe
    list(trainer.steps(1, make_feed(trainer.config)))
    assert not isinstance(trainer.model, VectorClassifier)


def test_a_checkpoint_tells_the_shape_and_brings_all_back(make, make_feed, light, images, tmp_path):
    trainer = make()
    list(trainer.steps(2, make_feed(trainer.config)))
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, trainer, {})
    shape = VectorShape(**read_details(path)["vectors"])
    assert shape == trainer.shape
    other = Trainer(light(backbone="test_resnet"), 3, is_blank=True, shape=shape)
    load_checkpoint(path, other)
    np.testing.assert_array_equal(logits(other.average, images), logits(trainer.average, images))


def test_a_training_resumed_from_its_checkpoint_goes_on_to_the_bit(make, make_feed, light, tmp_path):
    whole = make(freeze_norm=True)
    wanted = [r.loss for r in whole.steps(4, make_feed(whole.config))]
    first = make(freeze_norm=True)
    steps = first.steps(4, make_feed(first.config))
    next(steps), next(steps)
    steps.close()
    save_checkpoint(tmp_path / "half.safetensors", first, {})
    resumed = Trainer(light(backbone="test_resnet", freeze_norm=True), 3, is_blank=True, shape=first.shape)
    load_checkpoint(tmp_path / "half.safetensors", resumed)
    assert [r.loss for r in resumed.steps(2, make_feed(resumed.config))] == wanted[2:]
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


@pytest.mark.parametrize("n_views", [1, 4])
def test_scores_are_the_mean_over_the_views(start, small_pool, images, n_views, monkeypatch):
    monkeypatch.setattr("amatch_widgets.learn.inference.has_bfloat16", lambda device: False)
    several = Start(start.projection, SIDE, n_views, start.weights, start.bias, start.likely, start.logits)
    model = VectorClassifier(build_classifier("test_resnet", weights="random"), several.shape)
    model.begin(several)
    indices, scores = next(iter(score_batches(model, small_pool, batch_size=64)))
    assert indices.tolist() == list(range(len(images)))
    turned = [np.ascontiguousarray(np.rot90(images, k, (1, 2))) for k in range(n_views)]
    wanted = np.mean([logits(model, t) for t in turned], 0)
    np.testing.assert_allclose(np.log(scores / (1 - scores)), wanted, rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def lite(images):
    """Give the instant tier's start for the default network."""
    embedder = Embedder(build_classifier("tf_efficientnet_lite0"), side=SIDE, n_views=1, precision="float32")
    raw = embedder.raw(images)
    projection = Projection.fit(raw, embedder.blocks, seed=0)
    head = InstantHead(projection.apply(raw), projection.spaces, np.ones(len(raw), bool))
    fit = head.fit({0: 1, 4: 1, 1: 0, 2: 0})
    return Start(projection, SIDE, 1, fit.weights, fit.bias, np.array([8, 12]), logit_of(fit.scores))


def first_step(light, make_feed, start, scale=1):
    """Train the default network for a step on 24 unlabelled images, all of them random."""
    options = {"backbone": "tf_efficientnet_lite0", "weights": None, "freeze_norm": True}
    config = light(batch=4, unlabelled_ratio=6, **options)
    trainer = Trainer(config, 3, shape=start and start.shape)
    trainer.start = start
    with pytest.MonkeyPatch.context() as patch:
        start_head = Trainer._start_head

        def scaled(self, labelled):
            meant = start_head(self, labelled)
            with torch.no_grad():
                self.model.head.weight.mul_(scale)
                self.model.head.bias.mul_(scale)
            return meant

        patch.setattr(Trainer, "_start_head", scaled)
        return next(trainer.steps(1, make_feed(config)))


# The share that is meant: of random unlabelled images, judged by the averaged model before anything was
# learnt, those for which a class has a probability of 95 % or more.


def test_from_a_probe_the_default_network_is_sure_of_no_random_image_at_the_first_step(light, make_feed):
    record = first_step(light, make_feed, None)
    assert record.sure_random == record.meant == 0
    assert not HealthMonitor().step(record)


def test_from_the_instant_tier_the_default_network_is_as_sure_as_the_scores_it_starts_from(
    light, make_feed, lite
):
    record = first_step(light, make_feed, lite)
    assert record.meant == pytest.approx(np.mean(np.abs(lite.logits) >= np.log(0.95 / 0.05)))
    assert 0 < record.meant < 0.6
    assert abs(record.sure_random - record.meant) < 0.3  # of 24 images, flipped and shifted
    assert not HealthMonitor().step(record)


@pytest.mark.parametrize("is_probe", [True, False])
def test_a_head_that_is_far_too_large_is_the_trap(light, make_feed, lite, is_probe):
    record = first_step(light, make_feed, None if is_probe else lite, scale=1000)
    assert record.sure_random > 0.95
    assert [alarm.kind for alarm in HealthMonitor().step(record)] == ["head_trap"]
