"""The training loop: what a step does, what it measures, and where it stops."""

from __future__ import annotations

import contextlib
import math
import threading

import pytest
import torch

from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, StateError, TooFewLabelsError, WeightsError
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn import chunks as chunks_module
from amatch_widgets.learn import trainer as trainer_module
from amatch_widgets.learn.anchor import Anchor
from amatch_widgets.learn.augment import to_float
from amatch_widgets.learn.feed import Feed
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
        assert r.spread > 0
        assert r.right in (0, 0.5, 1)  # of two images of each class
        assert r.sure_random == r.share_above  # all are random ones
        assert (r.meant == 0) == (r.step == 1)
    assert trainer.step == 3
    assert trainer.cycle == 1


def test_at_step_1_no_pseudo_label_is_sure(make_trainer, make_feed):
    trainer = make_trainer(unlabelled_ratio=8, pseudo_labels="hard")
    (record,) = run(trainer, make_feed(trainer.config), 1)
    assert record.share_above == 0
    assert record.unsupervised == 0


def test_training_changes_both_models_and_the_average_follows_slowly(make_trainer, make_feed):
    trainer = make_trainer()
    steps = trainer.steps(2, make_feed(trainer.config))
    next(steps)
    model, average = weights_of(trainer.model), weights_of(trainer.average)
    next(steps)
    name = "network.fc.weight"
    assert not torch.equal(trainer.model.state_dict()[name], model[name])
    # after step k it keeps k / (k + 9) of itself
    torch.testing.assert_close(
        trainer.average.state_dict()[name], 2 / 11 * average[name] + 9 / 11 * trainer.model.state_dict()[name]
    )
    assert not trainer.average.training


@pytest.mark.parametrize(("ema", "kept"), [(0.99, 2 / 11), (0.05, 0.05), (0, 0)])
def test_the_average_never_keeps_more_of_itself_than_it_is_told(make_trainer, make_feed, ema, kept):
    trainer = make_trainer(ema=ema)
    steps = trainer.steps(2, make_feed(trainer.config))
    next(steps)
    name = "network.fc.weight"
    before = weights_of(trainer.average)[name]
    next(steps)
    after, model = weights_of(trainer.average)[name], weights_of(trainer.model)[name]
    torch.testing.assert_close(after, kept * before + (1 - kept) * model)


def test_the_loss_of_the_labels_falls(make_trainer, make_feed):
    trainer = make_trainer(unlabelled_ratio=0, learning_rate=0.005, batch=8, frozen_stages=0)
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
    trainer = make_trainer(freeze_norm=freeze_norm, frozen_stages=0)
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
    original = Trainer._look

    def spy(self, images):
        seen.append(images)
        return original(self, images)

    monkeypatch.setattr(Trainer, "_look", spy)
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


def test_a_gradient_that_is_not_finite_ends_the_training_as_its_loss_does(make_trainer, make_feed):
    trainer = make_trainer()
    steps = trainer.steps(3, make_feed(trainer.config))
    next(steps)
    trainer.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(StateError, match=r"gradient of step 2 is (nan|inf)"):
        next(steps)


@pytest.mark.parametrize(("weight_decay", "is_finite"), [(1e10, False), (0, True)], ids=["weights", "scores"])
def test_weights_that_an_update_spoilt_are_told_from_sound_ones(
    make_trainer, make_feed, weight_decay, is_finite
):
    sound = make_trainer()
    run(sound, make_feed(sound.config), 1)
    sound.check()
    spoilt = make_trainer(learning_rate=1e38, weight_decay=weight_decay)
    (record,) = run(spoilt, make_feed(spoilt.config), 1)
    assert math.isfinite(record.loss)  # it is that of the weights before
    assert all(value.isfinite().all() for value in spoilt.average.state_dict().values()) == is_finite
    with pytest.raises(StateError, match="weights after step 1, or their scores, are not finite"):
        spoilt.check()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(make_trainer, make_feed):
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))  # nothing draws from here
        trainer = make_trainer(seed=seed)
        run(trainer, make_feed(trainer.config), 3)
        results.append(weights_of(trainer.average))
    assert are_equal(results[0], results[1])
    assert not are_equal(results[0], results[2])


def test_images_that_do_not_fit_the_memory_train_the_same_model(make_trainer):
    source, labels = sky(40, size=32, prevalence=0.25), {i: int(i % 4 == 0) for i in range(16)}
    results = []
    for n_kept in (40, 3, 0):
        pool = PixelPool(source, Preprocess(size=32), budget_bytes=n_kept * 32 * 32 * 3)
        trainer = make_trainer()
        feed = Feed(pool, len(pool), lambda: (1, labels), batch=4, n_unlabelled=8, seed=0)
        run(trainer, feed, 4)
        assert pool.n_cached <= n_kept
        results.append(weights_of(trainer.average))
    assert are_equal(results[0], results[1])
    assert are_equal(results[0], results[2])


