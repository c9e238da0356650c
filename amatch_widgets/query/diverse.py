"""Which of many promising images are unlike each other, and unlike what was labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["diverse"]


def diverse(
    vectors: NDArray[np.float16], among: NDArray[np.int64], known: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """Choose images that lie far apart, by the greedy k-centre method.

    Each is the one whose nearest neighbour, of those known and those chosen before, is the
    farthest (Gonzalez 1985; as a query strategy Sener & Savarese 2018, arXiv 1708.00489).

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        Embeddings of all images.
    among : ndarray of int64, shape (M,)
        Positions of the images to choose from, each once, the most promising first: it is chosen
        where nothing is known, and of equals the earlier. Some hundreds; each is compared with all others.
    known : ndarray of int64, shape (K,)
        Positions of the images to stay away from, such as the labelled anomalies.
    n : int, >= 0

    Returns
    -------
    ndarray of int64, shape (min(n, M),)
        In the order of choice.
    """
    points = _unit(vectors[among])
    apart = np.full(len(among), np.inf, np.float32)
    for point in _unit(vectors[known]):
        apart = np.minimum(apart, 1 - points @ point)
    chosen: list[int] = []
    for _ in range(min(n, len(among))):
        best = int(np.argmax(apart))
        chosen.append(best)
        apart = np.minimum(apart, 1 - points @ points[best])
        apart[chosen] = -np.inf
    return among[np.array(chosen, np.intp)]


def _unit(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    found = rows.astype(np.float32)
    lengths = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.float32(1e-12))
    unit: NDArray[np.float32] = found / lengths
    return unit
