"""The training loop: what a step does, what it measures, and where it stops."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from amatch_widgets.errors import ConfigError, StateError, TooFewLabelsError, WeightsError
from amatch_widgets.learn import trainer as trainer_module
from amatch_widgets.learn.trainer import Trainer, choose_device


def run(trainer, feed, n):
    return list(trainer.steps(n, feed))


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def are_equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_step_tells_what_it_measured(make_trainer, make_feed):
    trainer = make_trainer(threshold=0.51)
    records = run(trainer, make_feed(trainer.config), 3)
    assert [r.step for r in records] == [1, 2, 3]
    assert {r.cycle for r in records} == {1}
    for r in records:
        assert r.loss == pytest.approx(r.supervised + r.unsupervised, rel=1e-5)
        assert r.supervised > 0
        assert 0 <= r.share_above <= 1
        n_above = r.n_anomaly + r.n_normal
        assert 0 <= n_above <= 8  # the unlabelled images of a step
        assert n_above == 0 or r.share_above >= n_above / 8 - 1e-6  # labelled ones are left out
        assert r.seconds > 0
    assert trainer.step == 3
    assert trainer.cycle == 1


def test_at_step_1_no_pseudo_label_is_sure(make_trainer, make_feed):
    trainer = make_trainer(unlabelled_ratio=8)
    (record,) = run(trainer, make_feed(trainer.config), 1)
    assert record.share_above == 0
    assert record.unsupervised == 0


def test_training_changes_both_models_and_the_average_follows_slowly(make_trainer, make_feed):
    trainer = make_trainer(ema=0.9)
    steps = trainer.steps(2, make_feed(trainer.config))
    next(steps)
    model, average = weights_of(trainer.model), weights_of(trainer.average)
    next(steps)
    name = "network.fc.weight"
    assert not torch.equal(trainer.model.state_dict()[name], model[name])
    torch.testing.assert_close(
        trainer.average.state_dict()[name], 0.9 * average[name] + 0.1 * trainer.model.state_dict()[name]
    )
    assert not trainer.average.training


def test_the_loss_of_the_labels_falls(make_trainer, make_feed):
    trainer = make_trainer(unlabelled_ratio=0, learning_rate=0.02, batch=8)
    records = run(trainer, make_feed(trainer.config), 25)
    first, last = (sum(r.supervised for r in part) / 5 for part in (records[:5], records[-5:]))
    assert last < 0.8 * first


def test_cycles_are_counted_and_go_on_from_the_last(make_trainer, make_feed):
    trainer = make_trainer()
    feed = make_feed(trainer.config)
    run(trainer, feed, 2)
    before = weights_of(trainer.model)
    steps = trainer.steps(1, feed)
    record = next(steps)
    assert (record.step, record.cycle) == (3, 2)
    assert not are_equal(before, weights_of(trainer.model))


def test_a_restart_begins_each_cycle_from_the_first_weights(make_trainer, make_feed):
    trainer = make_trainer(restart=True, learning_rate=1e-12)
    feed = make_feed(trainer.config)
    names = {name for name, _ in trainer.model.named_parameters()}
    run(trainer, feed, 1)
    first = weights_of(trainer.model)
    with torch.no_grad():
        trainer.model.network.conv1[0].weight.add_(1)
    (record,) = run(trainer, feed, 1)
    second = weights_of(trainer.model)
    assert (record.step, record.cycle) == (2, 2)
    for name in names:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)


def test_without_unlabelled_images_only_the_labels_train(make_trainer, make_feed):
    trainer = make_trainer(unlabelled_ratio=0)
    records = run(trainer, make_feed(trainer.config), 2)
    assert [(r.share_above, r.n_anomaly, r.n_normal, r.unsupervised) for r in records] == [(0, 0, 0, 0)] * 2


def test_where_every_image_has_a_label_training_goes_on(make_trainer, make_feed):
    trainer = make_trainer()
    everything = {i: i % 2 for i in range(40)}
    records = run(trainer, make_feed(trainer.config, lambda: (1, everything)), 2)
    assert [r.share_above for r in records] == [0, 0]


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_statistics_of_batches_are_kept_or_followed(make_trainer, make_feed, freeze_norm):
    trainer = make_trainer(freeze_norm=freeze_norm)
    before = weights_of(trainer.model)
    run(trainer, make_feed(trainer.config), 1)
    names = [name for name in before if name.endswith("running_mean")]
    assert names
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) is freeze_norm for name in names)


def test_closing_the_steps_keeps_the_model_and_ends_the_threads(make_trainer, make_feed):
    trainer = make_trainer()
    before = set(threading.enumerate())
    steps = trainer.steps(100, make_feed(trainer.config))
    next(steps)
    next(steps)
    kept = weights_of(trainer.average)
    steps.close()
    assert trainer.step == 2
    assert are_equal(kept, weights_of(trainer.average))
    assert set(threading.enumerate()) <= before


def test_new_labels_enter_a_running_training(make_trainer, make_feed, monkeypatch):
    seen = []
    original = Trainer._step

    def spy(self, images):
        seen.append(images)
        return original(self, images)

    monkeypatch.setattr(Trainer, "_step", spy)
    now = [(1, {0: 1, 1: 0})]
    trainer = make_trainer()
    steps = trainer.steps(2, make_feed(trainer.config, lambda: now[0]))
    next(steps)
    now[0] = (2, {0: 1, 1: 0, 4: 1, 5: 0})
    next(steps)
    steps.close()
    different = [len({image.tobytes() for image in images.labelled}) for images in seen]
    assert different == [2, 4]


def test_a_class_without_a_label_stops_before_anything_is_counted(make_trainer, make_feed):
    trainer = make_trainer()
    with pytest.raises(TooFewLabelsError, match="Label at least one image as anomaly"):
        run(trainer, make_feed(trainer.config, lambda: (1, {1: 0})), 1)
    assert (trainer.step, trainer.cycle) == (0, 0)


def test_a_training_that_diverges_says_so_and_what_to_do(make_trainer, make_feed):
    trainer = make_trainer(learning_rate=1e12, gradient_clip=1e12)
    with pytest.raises(StateError, match=r"loss of step \d+ is (nan|inf).*smaller than 1e\+12"):
        run(trainer, make_feed(trainer.config), 20)


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make_trainer, make_feed):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))  # nothing draws from here
        trainer = make_trainer(seed=seed)
        run(trainer, make_feed(trainer.config), 3)
        results.append(weights_of(trainer.average))
    assert are_equal(results[0], results[1])
    assert not are_equal(results[0], results[2])


def test_the_global_random_state_is_not_touched(make_trainer, make_feed):
    before = torch.get_rng_state()
    trainer = make_trainer()
    run(trainer, make_feed(trainer.config), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_norms_and_biases_do_not_decay(make_trainer):
    trainer = make_trainer(weight_decay=0.1)
    for group in trainer.optimiser.param_groups:
        is_vector = {p.ndim <= 1 for p in group["params"]}
        assert is_vector == {group["weight_decay"] == 0}
    n = sum(len(group["params"]) for group in trainer.optimiser.param_groups)
    assert n == len(list(trainer.model.parameters()))


def test_a_long_gradient_is_cut_to_the_length_allowed(make_trainer, make_feed, monkeypatch):
    lengths = []
    step = torch.optim.SGD.step

    def spy(self, *args, **options):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        lengths.append(math.sqrt(sum(float((g**2).sum()) for g in gradients)))
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    trainer = make_trainer(gradient_clip=0.01)
    run(trainer, make_feed(trainer.config), 2)
    assert lengths == pytest.approx([0.01, 0.01], rel=1e-2)


def test_a_blank_trainer_asks_for_no_weights(light):
    config = light(weights="/no/such/file.safetensors")
    Trainer(config, 3, is_blank=True)
    with pytest.raises(WeightsError):
        Trainer(config, 3)


@pytest.mark.parametrize("name", ["cuda:99", "warp", "meta:0:1"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ConfigError, match=f"Device '{name}' cannot be used here.*device='auto' or 'cpu'"):
        choose_device(name)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, has_gpu):
    monkeypatch.setattr(trainer_module.torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")
