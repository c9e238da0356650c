"""Which bands of a source become which channels of the model's images, and with which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Matrix", "Mix", "as_mix", "in_words", "mixed", "resolved"]

Matrix: TypeAlias = tuple[tuple[float, ...], ...]  # a row for each channel, a column for each band
Mix: TypeAlias = tuple[tuple[float, ...] | tuple[tuple[str, float], ...], ...]

_FORMS = 'allowed are a name ("i"), weights by name ({"r": 0.5, "i": 0.5}) and a number for each band'


def as_mix(value: object) -> Mix:
    """Check a mix of bands and bring it into one form, hashable and JSON-able.

    Parameters
    ----------
    value : sequence
        For each channel of the result: the name of a band, {name: weight}, or a number for each band.

    Returns
    -------
    tuple
        For each channel ((name, weight), ...), or numbers.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence) or not len(value):
        raise ConfigError(f"Preprocess(mix={value!r}): for each channel of the result, {_FORMS}.")
    return tuple(_row(row) for row in value)


def resolved(mix: Mix, bands: Sequence[str] | None, n_bands: int) -> Matrix:
    """Write a mix as a matrix for a source of these bands.

    Parameters
    ----------
    mix : tuple
        As of `as_mix`.
    bands : sequence of str, optional
        Names of the source's bands; None where it gives none.
    n_bands : int

    Raises
    ------
    ConfigError
        If a name is unknown, or there are not as many numbers as bands.
    """
    return tuple(_numbers(row, bands, n_bands) for row in mix)


def mixed(image: NDArray[Any], matrix: Matrix) -> NDArray[Any]:
    """Mix the bands of an image.

    Parameters
    ----------
    image : ndarray, shape (H, W, B)
    matrix : tuple of tuple of float
        C rows of B weights.

    Returns
    -------
    ndarray, shape (H, W, C)
        Where bands are only chosen, in the image's own dtype; else float32. A pixel is NaN where a band
        that takes part in it is; a band of weight 0 takes no part.

    Raises
    ------
    ValueError
        If the image has another number of bands; in plain words.
    """
    n = len(matrix[0])
    if image.shape[2] == 1 and n == 3:  # noqa: PLR2004 - a grey picture among colour ones
        image = np.repeat(image, n, axis=2)
    if image.shape[2] != n:
        raise ValueError(f"it has {image.shape[2]} channels where {n} are expected")
    chosen = _chosen(matrix)
    if chosen is not None:
        return image[..., chosen]
    pixels = image.astype(np.float32, copy=False)
    result = np.zeros((*image.shape[:2], len(matrix)), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is NaN, and black
        for channel, row in enumerate(matrix):
            for band, weight in enumerate(row):
                if weight:
                    result[..., channel] += np.float32(weight) * pixels[..., band]
    return result


def in_words(matrix: Matrix, bands: Sequence[str] | None) -> str:
    """Say a mix in a few words, e.g. "i, r, 0.5 g + 0.5 u"."""
    names = bands or [str(k + 1) for k in range(len(matrix[0]))]
    rows = []
    for row in matrix:
        parts = [name if w == 1 else f"{w:g} {name}" for name, w in zip(names, row, strict=True) if w]
        rows.append(" + ".join(parts))
    return ", ".join(rows)


def _row(row: object) -> tuple[float, ...] | tuple[tuple[str, float], ...]:
    if isinstance(row, str):
        return ((row, 1.0),)
    if isinstance(row, Mapping):
        row = list(row.items())
    if not isinstance(row, Sequence) or not row:
        raise ConfigError(f"Preprocess(mix=[... {row!r} ...]): {_FORMS}.")
    if all(_is_number(w) for w in row):
        weights: tuple[float, ...] = tuple(float(w) for w in row)
        named: tuple[tuple[str, float], ...] = ()
    elif all(
        isinstance(p, Sequence) and len(p) == 2 and isinstance(p[0], str) and _is_number(p[1])  # noqa: PLR2004
        for p in row
    ):
        named = tuple((name, float(w)) for name, w in row)
        weights = tuple(w for _, w in named)
    else:
        raise ConfigError(f"Preprocess(mix=[... {row!r} ...]): {_FORMS}; weights are finite numbers.")
    if not any(weights):
        raise ConfigError(f"Preprocess(mix=[... {row!r} ...]): at least one weight has to differ from 0.")
    return named or weights


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(
    row: tuple[float, ...] | tuple[tuple[str, float], ...], bands: Sequence[str] | None, n_bands: int
) -> tuple[float, ...]:
    weights = [0.0] * n_bands
    if isinstance(row[0], tuple):
        for name, weight in row:
            if name not in (bands or ()):
                has = f"the images have {', '.join(bands)}" if bands else "the images give no names of bands"
                raise ConfigError(
                    f"Preprocess(mix=...) names the band {name!r}; {has}. Name one of them, or give a number "
                    f"for each of the {n_bands} bands."
                )
            weights[list(bands or ()).index(name)] += weight
        return tuple(weights)
    if len(row) != n_bands:
        raise ConfigError(
            f"Preprocess(mix=...) has {len(row)} numbers in a row; the images have {n_bands} bands. Give a "
            "number for each band in each row."
        )
    return row


@lru_cache(maxsize=8)
def _chosen(matrix: Matrix) -> list[int] | None:
    """Return which band each channel is; None where one is more than a band as it is."""
    if any(max(row) != 1 or sum(map(abs, row)) != 1 for row in matrix):
        return None
    return [row.index(1) for row in matrix]
