"""What a training step measures, computed on the device and fetched without holding it up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

if TYPE_CHECKING:
    from .fixmatch import FixMatchLoss, PseudoLabels

__all__ = ["OnItsWay", "measure"]

_NAMES = (
    "loss",
    "supervised",
    "unsupervised",
    "share_above",
    "n_normal",
    "n_anomaly",
    "sure_random",
    "spread",
    "right",
    "gradient",
)
_COUNTS = ("n_normal", "n_anomaly")
_FEWEST = 8  # random images that a share of them is worth telling of


def measure(
    loss: FixMatchLoss,
    predictions: Tensor,
    labels: Tensor,
    pseudo: PseudoLabels,
    *,
    n_likely: int,
    gradient: Tensor,
) -> Tensor:
    """Put together what a step measured; see `StepRecord`.

    Parameters
    ----------
    loss : FixMatchLoss
    predictions : Tensor of float32, shape (B, 2)
        Logarithms of probabilities of the labelled images.
    labels : Tensor of int64, shape (B,)
        Of both classes.
    pseudo : PseudoLabels
        Of N unlabelled images. N may be 0.
    n_likely : int, in [0, N]
        So many of them, the first, are likely anomalies; the others are random images.
    gradient : Tensor of float32, shape ()
        Length of the gradient.

    Returns
    -------
    Tensor of float32, shape (10,)
        What `OnItsWay` takes. Nothing here waits for a GPU.
    """
    n_classes = predictions.shape[1]
    random = pseudo.is_sure[n_likely:].float()
    sure = F.one_hot(pseudo.target.argmax(1), n_classes) * pseudo.is_sure[:, None]
    own = F.one_hot(labels, n_classes)
    right = (own * F.one_hot(predictions.argmax(1), n_classes)).sum(0) / own.sum(0)
    return torch.stack(
        [
            loss.total,
            loss.supervised,
            loss.unsupervised,
            pseudo.is_sure.float().mean().nan_to_num(0.0),  # of no image
            *sure.sum(0).float(),
            random.mean() if len(random) >= _FEWEST else torch.full_like(loss.total, math.nan),
            predictions.diff(dim=1).std(),
            right.min(),
            gradient,
        ]
    )


class OnItsWay:
    """What `measure` gave and a GPU has still to compute; asking waits for it and nothing later."""

    def __init__(self, values: Tensor) -> None:
        self._values, self._there = values, None
        if values.is_cuda:
            self._values = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record(torch.cuda.current_stream(values.device))

    def get(self) -> dict[str, Any]:
        """Return the numbers by name; None for a share of too few images."""
        if self._there is not None:
            self._there.synchronize()
        found = dict(zip(_NAMES, self._values.tolist(), strict=True))
        found |= {name: int(found[name]) for name in _COUNTS}
        return found | {"sure_random": None if math.isnan(found["sure_random"]) else found["sure_random"]}
