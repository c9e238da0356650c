"""The FixMatch objective (Sohn et al. 2020, arXiv 2001.07685)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

__all__ = ["FixMatchLoss", "PseudoLabels", "fixmatch_loss", "pseudo_labels"]


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """What the model believes of unlabelled images.

    Attributes
    ----------
    target : Tensor of int64, shape (N,)
        The likelier class of each image.
    is_sure : Tensor of bool, shape (N,)
        Whether its probability reaches the confidence threshold.
    """

    target: Tensor
    is_sure: Tensor


@dataclass(frozen=True, slots=True)
class FixMatchLoss:
    """The objective and its two parts, each a scalar tensor."""

    total: Tensor
    supervised: Tensor
    unsupervised: Tensor


def pseudo_labels(weak_logits: Tensor, threshold: float) -> PseudoLabels:
    """Turn predictions on weak views into pseudo-labels.

    Parameters
    ----------
    weak_logits : Tensor of float32, shape (N, K)
        Without gradient.
    threshold : float, in (0, 1]
        Probability that the likelier class has to reach (FixMatch's tau).

    Returns
    -------
    PseudoLabels
    """
    confidence, target = weak_logits.softmax(1).max(1)
    return PseudoLabels(target, confidence >= threshold)


def fixmatch_loss(
    labelled_logits: Tensor,
    labels: Tensor,
    strong_logits: Tensor,
    pseudo: PseudoLabels,
    *,
    unlabelled_weight: float,
) -> FixMatchLoss:
    """Return CE(labelled) + weight * mean(CE(strong, pseudo-label) * is_sure), eqs. 3 and 4.

    Parameters
    ----------
    labelled_logits : Tensor of float32, shape (B, K)
    labels : Tensor of int64, shape (B,)
    strong_logits : Tensor of float32, shape (N, K)
        Of the strong views of the images that `pseudo` speaks of. N may be 0.
    pseudo : PseudoLabels
    unlabelled_weight : float, >= 0
        FixMatch's lambda.

    Returns
    -------
    FixMatchLoss
    """
    supervised = F.cross_entropy(labelled_logits, labels)
    if len(strong_logits):
        per_image = F.cross_entropy(strong_logits, pseudo.target, reduction="none")
        unsupervised = (per_image * pseudo.is_sure).mean()
    else:
        unsupervised = torch.zeros_like(supervised)
    return FixMatchLoss(supervised + unlabelled_weight * unsupervised, supervised, unsupervised)
