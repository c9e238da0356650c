"""What a training step measures; apart, so that reading records needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StepRecord"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one training step measured.

    Attributes
    ----------
    step : int
        Counted over the whole session, from 1.
    cycle : int
        From 1.
    loss, supervised, unsupervised : float
        The objective and its two parts.
    share_above : float, in [0, 1]
        Share of the unlabelled images whose pseudo-label reaches the confidence threshold.
    n_anomaly, n_normal : int
        Pseudo-labels of each class above the threshold in this step.
    seconds : float
        Wall time of the step.
    distance : float or None
        How far the trained weights are from their average, relative to its length; measured in
        some steps only.
    """

    step: int
    cycle: int
    loss: float
    supervised: float
    unsupervised: float
    share_above: float
    n_anomaly: int
    n_normal: int
    seconds: float
    distance: float | None = None
