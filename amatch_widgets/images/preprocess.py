"""From the pixels of a file to the square uint8 image that the model sees, and to small pictures."""

from __future__ import annotations

import dataclasses
import io
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from amatch_widgets.errors import ConfigError, SourceError
from amatch_widgets.images.bands import Matrix, as_mix, in_words, mixed, resolved
from amatch_widgets.images.stretch import Stretch, limits_of, stretched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.source import ImageSource

__all__ = ["Preprocess", "as_rgb", "encode_thumbnail", "shrink"]

MAX_SIZE = 1024
_RGB = 3
_RGBA = 4


@dataclass(frozen=True, kw_only=True, repr=False)
class Preprocess(Stretch):
    """What is done to each image before the model sees it: crop, mix the bands, stretch, resize.

    The options of `Stretch` say how pixel values become grey levels.

    Parameters
    ----------
    size : int, in [8, 1024]
        Side of the square result, in pixels. Images that are not square are squashed.
    crop : int, optional
        Side of the square cut from the centre first, in pixels of the file; a smaller image is left whole in
        that direction.
    channels : int, >= 1, optional
        Channels of the result; by default those of `mix`, or 3.
    mix : sequence, optional
        For each channel of the result, which bands of the source it is made of, before the stretch: a
        name, as in ``mix=["i", "r", "g"]``, weights by name, ``{"r": 0.5, "i": 0.5}``, or a number for each
        band. By default the bands are the channels.
    bands : sequence of str, optional
        Names of the bands that the images have to have; a session writes down those of its source.
    blank : float, optional
        A pixel value that means "no data", e.g. -99; as NaN, it becomes black and sets no limit.

    Raises
    ------
    ConfigError
        An option is out of its range.
    """

    size: int = 64
    crop: int | None = None
    channels: int = 0
    mix: Sequence[Any] | None = None
    bands: Sequence[str] | None = None
    blank: float | None = None

    _ALWAYS: ClassVar[tuple[str, ...]] = ("size", "channels")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("size", self.size, 8, MAX_SIZE)
        if self.crop is not None:
            _check("crop", self.crop, 1, 2**31 - 1)
        if self.blank is not None and not (
            isinstance(self.blank, int | float) and math.isfinite(float(self.blank))
        ):
            raise ConfigError(f"Preprocess(blank={self.blank!r}): allowed is a finite number.")
        if self.bands is not None:
            is_named = not isinstance(self.bands, str) and all(isinstance(b, str) for b in self.bands)
            if not is_named or not self.bands or len(set(self.bands)) < len(self.bands):
                raise ConfigError(
                    f"Preprocess(bands={self.bands!r}): allowed are names, each once, e.g. ('g', 'r', 'i')."
                )
            object.__setattr__(self, "bands", tuple(self.bands))
        if self.mix is not None:
            object.__setattr__(self, "mix", as_mix(self.mix))
        if type(self.channels) is int and self.channels == 0:
            object.__setattr__(self, "channels", _RGB if self.mix is None else len(self.mix))
        _check("channels", self.channels, 1, 1024)
        if self.mix is not None and self.channels != len(self.mix):
            raise ConfigError(
                f"Preprocess(channels={self.channels}, mix=<{len(self.mix)} rows>): each channel needs a "
                "row. Leave channels= out."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a result: height, width, channels."""
        return self.size, self.size, self.channels

    @property
    def min_side(self) -> int | None:
        """Hint for `ImageSource.read`: a file may be decoded smaller when no crop counts its pixels."""
        return self.size if self.crop is None else None

    @property
    def n_bands(self) -> int:
        """Bands that an image has to have."""
        return self.channels if self.mix is None else len(self._matrix[0])

    @property
    def _matrix(self) -> Matrix:
        assert self.mix is not None
        if isinstance(self.mix[0][0], tuple):
            raise ConfigError(
                "Preprocess(mix=...) names bands, and it is not known yet which places they have. Give it "
                "to a session, or call preprocess.fitted(source)."
            )
        return cast("Matrix", self.mix)

    def fitted(self, source: ImageSource) -> Self:
        """Return the same for the images of a source: its channels, its bands' names noted.

        Raises
        ------
        SourceError
            If the images have other bands than `bands`.
        ConfigError
            If `mix` does not go with them.
        """
        names = getattr(source, "bands", None)
        if names and self.bands and tuple(names) != self.bands:
            raise SourceError(
                f"{source.name!r} has the bands {', '.join(names)}; images with {', '.join(self.bands)}, in "
                "this order, are expected. Open the images with the same bands in the same order."
            )
        bands = tuple(names) if names else self.bands
        if self.mix is None:
            return dataclasses.replace(self, bands=bands, channels=source.channels)
        return dataclasses.replace(self, bands=bands, mix=resolved(as_mix(self.mix), bands, source.channels))

    def check(self, source: ImageSource) -> None:
        """Refuse images that a model trained on images prepared like this was not made for.

        Raises
        ------
        SourceError
            If they have other bands, or another number of channels.
        """
        names = getattr(source, "bands", None)
        if names and self.bands and tuple(names) != tuple(self.bands):
            raise SourceError(
                f"{source.name!r} has the bands {', '.join(names)}, and the model has learnt from "
                f"{', '.join(self.bands)}. Open it with the same bands in the same order."
            )
        wanted, found = self.n_bands, source.channels
        if found != wanted and not (wanted == _RGB and found in (1, _RGBA)):
            raise SourceError(
                f"The images of {source.name!r} have {found} channels, and the model has learnt from "
                f"{wanted}. Open it with the same bands."
            )

    def __call__(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Prepare one image.

        Parameters
        ----------
        image : ndarray of uint8, uint16 or float32, shape (H, W, B)
            NaN and -inf become black, +inf white. A constant image becomes black.

        Returns
        -------
        ndarray of uint8, shape (size, size, channels)
            Grey is repeated to 3 channels; RGBA of 8 or 16 bits is laid on black. Always memory of its own.

        Raises
        ------
        ValueError
            No pixel is finite, or the number of bands does not fit; in plain words.
        """
        pixels = self.mixed(self.cut(image))
        picture = stretched(pixels, limits_of(pixels, self), self)
        if picture.shape[2] == 1 and self.channels == _RGB:
            picture = np.repeat(_resize(picture, self.size, self.size), _RGB, axis=2)
        if picture.shape[2] != self.channels:
            raise ValueError(
                f"it has {picture.shape[2]} channels where {self.channels} are expected; "
                "convert it, or keep such images in a set of their own"
            )
        return _resize(picture, self.size, self.size)

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """Crop an image, lay its alpha on black and mark its blank pixels: the bands that there are to see.

        Parameters
        ----------
        image : ndarray, shape (H, W, B)
            As for a call.

        Returns
        -------
        ndarray, shape (h, w, B)
            A view of `image` where nothing had to be computed. RGBA becomes RGB. Of the same dtype, but
            float32 where pixels of an image are blank.

        Raises
        ------
        ValueError
            If `image` has another number of dimensions, or no pixel.
        """
        if image.ndim != 3 or 0 in image.shape:  # noqa: PLR2004 - (H, W, B)
            raise ValueError(f"it has shape {image.shape}; height, width and channels are needed")
        if self.crop is not None:
            left, top, width, height = self.window(*image.shape[:2])
            image = image[top : top + height, left : left + width]
        # Four real-valued channels are four bands; of integers they are colour and alpha.
        if image.shape[2] == _RGBA and self.n_bands == _RGB and image.dtype.kind == "u":
            image = _on_black(image)
        if self.blank is None or not (is_blank := image == self.blank).any():
            return image
        if image.dtype == np.uint8 and self.limits == "auto":  # black as it is, and no pixel sets a limit
            return np.where(is_blank, np.uint8(0), image)
        return np.where(is_blank, np.float32(np.nan), image.astype(np.float32))

    def mixed(self, image: NDArray[Any]) -> NDArray[Any]:
        """Mix the bands of an image that was `cut`, shape (h, w, B): what is stretched."""
        return image if self.mix is None else mixed(image, self._matrix)

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the part of an image that the crop keeps, px."""
        wide, high = (n if self.crop is None else min(n, self.crop) for n in (width, height))
        return (width - wide) // 2, (height - high) // 2, wide, high

    @property
    def mixture(self) -> str:
        """What each channel is made of, e.g. "i, r, 0.5 g + 0.5 u"; "" where the bands are the channels."""
        return "" if self.mix is None else in_words(self._matrix, self.bands)

    @property
    def summary(self) -> str:
        """What differs from the default beside size and channels, in a few words; "" when nothing does."""
        words = [self.mixture] if self.mixture else []
        if self.stretch != "linear":
            words.append(f"{self.stretch} {self.softening:g}" if self.stretch == "asinh" else self.stretch)
        if self.limits == "fixed":
            words.append(f"{self.low:g} to {self.high:g}")
        elif self.limits == "zscale":
            words.append(self.limits)
        elif (self.limits, self.black, self.white) != ("auto", Stretch.black, Stretch.white):
            words.append(f"{self.black:g}-{self.white:g} %")
        if self.per_channel:
            words.append("each channel by itself")
        if self.crop is not None:
            words.append(f"the central {self.crop} px")
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return the options, JSON-able."""
        options = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.mix is not None:
            options["mix"] = [[list(w) if isinstance(w, tuple) else w for w in row] for row in self.mix]
        if self.bands is not None:
            options["bands"] = list(self.bands)
        return options

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Preprocess:
        """Build from what `to_dict` returned; unknown options raise ConfigError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"Unknown options of Preprocess: {unknown}. Known are {sorted(known)}.")
        return cls(**options)


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
