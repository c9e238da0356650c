"""Whether the trained model may rank: judged against the instant tier on anomalies new to both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata
from scipy.stats import t as student_t

__all__ = ["WEIGHTS", "Judgement", "blend", "judge"]

WEIGHTS = (0.5, 1.0, 2.0)
"""Weights of the trained model beside the instant tier's 1 that are tried."""

MIN_JUDGED = 5
"""With fewer held-out anomalies nothing can be said, and the instant tier ranks alone."""

_CONFIDENCE = 0.95  # one-sided, of the paired gain being above 0
_POOL = 4000  # images without a label that the judged ones are ranked among
_NONE = 0.0

_Scores = NDArray[np.float32]
_Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the held-out anomalies say of the trained model.

    Attributes
    ----------
    weight : float, >= 0
        Of the trained model beside the instant tier's 1; 0 when it was not judged better.
    gain : float
        Mean gain in log-rank over the judged anomalies with the best weight; ln 2 means that it
        halves the number of images to look at before an anomaly. NaN if there are too few.
    lower : float
        Lower end of the one-sided 95 % interval (Student's t) of the gain; NaN likewise.
    n : int
        Anomalies it rests on.
    """

    weight: float
    gain: float
    lower: float
    n: int

    def __str__(self) -> str:
        if self.n < MIN_JUDGED:
            return f"too few anomalies were kept from it to judge it, {self.n} of {MIN_JUDGED}"
        saved = f"{np.exp(-self.gain):.2f} times the looks per anomaly, on {self.n} held out"
        return f"judged better ({saved})" if self.weight else f"not judged better ({saved})"


def judge(
    instant: _Scores, deep: _Scores, anomalies: _Indices, others: _Indices, *, seed: int = 0
) -> Judgement:
    """Compare how high two models rank anomalies that neither has seen, paired by anomaly.

    The measure is the log of an anomaly's rank among images without a label: what a hunt pays
    for. The weight with the largest mean gain is kept if that gain is surely above 0; three
    weights are tried for one test, so the level is divided among them (Bonferroni).

    Parameters
    ----------
    instant, deep : ndarray of float32, shape (N,)
        Scores of both; NaN where there is none.
    anomalies : ndarray of int64, shape (M,)
        Anomalies that neither model has learnt from.
    others : ndarray of int64, shape (K,)
        Images without a label; at most 4,000 of them, drawn at random, are used.
    seed : int
        Of that draw.

    Returns
    -------
    Judgement
    """
    if len(others) > _POOL:
        others = np.sort(np.random.default_rng(seed).choice(others, _POOL, replace=False))
    is_rated = np.isfinite(instant) & np.isfinite(deep)
    anomalies, others = anomalies[is_rated[anomalies]], others[is_rated[others]]
    if len(anomalies) < MIN_JUDGED or not len(others):
        return Judgement(_NONE, float("nan"), float("nan"), len(anomalies))
    both = np.concatenate([anomalies, others])
    z_instant, z_deep = _normal(instant[both]), _normal(deep[both])
    n = len(anomalies)
    alone = _log_ranks(z_instant, n)
    best = Judgement(_NONE, -np.inf, -np.inf, n)
    for weight in WEIGHTS:
        gains = alone - _log_ranks(z_instant + weight * z_deep, n)
        gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(n))
        if gain > best.gain:
            quantile = float(student_t.ppf(1 - (1 - _CONFIDENCE) / len(WEIGHTS), n - 1))
            lower = gain - quantile * error
            best = Judgement(weight if lower > 0 else _NONE, gain, lower, n)
    return best


def blend(instant: _Scores, deep: _Scores, weight: float) -> _Scores:
    """Order images by the instant tier's and the trained model's normal scores together.

    Parameters
    ----------
    instant, deep : ndarray of float32, shape (N,)
        Scores of both; NaN where there is none.
    weight : float, > 0
        Of `deep`, beside 1 for `instant`.

    Returns
    -------
    ndarray of float32, shape (N,)
        The values of `instant`, dealt out in the new order, so that the distribution stays. An
        image that only `instant` has rated keeps its place among those.
    """
    rated = np.flatnonzero(np.isfinite(instant))
    if not len(rated):
        return instant
    ours, theirs = instant[rated], deep[rated]
    z = _normal(ours)
    is_deep = np.isfinite(theirs)
    total = (1 + weight) * z
    total[is_deep] = z[is_deep] + weight * _normal(theirs[is_deep])
    mixed = instant.copy()
    # equal sums (images both models tie on) go by index, as everywhere
    mixed[rated[np.argsort(total, kind="stable")]] = np.sort(ours)
    return mixed


def _normal(scores: _Scores) -> NDArray[np.float64]:
    """Return normal scores (van der Waerden): the quantiles of a standard normal at the ranks."""
    z: NDArray[np.float64] = ndtri(rankdata(scores) / (len(scores) + 1))
    return z


def _log_ranks(z: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the log of the ranks of the first `n` among the others, ties counted half; rank 1 is best."""
    others = np.sort(z[n:])
    above = len(others) - np.searchsorted(others, z[:n], "right")
    equal = np.searchsorted(others, z[:n], "right") - np.searchsorted(others, z[:n], "left")
    ranks: NDArray[np.float64] = np.log(1 + above + equal / 2)
    return ranks
