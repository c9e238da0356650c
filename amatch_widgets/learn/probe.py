"""A linear probe on frozen features: where the head starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from .augment import to_float

if TYPE_CHECKING:
    from .backbone import Classifier
    from .feed import LabelledImages

__all__ = ["start_head"]

# Inverse strength of the L2 penalty on standardised features: a strong penalty, as there are far
# more features than labels, so that few images start above the confidence threshold.
_INVERSE_PENALTY = 3e-3
_BATCH = 128


def start_head(model: Classifier, labelled: LabelledImages) -> None:
    """Set the model's head to a class-balanced logistic regression on its features.

    Linear probing before fine-tuning keeps the pretrained features from being torn about by a
    random head (Kumar et al. 2022, arXiv 2202.10054).

    Parameters
    ----------
    model : Classifier
        Its head is overwritten; it is left in the mode (training or not) that it was in.
    labelled : LabelledImages
        With both classes.
    """
    features = _features(model, labelled).double().cpu().numpy()
    # Standardised per feature, then all scaled by one number to a mean length of the root of their
    # number: both fold into the head's weights.
    mean, std = features.mean(0), features.std(0) + 1e-3
    standard = (features - mean) / std
    scale = 1 / max(float(np.linalg.norm(standard, axis=1).mean()), 1e-12) * np.sqrt(features.shape[1])
    probe = LogisticRegression(C=_INVERSE_PENALTY, class_weight="balanced", max_iter=1000)
    probe.fit(standard * scale, labelled.classes)
    weight = probe.coef_[0] * scale / std
    bias = probe.intercept_[0] - float(weight @ mean)
    head = model.head
    with torch.no_grad():
        # Half on each logit: their difference is the probe's decision function.
        half = torch.tensor(weight / 2, dtype=head.weight.dtype, device=head.weight.device)
        head.weight.copy_(torch.stack([-half, half]))
        head.bias.copy_(torch.tensor([-bias / 2, bias / 2]))


@torch.no_grad()
def _features(model: Classifier, labelled: LabelledImages) -> Tensor:
    device, was_training = model.head.weight.device, model.training
    model.eval()
    parts = []
    for start in range(0, len(labelled.images), _BATCH):
        x = torch.from_numpy(labelled.images[start : start + _BATCH]).to(device).permute(0, 3, 1, 2)
        parts.append(model.features(to_float(x).contiguous(memory_format=torch.channels_last)))
    model.train(was_training)
    return torch.cat(parts)
