"""The gradient of a sum over images, a few images at a time, and fewer where the memory is short.

Where no layer mixes images (BatchNorm with its statistics frozen), the gradient of
``sum_i w_i KL(y_i, f(x_i))`` is the sum of those of its chunks, up to rounding. Chunks keep the
feature maps in the CPU's caches, and an image of weight 0 needs no pass at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

from .inference import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["backward_in_chunks", "chunk_size", "compute_in_chunks", "rows_to_learn"]

# tf_efficientnet_lite0 with two frozen stages, gradient of 96 images on 2 cores: at 64 px 0.28 s in chunks
# of 32, 0.22 s of 48 and 0.19 s at once; at 128 px 0.75 s in chunks of 16, 0.68 s of 24 and 0.77 s of 32,
# where big buffers cost page faults at each pass. At 192 px 12 and 16 at once take as long as each other.
_CHUNK_PIXELS = 12 * 192**2


def chunk_size(n_images: int, side: int, device: torch.device) -> int:
    """Return how many images to take at once; the last chunk may be smaller.

    Parameters
    ----------
    n_images : int, >= 1
        All that there are in a step; a step should have as many as any other, since for each new
        shape the CPU's kernels are compiled anew.
    side : int
        Of the images, in pixels.
    device : torch.device
        All at once where it is not the CPU.

    Returns
    -------
    int
        In [1, n_images].
    """
    if device.type != "cpu":
        return n_images
    most = max(1, min(_CHUNK_PIXELS // side**2, n_images))
    n_chunks = -(-n_images // most)
    return -(-n_images // n_chunks)


def rows_to_learn(weight: Tensor, n_labelled: int, size: int | None) -> Tensor:
    """Choose the unlabelled images whose strong views have to go through the model.

    They are those with a weight, as the others have no gradient; then so many others that the
    chunks are whole and of the same shape in each step.

    Parameters
    ----------
    weight : Tensor of float32, shape (N,)
    n_labelled : int
        Images that go through the model before them.
    size : int or None
        Of a chunk; None if the model mixes images.

    Returns
    -------
    Tensor of int64, shape (M,), M <= N
        On the CPU. All N where the model mixes images, or where they are on another device: to
        choose would be to wait for it.
    """
    n = len(weight)
    if size is None or weight.device.type != "cpu":
        return torch.arange(n)
    is_wanted = weight > 0
    wanted = n_labelled + int(is_wanted.sum())
    n_rows = min(n, -(-wanted // size) * size - n_labelled)
    return is_wanted.int().argsort(descending=True, stable=True)[:n_rows]


def compute_in_chunks(compute: Callable[[slice], Tensor], n: int, *, size: int) -> tuple[Tensor, int]:
    """Compute something of each image, without gradient.

    Parameters
    ----------
    compute : callable
        Takes which images, and returns a tensor whose first axis has their number. It must give each
        image the same whatever is beside it, and may be called again for the same images.
    n : int, >= 1
        Images.
    size : int
        Images at once. Where the device runs out of memory it is halved, and all begins again.

    Returns
    -------
    found : Tensor, shape (n, ...)
    size : int
        What fitted.

    Raises
    ------
    MemoryError
        If one image is too much.
    """
    while True:
        try:
            return torch.cat([compute(slice(i, i + size)) for i in range(0, n, size)]), size
        except RuntimeError as error:
            size = _halved(error, size, n)


def backward_in_chunks(
    model: nn.Module, x: Tensor, targets: Tensor, weights: Tensor, *, size: int | None
) -> tuple[Tensor, int | None]:
    """Compute the gradient of ``sum_i w_i KL(y_i, model(x_i))``, beginning from none.

    Parameters
    ----------
    model : nn.Module
        Maps images to logits. Gradients that it holds are dropped.
    x : Tensor of float32, shape (N, C, S, S)
    targets : Tensor of float32, shape (N, K)
        Probabilities of the classes.
    weights : Tensor of float32, shape (N,)
    size : int or None
        Images at once. Where the device runs out of memory it is halved, and all begins again.
        None: all, always, as a model that mixes images needs it.

    Returns
    -------
    log_probabilities : Tensor of float32, shape (N, K)
        Predictions, without gradient.
    size : int or None
        What fitted.

    Raises
    ------
    MemoryError
        If one image is too much, or all are that may not be parted.
    """
    while True:
        model.zero_grad()
        at_once = len(x) if size is None else size
        try:
            predictions = [
                _backward(model, *part)
                for part in zip(*(torch.split(t, at_once) for t in (x, targets, weights)), strict=True)
            ]
        except RuntimeError as error:
            size = _halved(error, size, len(x))
        else:
            return torch.cat(predictions), size


def _halved(error: RuntimeError, size: int | None, n: int) -> int:
    """Return how many images to take at once after this error, or raise it if it is another."""
    if not is_out_of_memory(error):
        raise error
    if size is None:
        raise MemoryError(
            f"The memory is not enough for the {n} images of a training step at once, and they cannot be "
            "parted: with freeze_norm=False, BatchNorm has to see them together. Train with "
            "freeze_norm=True, or with a smaller batch or unlabelled_ratio."
        ) from error
    if size == 1:
        raise MemoryError(
            "The memory is not enough for one image of a training step. Take a smaller backbone or smaller "
            "images, freeze more of the network (frozen_stages), or close other programs."
        ) from error
    return -(-min(size, n) // 2)


def _backward(model: nn.Module, x: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    log_probabilities: Tensor = model(x).float().log_softmax(1)
    divergences = F.kl_div(log_probabilities, targets, reduction="none").sum(1)
    (divergences * weights).sum().backward()  # type: ignore[no-untyped-call]
    return log_probabilities.detach()
