"""Where images lie on a map: alike ones close to each other, as far as two dimensions allow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from amatch_widgets.errors import ConfigError, MissingExtraError
from amatch_widgets.learn._threads import one_thread

from ._blocks import in_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Method", "plane"]

Method = Literal["pca", "umap"]
"""How the map is made: a projection, or neighbourhoods kept together, which needs an extra."""

_FLAT = 1e-4  # a direction in which the images spread by a smaller part of the widest is rounding


def plane(
    vectors: NDArray[np.float16],
    is_usable: NDArray[np.bool_],
    *,
    n: int = 5000,
    always: ArrayLike = (),
    spaces: Sequence[slice] = (),
    method: Method = "pca",
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Lay a sample of the images out in two dimensions.

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        The embedding, one row per image; may be memory-mapped. Only the rows of the sample are read.
    is_usable : ndarray of bool, shape (N,)
        False for images without a vector; they are left out.
    n : int, >= 0
        How many images are drawn at random; all, if there are no more.
    always : sequence of int
        Images to draw besides, in [0, N).
    spaces : sequence of slice, optional
        Columns that were whitened, by falling variance, as those of a `Projection`. Whitening makes all
        directions of a space as wide as the first, and hides what is seen by eye: each column is
        weighed by one over the root of its place, about the spread it had.
    method : {"pca", "umap"}
        "pca": the two directions in which the random sample spreads most, the far ends drawn in.
        "umap": images that are neighbours by cosine stay neighbours (McInnes et al. 2018, arXiv
        1802.03426).
    seed : int, >= 0
        Of the sample, and of "umap". The same images and seed give the same map.

    Returns
    -------
    ndarray of int64, shape (M,)
        Positions of the images on the map, rising; at most n + the number of `always`.
    ndarray of float32, shape (M, 2)
        Their places, in [0, 1]; finite.

    Raises
    ------
    ConfigError
        If there is no such method.
    MissingExtraError
        If "umap" is asked for and not installed.
    """
    if method not in get_args(Method):
        allowed = " and ".join(map(repr, get_args(Method)))
        raise ConfigError(f"Unknown method {method!r} for a map. There are {allowed}.")
    usable = np.flatnonzero(is_usable)
    drawn = np.random.default_rng(seed).choice(usable, min(n, len(usable)), replace=False)
    more = np.asarray(always, np.int64).ravel()
    indices = np.union1d(drawn, more[is_usable[more]]).astype(np.int64, copy=False)
    if not len(indices):
        return indices, np.empty((0, 2), np.float32)
    rows = vectors[indices]
    if method == "umap":
        return indices, _into_unit(_umap(rows, seed))
    # The directions are those of the random sample alone: more labels do not turn the map.
    is_drawn = np.isin(indices, drawn) if len(drawn) else np.ones(len(indices), np.bool_)
    with one_thread():
        places = _pca(rows, is_drawn, _weights(rows.shape[1], spaces))
    return indices, _into_unit(places)


def _weights(dims: int, spaces: Sequence[slice]) -> NDArray[np.float32]:
    """Return what each column is multiplied with."""
    weights = np.ones(dims, np.float32)
    for columns in spaces:
        weights[columns] = np.arange(1, columns.stop - columns.start + 1, dtype=np.float32) ** -0.5
    return weights


def _pca(
    rows: NDArray[np.float16], is_drawn: NDArray[np.bool_], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the rows in the two principal directions of those that were drawn, in units of their spread."""
    dims = rows.shape[1]
    total, products = np.zeros(dims), np.zeros((dims, dims))
    for _, block in in_blocks(rows[is_drawn]):
        weighed = block * weights
        total += weighed.sum(0, dtype=np.float64)
        products += weighed.T @ weighed
    n = int(is_drawn.sum())
    mean = total / n
    variances, directions = np.linalg.eigh(products / n - np.outer(mean, mean))
    best = directions[:, :-3:-1]  # the two last, the widest first
    # A direction and its opposite are as good: its largest part shall be positive.
    best = best * np.where(best[np.abs(best).argmax(0), np.arange(best.shape[1])] < 0, -1, 1)
    places = np.zeros((len(rows), 2))
    matrix = (best * weights[:, None]).astype(np.float32)
    for at, block in in_blocks(rows):
        places[at, : best.shape[1]] = block @ matrix - mean @ best
    spread = np.sqrt(np.maximum(variances[:-3:-1], 0))
    if not spread[0] > 0:  # of equal images
        return np.zeros_like(places)
    is_wide = np.zeros(2, np.bool_)
    is_wide[: len(spread)] = spread > _FLAT * spread[0]
    # Few images lie far out, and would leave a tenth of the map to all others.
    places[:, is_wide] = np.arcsinh(places[:, is_wide] / spread[is_wide[: len(spread)]])
    places[:, ~is_wide] = 0
    return places


def _umap(rows: NDArray[np.float16], seed: int) -> NDArray[np.float64]:
    try:
        umap = importlib.import_module("umap")
    except ImportError as error:
        raise MissingExtraError(
            "A map by UMAP needs umap-learn. Type: pip install 'amatch-widgets[umap]', then restart the "
            f"kernel. ({error})"
        ) from error
    # One job, or a seed is ignored; cosines, as for "more like this".
    reducer = umap.UMAP(n_components=2, metric="cosine", random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(rows.astype(np.float32)), np.float64)


def _into_unit(places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Move and stretch each coordinate into [0, 1]; one that is always the same becomes 0.5."""
    low, high = places.min(0), places.max(0)
    span = high - low
    unit = np.where(span > 0, (places - low) / np.where(span > 0, span, 1), 0.5)
    within: NDArray[np.float32] = np.clip(np.nan_to_num(unit, nan=0.5), 0, 1).astype(np.float32)
    return within
