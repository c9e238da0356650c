"""How fitsbolt 0.3, with which AnomalyMatch 2 reads images, makes the uint8 that its model sees."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.preprocess import MAX_SIZE
from amatch_widgets.images.stretch import zscale_limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["FitsboltInput"]

_AS_IT_IS = "CONVERSION_ONLY"
_METHODS = (_AS_IT_IS, "LINEAR", "LOG", "ASINH", "ZSCALE")
_RGB, _RGBA = 3, 4
# What astropy's ZScaleInterval has by default, as `zscale_limits`; contrast and samples may be others.
_ZSCALE = {"max_reject": 0.5, "min_npixels": 5, "krej": 2.5, "max_iterations": 5}


@dataclass(frozen=True, kw_only=True)
class FitsboltInput:
    """Make of an image what an AnomalyMatch model was trained on: resize, choose the bands, stretch.

    The result is that of fitsbolt 0.3.1; where images are resized, one pixel in a thousand may differ from it
    by a grey level or two, as means over an area are rounded otherwise.

    Parameters
    ----------
    size : int, in [8, 1024]
        Side of the square result, in pixels.
    channels : int, >= 1
        Of the result. Grey is repeated, and a fourth band where three are wanted is left out.
    method : {"CONVERSION_ONLY", "LINEAR", "LOG", "ASINH", "ZSCALE"}
        The curve; the first takes uint8 as it is, uint16 by its range, and all else from the lowest to the
        highest pixel.
    low, high : float, optional
        Pixel values that become black and white, in place of the lowest and the highest.
    crop : tuple of (int, int), optional
        Height and width of the centre in which the highest pixel is looked for.
    is_low_measured : bool
        With "LOG": black is the lowest pixel; else it is `low`, or 0.
    bend : float, > 0
        With "LOG": log(1 + bend x) / log(1 + bend).
    softening, width : tuple of float, > 0
        With "ASINH": where the curve turns, as a share of the way to white, and the percentage of the pixels
        between black and white; one for all channels together, or one for each.
    contrast, n_samples : float and int, > 0
        With "ZSCALE", see `zscale_limits`.
    n_percentiles, n_extremes : int, optional
        Pixels, evenly spread, from which the percentiles of a channel and the lowest and highest pixel of an
        image are found; by default all.
    """

    size: int
    channels: int
    method: str = _AS_IT_IS
    low: float | None = None
    high: float | None = None
    crop: tuple[int, int] | None = None
    is_low_measured: bool = False
    bend: float = 1000.0
    softening: tuple[float, ...] = (0.7,)
    width: tuple[float, ...] = (99.8,)
    contrast: float = 0.25
    n_samples: int = 1000
    n_percentiles: int | None = None
    n_extremes: int | None = None

    min_side: ClassVar[None] = None  # files are read at their full size

    @classmethod
    def of(cls, config: Mapping[str, Any], *, method: str, channels: int, size: int | None) -> FitsboltInput:
        """Read fitsbolt's configuration.

        Parameters
        ----------
        config : mapping
            As AnomalyMatch writes it down in its checkpoints.
        method : str
            Name of the normalisation that the model was trained with.
        channels : int
            Of the model.
        size : int or None
            Side of the images in pixels, where the configuration has none.

        Raises
        ------
        ConfigError
            If images cannot be prepared in this way here; in plain words.
        """
        options = config.get("normalisation")
        if not isinstance(options, dict) or "log_scale_a" not in options:
            raise ConfigError("how its images were normalised is not written down as fitsbolt 0.3 does")
        if method not in _METHODS:
            raise ConfigError(f"its normalisation {method!r} is none of {', '.join(_METHODS)}")
        side = _side(config.get("size"), size)
        _check(config, channels)
        zscale = options.get("zscale") or {}
        if method == "ZSCALE" and any(zscale.get(name, value) != value for name, value in _ZSCALE.items()):
            raise ConfigError(f"its zscale has other settings than {_ZSCALE}: {zscale}")
        crop = options.get("crop_for_maximum_value")
        limits = [options.get(name) for name in ("minimum_value", "maximum_value")]
        # Versions before 0.3.1 know the first by another name.
        few = options.get("percentile_n_samples", options.get("asinh_n_samples"))
        samples = [few, options.get("minmax_n_samples")]
        is_odd = any(isinstance(x, bool) or not isinstance(x, int | float | None) for x in limits + samples)
        if is_odd or any(n is not None and n < 1 for n in samples):
            raise ConfigError(
                f"its limits {limits}, or how many pixels they were found from, {samples}, are no numbers"
            )
        return cls(
            size=side,
            channels=channels,
            method=method,
            low=limits[0],
            high=limits[1],
            crop=None if crop is None else (int(crop[0]), int(crop[1])),
            is_low_measured=bool(options.get("log_calculate_minimum_value")),
            bend=float(options["log_scale_a"]),
            softening=_numbers(options.get("asinh_scale"), 0.7),
            width=_numbers(options.get("asinh_clip"), 99.8),
            contrast=float(zscale.get("contrast", cls.contrast)),
            n_samples=int(zscale.get("n_samples", cls.n_samples)),
            n_percentiles=None if samples[0] is None else int(samples[0]),
            n_extremes=None if samples[1] is None else int(samples[1]),
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a result: height, width, channels."""
        return self.size, self.size, self.channels

    def to_dict(self) -> dict[str, Any]:
        """Return the options, JSON-able."""
        return {"by": "fitsbolt", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> FitsboltInput:
        """Build from what `to_dict` returned; TypeError if it is something else."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        given.pop("by", None)
        return cls(**given)

    def fits(self, channels: int) -> bool:
        """Whether images of so many channels can be prepared."""
        return channels in (self.channels, 1) or (channels, self.channels) == (_RGBA, _RGB)

    @property
    def summary(self) -> str:
        """What is done to the images, in a few words."""
        return f"{self.size} px, {self.channels} channels, {self.method}"

    def __call__(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Prepare one image.

        Parameters
        ----------
        image : ndarray of uint8, uint16 or float32, shape (H, W, B)
            NaN becomes black, as far as it does not spoil the limits.

        Returns
        -------
        ndarray of uint8, shape (size, size, channels)

        Raises
        ------
        ValueError
            If no pixel is finite, or the number of bands does not fit; in plain words.
        """
        image = self._bands(image)
        if image.dtype.kind == "f" and not np.isfinite(image).any():
            raise ValueError("no pixel is finite: all are NaN or infinite")
        return self._stretched(self._resized(image))

    def _bands(self, image: NDArray[Any]) -> NDArray[Any]:
        bands = image.shape[2]
        if bands == 1:
            return np.repeat(image, self.channels, axis=2)
        if bands == _RGBA and self.channels == _RGB:
            return image[..., :_RGB]
        if bands != self.channels:
            raise ValueError(f"it has {bands} channels where the model was trained on {self.channels}")
        return image

    def _resized(self, image: NDArray[Any]) -> NDArray[Any]:
        height, width = image.shape[:2]
        if (height, width) == (self.size, self.size):
            return image
        if min(height, width) < self.size < max(height, width):
            raise ValueError(
                f"it is {width} px wide and {height} px high: it would have to be enlarged and reduced to "
                f"{self.size} px, which AnomalyMatch does in a way of its own"
            )
        weigh = _areas if height > self.size or width > self.size else _lines
        floats = image.astype(np.float32)
        rows = np.tensordot(weigh(height, self.size), floats, axes=(1, 0))
        resized = np.tensordot(weigh(width, self.size), rows, axes=(1, 1)).swapaxes(0, 1)
        if self.method == _AS_IT_IS and image.dtype.kind == "u":
            return np.clip(resized, 0, np.iinfo(image.dtype).max).astype(image.dtype)  # cut off, as there
        return np.ascontiguousarray(resized)

    def _stretched(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        if self.method == _AS_IT_IS or image.min() == image.max():
            return self._converted(image)
        if self.method == "ZSCALE":
            low, high = zscale_limits(image, contrast=self.contrast, n_samples=self.n_samples)
            return _levels(_between(image.astype(np.float64), low, high))
        if self.method == "ASINH":
            return self._asinh(image)
        low, high = self._limits(image)
        if self.method == "LOG":
            low = low if self.is_low_measured else (self.low or 0.0)
            if low >= high:
                low, high = float(np.nanmin(image)), float(np.nanmax(image))
        if low >= high:
            return self._converted(image)
        share = _between(_floats(image), low, high)
        if self.method == "LOG":
            share = np.log(share * share.dtype.type(self.bend) + 1) / math.log(self.bend + 1)
        return _levels(share)

    def _limits(self, image: NDArray[Any]) -> tuple[float, float]:
        """Return the pixel values that become black and white, all channels together."""
        low = float(np.nanmin(_sample(image, self.n_extremes))) if self.low is None else float(self.low)
        if self.high is not None:
            return low, float(self.high)
        if self.crop is not None:
            top, left = ((n - wanted) // 2 for n, wanted in zip(image.shape, self.crop, strict=False))
            if min(top, left) >= 0:
                image = image[top : top + self.crop[0], left : left + self.crop[1]]
        return low, float(np.nanmax(_sample(image, self.n_extremes)))

    def _converted(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        low, high = self._limits(image)
        clipped = np.clip(image.astype(np.float64), low, high)
        # There, limits that are given as floats make floats of the image.
        is_whole = not isinstance(self.low, float) and not isinstance(self.high, float)
        if image.dtype == np.uint8 and is_whole:
            return clipped.astype(np.uint8)
        if image.dtype == np.uint16 and is_whole:
            return _levels(clipped / 65535)
        return _levels((clipped - low) / (high - low) if high > low else np.zeros_like(clipped))

    def _asinh(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        clipped = np.clip(_floats(image), *self._limits(image))
        n = self.channels
        softening, width = (x if len(x) == n else (x[0],) * n for x in (self.softening, self.width))
        limits = [_percentiles(_sample(clipped[..., c], self.n_percentiles), width[c]) for c in range(n)]
        if len(self.softening) == len(self.width) == 1:
            limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * n
        if all(low == high for low, high in limits):
            return self._converted(clipped)
        shares = np.zeros(clipped.shape, np.float32)
        for c, (low, high) in enumerate(limits):
            if low < high:
                share = np.arcsinh(_between(clipped[..., c], low, high) / np.float32(softening[c]))
                shares[..., c] = share / np.float32(math.asinh(1 / softening[c]))
        return _levels(shares)


def _side(recorded: Any, given: int | None) -> int:
    """Return the side of the images."""
    if recorded is None and given is None:
        raise ConfigError(
            "it does not say how large its images were. Pass size=, the image_size of AnomalyMatch"
        )
    sides = [given] if recorded is None else list(recorded)
    if len(set(sides)) > 1 or (given is not None and given != sides[0]):
        raise ConfigError(f"its images were {recorded} px high and wide, and here they are square: {given}")
    side = sides[0]
    if isinstance(side, bool) or not isinstance(side, int) or not 8 <= side <= MAX_SIZE:  # noqa: PLR2004
        raise ConfigError(f"its images were {side!r} px large; allowed is 8 to {MAX_SIZE}")
    return side


def _check(config: Mapping[str, Any], channels: int) -> None:
    """Refuse what other images would come of than those that the model knows."""
    if np.dtype(config.get("output_dtype") or np.uint8) != np.uint8:
        raise ConfigError(f"its images were {config['output_dtype']!r} and not uint8")
    if config.get("interpolation_order", 1) != 1:
        raise ConfigError(f"its images were resized with interpolation_order={config['interpolation_order']}")
    mix = config.get("channel_combination")
    if mix is None:
        return
    matrix = np.atleast_2d(np.asarray(mix, np.float64))
    is_plain = any(
        matrix.shape == plain.shape and np.array_equal(matrix, plain)
        for plain in (np.eye(channels), np.ones((channels, 1)), np.eye(_RGB, _RGBA))
    )
    if not is_plain:
        raise ConfigError(f"its bands were mixed (channel_combination {matrix.tolist()})")


def _numbers(value: Any, default: float) -> tuple[float, ...]:
    values = value if isinstance(value, list | tuple) else [default if value is None else value]
    return tuple(float(v) for v in values)


def _floats(image: NDArray[Any]) -> NDArray[Any]:
    return image if image.dtype.kind == "f" else image.astype(np.float32)


def _between(image: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    kind = image.dtype.type
    shares: NDArray[Any] = (np.clip(image, kind(low), kind(high)) - kind(low)) / kind(high - low)
    return shares


def _levels(shares: NDArray[Any]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(shares), 0, 1) * 255).astype(np.uint8)
    return levels


def _sample(image: NDArray[Any], n: int | None) -> NDArray[Any]:
    """Return about `n` pixels as a row, at a distance that has no factor in common with the last axis."""
    flat = image.reshape(-1)
    if n is None or flat.size <= n:
        return flat
    last, step = image.shape[-1], max(1, flat.size // n)
    while math.gcd(step, last) > 1:  # ends: one of `last` numbers in a row is prime to it
        step += 1
    return flat[::step]


def _percentiles(flat: NDArray[Any], width: float) -> tuple[float, float]:
    below = (100 - width) / 2
    ranks = [int(below / 100 * (flat.size - 1)), int((100 - below) / 100 * (flat.size - 1))]
    low, high = np.partition(flat, ranks)[ranks]
    return float(low), float(high)


def _areas(n: int, m: int) -> NDArray[np.float32]:
    """Return the weights, shape (m, n), of the pixels that each of fewer ones lies on."""
    edges = np.arange(m + 1) * (n / m)
    starts = np.arange(n)
    overlap: NDArray[np.float64] = np.minimum(edges[1:, None], starts + 1) - np.maximum(
        edges[:-1, None], starts
    )
    return (np.maximum(overlap, 0) * (m / n)).astype(np.float32)


def _lines(n: int, m: int) -> NDArray[np.float32]:
    """Return the weights, shape (m, n), of the two pixels that each of more ones lies between."""
    at = np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0, n - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)))
    return weights.astype(np.float32)
