"""How images are shown to people: as the model sees them, or with limits, stretch or channel of its own."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.preprocess import Preprocess, as_rgb
from amatch_widgets.images.stretch import Bounds, Stretch, limits_of, stretched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Rendering", "bounds_of", "encode_picture", "render"]

_LOSSLESS_PX = 2**20  # pixels up to which a picture is sent as PNG, so that each can be trusted when enlarged
_AS_IT_IS = Preprocess()


@dataclass(frozen=True, kw_only=True, repr=False)
class Rendering(Stretch):
    """How an image is shown on a screen; what the model is fed with does not depend on it.

    First the limits say which pixel values become black and white, then the stretch says what is
    between; brightness, contrast and inversion act on the picture, as the CSS filters of the same
    names do. The options of `Stretch` that are not named here are as there.

    Parameters
    ----------
    stretch : {"auto", "linear", "asinh", "log"}
        "auto" is the model's.
    limits : {"auto", "percentile", "zscale", "fixed"}
        "auto" are the model's.
    channel : int, >= 0, optional
        The one band of the source to show in grey, counted from 0; default the channels that the model
        sees, as RGB. An image of one channel is shown whichever is chosen, as the model sees it in each.
    brightness, contrast : float, in [0, 10]
        Factors; 1 changes nothing. Contrast is about middle grey.
    invert : bool
        Whether bright becomes dark.

    Raises
    ------
    ConfigError
        If an option is out of its range.
    """

    stretch: Literal["auto", "linear", "asinh", "log"] = "auto"
    channel: int | None = None
    brightness: float = 1.0
    contrast: float = 1.0
    invert: bool = False

    _STRETCHES: ClassVar[tuple[str, ...]] = ("auto", "linear", "asinh", "log")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("brightness", "contrast"):
            self._check_number(name, 0, 10)
        if self.channel is not None and (type(self.channel) is not int or self.channel < 0):
            raise ConfigError(
                f"Rendering(channel={self.channel!r}): allowed is a whole number from 0, or None for all."
            )
        self._check_flag("invert")

    def of(self, model: Stretch) -> Stretch:
        """Return the stretch to show by, where the model's is this one."""
        curve = model if self.stretch == "auto" else self
        limits = model if self.limits == "auto" else self
        return Stretch(
            stretch=curve.stretch,
            softening=curve.softening,
            limits=limits.limits,
            black=limits.black,
            white=limits.white,
            low=limits.low,
            high=limits.high,
            per_channel=limits.per_channel,
        )

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
        elif self.limits == "fixed":
            words.append(f"{self.low:g} to {self.high:g}")
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


def render(
    image: NDArray[Any],
    rendering: Rendering,
    model: Preprocess = _AS_IT_IS,
    *,
    bounds: Bounds | None = None,
) -> NDArray[np.uint8]:
    """Make a picture of an image.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, B)
        As of `Preprocess.cut`. NaN and -inf become black, +inf white.
    rendering : Rendering
    model : Preprocess, optional
        How the model sees images; its size and crop do not count.
    bounds : tuple of (float, float), optional
        The values that become black and white, where they are known, e.g. of the whole image that
        `image` is a part of; default `bounds_of` it.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB. May share memory with `image`, which is not to be changed then.

    Raises
    ------
    ValueError
        If no pixel is finite, or there is no such channel; in plain words.
    """
    how, seen = rendering.of(model), _seen(image, rendering, model)
    bounds = limits_of(seen, how) if bounds is None else bounds
    shown = seen[..., :3]
    picture = as_rgb(stretched(shown, bounds[:3], how))
    if rendering == rendering.pixels:
        return picture
    table: NDArray[np.uint8] = (_filtered(rendering) * 255 + 0.5).astype(np.uint8)
    return table[picture]


def bounds_of(image: NDArray[Any], rendering: Rendering, model: Preprocess = _AS_IT_IS) -> Bounds:
    """Find the pixel values that a rendering makes black and white.

    Parameters
    ----------
    image, rendering, model
        As for `render`.

    Returns
    -------
    tuple of (float, float)
        In the unit of the pixels; of the channels that are seen together, or of each. They are those of
        the rendering's channel where it has one.

    Raises
    ------
    ValueError
        If no pixel is finite, or there is no such channel.
    """
    return limits_of(_seen(image, rendering, model), rendering.of(model))


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


def _seen(image: NDArray[Any], rendering: Rendering, model: Preprocess) -> NDArray[Any]:
    """Take the chosen band, shape (H, W, 1), or the channels that the model sees."""
    if rendering.channel is None or image.shape[2] == 1:
        return model.mixed(image)
    if rendering.channel >= image.shape[2]:
        raise ValueError(f"it has {image.shape[2]} channels, and channel {rendering.channel + 1} was chosen")
    return image[..., rendering.channel, None]


def _filtered(rendering: Rendering) -> NDArray[np.float64]:
    """Return what the CSS filter makes of the 256 grey levels, in [0, 1]; it clips after each step."""
    grey = np.clip(np.arange(256) / 255 * rendering.brightness, 0, 1)
    grey = np.clip((grey - 0.5) * rendering.contrast + 0.5, 0, 1)
    return 1 - grey if rendering.invert else grey