def test_the_global_random_state_is_not_touched(make_trainer, make_feed):
    before = torch.get_rng_state()
    trainer = make_trainer()
    run(trainer, make_feed(trainer.config), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({"dihedral": True}, 1e-3),
        ({"dihedral": False}, 2e-4),
        ({"dihedral": False, "learning_rate": 0.5}, 0.5),
    ],
)
def test_photographs_get_a_smaller_learning_rate_unless_one_is_named(make_trainer, options, rate):
    trainer = make_trainer(**{"learning_rate": None, **options})
    assert {group["lr"] for group in trainer.optimiser.param_groups} == {rate}


def test_norms_and_biases_do_not_decay(make_trainer):
    trainer = make_trainer(weight_decay=0.1, frozen_stages=0)
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


def test_the_anchor_pulls_each_weight_back_to_where_the_cycle_began():
    model = torch.nn.Linear(2, 1)
    model.weight.data = torch.tensor([[1.0, -2.0]])
    anchor = Anchor(1, {"weight": torch.tensor([[0.5, -2.0]]), "bias": torch.zeros(1)})
    model.weight.grad = torch.tensor([[0.1, 0.2]])
    anchor.pull(model, 3.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[1.6, 0.2]]))  # 0.1 + 3 (1 - 0.5)
    assert model.bias.grad is None  # nothing is learnt there, so nothing is to be undone


def test_a_strong_anchor_keeps_the_network_near_where_each_cycle_began(make_trainer, make_feed):
    def moved(l2_sp):
        trainer = make_trainer(l2_sp=l2_sp, learning_rate=1e-2, momentum=0.0)
        before = weights_of(trainer.model)["network.layer4.0.conv1.weight"]
        run(trainer, make_feed(trainer.config), 6)
        return trainer, (weights_of(trainer.model)["network.layer4.0.conv1.weight"] - before).norm()

    free, held = moved(0), moved(50.0)
    assert free[0].anchor is None
    assert 0 < held[1] < 0.7 * free[1]
    trainer = held[0]
    name = "network.layer4.0.conv1.weight"
    assert not torch.equal(trainer.anchor.weights[name], weights_of(trainer.model)[name])
    steps = trainer.steps(1, make_feed(trainer.config))
    began = weights_of(trainer.model)[name]
    next(steps)
    assert trainer.anchor.cycle == 2
    torch.testing.assert_close(trainer.anchor.weights[name], began)


def gradients_of(trainer, images):
    """Give the gradient of the next step, and what it measured."""
    trainer._train_mode()
    measured = trainer._learn(trainer._look(images))
    return [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None], measured.tolist()


@pytest.fixture
def images(make_feed, light):
    feed = make_feed(light(batch=8, unlabelled_ratio=4))
    with contextlib.closing(feed.steps(0)) as steps:
        return next(steps)


@torch.no_grad()
def spread_confidence(trainer, images):
    """Let about half of the unlabelled images reach a confidence of 0.6."""
    head = trainer.model.head
    x = to_float(trainer._to_device(images.unlabelled))
    anomaly = trainer.model.eval()(x).diff(dim=1)
    centre = anomaly.median()
    scale = math.log(0.6 / 0.4) / (anomaly - centre).abs().median()
    head.weight.mul_(scale)
    head.bias.copy_(scale * (head.bias + torch.stack([centre, -centre]) / 2))
    trainer._ema.set(trainer.model)


@pytest.mark.parametrize("threshold", [0.5001, 0.6, 1.0])
def test_chunks_and_views_left_out_change_nothing(make_trainer, images, monkeypatch, threshold):
    options = {
        "freeze_norm": True,
        "pseudo_labels": "hard",
        "background": 0,
        "threshold": threshold,
        "gradient_clip": 1e9,
        "frozen_stages": 1,
    }
    once = make_trainer(**options)
    spread_confidence(once, images)
    parted = make_trainer(**options)
    parted.model.load_state_dict(once.model.state_dict())
    parted._ema.set(parted.model)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "rows_to_learn", lambda weight, *_: torch.arange(len(weight)))
        wanted, measured = gradients_of(once, images)
    monkeypatch.setattr(chunks_module, "_CHUNK_PIXELS", 6 * 32**2)
    seen = []
    parted.model.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    found, same = gradients_of(parted, images)
    assert set(seen) <= {6, 2}  # of 8 labelled and 24 others
    n_sure = round(measured[3] * 24)
    assert sum(seen) == min(32, math.ceil((8 + n_sure) / 6) * 6)
    assert (n_sure == 24, n_sure == 0) == (threshold < 0.6, threshold == 1)
    assert same == pytest.approx(measured, rel=1e-4, abs=1e-5)
    length = torch.cat([g.flatten() for g in wanted]).norm()
    apart = torch.cat([(a - b).flatten() for a, b in zip(found, wanted, strict=True)]).norm()
    assert apart < 1e-4 * length


