"""The FixMatch objective (Sohn et al. 2020, arXiv 2001.07685)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FixMatchLoss", "PseudoLabels", "fixmatch_loss", "image_weights", "pseudo_labels"]


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


def image_weights(n_labelled: int, pseudo: PseudoLabels, *, unlabelled_weight: float) -> Tensor:
    """Return the weights w of the objective ``sum_i w_i CE_i`` over labelled images and strong views.

    It is eqs. 3 and 4, ``mean(CE(labelled)) + weight * mean(CE(strong, pseudo-label) * is_sure)``,
    written as one sum, so that it can be taken in parts.

    Parameters
    ----------
    n_labelled : int, B >= 1
    pseudo : PseudoLabels
        Of N images. N may be 0.
    unlabelled_weight : float, >= 0
        FixMatch's lambda.

    Returns
    -------
    Tensor of float32, shape (B + N,)
        1 / B for the labelled, lambda / N for strong views whose pseudo-label is sure, else 0.
    """
    is_sure = pseudo.is_sure.float()
    labelled = is_sure.new_full((n_labelled,), 1 / n_labelled)
    return torch.cat([labelled, unlabelled_weight / max(len(is_sure), 1) * is_sure])


def fixmatch_loss(
    losses: Tensor, n_labelled: int, pseudo: PseudoLabels, *, unlabelled_weight: float
) -> FixMatchLoss:
    """Return the objective and its two parts, from the cross-entropy of each image.

    Parameters
    ----------
    losses : Tensor of float32, shape (B + N,)
        Of the labelled images with their labels, then of the strong views with the pseudo-labels;
        those of views that are not sure do not matter, but are finite.
    n_labelled : int, B >= 1
    pseudo : PseudoLabels
        Of N images. N may be 0.
    unlabelled_weight : float, >= 0
        FixMatch's lambda.

    Returns
    -------
    FixMatchLoss
    """
    weighted = losses * image_weights(n_labelled, pseudo, unlabelled_weight=1.0)
    supervised, unsupervised = weighted[:n_labelled].sum(), weighted[n_labelled:].sum()
    return FixMatchLoss(supervised + unlabelled_weight * unsupervised, supervised, unsupervised)
