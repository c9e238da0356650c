"""Labels worth a second look: those that a ranking which was not shown them contradicts.

A click beside the tile, or a judgement that has changed since, teaches the ranking that the wrong
thing is right, and a fit that knows the label hides it. So each label is held against what was
fitted without it, and against what is usual in its class, as confident learning does (Northcutt,
Jiang & Chuang 2021, arXiv:1911.00068): its threshold for a class is the mean of the out-of-sample
scores of the images that are labelled so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["contradiction"]


def contradiction(margins: NDArray[np.floating], is_anomaly: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how far each label is from what the ranking says.

    Parameters
    ----------
    margins : ndarray of float, shape (M,)
        How much like an anomaly each image is, by a ranking that was not shown its label, on any
        scale of which 0 is an image like all others; NaN where that is not known.
    is_anomaly : ndarray of bool, shape (M,)
        What the images are labelled.

    Returns
    -------
    ndarray of float64, shape (M,)
        0 for an image as usual in its class, 1 for one as usual in the other class; confident
        learning takes those from 1 on for wrong. NaN where `margins` is.
    """
    known = margins.astype(np.float64)
    usual = [_mean(known[~is_anomaly]), _mean(known[is_anomaly])]
    apart = usual[1] - usual[0]
    if apart <= 0:  # a ranking that knows nothing: the order by margin is all there is
        apart = 1.0
    own = np.where(is_anomaly, usual[1], usual[0])
    return np.asarray(np.where(is_anomaly, own - known, known - own) / apart)


def _mean(margins: NDArray[np.float64]) -> float:
    finite = margins[np.isfinite(margins)]
    return float(finite.mean()) if len(finite) else 0.0