def test_frozen_stages_do_not_change_in_either_model_and_the_rest_does(make_trainer, make_feed):
    trainer = make_trainer(frozen_stages=2, freeze_norm=False, weight_decay=0.1, learning_rate=0.3, ema=0.5)
    before = weights_of(trainer.model)
    run(trainer, make_feed(trainer.config), 3)
    for model in (trainer.model, trainer.average):
        for name, value in model.state_dict().items():
            is_frozen = name.startswith(("network.conv1", "network.bn1", "network.layer1", "network.layer2"))
            assert torch.equal(value, before[name]) == is_frozen, name


def test_more_stages_than_there_are_cannot_be_frozen(make_trainer):
    with pytest.raises(ConfigError, match=r"frozen_stages=9\).*from 0 .* to 4"):
        make_trainer(frozen_stages=9)


def test_memory_that_ran_out_once_is_remembered(make_trainer, make_feed, monkeypatch):
    trainer = make_trainer(freeze_norm=True, threshold=0.5001)
    seen = []

    def be_short(_module, given):
        seen.append(len(given[0]))
        if len(given[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.model.register_forward_pre_hook(be_short)
    run(trainer, make_feed(trainer.config), 2)
    assert seen == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3]


def short_of_memory(compute, most, seen):
    """Let a function that takes images, as many as `rows` tells, have memory for `most` of them."""

    def short(images, *args, rows=None, **options):
        n = len(images if rows is None else rows)
        seen.append(n)
        if n > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(images, *args, rows=rows, **options)

    return short


def test_views_and_pseudo_labels_are_made_in_parts_where_the_memory_is_short(
    make_trainer, make_feed, monkeypatch
):
    options = {"freeze_norm": True, "threshold": 0.5001}
    whole = make_trainer(**options)
    wanted = run(whole, make_feed(whole.config), 2)
    seen = {name: [] for name in ("weak_view", "strong_view", "features")}
    for name in ("weak_view", "strong_view"):
        short = short_of_memory(getattr(trainer_module, name), 3, seen[name])
        monkeypatch.setattr(trainer_module, name, short)
    trainer = make_trainer(**options)
    features = trainer.average.features
    short = short_of_memory(lambda x, rows: features(x), 2, seen["features"])
    monkeypatch.setattr(trainer.average, "features", short)
    records = run(trainer, make_feed(trainer.config), 2)
    assert [r.loss for r in records] == pytest.approx([r.loss for r in wanted], rel=1e-4)
    assert [r.share_above for r in records] == [r.share_above for r in wanted]
    assert seen["weak_view"][:3] == [4, 2, 2]  # the labelled ones; later all are made by two
    assert max(seen["weak_view"][1:] + seen["strong_view"] + seen["features"]) == 2


def test_views_made_in_parts_are_the_same_to_the_bit(make_trainer, images):
    trainer = make_trainer(freeze_norm=True)
    trainer._train_mode()
    whole = trainer._look(images)
    trainer._looks = 3
    torch.testing.assert_close(trainer._look(images).x, whole.x, rtol=0, atol=0)


def test_a_model_that_has_to_see_all_images_at_once_says_so_where_the_memory_is_short(
    make_trainer, make_feed
):
    trainer = make_trainer(freeze_norm=False)

    def be_short(_module, _given):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.model.register_forward_pre_hook(be_short)
    with pytest.raises(MemoryError, match=r"12 images of a training step at once.*freeze_norm=True"):
        run(trainer, make_feed(trainer.config), 1)


def test_the_distance_of_the_models_is_measured_now_and_then(make_trainer, make_feed, monkeypatch):
    monkeypatch.setattr(trainer_module, "_COMPARE_EVERY", 2)
    trainer = make_trainer(ema=0.9)
    records = run(trainer, make_feed(trainer.config), 3)
    assert [r.distance is None for r in records] == [True, False, True]
    apart = [
        ((p - q).detach().norm().item(), q.detach().norm().item())
        for p, q in zip(trainer.model.parameters(), trainer.average.parameters(), strict=True)
        if p.requires_grad
    ]
    assert trainer._distance() == pytest.approx(
        math.hypot(*(a for a, _ in apart)) / math.hypot(*(b for _, b in apart))
    )
    assert 0 < records[1].distance < 1


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
