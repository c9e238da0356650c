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
    spread : float or None
        Standard deviation of the logits that the trained network gave the labelled images of the step;
        near 0 if it cannot tell any image from another. None in records of older versions, as below.
    right : float, in [0, 1], or None
        Share of the labelled images of a class that it takes for that class, of the worse class.
    sure_random : float, in [0, 1], or None
        Share of the random unlabelled images alone whose pseudo-label reaches the threshold; None also
        where they are fewer than 8.
    meant : float, in [0, 1], or None
        What that share is by the scores that the training starts from, 0 for a linear probe; of the
        first step from a start only.
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
    spread: float | None = None
    right: float | None = None
    sure_random: float | None = None
    meant: float | None = None
