"""How images are shown to people: limits, stretch, channel, brightness. The model sees none of it."""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.preprocess import (
    BLACK_PERCENTILE,
    WHITE_PERCENTILE,
    as_rgb,
    percentile_limits,
    scale,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Limits", "Rendering", "Stretch", "encode_picture", "limits_of", "render", "zscale_limits"]

Stretch = Literal["linear", "asinh", "log"]
Limits = Literal["auto", "percentile", "zscale"]

_LOG_BEND = 1000.0  # as in DS9: log(1 + 1000 x) / log(1001)
_LOSSLESS_PX = 2**20  # pixels up to which a picture is sent as PNG, so that each can be trusted when enlarged


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How an image is shown on a screen; what the model is fed with does not depend on it.

    First the limits say which pixel values become black and white, then the stretch says what is
    between; brightness, contrast and inversion act on the picture, as the CSS filters of the same
    names do.

    Parameters
    ----------
    stretch : {"linear", "asinh", "log"}
        "asinh" is linear for faint pixels and logarithmic for bright ones.
    limits : {"auto", "percentile", "zscale"}
        "auto" shows what the model sees: uint8 as it is, all else from the 0.5 to the 99.8 percentile.
        "zscale" follows the bulk of the pixels, as in IRAF: for faint structure on a noisy sky.
    black, white : float, in [0, 100], black < white
        With limits "percentile": the percentiles of the finite pixels that become black and white.
    softening : float, in [0.001, 1]
        With stretch "asinh": where the curve turns from linear to logarithmic, as a share of the
        way from black to white.
    channel : int, >= 0, optional
        The one channel to show in grey, counted from 0; default all, as RGB. An image of one channel
        is shown whichever is chosen, as the model sees it in each.
    brightness, contrast : float, in [0, 10]
        Factors; 1 changes nothing. Contrast is about middle grey.
    invert : bool
        Whether bright becomes dark.

    Raises
    ------
    ConfigError
        If an option is out of its range.
    """

    stretch: Stretch = "linear"
    limits: Limits = "auto"
    black: float = BLACK_PERCENTILE
    white: float = WHITE_PERCENTILE
    softening: float = 0.1
    channel: int | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    invert: bool = False

    def __post_init__(self) -> None:
        _check_choice("stretch", self.stretch, get_args(Stretch))
        _check_choice("limits", self.limits, get_args(Limits))
        for name, low, high in _RANGES:
            _check_number(name, getattr(self, name), low, high)
        if self.black >= self.white:
            raise ConfigError(
                f"Rendering(black={self.black!r}, white={self.white!r}): the black percentile has to be "
                "below the white one."
            )
        if self.channel is not None and (type(self.channel) is not int or self.channel < 0):
            raise ConfigError(
                f"Rendering(channel={self.channel!r}): allowed is a whole number from 0, or None for all."
            )
        if type(self.invert) is not bool:
            raise ConfigError(f"Rendering(invert={self.invert!r}): allowed are True and False.")

    @property
    def pixels(self) -> Rendering:
        """The same without brightness, contrast and inversion, which a browser can add by itself."""
        return replace(self, brightness=1.0, contrast=1.0, invert=False)

    @property
    def css_filter(self) -> str:
        """What this has beyond `pixels`, as the value of a CSS filter; "" when that is nothing."""
        parts = [
            f"{name}({value:g})"
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast))
            if value != 1
        ]
        return " ".join([*parts, "invert(1)"] if self.invert else parts)

    @property
    def summary(self) -> str:
        """What differs from the default, in a few words; "" when nothing does."""
        plain, words = Rendering(), []
        if self.limits == "percentile":
            words.append(f"{self.black:g}-{self.white:g} %")
        elif self.limits != plain.limits:
            words.append(self.limits)
        if self.stretch != plain.stretch:
            words.append(self.stretch)
        if self.channel is not None:
            words.append(f"channel {self.channel + 1}")
        words += [
            f"{name} {value:g}"
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast))
            if value != 1
        ]
        return ", ".join([*words, "inverted"] if self.invert else words)

    def to_dict(self) -> dict[str, Any]:
        """Return the options, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Rendering:
        """Build from what `to_dict` returned; unknown options raise ConfigError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"Unknown options of Rendering: {unknown}. Known are {sorted(known)}.")
        return cls(**options)


_RANGES = (
    ("black", 0, 100),
    ("white", 0, 100),
    ("softening", 0.001, 1),
    ("brightness", 0, 10),
    ("contrast", 0, 10),
)


def render(
    image: NDArray[Any], rendering: Rendering, *, limits: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """Make a picture of an image.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)
        NaN and -inf become black, +inf white.
    rendering : Rendering
    limits : (float, float), optional
        The values that become black and white, where they are known, e.g. of the whole image that
        `image` is a part of; default `limits_of` it.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB. May share memory with `image`, which is not to be changed then.

    Raises
    ------
    ValueError
        If no pixel is finite, or there is no such channel; in plain words.
    """
    low, high = limits_of(image, rendering) if limits is None else limits
    shown = _chosen(image, rendering)[..., :3]
    picture = as_rgb(_to_bytes(shown, low, high, rendering))
    if rendering == rendering.pixels:
        return picture
    table: NDArray[np.uint8] = (_filtered(rendering) * 255 + 0.5).astype(np.uint8)
    return table[picture]


def limits_of(image: NDArray[Any], rendering: Rendering) -> tuple[float, float]:
    """Find the pixel values that a rendering makes black and white.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)
    rendering : Rendering
        The limits are those of its channel, or of all channels together.

    Returns
    -------
    float, float
        In the unit of the pixels.

    Raises
    ------
    ValueError
        If no pixel is finite, or there is no such channel.
    """
    image = _chosen(image, rendering)
    if rendering.limits == "zscale":
        return zscale_limits(image)
    if rendering.limits == "percentile":
        return percentile_limits(image, rendering.black, rendering.white)
    return (0.0, 255.0) if image.dtype == np.uint8 else percentile_limits(image)


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
        raise ValueError("no pixel is finite: all are NaN or infinite")
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


def encode_picture(picture: NDArray[np.uint8], *, lossless: bool = False) -> bytes:
    """Encode an RGB picture of uint8, shape (h, w, 3): as PNG, or as fine JPEG above a million pixels.

    `lossless` asks for PNG of any size.
    """
    from PIL import Image  # noqa: PLC0415 - import amatch_widgets must be quick

    buffer = io.BytesIO()
    drawn = Image.fromarray(np.ascontiguousarray(picture))
    if lossless or drawn.width * drawn.height <= _LOSSLESS_PX:
        drawn.save(buffer, "PNG", compress_level=1)
    else:
        drawn.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _chosen(image: NDArray[Any], rendering: Rendering) -> NDArray[Any]:
    """Take the chosen channel, shape (H, W, 1), or all."""
    if rendering.channel is None or image.shape[2] == 1:
        return image
    if rendering.channel >= image.shape[2]:
        raise ValueError(f"it has {image.shape[2]} channels, and channel {rendering.channel + 1} was chosen")
    return image[..., rendering.channel, None]


def _to_bytes(image: NDArray[Any], low: float, high: float, rendering: Rendering) -> NDArray[np.uint8]:
    """Stretch between the limits, to 0 ... 255."""
    if image.dtype == np.uint8 and rendering.stretch == "linear" and (low, high) == (0, 255):
        return image
    if image.dtype.kind == "u" and image.size > (n_values := np.iinfo(image.dtype).max + 1):
        table = _to_bytes(np.arange(n_values, dtype=image.dtype), low, high, rendering)
        looked_up: NDArray[np.uint8] = table[image]
        return looked_up
    scaled = scale(image, low, high)
    if rendering.stretch == "asinh":
        bend = 1 / rendering.softening
        scaled = np.arcsinh(scaled * (bend / 255)) * (255 / math.asinh(bend))
    elif rendering.stretch == "log":
        scaled = np.log1p(scaled * (_LOG_BEND / 255)) * (255 / math.log1p(_LOG_BEND))
    stretched: NDArray[np.uint8] = (scaled + scaled.dtype.type(0.5)).astype(np.uint8)
    return stretched


def _filtered(rendering: Rendering) -> NDArray[np.float64]:
    """Return what the CSS filter makes of the 256 grey levels, in [0, 1]; it clips after each step."""
    grey = np.clip(np.arange(256) / 255 * rendering.brightness, 0, 1)
    grey = np.clip((grey - 0.5) * rendering.contrast + 0.5, 0, 1)
    return 1 - grey if rendering.invert else grey


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"Rendering({name}={value!r}): allowed are {', '.join(map(repr, allowed))}.")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"Rendering({name}={value!r}): allowed is a number from {low:g} to {high:g}.")
