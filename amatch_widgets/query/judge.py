"""Whether the trained model may rank: judged by labels that it has not learnt from.

Judging is prequential (Dawid 1984, "Present position and potential developments: the prequential
approach"): a label tests the trained model and the instant fit that ranked when it was given, both
of labels before it. So the question is whether the model adds to what the instant tier knows now.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

__all__ = ["MIN_JUDGED", "Judgement", "judge", "normal_among", "normal_scores"]

MIN_JUDGED = 5
"""With fewer anomalies, or fewer normals, nothing can be said and the instant tier ranks alone."""

_CONFIDENCE = 0.95  # that the trained model adds to the ranking
_MAX_WEIGHT = 2.0
_LEAST_SLOPE = 0.25  # of the instant tier, where it tells little: the weight is a ratio of slopes
_CLOSE = 1e-12  # squared distance to the mode, in standard deviations, at which Newton's method ends
_MAX_STEPS = 100  # about 10 are taken
# What is believed of the intercept and of both slopes before any label: the instant tier ranks alone.
# Its slope is left free (with anomalies at z of 3 to 4 it is as large). Were it held near 1, what is
# missing would go to any model that resembles the instant tier: of 200 simulated hunts of 5 pages,
# 94 judged a blurred copy of it better with a standard deviation of 0.5, and 8 with 2.
_MEAN = np.array([0.0, 1.0, 0.0])
_SD = np.array([10.0, 2.0, 0.5])

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the labels since its training say of the trained model.

    Attributes
    ----------
    weight : float, in [0, 2]
        Of the trained model beside the instant tier's 1; 0 when it was not judged better.
    probability : float, in [0, 1]
        That it adds to what the instant tier tells; NaN if there are too few labels.
    n_anomalies, n_normals : int
        Labels it rests on.
    """

    weight: float
    probability: float
    n_anomalies: int
    n_normals: int

    def __str__(self) -> str:
        since = (
            f"{self.n_anomalies:,} {'anomaly' if self.n_anomalies == 1 else 'anomalies'} and "
            f"{self.n_normals:,} {'normal' if self.n_normals == 1 else 'normals'}"
        )
        if min(self.n_anomalies, self.n_normals) < MIN_JUDGED:
            return f"too few labels since to judge it ({since}; {MIN_JUDGED} of each needed)"
        percent = int(100 * self.probability)  # rounded down: 94.9 % is not the 95 % that are needed
        if self.weight:
            return f"judged better ({percent} % sure that it adds, weight {self.weight:.2g}; {since} since)"
        return (
            f"not judged better ({percent} % sure that it adds, {100 * _CONFIDENCE:.0f} % needed; "
            f"{since} since)"
        )


def normal_scores(scores: NDArray[np.float32], at: NDArray[np.int64]) -> _Floats:
    """Return normal scores (van der Waerden): standard normal quantiles at the ranks.

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
        Scores of all images; not finite where there is none.
    at : ndarray of int64, shape (M,)
        Positions of the images wanted.

    Returns
    -------
    ndarray of float64, shape (M,)
        Among all images with a score, ties counted half; NaN where an image has none.
    """
    return normal_among(scores[at], np.sort(scores[np.isfinite(scores)]))


def normal_among(values: NDArray[np.float32], ordered: NDArray[np.float32]) -> _Floats:
    """Return the normal scores of some values; see `normal_scores`.

    Parameters
    ----------
    values : ndarray of float32, shape (M,)
        Some of `ordered`; not finite where there is none.
    ordered : ndarray of float32, shape (N,)
        All finite scores, rising.

    Returns
    -------
    ndarray of float64, shape (M,)
    """
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    z: _Floats = ndtri((below + upto + 1) / 2 / (len(ordered) + 1))
    return np.where(np.isfinite(values), z, np.nan)


def judge(
    instant: _Floats, deep: _Floats, is_anomaly: NDArray[np.bool_], weights: _Floats | None = None
) -> Judgement:
    """Judge whether the trained model adds to what the instant tier tells of new images.

    The model is a logistic regression, logit P(anomaly) = a + b_i * z_i + b_d * z_d, on the normal
    scores of both, with the prior a ~ N(0, 10^2), b_i ~ N(1, 2^2), b_d ~ N(0, 0.5^2). The
    posterior is taken for a normal around its mode (Laplace), and the trained model is judged
    better if b_d > 0 with a probability of 95 %. Its weight is then b_d / b_i, at most 2.

    Parameters
    ----------
    instant, deep : ndarray of float64, shape (M,)
        Normal scores of images that neither has learnt from; an image without both is left out.
    is_anomaly : ndarray of bool, shape (M,)
        What the images turned out to be.
    weights : ndarray of float64, shape (M,), >= 0, optional
        How much each counts; default 1.

    Returns
    -------
    Judgement

    Notes
    -----
    People label what ranks high, so ranks among the labelled images would favour the tier that did
    not choose them. A regression asks for the answer *given* both scores, and where these scores
    (or chance) chose the image, the answer does not depend on the choice. Hence the instant scores
    have to be those of the fit that ranked when the label was given: were an earlier one tested, of
    the time of the training, the fits that choose would know more than it, and an image shown in
    spite of a low score would be likelier an anomaly than that score says. In simulated hunts a
    useful model that takes part in choosing was then demoted.

    Its limits: the linear form is trusted outside the top, where nobody looks. A wrong promotion
    shows in the next pages as normals with a high z_d, which lowers b_d. And the scores of all
    instant fits are taken to tell as much as one another; while the tier improves fast, a useful
    model that takes part in choosing is thought less of than it deserves, and may be demoted.
    """
    is_rated = np.isfinite(instant) & np.isfinite(deep)
    x = np.column_stack([np.ones(len(instant)), instant, deep])[is_rated]
    y = np.asarray(is_anomaly, bool)[is_rated]
    w = np.ones(len(y)) if weights is None else weights[is_rated]
    n_anomalies = int(y.sum())
    n_normals = len(y) - n_anomalies
    if min(n_anomalies, n_normals) < MIN_JUDGED:
        return Judgement(0.0, float("nan"), n_anomalies, n_normals)
    mode, covariance = _posterior(x, y, w)
    probability = float(ndtr(mode[2] / np.sqrt(covariance[2, 2])))
    weight = float(np.clip(mode[2] / max(mode[1], _LEAST_SLOPE), 0, _MAX_WEIGHT))
    return Judgement(weight if probability >= _CONFIDENCE else 0.0, probability, n_anomalies, n_normals)


def _posterior(x: _Floats, y: NDArray[np.bool_], w: _Floats) -> tuple[_Floats, _Floats]:
    """Return mode and covariance of (a, b_i, b_d), by Newton's method with halved steps.

    The loss is strictly convex thanks to the prior, so this ends at the mode from anywhere, also
    where the records could be told apart without error.
    """

    def loss(b: _Floats) -> float:
        logit = x @ b
        return float(w @ (np.logaddexp(0, logit) - y * logit) + (((b - _MEAN) / _SD) ** 2).sum() / 2)

    b = _MEAN
    for _ in range(_MAX_STEPS):
        p = expit(x @ b)
        gradient = x.T @ (w * (p - y)) + (b - _MEAN) / _SD**2
        hessian = x.T @ (x * (w * p * (1 - p))[:, None]) + np.diag(1 / _SD**2)
        step = -np.linalg.solve(hessian, gradient)
        if -gradient @ step < _CLOSE:
            break
        while loss(b + step) > loss(b) + gradient @ step / 4:
            step /= 2
        b = b + step
    return b, np.linalg.inv(hessian)
