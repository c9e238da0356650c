"""How the instant tier and the trained model rank together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["blend"]

_Scores = NDArray[np.float32]


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
    """Return the normal scores of all; see `judge.normal_scores`, which is slower where all are wanted."""
    z: NDArray[np.float64] = ndtri(rankdata(scores) / (len(scores) + 1))
    return z
