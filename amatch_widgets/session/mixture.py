"""A page of several kinds of images: the best, doubtful ones, unlike ones, and an audit at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.query.diverse import diverse
from amatch_widgets.query.strategies import order, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from amatch_widgets.session.audits import Audits

__all__ = ["mixed_page"]

_SHARE = 8  # one in 8 is doubtful, one unlike the others, and one an audit; the rest is the top
_DIVERSE_AMONG = 10  # times the page: from so many of the best the unlike ones are chosen
_MOST_KNOWN = 500  # labelled anomalies to be unlike, the latest


def mixed_page(
    n: int,
    *,
    ids: Sequence[str],
    scores: npt.NDArray[np.float32],
    free: npt.NDArray[np.int64],
    anomalies: Sequence[int],
    embeddings: Callable[[], tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]] | None],
    audits: Audits,
    seed: int,
) -> list[tuple[int, str]]:
    """Choose images of several kinds, each image once.

    Parameters
    ----------
    n : int, >= 0
    ids : sequence of str
        Of all N images.
    scores : ndarray of float32, shape (N,)
        NaN where there is none.
    free : ndarray of int64, shape (M,)
        Positions of the images that can be read and have no label.
    anomalies : sequence of int
        Positions of the labelled anomalies, the latest last.
    embeddings : callable
        Returns the vectors, float16, shape (N, D), and which images have one; None without them.
    audits : Audits
        Draws, and notes what was drawn.
    seed : int

    Returns
    -------
    list of (int, str)
        Position and reason: the top first, then what is uncertain, what is diverse, and the audit.
        Where nothing is scored, all of it is an audit.
    """
    is_scored = bool(np.isfinite(scores[free]).any())
    part = n // _SHARE if is_scored else n
    drawn = audits.draw(ids, scores, free, part)
    chosen = [(i, f"audit: drawn at random, chance 1 in {1 / chance:,.0f}") for i, chance in drawn]
    if not is_scored:
        return chosen
    left = _without(free, [i for i, _ in drawn], len(scores))
    uncertain = pick(scores, left, part, "uncertain", seed)
    left = _without(left, [i for i, _ in uncertain], len(scores))
    unlike = [
        (i, "diverse: unlike the anomalies so far")
        for i in _unlike(part, scores, left, anomalies, embeddings)
    ]
    left = _without(left, [i for i, _ in unlike], len(scores))
    best = pick(scores, left, n - len(chosen) - len(uncertain) - len(unlike), "top", seed)
    return [*best, *uncertain, *unlike, *chosen]


def _without(images: npt.NDArray[np.int64], taken: Sequence[int], n: int) -> npt.NDArray[np.int64]:
    is_left = np.ones(n, bool)  # a mask: NumPy's setdiff1d takes a second for a million
    is_left[np.array(taken, np.int64)] = False
    return images[is_left[images]]


def _unlike(
    n: int,
    scores: npt.NDArray[np.float32],
    free: npt.NDArray[np.int64],
    anomalies: Sequence[int],
    embeddings: Callable[[], tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]] | None],
) -> list[int]:
    found = embeddings()
    if not n or found is None:
        return []
    vectors, is_done = found
    known = np.array(anomalies[-_MOST_KNOWN:], np.int64)
    among = free[is_done[free] & np.isfinite(scores[free])]
    best = order(scores, "highest", subset=among)[: _DIVERSE_AMONG * _SHARE * n]
    chosen: list[int] = diverse(vectors, best, known[is_done[known]], n).tolist()
    return chosen
