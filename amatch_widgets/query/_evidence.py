"""What labelled vectors say: where the anomalies lie, and in which spaces that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Labelled", "choose_spaces", "regression"]

_Floats = NDArray[np.float32]

_WEAK = 2000  # images of the pool, taken for normal by the regression: rare objects among them are few
_RANKED = 3000  # images of the pool, against which a left-out anomaly is ranked
_LEFT_OUT = 256  # at most so many anomalies are left out in turn: bounds the time of a fit
# Measured on the four cases of the bench and nine more, seeds 0-2: no value beside these gained more
# than twice its standard error in found anomalies, AUPRC and precision, on these cases and 17 others.
_AWAY = 0.75  # how far the mean of the normals is subtracted from that of the anomalies
_SHARPNESS = 3.0  # of the choice of spaces: their weights are softmax(-3 * log-rank)
# Of the regression, for vectors of about unit length. Chosen anew for each fit between 10 and this,
# by 10-fold cross-validation on the labels, it ranked worse: AUPRC lower by 0.004 +- 0.001.
_INVERSE_PENALTY = 100.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """The vectors of the labelled images, and of the sample of the pool without them."""

    anomalies: _Floats
    normals: _Floats
    others: _Floats

    @property
    def away(self) -> _Floats:
        """What is subtracted from the mean of the anomalies; without normals the pool's mean, 0."""
        if not len(self.normals):
            return np.zeros(self.anomalies.shape[1], np.float32)
        return np.asarray(np.float32(_AWAY) * self.normals.mean(0))


def choose_spaces(known: Labelled, spaces: Sequence[slice]) -> tuple[_Floats, float]:
    """Weigh the spaces by how well each finds labelled anomalies again that it was not shown.

    Parameters
    ----------
    known : Labelled
        With at least one anomaly.
    spaces : sequence of slice
        The columns of each space.

    Returns
    -------
    ndarray of float32, shape (len(spaces),)
        The weights, together 1; all equal where no anomaly can be left out.
    float
        Mean logarithm of the share of the pool that ranks above a left-out anomaly, by the
        weighted prototypes of the others; NaN where no anomaly can be left out.
    """
    if len(known.anomalies) < 2 or not len(known.others):  # noqa: PLR2004 one cannot be left out
        return np.full(len(spaces), 1 / len(spaces), np.float32), np.nan
    pool = known.others[:_RANKED]
    tested = known.anomalies[:: -(-len(known.anomalies) // _LEFT_OUT)]
    ranks, of_pool, of_tested = [], [], []
    for space in spaces:
        # The prototype of all anomalies but one, for each one.
        total, rest = known.anomalies[:, space].sum(0), len(known.anomalies) - 1
        prototypes = (total - tested[:, space]) / rest - known.away[space]
        scores = pool[:, space] @ prototypes.T
        own = np.einsum("md,md->m", tested[:, space], prototypes)
        ranks.append(_log_ranks(scores, own).mean())
        mean, spread = scores.mean(0), np.maximum(scores.std(0), np.finfo(np.float32).tiny)
        of_pool.append((scores - mean) / spread)
        of_tested.append((own - mean) / spread)
    weights = np.exp(-_SHARPNESS * (np.array(ranks) - min(ranks)))
    weights = (weights / weights.sum()).astype(np.float32)
    mixed = sum(w * s for w, s in zip(weights, of_pool, strict=True))
    mixed_own = sum(w * s for w, s in zip(weights, of_tested, strict=True))
    return weights, float(_log_ranks(mixed, mixed_own).mean())


def regression(known: Labelled) -> _Floats:
    """Return the direction of a logistic regression of the anomalies against all else.

    Labelled anomalies, labelled normals and random images of the pool have the same total weight.

    Parameters
    ----------
    known : Labelled
        With at least one anomaly.

    Returns
    -------
    ndarray of float32, shape (D,)
        The coefficients; zeros if there is nothing to tell the anomalies from.
    """
    groups = [g for g in (known.anomalies, known.normals, known.others[:_WEAK]) if len(g)]
    if len(groups) < 2:  # noqa: PLR2004 nothing to tell the anomalies from
        return np.zeros(known.anomalies.shape[1], np.float32)
    weights = np.concatenate([np.full(len(group), 1 / len(group)) for group in groups])
    is_anomaly = np.arange(len(weights)) < len(known.anomalies)
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    model.fit(np.concatenate(groups), is_anomaly, sample_weight=weights)
    coefficients: _Floats = model.coef_[0].astype(np.float32)
    return coefficients


def _log_ranks(scores: _Floats, own: _Floats) -> NDArray[np.float64]:
    """Return the logarithm of the share of the pool that scores higher: (n, m) against (m,)."""
    return np.asarray(np.log((1 + (scores > own).sum(0)) / (1 + len(scores))))
