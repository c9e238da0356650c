"""Fast inference gives what the model gives, in any chunks, whatever runs out of memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from amatch_widgets.errors import ConfigError
from amatch_widgets.learn import inference
from amatch_widgets.learn.augment import to_float
from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.inference import Inference

SIDE = 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return build_classifier("test_resnet", weights="random")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (21, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch):
    monkeypatch.setattr(inference, "_chosen", {})


@torch.no_grad()
def plain(model, images):
    return model.eval()(to_float(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()


def in_chunks_of(n, monkeypatch):
    monkeypatch.setattr(inference, "_CHUNK_PIXELS", {"cpu": n * SIDE**2})


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet", "test_convnext"])
def test_logits_are_the_models(name, images):
    model = build_classifier(name, weights="random")
    found = Inference(model, precision="float32").logits(images)
    assert found.dtype == np.float32
    wanted = plain(model, images)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_scores_are_the_probability_of_an_anomaly(model, images):
    found = Inference(model, precision="float32").scores(images)
    assert found.dtype == np.float32
    assert found.shape == (21,)
    wanted = torch.from_numpy(plain(model, images)).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_bfloat16_is_near_and_ties_no_ranks(images):
    model = build_classifier("tf_efficientnet_lite0")
    model.head.weight.data.mul_(20)
    low = Inference(model, precision="bfloat16")
    scores, wanted = low.scores(images), Inference(model, precision="float32").scores(images)
    assert low.network.conv_stem.weight.dtype == torch.bfloat16
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(scores, wanted, atol=0.1 * np.ptp(wanted))
    assert not np.array_equal(scores, wanted)  # it was indeed done otherwise
    assert len(np.unique(scores)) == len(scores)
    # 8 bits of a score would be its own bfloat16
    assert not np.array_equal(scores, torch.from_numpy(scores).bfloat16().float().numpy())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_neither_chunks_nor_neighbours_matter(model, images, monkeypatch, precision):
    wanted = Inference(model, precision=precision).logits(images)
    for n in (1, 4, 20):
        in_chunks_of(n, monkeypatch)
        found = Inference(model, precision=precision).logits(images)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        Inference(model, precision=precision).logits(images[::-1].copy())[::-1], wanted, rtol=1e-3, atol=1e-5
    )


def test_it_is_a_copy_that_leaves_the_model_alone(model, images):
    model.train()
    before = [value.clone() for value in model.state_dict().values()]
    fast = Inference(model, precision="float32")
    first = fast.logits(images)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    weight = model.head.weight.detach().clone()
    model.head.weight.data.zero_()
    try:
        np.testing.assert_array_equal(fast.logits(images), first)
    finally:
        model.head.weight.data.copy_(weight)


def test_of_no_images_there_is_nothing(model):
    none = np.empty((0, SIDE, SIDE, 3), np.uint8)
    assert Inference(model).logits(none).shape == (0, 2)
    assert Inference(model).scores(none).shape == (0,)


def test_an_unknown_precision_is_refused(model):
    with pytest.raises(ConfigError, match="allowed is 'auto'"):
        Inference(model, precision="float16")


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, float32, bfloat16):
        self.seconds = {torch.float32: float32, torch.bfloat16: bfloat16}
        self.asked = []

    def __call__(self, network, x):
        self.asked.append(x.dtype)
        return self.seconds[x.dtype]


@pytest.mark.parametrize(
    ("seconds", "wanted"), [((2.0, 1.0), "bfloat16"), ((1.0, 2.0), "float32"), ((1.1, 1.0), "float32")]
)
def test_the_faster_precision_is_measured_once(model, images, monkeypatch, seconds, wanted):
    clock = Clock(*seconds)
    monkeypatch.setattr(inference, "_seconds", clock)
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: True)
    fast = Inference(model)
    assert fast.precision == "auto"
    fast.logits(images)
    assert fast.precision == wanted
    n_asked = len(clock.asked)
    assert clock.asked.count(torch.float32) == clock.asked.count(torch.bfloat16) == n_asked / 2 > 0
    again = Inference(model)
    again.logits(images)
    assert again.precision == wanted
    assert len(clock.asked) == n_asked
    Inference(model).logits(np.zeros((1, 2 * SIDE, 2 * SIDE, 3), np.uint8))  # another side
    assert len(clock.asked) > n_asked


def test_a_device_without_bfloat16_is_not_even_timed(model, images, monkeypatch):
    clock = Clock(2.0, 1.0)
    monkeypatch.setattr(inference, "_seconds", clock)
    monkeypatch.setattr(inference, "has_bfloat16", lambda device: False)
    fast = Inference(model)
    fast.logits(images)
    assert fast.precision == "float32"
    assert not clock.asked


def test_the_real_clock_finds_one_of_the_two(model, images):
    fast = Inference(model)
    fast.logits(images)
    assert fast.precision in {"float32", "bfloat16"}
    assert inference.has_bfloat16(CPU) == bool(inference._chosen)


class Cramped:
    """Memory for few images at once, as a device would tell."""

    def __init__(self, n_fit, error):
        self.n_fit, self.error, self.sizes = n_fit, error, []

    def __call__(self, x):
        self.sizes.append(len(x))
        if len(x) > self.n_fit:
            raise self.error
        return x.mean((1, 2, 3))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_chunk_that_does_not_fit_is_halved_and_no_image_is_lost(model, images, error):
    fast, compute = Inference(model, precision="float32"), Cramped(6, error)
    found = fast.run(images, compute)
    np.testing.assert_allclose(found, images.mean((1, 2, 3)) / 255, rtol=1e-5)
    assert compute.sizes == [21, 10, 5, 5, 5, 5, 5]
    compute.sizes.clear()
    fast.run(images, compute)
    assert compute.sizes == [5, 5, 5, 5, 5]  # learnt; the last is filled up


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_when_one_image_does_not_fit_the_error_is_passed_on(model, images, error):
    compute = Cramped(0, error)
    with pytest.raises(type(error), match=str(error)[:20]):
        Inference(model, precision="float32").run(images, compute)
    assert compute.sizes == [21, 10, 5, 2, 1]


def test_any_other_error_is_passed_on_at_once(model, images):
    compute = Cramped(0, RuntimeError("the shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        Inference(model, precision="float32").run(images, compute)
    assert compute.sizes == [21]


def test_the_side_at_which_images_are_shown_sets_the_chunks(model, images, monkeypatch):
    in_chunks_of(8, monkeypatch)
    compute = Cramped(21, None)
    Inference(model, precision="float32").run(images, compute, side=2 * SIDE)
    assert compute.sizes == [2] * 11


def test_on_one_thread_a_chunk_of_middling_images_holds_sixteen_and_of_large_ones_no_more(
    model, images, monkeypatch
):
    """Fewer are computed by other kernels there; large ones would take the memory."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    many = np.concatenate([images, images])[:32]
    for n, wanted in ((8, [16, 16]), (7, [7, 7, 7, 7, 7])):
        in_chunks_of(n, monkeypatch)
        compute = Cramped(32, None)
        Inference(model, precision="float32").run(many, compute)
        assert compute.sizes == wanted


def test_the_caller_does_not_end_up_in_inference_mode(model, images):
    Inference(model).logits(images)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_gpu_gives_the_same(model, images, precision):
    found = Inference(build_classifier("test_resnet", weights="random").cuda(), precision=precision)
    wanted = plain(model, images)
    np.testing.assert_allclose(found.logits(images), wanted, atol=0.05 * np.abs(wanted).max())
