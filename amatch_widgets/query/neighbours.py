"""Which images look like these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.learn._threads import one_thread

from ._blocks import in_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["near", "similar"]

_TINY = np.float32(1e-12)  # a vector of zeros has no direction: its cosine is 0


def similar(
    vectors: NDArray[np.float16],
    indices: Sequence[int] | NDArray[np.int64],
    k: int,
    *,
    is_usable: NDArray[np.bool_],
    exclude: Sequence[int] | NDArray[np.int64] | None = None,
    others: NDArray[np.float16] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the images most similar to one image, or to several taken together.

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        The embedding, one row per image; may be memory-mapped. Read once, in blocks.
    indices : sequence of int
        The images to compare with. They are never among the answers.
    k : int, >= 0
        How many to find; fewer come if there are fewer.
    is_usable : ndarray of bool, shape (N,)
        False for images without a vector; they are never among the answers.
    exclude : sequence of int, optional
        Images to leave out besides.
    others : ndarray of float16, shape (M, D), optional
        Vectors of other images to compare with.

    Returns
    -------
    ndarray of int64, shape (M,), M <= k
        Indices of the images, the most similar first, ties by index.
    ndarray of float32, shape (M,)
        Cosine of the angle between the image's vector and the mean of the unit vectors of
        `indices` and `others`, in [-1, 1].

    Raises
    ------
    ValueError
        If there is nothing to compare with, one of `indices` is outside [0, N) or not usable, or `k` is
        negative.
    """
    wanted, n = np.asarray(indices, np.int64), len(vectors)
    if k < 0:
        raise ValueError(f"k is {k}; it must be 0 or more.")
    if not len(wanted) and (others is None or not len(others)):
        raise ValueError("There is nothing to compare with: give at least one index.")
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= n):
        raise ValueError(f"An index is outside 0 to {n - 1}: {wanted.tolist()}.")
    if not is_usable[wanted].all():
        without = wanted[~is_usable[wanted]].tolist()
        raise ValueError(f"Images without a vector cannot be compared with: {without}. Leave them out.")
    rows = vectors[wanted].astype(np.float32)
    if others is not None:
        rows = np.concatenate([rows, others.astype(np.float32)])
    target = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)).mean(0)
    target /= np.maximum(np.linalg.norm(target), _TINY)
    cosines = np.empty(n, np.float32)
    with one_thread():
        for at, block in in_blocks(vectors):
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
            cosines[at] = block @ target / np.maximum(lengths, _TINY)
    is_open = is_usable.copy()
    is_open[wanted] = False
    if exclude is not None:
        is_open[np.asarray(exclude, np.int64)] = False
    left = np.flatnonzero(is_open)
    best = _best(cosines[left], k)
    return left[best].astype(np.int64, copy=False), np.clip(cosines[left[best]], -1, 1)


def near(
    vectors: NDArray[np.float16],
    indices: Sequence[int] | NDArray[np.int64],
    *,
    is_usable: NDArray[np.bool_],
    least: float,
) -> list[NDArray[np.int64]]:
    """Find the images that look all but the same as each of some images.

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        The embedding, one row per image; may be memory-mapped. Read once, in blocks.
    indices : sequence of int
        The images to compare with; those without a vector are like none.
    is_usable : ndarray of bool, shape (N,)
        False for images without a vector.
    least : float, in (0, 1]
        Cosine of the angle between two vectors from which on they are near.

    Returns
    -------
    list of ndarray of int64
        For each of `indices` the images near it, itself left out, rising.
    """
    wanted = np.asarray(indices, np.int64)
    rows = vectors[wanted].astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _TINY)
    found: list[list[int]] = [[] for _ in wanted]
    with one_thread():
        for at, block in in_blocks(vectors):
            lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
            cosines = block @ rows.T / np.maximum(lengths, _TINY)[:, None]
            for place, k in zip(*np.nonzero(cosines >= least), strict=True):
                image = at.start + int(place)
                if image != wanted[k] and is_usable[image] and is_usable[wanted[k]]:
                    found[k].append(image)
    return [np.array(images, np.int64) for images in found]


def _best(values: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the positions of the `k` highest values in order, ties by position."""
    if k < len(values):  # sort only what can be among them
        limit = np.partition(values, len(values) - k)[len(values) - k] if k else np.inf
        among = np.flatnonzero(values >= limit)
    else:
        among = np.arange(len(values))
    return among[np.argsort(-values[among], kind="stable")[:k]]
