"""From pixel values to 256 grey levels: which become black and white, and the curve between.

The same functions feed the model and the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Bounds", "Stretch", "limits_of", "percentile_limits", "scale", "stretched", "zscale_limits"]

Bounds: TypeAlias = tuple[tuple[float, float], ...]  # black and white; one pair for all channels, or one each

BLACK_PERCENTILE = 0.5  # below the noise of the sky, above dead pixels
WHITE_PERCENTILE = 99.8  # a cutout's core may saturate, a single hot pixel may not set the scale
_LOG_BEND = 1000.0  # as in DS9: log(1 + 1000 x) / log(1001)

_NOT_FINITE = "no pixel is finite: all are NaN or infinite"


@dataclass(frozen=True, kw_only=True, repr=False)
class Stretch:
    """How pixel values become grey levels: first which are black and white, then the curve between.

    Parameters
    ----------
    stretch : {"linear", "asinh", "log"}
        "asinh" is linear for faint pixels and logarithmic for bright ones (Lupton et al. 1999); "log" is
        that of DS9, log(1 + 1000 x) / log(1001).
    limits : {"auto", "percentile", "zscale", "fixed"}
        "auto" takes uint8 as it is, all else by percentiles. "zscale" follows the bulk of the pixels, as
        in IRAF: for faint structure on a noisy sky. "fixed" is the same for all images: fluxes can be
        compared then.
    black, white : float, in [0, 100], black < white
        Percentiles of the finite pixels that become black and white.
    low, high : float, low < high
        With limits "fixed": the pixel values that become black and white.
    softening : float, in [0.001, 1]
        With stretch "asinh": where the curve turns from linear to logarithmic, as a share of the
        way from black to white.
    per_channel : bool
        Whether each channel has limits of its own. Together, they keep the colours of the source.

    Raises
    ------
    ConfigError
        If an option is out of its range.
    """

    stretch: Literal["auto", "linear", "asinh", "log"] = "linear"
    limits: Literal["auto", "percentile", "zscale", "fixed"] = "auto"
    black: float = BLACK_PERCENTILE
    white: float = WHITE_PERCENTILE
    low: float | None = None
    high: float | None = None
    softening: float = 0.1
    per_channel: bool = False

    _ALWAYS: ClassVar[tuple[str, ...]] = ()  # in the repr, also where they are as by default
    _STRETCHES: ClassVar[tuple[str, ...]] = ("linear", "asinh", "log")

    def __post_init__(self) -> None:
        self._check_choice("stretch", self._STRETCHES)
        self._check_choice("limits", ("auto", "percentile", "zscale", "fixed"))
        for name, low, high in (("black", 0, 100), ("white", 0, 100), ("softening", 0.001, 1)):
            self._check_number(name, low, high)
        if self.black >= self.white:
            raise ConfigError(
                f"{self._name}(black={self.black!r}, white={self.white!r}): the black percentile has to be "
                "below the white one."
            )
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                self._check_number(name, -1e30, 1e30)
        if self.limits == "fixed" and (self.low is None or self.high is None or self.low >= self.high):
            raise ConfigError(
                f"{self._name}(limits='fixed', low={self.low!r}, high={self.high!r}): give the pixel values "
                "that become black and white, low below high."
            )
        self._check_flag("per_channel")

    def __repr__(self) -> str:
        changed = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if f.name in self._ALWAYS or getattr(self, f.name) != f.default
        ]
        return f"{self._name}({', '.join(changed)})"

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if (value := getattr(self, name)) not in allowed:
            raise ConfigError(f"{self._name}({name}={value!r}): allowed are {', '.join(map(repr, allowed))}.")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(
                f"{self._name}({name}={value!r}): allowed is a number from {low:g} to {high:g}."
            )

    def _check_flag(self, name: str) -> None:
        if type(value := getattr(self, name)) is not bool:
            raise ConfigError(f"{self._name}({name}={value!r}): allowed are True and False.")


def limits_of(image: NDArray[Any], how: Stretch) -> Bounds:
    """Find the pixel values that become black and white.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)
    how : Stretch

    Returns
    -------
    tuple of (float, float)
        Black and white in the unit of the pixels: one pair, or one for each channel.

    Raises
    ------
    ValueError
        If no pixel is finite; in plain words.
    """
    if how.limits == "fixed":
        assert how.low is not None  # as was checked
        assert how.high is not None
        return ((float(how.low), float(how.high)),)
    if how.limits == "auto" and image.dtype == np.uint8:
        return ((0.0, 255.0),)
    n = image.shape[2] if how.per_channel else 1
    if n == 1:
        return (_found(image, how),)
    dark = _is_nowhere_finite(image)
    if dark.all():
        raise ValueError(_NOT_FINITE)
    # A band without data is black, and no reason to lose what the others show.
    return tuple((0.0, 1.0) if dark[c] else _found(image[..., c], how) for c in range(n))


def stretched(image: NDArray[Any], bounds: Bounds, how: Stretch) -> NDArray[np.uint8]:
    """Make grey levels of pixel values.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)
        NaN and -inf become black, +inf white.
    bounds : tuple of (float, float)
        As of `limits_of`.
    how : Stretch
        Its curve is used; its limits are in `bounds`.

    Returns
    -------
    ndarray of uint8, same shape
        May be `image` itself where there is nothing to do.
    """
    if len(bounds) > 1:
        parts = [_one(image[..., c], *bounds[c], how) for c in range(image.shape[2])]
        return np.stack(parts, axis=-1)
    return _one(image, *bounds[0], how)


def _found(image: NDArray[Any], how: Stretch) -> tuple[float, float]:
    return zscale_limits(image) if how.limits == "zscale" else percentile_limits(image, how.black, how.white)


def _is_nowhere_finite(image: NDArray[Any]) -> NDArray[np.bool_]:
    if image.dtype.kind != "f":
        return np.zeros(image.shape[2], bool)
    found: NDArray[np.bool_] = ~np.isfinite(image).any(axis=(0, 1))
    return found


def _one(image: NDArray[Any], low: float, high: float, how: Stretch) -> NDArray[np.uint8]:
    if image.dtype == np.uint8 and how.stretch == "linear" and (low, high) == (0, 255):
        return image
    if image.dtype.kind == "u" and image.size > (n_values := np.iinfo(image.dtype).max + 1):
        table = _one(np.arange(n_values, dtype=image.dtype), low, high, how)
        looked_up: NDArray[np.uint8] = table[image]
        return looked_up
    scaled = scale(image, low, high)
    if how.stretch == "asinh":
        bend = 1 / how.softening
        scaled = np.arcsinh(scaled * (bend / 255)) * (255 / math.asinh(bend))
    elif how.stretch == "log":
        scaled = np.log1p(scaled * (_LOG_BEND / 255)) * (255 / math.log1p(_LOG_BEND))
    levels: NDArray[np.uint8] = (scaled + scaled.dtype.type(0.5)).astype(np.uint8)
    return levels


def scale(image: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Scale pixels linearly, `low` and all below to 0, `high` and all above to 255.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, any shape
    low, high : float, low <= high
        In the unit of the pixels. Where both are equal, what is above them is 255, all else 0.

    Returns
    -------
    ndarray of float32, or of float64 where float32 would not do, same shape
        In [0, 255]; NaN has become 0.
    """
    span = high - low
    # float32 would over- or underflow at the ends of its range.
    kind = np.float32 if 1e-30 < span < 1e30 else np.float64  # noqa: PLR2004 - far from both ends
    scaled: NDArray[Any]
    with np.errstate(invalid="ignore", over="ignore"):
        if span > 0:
            scaled = (np.clip(image.astype(kind), low, high) - kind(low)) * kind(255 / span)
        else:
            scaled = np.where(image > high, kind(255), kind(0))
    scaled[np.isnan(scaled)] = 0
    return scaled


