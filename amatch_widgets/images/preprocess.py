"""From the pixels of a file to the square uint8 image that the model sees, and to small pictures."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Preprocess", "as_rgb", "encode_thumbnail", "percentile_limits", "scale", "shrink"]

BLACK_PERCENTILE = 0.5  # below the noise of the sky, above dead pixels
WHITE_PERCENTILE = 99.8  # a cutout's core may saturate, a single hot pixel may not set the scale
MAX_SIZE = 1024
_RGB = 3
_RGBA = 4


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What is done to each image before the model sees it: crop, stretch, match channels, resize.

    Parameters
    ----------
    size : int, in [8, 1024]
        Side of the square result, in pixels. Images that are not square are squashed.
    crop : int, optional
        Side of the square cut from the centre first, in pixels of the file; a smaller image is left whole in
        that direction.
    channels : int, >= 1
        Channels of the result.

    Raises
    ------
    ConfigError
        An option is out of its range.
    """

    size: int = 64
    crop: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        _check("size", self.size, 8, MAX_SIZE)
        _check("channels", self.channels, 1, 1024)
        if self.crop is not None:
            _check("crop", self.crop, 1, 2**31 - 1)

    @property
    def min_side(self) -> int | None:
        """Hint for `ImageSource.read`: a file may be decoded smaller when no crop counts its pixels."""
        return self.size if self.crop is None else None

    def __call__(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Prepare one image.

        Parameters
        ----------
        image : ndarray, shape (H, W, C)
            uint8 is taken as it is. All other dtypes are stretched linearly from the 0.5 to the 99.8
            percentile of the finite pixels of the crop, all channels together; NaN and -inf become black,
            +inf white. A constant image becomes black.

        Returns
        -------
        ndarray of uint8, shape (size, size, channels)
            Grey is repeated to 3 channels; RGBA of 8 or 16 bits is laid on black. Always memory of its own.

        Raises
        ------
        ValueError
            No pixel is finite, or the number of channels does not fit; in plain words.
        """
        image = self._stretched(image)
        if image.shape[2] == 1 and self.channels == _RGB:
            image = np.repeat(_resize(image, self.size, self.size), _RGB, axis=2)
        if image.shape[2] != self.channels:
            raise ValueError(
                f"it has {image.shape[2]} channels where {self.channels} are expected; "
                "convert it, or keep such images in a set of their own"
            )
        return _resize(image, self.size, self.size)

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """Crop an image and lay its alpha on black: what the model sees of it, before the stretch.

        Parameters
        ----------
        image : ndarray, shape (H, W, C)
            As for a call.

        Returns
        -------
        ndarray of the same dtype, shape (h, w, C)
            A view of `image` where nothing had to be computed. RGBA becomes RGB.

        Raises
        ------
        ValueError
            If `image` has another number of dimensions, or no pixel.
        """
        if image.ndim != 3 or 0 in image.shape:  # noqa: PLR2004 - (H, W, C)
            raise ValueError(f"it has shape {image.shape}; height, width and channels are needed")
        if self.crop is not None:
            left, top, width, height = self.window(*image.shape[:2])
            image = image[top : top + height, left : left + width]
        # Four real-valued channels are four bands; of integers they are colour and alpha.
        if image.shape[2] == _RGBA and self.channels == _RGB and image.dtype.kind == "u":
            image = _on_black(image)
        return image

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the part of an image that the crop keeps, px."""
        wide, high = (n if self.crop is None else min(n, self.crop) for n in (width, height))
        return (width - wide) // 2, (height - high) // 2, wide, high

    def to_dict(self) -> dict[str, Any]:
        """Return the options, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Preprocess:
        """Build from what `to_dict` returned; unknown options raise ConfigError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"Unknown options of Preprocess: {unknown}. Known are {sorted(known)}.")
        return cls(**options)

    def _stretched(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        image = self.cut(image)
        return image if image.dtype == np.uint8 else _stretch(image)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a picture for people of any number of bands.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, C)
        Of more than three bands the first three are shown; two become red, their mean, and blue.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB.
    """
    if image.shape[2] == 1:
        return np.repeat(image, _RGB, axis=2)
    if image.shape[2] == 2:  # noqa: PLR2004 - two bands
        mean = image.mean(axis=2).astype(np.uint8)
        return np.stack([image[..., 0], mean, image[..., 1]], axis=2)
    return image[..., :_RGB]


def shrink(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Reduce a picture of uint8, shape (H, W, 3), so that its longer side is at most `side` pixels."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    return _resize(image, max(1, round(height * factor)), max(1, round(width * factor)))


def encode_thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Encode an RGB picture of uint8, shape (h, w, 3), as JPEG."""
    from PIL import Image  # noqa: PLC0415 - import amatch_widgets must be quick

    buffer = io.BytesIO()
    # Colour at full resolution: faint coloured structure is what people look for.
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _check(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"Preprocess({name}={value!r}): allowed is a whole number from {low} to {high}.")


def _on_black(image: NDArray[Any]) -> NDArray[Any]:
    white = np.iinfo(image.dtype).max
    alpha = image[..., 3:]
    if alpha.min() == white:  # by far the most common, and free of rounding
        return image[..., :3]
    laid: NDArray[Any] = ((image[..., :3].astype(np.uint64) * alpha + white // 2) // white).astype(
        image.dtype
    )
    return laid


def _stretch(image: NDArray[Any]) -> NDArray[np.uint8]:
    scaled = scale(image, *percentile_limits(image))
    stretched: NDArray[np.uint8] = (scaled + scaled.dtype.type(0.5)).astype(np.uint8)
    return stretched


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
            raise ValueError("no pixel is finite: all are NaN or infinite")
    ranks = np.maximum(np.ceil(np.array([black, white]) / 100 * values.size).astype(int) - 1, 0)
    if image.dtype.kind == "u":  # a histogram is one pass, three times as fast as finding the ranks
        low, high = np.searchsorted(np.bincount(values).cumsum(), ranks, side="right")
    else:
        low, high = np.partition(values, ranks)[ranks]
    return float(low), float(high)


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return np.array(image)
    from PIL import Image  # noqa: PLC0415 - import amatch_widgets must be quick

    def one(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Pillow's bilinear filter widens with the factor when it reduces, so that nothing aliases.
        picture = Image.fromarray(np.ascontiguousarray(part))
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))

    if image.shape[2] == _RGB:
        return one(image)
    return np.stack([one(image[..., c]) for c in range(image.shape[2])], axis=2)
