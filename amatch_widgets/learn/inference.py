"""Run a trained network over many images, as fast as the device allows."""

from __future__ import annotations

import copy
import itertools
import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from amatch_widgets.errors import ConfigError

from .augment import to_float
from .fold import fold_batch_norm
from .transfer import to_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .backbone import Classifier

__all__ = ["Inference", "Precision", "has_bfloat16", "is_out_of_memory"]

Precision = Literal["auto", "float32", "bfloat16"]

# Pixels that go through the network at once. On a CPU buffers that outgrow the caches cost page
# faults at each pass: tf_efficientnet_lite0 did 895 images/s of 128 px in chunks of 32 and 569 in
# chunks of 128 (2 cores, bfloat16). A GPU wants to be kept busy, and says when it is too much.
_CHUNK_PIXELS = {"cpu": 32 * 128**2, "cuda": 512 * 128**2}
# On one thread PyTorch computes fewer images than these by other kernels, which round otherwise (its
# use_mkldnn, in Convolution.cpp), and one alone on any number of threads. They are filled up.
_FEWEST = 16
_MOST_CHUNKS = 2  # what a chunk may grow to for that: images of 256 px on a CPU
_TRIAL_SHARE = 4  # part of a chunk that is enough to compare two precisions
_TRIAL_ROUNDS = 5
_WORTH_IT = 1.2  # how many times faster bfloat16 has to be; less is not told from noise

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")  # PyTorch's words on a CPU

_chosen: dict[tuple[str, str, int], torch.dtype] = {}
"""The precision that was faster, by device, architecture and side of the images."""