def percentile_limits(
    image: NDArray[Any], black: float = BLACK_PERCENTILE, white: float = WHITE_PERCENTILE
) -> tuple[float, float]:
    """Find the values of nearest rank at two percentiles of the finite pixels, all bands together.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, any shape
    black, white : float, in [0, 100]
        Percentiles, black <= white.

    Returns
    -------
    float, float
        In the unit of the pixels.

    Raises
    ------
    ValueError
        If no pixel is finite.
    """
    values = image.ravel()
    if image.dtype.kind == "f":
        finite = np.isfinite(values)
        values = values if finite.all() else values[finite]
        if not values.size:
            raise ValueError(_NOT_FINITE)
    ranks = np.maximum(np.ceil(np.array([black, white]) / 100 * values.size).astype(int) - 1, 0)
    if image.dtype.kind == "u":  # a histogram is one pass, three times as fast as finding the ranks
        low, high = np.searchsorted(np.bincount(values).cumsum(), ranks, side="right")
    else:
        low, high = np.partition(values, ranks)[ranks]
    return float(low), float(high)


def zscale_limits(
    image: NDArray[Any], *, contrast: float = 0.25, n_samples: int = 1000
) -> tuple[float, float]:
    """Find limits about the median that follow the slope of the sorted pixels, as IRAF's zscale does.

    A line is fitted to the sorted sample, outliers left out; its slope, made steeper by the
    contrast, spans the limits. See "ZSCALE" in the help of IRAF's task ``display``; the details
    (2.5 sigma, 5 rounds, neighbours of an outlier rejected too) are those of astropy's
    `ZScaleInterval`.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, any shape
        Pixels that are not finite are left out.
    contrast : float, > 0
        Below 1 the limits are wider than the bulk of the pixels.
    n_samples : int, >= 1
        Pixels looked at, evenly spread.

    Returns
    -------
    float, float
        In the unit of the pixels, within their range.

    Raises
    ------
    ValueError
        If no pixel is finite.
    """
    values = image.ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(_NOT_FINITE)
    sample = np.sort(values[:: max(1, values.size // n_samples)][:n_samples].astype(np.float64))
    n = len(sample)
    low, high = float(sample[0]), float(sample[-1])
    place, is_good = np.arange(n), np.ones(n, bool)
    fewest, spread = max(5, n // 2), np.ones(max(1, n // 100), bool)
    n_good, n_before, slope = n, n + 1, 0.0
    for _ in range(5):
        if n_good >= n_before or n_good < fewest:
            break
        slope, offset = np.polyfit(place[is_good], sample[is_good], 1)
        residual = sample - (slope * place + offset)
        is_outlier = ~is_good | (np.abs(residual) > 2.5 * residual[is_good].std())
        is_good = ~np.convolve(is_outlier, spread, mode="same")
        n_before, n_good = n_good, int(is_good.sum())
    if n_good < fewest:
        return low, high
    middle, median, steep = (n - 1) // 2, float(np.median(sample)), float(slope) / contrast
    return max(low, median - (middle - 1) * steep), min(high, median + (n - middle) * steep)
