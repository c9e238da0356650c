"""Gradients in chunks: the same as at once, and less at a time where the memory is short."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from amatch_widgets.learn.backbone import build_classifier
from amatch_widgets.learn.chunks import (
    backward_in_chunks,
    chunk_size,
    compute_in_chunks,
    rows_to_learn,
)

CPU = torch.device("cpu")
ON_A_GPU = torch.OutOfMemoryError("CUDA out of memory.")
ON_A_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")


class Short(nn.Module):
    """A model whose device holds only so many images."""

    def __init__(self, holds, error=ON_A_GPU):
        super().__init__()
        self.linear, self.holds, self.seen, self.error = nn.Linear(12, 2), holds, [], error

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.holds:
            raise self.error
        return self.linear(x.flatten(1))


def case(n=10, side=2, weight=1.0):
    generator = torch.Generator().manual_seed(5)
    x = torch.rand((n, 3, side, side), generator=generator)
    targets = torch.rand((n, 1), generator=generator)
    return x, torch.cat([targets, 1 - targets], 1), weight * torch.rand(n, generator=generator)


def gradients(model):
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def expected(model, x, targets, weights):
    """Give the predictions and the gradients by one ordinary pass."""
    model.zero_grad()
    logits = model(x)
    (F.cross_entropy(logits, targets, reduction="none") * weights).sum().backward()
    return logits.detach().log_softmax(1), gradients(model)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("size", [1, 3, 5, 10, 64])
def test_chunks_give_the_gradient_of_one_pass(name, size):
    model = build_classifier(name, weights="random").eval()
    side = 160 if name == "test_vit" else 32
    given = case(10, side)
    predictions, wanted = expected(model, *given)
    found, _ = backward_in_chunks(model, *given, size=size)
    torch.testing.assert_close(found, predictions, rtol=1e-4, atol=1e-5)
    length = torch.cat([g.flatten() for g in wanted]).norm()
    assert length > 1e-3
    apart = torch.cat([(a - b).flatten() for a, b in zip(gradients(model), wanted, strict=True)]).norm()
    assert apart < 1e-4 * length


def test_a_model_that_mixes_images_sees_all_at_once():
    model = build_classifier("test_resnet", weights="random").train()
    given = case(40, 32)
    _, wanted = expected(model, *given)
    _, size = backward_in_chunks(model, *given, size=None)
    assert size is None
    for a, b in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_older_gradients_are_dropped():
    model = Short(64)
    _, wanted = expected(model, *case())
    for _ in range(2):
        backward_in_chunks(model, *case(), size=4)
    for a, b in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("error", [ON_A_GPU, ON_A_CPU], ids=["gpu", "cpu"])
def test_short_memory_halves_the_chunks_until_they_fit_and_counts_no_image_twice(error):
    model = Short(64, error)
    predictions, wanted = expected(model, *case())
    model.holds, model.seen = 3, []
    found, size = backward_in_chunks(model, *case(), size=10)
    assert size == 3
    assert model.seen == [10, 5, 3, 3, 3, 1]
    torch.testing.assert_close(found, predictions)
    for a, b in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_half_a_chunk_that_fitted_before_the_memory_ran_out_is_forgotten():
    class Later(Short):
        def forward(self, x):
            self.holds = 64 if len(self.seen) != 1 else 0  # the second chunk does not fit
            return super().forward(x)

    model = Later(64)
    _, wanted = expected(model, *case())
    model.seen = []
    _, size = backward_in_chunks(model, *case(), size=4)
    assert (size, model.seen) == (2, [4, 4, 2, 2, 2, 2, 2])
    for a, b in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("size", "advice"),
    [(10, "for one image"), (None, "10 images of a training step at once.*freeze_norm=True")],
)
def test_too_little_for_what_cannot_be_parted_is_an_error_that_says_why(size, advice):
    model = Short(0)
    with pytest.raises(MemoryError, match=advice):
        backward_in_chunks(model, *case(), size=size)
    assert model.seen[-1] == (10 if size is None else 1)


def test_another_error_is_not_taken_for_short_memory():
    model = Short(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        backward_in_chunks(model, *case(), size=10)
    assert model.seen == [10]


@pytest.mark.parametrize("error", [ON_A_GPU, ON_A_CPU], ids=["gpu", "cpu"])
def test_what_needs_no_gradient_is_computed_in_chunks_that_fit(error):
    model, x = Short(64, error), case()[0]
    with torch.no_grad():
        wanted = model(x)
        model.holds, model.seen = 3, []
        found, size = compute_in_chunks(lambda part: model(x[part]), len(x), size=10)
        assert (size, model.seen) == (3, [10, 5, 3, 3, 3, 1])
        torch.testing.assert_close(found, wanted)
        model.holds = 0
        with pytest.raises(MemoryError, match="for one image"):
            compute_in_chunks(lambda part: model(x[part]), len(x), size=4)


@pytest.mark.parametrize(
    ("n", "side", "size"),
    [(96, 64, 96), (96, 128, 24), (96, 192, 12), (96, 1024, 1), (12, 64, 12), (1, 64, 1), (130, 64, 65)],
)
def test_chunks_on_a_cpu_are_even_and_bounded(n, side, size):
    assert chunk_size(n, side, CPU) == size


def test_another_device_takes_all_at_once():
    assert chunk_size(5000, 512, torch.device("meta")) == 5000


def wanted(*rows, n=80):
    return torch.zeros(n).index_fill(0, torch.tensor(rows, dtype=torch.int64), value=0.5)


@pytest.mark.parametrize(
    ("n_wanted", "n_rows"), [(0, 16), (1, 16), (16, 16), (17, 48), (48, 48), (49, 80), (80, 80)]
)
def test_all_views_with_a_weight_are_learnt_from_in_whole_chunks(n_wanted, n_rows):
    chosen = range(79, 79 - n_wanted, -1)
    rows = rows_to_learn(wanted(*chosen), 16, 32)
    assert len(rows) == len(set(rows.tolist())) == n_rows
    assert set(rows.tolist()) >= set(chosen)


def test_labelled_images_that_fill_their_chunks_need_no_others():
    assert rows_to_learn(wanted(n=8), 32, 32).tolist() == []
    assert rows_to_learn(wanted(3, n=8), 32, 32).tolist()[0] == 3


def test_where_nothing_may_be_left_out_all_are_learnt_from():
    assert rows_to_learn(wanted(3), 16, None).tolist() == list(range(80))
    assert len(rows_to_learn(torch.zeros(7, device="meta"), 2, 4)) == 7


def test_without_unlabelled_images_there_are_no_rows():
    assert rows_to_learn(wanted(n=0), 16, 16).tolist() == []
