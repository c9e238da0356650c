"""Images in one array."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.ids import NumberedIds, check_ids, check_index, hash_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "ArraySource",
    "channels_last",
    "check_array",
    "hwc",
    "plain_pixels",
    "read_npy_header",
    "unmasked",
]


class ArraySource:
    """Images in one array in memory.

    Parameters
    ----------
    images : ndarray, shape (N, H, W) or (N, H, W, C)
        Any boolean, integer or real dtype. It is not copied. Masked pixels of a masked array are no data:
        NaN, and 0 in arrays of 8 bits. If it is a memory map, its file must not be
        shortened meanwhile: the operating system ends a process that reads lost pages. Open the path of a
        ``.npy`` file instead.
    ids : sequence of str, optional
        One unique id per image; default the zero-padded position (``"000"``, ``"001"``, ...).
    name : str
        Short name for people.

    Raises
    ------
    SourceError
        The array has no image, a wrong number of dimensions or no numbers, or the ids do not fit.
    """

    def __init__(
        self,
        images: NDArray[Any],
        *,
        ids: Iterable[str] | None = None,
        name: str = "array",
    ) -> None:
        check_array(images.shape, images.dtype, "array")
        self._images = images
        self._own_ids = None if ids is None else check_ids(ids, len(images))
        self.name = name
        self.channels: int = images.shape[3] if images.ndim == 4 else 1  # noqa: PLR2004 - NHWC
        self.ids: Sequence[str] = self._own_ids or NumberedIds(len(images))

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"ArraySource({self.name!r}, {self._images.shape}, {self._images.dtype})"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _rebuild, (self._images, self._own_ids, self.name)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image as (H, W, C); see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        try:
            image = plain_pixels(unmasked(self._images[index]))
        except ValueError as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc
        return image if image.ndim == 3 else image[..., None]  # noqa: PLR2004 - (H, W, C)

    def fingerprint(self) -> str:
        """Return a hash of shape, dtype and ids; pixels are not looked at."""
        return hash_ids(self._own_ids or (), f"{self._images.shape} {self._images.dtype.str}")

    def spec(self) -> dict[str, Any]:
        """Say what it is; an array in memory cannot be opened again."""
        return {"kind": "array"}


def plain_pixels(image: NDArray[Any]) -> NDArray[Any]:
    """Bring any numeric dtype to the three that sources hand out.

    Parameters
    ----------
    image : ndarray of any boolean, integer or real dtype, any shape

    Returns
    -------
    ndarray of uint8, uint16 or float32, same shape, native byte order
        Booleans become 0 and 255; what is beyond float32 becomes infinite.
    """
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    kind = image.dtype.newbyteorder("=")
    if kind in (np.uint8, np.uint16):
        return image.astype(kind, copy=False)
    with np.errstate(over="ignore"):
        return image.astype(np.float32, copy=False)


def unmasked(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image as memory of its own, its masked pixels as ones without data.

    Parameters
    ----------
    image : ndarray or masked array of any boolean, integer or real dtype, any shape

    Returns
    -------
    ndarray, same shape
        Where pixels are masked NaN, and float32 or float64 for it; but of 8 bits, which are shown as they are
        and not by their range, masked pixels are 0.

    Raises
    ------
    ValueError
        If all pixels are masked; in plain words.
    """
    mask = np.ma.getmask(image)
    pixels = np.array(np.ma.getdata(image))
    if mask is np.ma.nomask or not mask.any():
        return pixels
    if mask.all():
        raise ValueError("all its pixels are masked")
    if pixels.dtype.itemsize > 1 and pixels.dtype.kind != "f":
        pixels = pixels.astype(np.float64 if pixels.dtype.itemsize > 2 else np.float32)  # noqa: PLR2004 - exact
    pixels[mask] = np.nan if pixels.dtype.kind == "f" else 0
    return pixels


def hwc(shape: tuple[int, ...], *, limit: int | None = None) -> tuple[int, int, int]:
    """Return height, width and channels of one image, whose channels may be its first axis or its last.

    Parameters
    ----------
    shape : tuple of int
        (H, W), (C, H, W) or (H, W, C): the shorter one of the first and the last axis is the channels'.
    limit : int, optional
        How many channels there may be: an axis that is longer is one of many images.

    Raises
    ------
    ValueError
        There are too few or too many axes, or too many channels; in plain words.
    """
    if len(shape) == 2:  # noqa: PLR2004 - (H, W)
        return shape[0], shape[1], 1
    is_image = len(shape) == 3  # noqa: PLR2004 - (H, W, C)
    if not is_image or (limit is not None and min(shape[0], shape[2]) > limit):
        most = "" if limit is None else f" with at most {limit} channels C"
        raise ValueError(f"its shape is {shape}; one image is (H, W), (H, W, C) or (C, H, W){most}")
    first, second, third = shape
    return (second, third, first) if first < third else (first, second, third)


def channels_last(image: NDArray[Any]) -> NDArray[Any]:
    """Bring one image to a view of shape (H, W, C); see `hwc`."""
    if image.ndim == 3 and image.shape[0] < image.shape[2]:  # noqa: PLR2004 - (C, H, W)
        return np.moveaxis(image, 0, -1)
    return image.reshape(hwc(image.shape))


def _rebuild(images: NDArray[Any], ids: Sequence[str] | None, name: str) -> ArraySource:
    return ArraySource(images, ids=ids, name=name)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether it is in Fortran order, and dtype of a ``.npy`` file at its start."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    return read(file)


def check_array(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> None:
    """Refuse an array that is no set of images; `what` names it, e.g. "array".

    Raises
    ------
    SourceError
        If it has no image, a wrong number of dimensions or no numbers.
    """
    found = f"The {what} has shape {shape} and dtype {dtype}"
    if dtype.kind not in "biuf":
        raise SourceError(
            f"{found}: that is no real number per pixel. Convert it to uint8, uint16 or float32."
        )
    if len(shape) == 3 and shape[2] in (3, 4) and shape[1] > 4:  # noqa: PLR2004 - (H, W, 3 or 4)
        raise SourceError(
            f"{found}, which looks like one single image. Allowed is (N, H, W) or (N, H, W, C); "
            "add the first axis with images[None], or the last with images[..., None]."
        )
    if len(shape) not in (3, 4):
        raise SourceError(f"{found}. Allowed is (N, H, W) or (N, H, W, C): many images of equal size.")
    if 0 in shape:
        raise SourceError(f"{found}: there is no image in it. At least one image of one pixel is needed.")
