"""Which tile each object of a catalogue lies on, by the footprints of the tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from amatch_widgets.images.tile import Tile
    from amatch_widgets.images.wcs import Projection

__all__ = ["find_tiles"]

_TURN = 360.0
_ZONE_DEG = 0.25  # about the radius of a tile: few zones for each, few objects beside it
_BLOCK = 2**20  # objects at a time, where a tile is as large as the sky
_POINTS = 9  # along each side of a tile: its edges are no straight lines on the sky


class _Cap(NamedTuple):
    """A circle on the sky around a tile; degrees."""

    ra: float
    dec: float
    radius: float


def find_tiles(
    ra: NDArray[np.float64], dec: NDArray[np.float64], tiles: Iterable[Tile | None]
) -> NDArray[np.int32]:
    """Find for each object the tile in which it is furthest from the edge.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (N,)
        ICRS, degrees; NaN lies nowhere.
    tiles : iterable of Tile or None
        None, and a tile without a place on the sky, holds no object.

    Returns
    -------
    ndarray of int32, shape (N,)
        Number of the tile, from 0; -1 for an object on none.
    """
    zones = _Zones(ra, dec)
    found = np.full(len(ra), -1, np.int32)
    depth = np.zeros(len(ra), np.float32)  # distance to the nearest edge, in degrees
    for number, tile in enumerate(tiles):
        if tile is None or tile.sky is None or (cap := _cap(tile.sky, tile.shape)) is None:
            continue
        inside = zones.within(cap)
        for start in range(0, len(inside), _BLOCK):
            those = inside[start : start + _BLOCK]
            x, y = tile.sky.to_pixels(ra[those], dec[those])
            to_side = np.minimum(np.minimum(x, tile.shape[1] - 1 - x), np.minimum(y, tile.shape[0] - 1 - y))
            deep = (to_side + 0.5) * cap.radius / np.hypot(*tile.shape)
            better = deep > depth[those]  # not NaN, where the projection has no such place
            found[those[better]], depth[those[better]] = number, deep[better]
    return found


class _Zones:
    """Objects in the order of narrow stripes of declination, and of right ascension within each.

    The zones algorithm (Gray, Nieto-Santisteban and Szalay 2006, MSR-TR-2006-52): what lies in a cap is some
    slices of one sorted array.
    """

    def __init__(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> None:
        keys = dec + 90
        keys /= _ZONE_DEG
        np.floor(keys, out=keys)
        keys *= _TURN
        with np.errstate(invalid="ignore"):
            keys += ra % _TURN % _TURN  # twice: -1e-20 % 360 is 360
        keys[~(np.abs(dec) <= 90) | ~np.isfinite(ra)] = np.nan  # noqa: PLR2004 - the poles
        order = np.argsort(keys)  # NaN is last, beyond all that is asked for
        self._keys, self._order = keys[order], order.astype(np.uint32 if len(order) < 2**32 else np.int64)

    def within(self, cap: _Cap) -> NDArray[np.int64]:
        """Return the objects in a box around a cap."""
        low, high = max(cap.dec - cap.radius, -90.0), min(cap.dec + cap.radius, 90.0)
        reach = np.sin(np.radians(min(cap.radius, 90.0)))
        room = np.cos(np.radians(cap.dec))
        half = np.degrees(np.arcsin(reach / room)) if cap.radius < 90 and reach < room else _TURN / 2  # noqa: PLR2004
        pieces = _arcs(cap.ra - half, cap.ra + half) if half < _TURN / 2 else [(0.0, _TURN)]
        first, last = (int(np.floor((dec + 90) / _ZONE_DEG)) for dec in (low, high))
        begins = _TURN * np.arange(first, last + 1)[:, None] + np.array(pieces)[None, :, 0]
        ends = _TURN * np.arange(first, last + 1)[:, None] + np.array(pieces)[None, :, 1]
        slices = zip(
            *(np.searchsorted(self._keys, at.ravel()).tolist() for at in (begins, ends)), strict=True
        )
        return np.concatenate([self._order[begin:end] for begin, end in slices]).astype(np.int64)


def _arcs(start: float, stop: float) -> list[tuple[float, float]]:
    """Cut an arc of right ascension, degrees, where it goes over 0."""
    start, stop = start % _TURN, stop % _TURN
    return [(start, stop)] if start <= stop else [(0.0, stop), (start, _TURN)]


def _cap(sky: Projection, shape: tuple[int, int]) -> _Cap | None:
    """Return a circle around a tile; None if its middle has no place on the sky."""
    height, width = shape
    along = np.linspace(0, 1, _POINTS)
    x = np.concatenate([along, along, along * 0, along * 0 + 1, [0.5]]) * width - 0.5
    y = np.concatenate([along * 0, along * 0 + 1, along, along, [0.5]]) * height - 0.5
    ra, dec = sky.to_sky(x, y)
    if not np.isfinite(ra[-1] + dec[-1]):
        return None
    points = _vectors(ra, dec)
    apart = np.degrees(np.arccos(np.clip(points @ points[-1], -1, 1)))
    # Where the edge of an image is beyond the edge of its projection, it may hold any part of the sky.
    radius = float(apart.max()) * 1.01 + 1e-6 if np.isfinite(apart).all() else 180.0
    return _Cap(float(ra[-1]), float(dec[-1]), radius)


def _vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors, shape (N, 3)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