class Inference:
    """A copy of a classifier that only looks: BatchNorm folded, low precision where that is faster.

    The convolutions run in float32 or bfloat16; their last feature maps are pooled and classified
    in float32, so that bfloat16, which knows 8 bits, does not tie the ranks of images.

    Which precision is faster is measured before the first images, once in a process for each device,
    architecture and side of the images. Two processes on the same machine may choose differently
    where the two are about as fast; the results of an image then differ by the rounding of bfloat16
    (a relative 2**-8 in each layer) and by nothing else. Name the precision where that matters.

    In one precision an image has the same result, bit by bit, whatever is beside it, in chunks of
    any size and on any number of threads, on a CPU; short chunks are filled up for that. Another
    kind of device, a chunk cut down for want of memory, or images beyond 256 px on one thread may
    round otherwise.

    Parameters
    ----------
    model : Classifier
        Copied as it is now, on the device where it is; neither changed nor looked at later.
    precision : {"auto", "float32", "bfloat16"}
        Of the convolutions.

    Raises
    ------
    ConfigError
        If `precision` is another word.

    Notes
    -----
    Thread safety: none; one thread at a time.
    """

    def __init__(self, model: Classifier, *, precision: Precision = "auto") -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"precision={precision!r}: allowed is 'auto', 'float32' or 'bfloat16'.")
        self._exact: Classifier = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._device = self._exact.head.weight.device
        self._precision = precision
        self._body: Any = None  # made when the first images show their size
        self._chunk_pixels = _CHUNK_PIXELS.get(self._device.type, _CHUNK_PIXELS["cpu"])
        self._is_cramped = False  # the memory was not enough for a chunk

    def __repr__(self) -> str:
        return f"Inference({type(self._exact.network).__name__}, {self._device}, {self.precision})"

    @property
    def precision(self) -> str:
        """What the convolutions run in; "auto" until the first images have been seen."""
        if self._body is None:
            return self._precision
        return str(self._body_dtype).removeprefix("torch.")

    @property
    def network(self) -> Any:
        """The network that makes the feature maps; there once images have been seen."""
        return self._body

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify images.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, S, S, C)
            N may be 0.

        Returns
        -------
        ndarray of float32, shape (N, 2)

        Raises
        ------
        RuntimeError
            If the memory is not enough for one image.
        """
        if not len(images):
            return np.empty((0, self._exact.head.out_features), np.float32)
        return self.run(images, self._classify)

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the softmax probability of the class *anomaly*, in [0, 1].

        Parameters
        ----------
        images : ndarray of uint8, shape (N, S, S, C)
            N may be 0.

        Returns
        -------
        ndarray of float32, shape (N,)
        """
        logits = torch.from_numpy(self.logits(images))
        scores: NDArray[np.float32] = logits.softmax(1)[:, 1].numpy()
        return scores

    def run(
        self, images: NDArray[np.uint8], compute: Callable[[Tensor], Tensor], *, side: int | None = None
    ) -> NDArray[np.float32]:
        """Compute something of each image, in chunks that fit the device.

        A chunk that does not fit the memory is halved and tried again; later ones stay that small.

        Parameters
        ----------
        images : ndarray of uint8, shape (N, S, S, C), N >= 1
        compute : callable
            Takes a chunk, float32 of shape (n, C, S, S) in [0, 1] on the device, and returns a tensor
            whose first axis has length n. Called without gradient. It must give each image the same
            whatever is beside it, and may be called again for the same images.
        side : int, optional
            Side at which `compute` shows them to the network, by default S: it sets the size of a
            chunk.

        Returns
        -------
        ndarray of float32, shape (N, ...)

        Raises
        ------
        RuntimeError
            If the memory is not enough for one image.
        """
        pixels = (side or images.shape[1]) ** 2
        parts: list[Tensor] = []
        start = 0
        while start < len(images):
            n = max(self._chunk_pixels // pixels, self._fewest(pixels))
            chunk = images[start : start + n]
            n_here = len(chunk)
            if n_here < min(n, _FEWEST):
                chunk = np.take(chunk, range(min(n, _FEWEST)), axis=0, mode="wrap")
            part = self._try(chunk, compute, side or images.shape[1])
            if part is None:
                # the chunk may have been shorter than it was allowed to be
                self._chunk_pixels, self._is_cramped = n_here // 2 * pixels, True
                continue
            parts.append(part[:n_here])
            start += n
        found: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()  # one wait for the device
        return found

    def maps(self, x: Tensor) -> Tensor:
        """Return the last feature maps, in the precision chosen; for use within `run`.

        Parameters
        ----------
        x : Tensor of float32, shape (n, C, H, W)
            In [0, 1].

        Returns
        -------
        Tensor
            What timm's ``forward_features`` gives for the network.
        """
        maps: Tensor = self._body.forward_features(self._normalised(x).to(self._body_dtype))
        return maps

    def _fewest(self, pixels: int) -> int:
        """Return how many images of so many pixels a chunk has at least."""
        has_room = not self._is_cramped and _FEWEST * pixels <= _MOST_CHUNKS * self._chunk_pixels
        return _FEWEST if torch.get_num_threads() == 1 and has_room else 1

    def _classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self._exact.network.forward_head(self.maps(x).float())
        return logits

    def _normalised(self, x: Tensor) -> Tensor:
        x = (x - self._exact.mean) / self._exact.std
        return x.contiguous(memory_format=torch.channels_last)

    def _try(
        self, images: NDArray[np.uint8], compute: Callable[[Tensor], Tensor], side: int
    ) -> Tensor | None:
        """Compute one chunk; None if the memory is not enough but might be for fewer images."""
        try:
            if self._body is None:
                self._prepare(side)
            with torch.inference_mode():
                return compute(self._to_device(images))
        except RuntimeError as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
        # Here, where the error and the tensors in its traceback are gone.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _to_device(self, images: NDArray[np.uint8]) -> Tensor:
        """Copy NHWC images to the device as NCHW in [0, 1]; the strides become ``channels_last``."""
        return to_float(to_device(images, self._device).permute(0, 3, 1, 2))

    @torch.no_grad()
    def _prepare(self, side: int) -> None:
        """Fold BatchNorm and choose the precision, on noise as large as the images to come."""
        n = max(1, self._chunk_pixels // side**2 // _TRIAL_SHARE)
        shape = (n, self._exact.mean.shape[1], side, side)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self._device)
        x = self._normalised(x)
        network = fold_batch_norm(self._exact.network, x[:2])
        dtype = self._dtype(network, x)
        self._exact.network = network
        self._body_dtype = dtype
        self._body = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)

    def _dtype(self, network: nn.Module, x: Tensor) -> torch.dtype:
        if self._precision != "auto":
            return torch.bfloat16 if self._precision == "bfloat16" else torch.float32
        if not has_bfloat16(self._device):
            return torch.float32
        configuration = getattr(network, "pretrained_cfg", None) or {}
        name = configuration.get("architecture") or type(network).__name__
        key = (str(self._device), name, x.shape[2])
        if key not in _chosen:
            _chosen[key] = _faster(network, x)
        return _chosen[key]


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is more than an emulation there; other devices were never tried."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    is_native: bool = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 (there is no other)
    return is_native


def _faster(network: nn.Module, x: Tensor) -> torch.dtype:
    """Time both precisions in turns, so that a busy moment of the machine meets both."""
    low = copy.deepcopy(network).to(torch.bfloat16)
    trials: list[tuple[nn.Module, Tensor]] = [(network, x), (low, x.to(torch.bfloat16))]
    best = [float("inf")] * 2
    for turn, (i, (module, images)) in itertools.product(range(1 + _TRIAL_ROUNDS), enumerate(trials)):
        seconds = _seconds(module, images)
        if turn:  # the first makes buffers and kernels ready
            best[i] = min(best[i], seconds)
    return torch.bfloat16 if best[0] > _WORTH_IT * best[1] else torch.float32


@torch.inference_mode()
def _seconds(network: Any, x: Tensor) -> float:
    # On a CPU the time of the processor: a clock on the wall would time what else the machine does.
    clock = time.process_time if x.device.type == "cpu" else time.perf_counter
    started = clock()
    network.forward_features(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return clock() - started


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device had no memory left; PyTorch has an error of its own for GPUs alone."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
