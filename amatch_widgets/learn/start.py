"""A classifier that starts where the instant tier stands: on its vectors, with its ranking."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

from .backbone import N_CLASSES, Classifier
from .taps import map_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .projection import Projection

__all__ = ["Start", "VectorClassifier", "VectorShape"]


@dataclass(frozen=True, slots=True)
class VectorShape:
    """What has to be known to build a `VectorClassifier` whose weights will be loaded.

    Attributes
    ----------
    side : int
        Pixels that images are resized to.
    n_views : {1, 4}
        Views that scores are the mean of; see `Embedder`.
    n_features, dims : int
        Length of the raw features and of the vectors.
    """

    side: int
    n_views: int
    n_features: int
    dims: int


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Where the deep tier starts from.

    Attributes
    ----------
    projection : Projection
        From the raw features to the vectors.
    side, n_views : int
        Pixels at which the images were embedded, and views of each.
    weights : ndarray of float32, shape (dims,)
    bias : float
        ``vectors @ weights + bias`` are the logits of *anomaly* that the training starts with; they
        rank as the instant tier does.
    likely : ndarray of int64, shape (N,)
        Positions of images that the instant tier ranks highest.
    logits : ndarray of float, shape (M,), M >= 1
        These logits, of all images that have vectors.
    """

    projection: Projection
    side: int
    n_views: int
    weights: NDArray[np.float32]
    bias: float
    likely: NDArray[np.int64]
    logits: NDArray[np.float64]

    @property
    def shape(self) -> VectorShape:
        """What the classifier has to look like."""
        matrix, _ = self.projection.as_affine()
        return VectorShape(self.side, self.n_views, *matrix.shape)

    def share_sure(self, threshold: float) -> float:
        """Return the share of the images whose likelier class has a probability of `threshold` or more."""
        least = math.log(threshold / (1 - threshold)) if threshold < 1 else math.inf
        return float((np.abs(self.logits) >= least).mean())


class VectorClassifier(Classifier):
    """A network whose head sees the instant tier's vectors: whitened statistics of its feature maps.

    At the start it gives every image the instant tier's score (of one view); training then moves
    the network and the head, the projection stays.

    Parameters
    ----------
    base : Classifier
        Its network is taken over, its head is left unused.
    shape : VectorShape
        The projection and the head are 0 until they are set by `begin` or loaded.
    """

    matrix: Tensor
    shift: Tensor

    def __init__(self, base: Classifier, shape: VectorShape) -> None:
        super().__init__(base.network, base.mean.flatten().tolist(), base.std.flatten().tolist())
        self.shape, self.side = shape, shape.side
        base.head.requires_grad_(requires_grad=False)
        self.register_buffer("matrix", torch.zeros(shape.n_features, shape.dims))
        self.register_buffer("shift", torch.zeros(shape.dims))
        self.vector_head = nn.Linear(shape.dims, N_CLASSES)
        nn.init.zeros_(self.vector_head.weight)
        nn.init.zeros_(self.vector_head.bias)

    @property
    def head(self) -> nn.Linear:
        """The linear layer on the vectors."""
        return self.vector_head

    @torch.no_grad()
    def begin(self, start: Start) -> None:
        """Set the projection, and the head to the instant tier's ranking."""
        matrix, shift = start.projection.as_affine()
        self.matrix.copy_(torch.from_numpy(matrix))
        self.shift.copy_(torch.from_numpy(shift))
        # Half on each logit: their difference is the ranking.
        half = torch.from_numpy(start.weights / 2).to(self.head.weight)
        self.head.weight.copy_(torch.stack([-half, half]))
        self.head.bias.copy_(torch.tensor([-start.bias / 2, start.bias / 2]))

    def features(self, x: Tensor) -> Tensor:
        """Return the vectors, float32 of shape (N, dims), of images (N, C, H, W) in [0, 1]."""
        if x.shape[2] != self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear", align_corners=False)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        found = map_statistics(self.network, lambda: self.network.forward_features(x))
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([value for _, value in found], 1) @ self.matrix - self.shift

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of shape (N, 2) for images of shape (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    @torch.no_grad()
    def on_features(self) -> tuple[NDArray[np.float32], float]:
        """Return weights, shape (n_features,), and a bias: the logit of *anomaly* from raw features."""
        # Summed row by row: how a matrix product rounds depends on the number of threads, and each
        # process that scores the same images makes these numbers anew.
        weight, bias = (
            np.diff(x.cpu().double().numpy(), axis=0)[0] for x in (self.head.weight, self.head.bias)
        )
        matrix, shift = (x.cpu().double().numpy() for x in (self.matrix, self.shift))
        return (matrix * weight).sum(1).astype(np.float32), float(bias - (shift * weight).sum())
