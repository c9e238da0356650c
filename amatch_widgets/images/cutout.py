"""Cutouts of several bands on one grid of pixels, from tiles that have different ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from amatch_widgets.images.unreadable import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.tile import Tile
    from amatch_widgets.images.wcs import Projection

__all__ = ["Grids", "corners", "cut", "grids_on"]

_SAME = 1e-3  # pixels: grids that differ by less are the same
_FINEST = 16  # how many times smaller than those of the first band the pixels of another may be


class Grids(NamedTuple):
    """Where the pixels of some cutouts lie on a tile of another band: an affine map for each.

    The pixel (x, y) of cutout i lies at ``centre[i] + matrix[i] @ (x - c, y - c)``; c is the middle.
    """

    centre: NDArray[np.float64]
    """Shape (N, 2): x and y, pixels of the tile counted from 0."""
    matrix: NDArray[np.float64]
    """Shape (N, 2, 2): pixels of the tile for a pixel of the cutout."""


def corners(x: NDArray[np.float64], y: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the first column and row of square cutouts around places on a tile.

    Parameters
    ----------
    x, y : ndarray of float64, shape (N,)
        Pixels, counted from 0.
    size : int, > 0
        Side of the cutouts, pixels.

    Returns
    -------
    ndarray of float64, shape (N, 2)
        Whole numbers: the place is at most half a pixel from the middle of its cutout.
    """
    return np.floor(np.stack([x, y], axis=1) - (size - 1) / 2 + 0.5)


def grids_on(sky: Projection, first: Projection, corner: NDArray[np.float64], size: int) -> Grids:
    """Find where the pixels of cutouts of one tile lie on another, by the WCS of both.

    The way over the sky is taken for four points of each cutout, its pixels follow by an affine map: over
    some arcminutes that is as good as each by itself, and a hundred times as fast.

    Parameters
    ----------
    sky, first : Projection
        Of the other tile, and of the one of the cutouts.
    corner : ndarray of float64, shape (N, 2)
        Of `corners`, on the tile of the cutouts.
    size : int
        Side of the cutouts, pixels.

    Returns
    -------
    Grids
        NaN where one of both has no such place on the sky.
    """
    middle, arm = corner + (size - 1) / 2, max(size / 2, 1)
    arms = np.array([[arm, 0], [-arm, 0], [0, arm], [0, -arm]])
    points = middle[:, None] + arms
    there = np.stack(sky.to_pixels(*first.to_sky(points[..., 0], points[..., 1])), axis=-1)
    matrix = np.stack([there[:, 0] - there[:, 1], there[:, 2] - there[:, 3]], axis=-1) / (2 * arm)
    return Grids(there.mean(axis=1), matrix)


def cut(
    tiles: Sequence[Tile], grids: Sequence[Grids | None], corner: NDArray[np.float64], size: int, i: int
) -> NDArray[np.float32]:
    """Make a cutout.

    Parameters
    ----------
    tiles : sequence of Tile
        One for each band.
    grids : sequence of Grids or None
        Of each; None for the first band, whose pixels are those of the cutout.
    corner : ndarray of float64, shape (N, 2)
        On the tile of the first band.
    size : int
        Side, pixels of the first band.
    i : int
        Which of the N.

    Returns
    -------
    ndarray of float32, shape (size, size, bands)
        The first band as it is in its tile. The others at the same places of the sky: interpolated linearly,
        and averaged where their pixels are smaller, so that surface brightness stays as it is. NaN where
        there are no data.

    Raises
    ------
    UnreadableError
        A tile cannot be read, or the grid cannot be used.
    """
    if not np.isfinite(corner[i]).all():
        raise UnreadableError("the table gives no position for it, or one that is not on the tile")
    image = np.empty((size, size, len(tiles)), np.float32)
    for band, (tile, grid) in enumerate(zip(tiles, grids, strict=True)):
        try:
            if grid is None:
                image[..., band] = tile.window(*_whole(*corner[i]), size, size)
            else:
                image[..., band] = _resampled(tile, grid.centre[i], grid.matrix[i], size)
        except UnreadableError as exc:
            raise UnreadableError(f"its part of {tile.name!r} cannot be read: {exc}") from exc.__cause__
    return image


def _resampled(
    tile: Tile, centre: NDArray[np.float64], matrix: NDArray[np.float64], size: int
) -> NDArray[np.float32]:
    if not (np.isfinite(centre).all() and np.isfinite(matrix).all()):
        raise UnreadableError("the tile does not reach there: its projection has no such place")
    middle = (size - 1) / 2
    left, top = np.floor(centre - middle + 0.5)
    if (
        np.abs(centre - middle - (left, top)).max() < _SAME
        and np.abs(matrix - np.eye(2)).max() * size < _SAME
    ):
        return tile.window(*_whole(left, top), size, size)
    step = float(np.linalg.norm(matrix, 2))  # pixels of the tile for one of the cutout
    fine = max(1, int(np.ceil(step - _SAME)))
    if fine > _FINEST:
        raise UnreadableError(
            f"its pixels are {step:.3g} times smaller than those of the first band; the limit is {_FINEST}"
        )
    reach = np.abs(matrix).sum(axis=1) * size / 2 + 2  # a pixel more on each side for the interpolation
    low, high = np.floor(centre - reach), np.ceil(centre + reach) + 1
    width, height = _whole(*(high - low))
    data = tile.window(*_whole(*low), width, height)
    is_there = np.isfinite(data)
    if is_there.all():
        return _sampled(data, centre - low, matrix, size, fine)
    share = _sampled(is_there.astype(np.float32), centre - low, matrix, size, fine)
    data[~is_there] = 0
    total = _sampled(data, centre - low, matrix, size, fine)
    # Half of what makes a pixel may be missing: one dead pixel is not to become four.
    enough = share >= 0.5  # noqa: PLR2004 - as said
    return np.where(enough, total / np.where(enough, share, 1), np.float32(np.nan))


def _sampled(
    data: NDArray[np.float32], centre: NDArray[np.float64], matrix: NDArray[np.float64], size: int, fine: int
) -> NDArray[np.float32]:
    """Interpolate at the pixels of a cutout, each as the mean of ``fine ** 2`` places in it."""
    from scipy.ndimage import affine_transform  # noqa: PLC0415 - import amatch_widgets must be quick

    # Rows and columns are y and x: all of it is turned over.
    step = matrix[::-1, ::-1] / fine
    offset = centre[::-1] - step.sum(axis=1) * (size * fine - 1) / 2
    fine_grid = affine_transform(
        data, step, offset, (size * fine, size * fine), order=1, mode="nearest", prefilter=False
    )
    means: NDArray[np.float32] = fine_grid.reshape(size, fine, size, fine).mean(axis=(1, 3), dtype=np.float32)
    return means


def _whole(first: float, second: float) -> tuple[int, int]:
    return int(first), int(second)
