"""The FixMatch objective (Sohn et al. 2020, arXiv 2001.07685), with hard or soft pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

__all__ = [
    "FixMatchLoss",
    "Lessons",
    "PseudoLabels",
    "fixmatch_loss",
    "lessons",
    "pseudo_labels",
]


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """What the model believes of unlabelled images.

    Attributes
    ----------
    target : Tensor of float32, shape (N, K)
        Probabilities that the strong view is taught.
    weight : Tensor of float32, shape (N,)
        1 for images that are learnt from, else 0.
    is_sure : Tensor of bool, shape (N,)
        Whether the likelier class reaches the confidence threshold.
    """

    target: Tensor
    weight: Tensor
    is_sure: Tensor


@dataclass(frozen=True, slots=True)
class FixMatchLoss:
    """The objective and its two parts, each a scalar tensor."""

    total: Tensor
    supervised: Tensor
    unsupervised: Tensor


def pseudo_labels(weak_logits: Tensor, threshold: float, *, kind: Literal["soft", "hard"]) -> PseudoLabels:
    """Turn predictions on weak views into pseudo-labels.

    Parameters
    ----------
    weak_logits : Tensor of float32, shape (N, K)
        Without gradient.
    threshold : float, in (0, 1]
        Probability that the likelier class has to reach to be sure (FixMatch's tau).
    kind : {"soft", "hard"}
        "hard" is FixMatch: the likelier class, of the sure images alone. "soft" teaches each image
        the probabilities as they are, as Mean Teacher does (Tarvainen & Valpola 2017, arXiv
        1703.01780): a rare class, which is seldom sure, is then learnt about, too.

    Returns
    -------
    PseudoLabels
    """
    probability = weak_logits.softmax(1)
    confidence, likelier = probability.max(1)
    is_sure = confidence >= threshold
    if kind == "soft":
        return PseudoLabels(probability, torch.ones_like(confidence), is_sure)
    target = F.one_hot(likelier, weak_logits.shape[1]).to(probability)
    return PseudoLabels(target, is_sure.to(probability), is_sure)


@dataclass(frozen=True, slots=True)
class Lessons:
    """What each image of a step is taught, and how much it counts.

    The objective is ``sum_i weight_i KL(target_i, prediction_i)``, up to a constant: one sum over all
    images, so that it can be taken in parts.

    Attributes
    ----------
    target : Tensor of float32, shape (B + N, K)
        Probabilities; of the labelled images, then of the unlabelled ones.
    weight : Tensor of float32, shape (B + N,)
        0 for images that nothing is learnt from.
    """

    target: Tensor
    weight: Tensor


def lessons(
    labels: Tensor, pseudo: PseudoLabels, n_likely: int, *, unlabelled_weight: float, background: float
) -> Lessons:
    """Write the objective as one sum.

    It is the mean of ``CE(labelled)`` and, `background` times, of ``CE(random, normal)``, divided by
    1 + `background`; plus `unlabelled_weight` times the mean of ``KL(pseudo-label, strong view)``,
    eqs. 3 and 4 of the paper. That random images are taken for normal is nearly always right where
    anomalies are rare; without it the normals are only the few that have a label.

    Parameters
    ----------
    labels : Tensor of int64, shape (B,), B >= 1
        0 is normal.
    pseudo : PseudoLabels
        Of N images. N may be 0.
    n_likely : int, in [0, N]
        So many of them, the first, are likely anomalies; the others are random images.
    unlabelled_weight : float, >= 0
        FixMatch's lambda.
    background : float, >= 0
        Weight of the random images beside 1 for the labelled ones.

    Returns
    -------
    Lessons
    """
    n, n_classes = pseudo.target.shape
    background = background if n > n_likely else 0.0
    supervised = pseudo.weight.new_full((len(labels),), 1 / (1 + background) / len(labels))
    by_pseudo = unlabelled_weight / max(n, 1) * pseudo.weight
    as_normal = torch.zeros_like(by_pseudo)
    as_normal[n_likely:] = background / (1 + background) / max(n - n_likely, 1)
    weight = by_pseudo + as_normal
    taught = by_pseudo[:, None] * pseudo.target
    taught[:, 0] += as_normal
    known = F.one_hot(labels, n_classes).to(pseudo.target)
    return Lessons(
        torch.cat([known, taught / weight.clamp_min(torch.finfo(weight.dtype).tiny)[:, None]]),
        torch.cat([supervised, weight]),
    )


def fixmatch_loss(
    log_probabilities: Tensor,
    labels: Tensor,
    pseudo: PseudoLabels,
    n_likely: int,
    *,
    unlabelled_weight: float,
    background: float,
) -> FixMatchLoss:
    """Return the objective and its two parts.

    Parameters
    ----------
    log_probabilities : Tensor of float32, shape (B + N, K)
        Predictions on the labelled images, then on the strong views; those of views that nothing is
        learnt from do not matter, but are finite.
    labels, pseudo, n_likely, unlabelled_weight, background
        As for `lessons`.

    Returns
    -------
    FixMatchLoss
        `supervised` has the labelled images and, as normals, the random ones.
    """
    known, strong = log_probabilities[: len(labels)], log_probabilities[len(labels) :]
    background = background if len(strong) > n_likely else 0.0
    supervised = F.nll_loss(known, labels)
    if background:
        supervised = (supervised - background * strong[n_likely:, 0].mean()) / (1 + background)
    divergence = F.kl_div(strong, pseudo.target, reduction="none").sum(1)
    unsupervised = (divergence * pseudo.weight).sum() / max(len(strong), 1)
    return FixMatchLoss(supervised + unlabelled_weight * unsupervised, supervised, unsupervised)
