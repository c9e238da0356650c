"""Which parts of an image a score rests on: cover one after the other, and look at the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["PARTS", "occlusion_map", "patch_sides"]

PARTS = (6, 10)
"""Steps of the patches across the image, of each scale.

A patch is two steps wide: a third and a fifth of the image, so that both a whole object and a part of
it are covered once. Each pixel counts as often, at the border too.
"""

_BORDER = 16  # the border that the fill is taken from is one 16th of the image
_N_AT_ONCE = 64  # covered copies that are in memory; 192 px and 3 channels: 7 MB


def occlusion_map(
    image: NDArray[np.uint8],
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    *,
    parts: tuple[int, ...] = PARTS,
) -> tuple[NDArray[np.float32], float]:
    """Measure how much of an image's score is lost when a part of it is covered.

    Patches slide over the image, and a pixel's value is the mean loss by those that cover it (Zeiler
    and Fergus 2014, "Visualizing and understanding convolutional networks", arXiv 1311.2901), at two
    scales, each by how much they cover it. Unlike there, patches fade out at their edges: sharp ones
    are structure that was not in the image. They are filled with the median of the image's border.
    On cutouts of galaxies that is the sky. For four labelled edge-on ones and the four ranked highest
    (one scale, bfloat16), the mean loss far from the galaxy was 9 % of the largest; with pixels of
    the border 17 %, with a blurred image 14 %, with the image's mean 24 %.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, C)
    score : callable
        Takes copies of it, uint8 of shape (n, H, W, C), and returns a number for each, float32 of shape
        (n,); the higher, the more it is what is looked for. Called several times.
    parts : tuple of int, >= 1
        Steps of the patches across the image, of each scale.

    Returns
    -------
    losses : ndarray of float32, shape (H, W)
        In units of the score; smooth. Positive: without this part the score is lower. Negative: it is
        higher. 0 where covering changes nothing, as in a constant image.
    score : float
        Of the image as it is.
    """
    height, width = image.shape[:2]
    fill = _border_median(image)
    whole = image.astype(np.float32)
    at_first = float(score(image[None])[0])
    losses = np.zeros((height, width), np.float32)
    for n_steps in parts:
        down, across = _windows(height, n_steps), _windows(width, n_steps)
        lost = np.zeros((len(down), len(across)), np.float32)
        places = np.stack(np.unravel_index(np.arange(lost.size), lost.shape), 1)
        for some in np.split(places, np.arange(_N_AT_ONCE, len(places), _N_AT_ONCE)):
            masks = down[some[:, 0], :, None, None] * across[some[:, 1], None, :, None]
            copies = np.rint(whole + masks * (fill - whole)).astype(np.uint8)
            lost[some[:, 0], some[:, 1]] = at_first - score(copies)
        covered = down.sum(0)[:, None] * across.sum(0)[None, :]
        losses += (down.T @ lost @ across) / covered / len(parts)
    return losses, at_first


def patch_sides(side: int, parts: tuple[int, ...] = PARTS) -> tuple[int, ...]:
    """Return how wide the patches of each scale are, px of an image of this side."""
    return tuple(round(2 * side / n_steps) for n_steps in parts)


def _windows(n: int, n_steps: int) -> NDArray[np.float32]:
    """Return how much each of `n_steps` + 1 patches covers each of `n` pixels, in [0, 1].

    The inner half of a patch covers wholly; from there it fades out by a cosine. Patches are centred
    at equal steps from the first edge to the last, two steps wide.
    """
    step = n / n_steps
    away = np.abs(np.arange(n) + 0.5 - step * np.arange(n_steps + 1)[:, None]) / step  # 1 at the patch's edge
    windows = 0.5 - 0.5 * np.cos(np.pi * np.clip(2 * (1 - away), 0, 1))
    return np.asarray(windows, np.float32)


def _border_median(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the median of each channel over the image's border, shape (C,)."""
    rows, columns = (max(1, n // _BORDER) for n in image.shape[:2])
    is_border = np.ones(image.shape[:2], bool)
    is_border[rows:-rows, columns:-columns] = False
    return np.asarray(np.median(image[is_border], 0), np.float32)
