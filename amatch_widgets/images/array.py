"""Images in one array: in memory, or memory-mapped from a ``.npy`` file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.ids import NumberedIds, check_ids, check_index, hash_ids
from amatch_widgets.images.place import as_place, name_of, size_of, spec_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.unreadable import in_words

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "ArraySource",
    "RemoteArray",
    "channels_last",
    "hwc",
    "open_npy",
    "plain_pixels",
    "read_npy_header",
]


class ArraySource:
    """Images in one array, in memory or memory-mapped.

    Parameters
    ----------
    images : ndarray or RemoteArray, shape (N, H, W) or (N, H, W, C)
        Any boolean, integer or real dtype. It is not copied.
    ids : sequence of str, optional
        One unique id per image; default the zero-padded position (``"000"``, ``"001"``, ...).
    name : str
        Short name for people.
    path : path or URL, optional
        The ``.npy`` file behind a memory map; without it the source cannot be opened again. The file must
        not be shortened while it is open: the operating system ends a process that reads lost pages.

    Raises
    ------
    SourceError
        The array has no image, a wrong number of dimensions or no numbers, or the ids do not fit.
    """

    def __init__(
        self,
        images: NDArray[Any] | RemoteArray,
        *,
        ids: Iterable[str] | None = None,
        name: str = "array",
        path: str | os.PathLike[str] | Remote | None = None,
    ) -> None:
        self._images = images
        self._path = None if path is None else as_place(path)
        _check_array(images, "array" if path is None else f"file {self._path!r}")
        self._own_ids = None if ids is None else check_ids(ids, len(images))
        self.name = name
        self.channels: int = images.shape[3] if images.ndim == 4 else 1  # noqa: PLR2004 - NHWC
        self.ids: Sequence[str] = self._own_ids or NumberedIds(len(images))

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"ArraySource({self.name!r}, {self._images.shape}, {self._images.dtype})"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle a memory map by its path: NumPy alone would write all the pixels."""
        if self._path is None:
            return _rebuild, (self._images, self._own_ids, self.name)
        return open_npy, (self._path, self._own_ids, self.name)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image as (H, W, C); see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        try:
            image = plain_pixels(np.array(self._images[index]))
        except OSError as exc:  # a memory map on a disk, or a server, that went away
            raise ImageReadError(self.ids[index], in_words(exc)) from exc
        return image if image.ndim == 3 else image[..., None]  # noqa: PLR2004 - (H, W, C)

    def fingerprint(self) -> str:
        """Return a hash of shape, dtype and ids; pixels are not looked at."""
        return hash_ids(self._own_ids or (), f"{self._images.shape} {self._images.dtype.str}")

    def spec(self) -> dict[str, Any]:
        """Return the path or URL of the ``.npy`` file; an array in memory has none and cannot be reopened."""
        if self._path is None:
            return {"kind": "array"}
        spec: dict[str, Any] = {"kind": "npy", **spec_of(self._path)}
        if self._own_ids is not None:
            spec["ids"] = list(self._own_ids)
        return spec


class RemoteArray:
    """An array in a ``.npy`` file on a server, along whose first axis parts are read.

    Thread safety: nothing changes; each reading opens the file for itself.

    Parameters
    ----------
    place : Remote

    Raises
    ------
    OSError, ValueError
        It cannot be read, or is no such file.
    """

    def __init__(self, place: Remote) -> None:
        self._place = place
        with place.open() as file:
            self.shape, is_fortran, self.dtype = read_npy_header(file)
            self._start, size = file.tell(), size_of(file)
        self.ndim = len(self.shape)
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if is_fortran and self.ndim > 1:
            raise ValueError("its images do not lie one after the other (Fortran order)")
        if self.ndim and self._start + self.shape[0] * self._row_bytes > size:
            raise ValueError(f"its pixels go on after its end at byte {size}")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray[Any]:
        with self._place.open() as file:
            file.seek(self._start + index * self._row_bytes)
            return np.frombuffer(file.read(self._row_bytes), self.dtype).reshape(self.shape[1:])


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether it is in Fortran order, and dtype of a ``.npy`` file at its start."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
    return read(file)


def open_npy(
    path: str | os.PathLike[str] | Remote, ids: Iterable[str] | None = None, name: str | None = None
) -> ArraySource:
    """Open a ``.npy`` file, on a disk as a memory map; see `ArraySource`."""
    place = as_place(path)
    try:
        images = (
            RemoteArray(place) if isinstance(place, Remote) else np.lib.format.open_memmap(place, mode="r")
        )
    except (OSError, ValueError, EOFError, SyntaxError) as exc:
        raise SourceError(
            f"{place!r} cannot be opened as a .npy array: {exc}. It may be cut off, or hold Python "
            "objects or several arrays; write one array of a numeric dtype with numpy.save."
        ) from exc
    return ArraySource(images, ids=ids, name=name or Path(name_of(place)).stem, path=place)


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


def _check_array(images: NDArray[Any] | RemoteArray, what: str) -> None:
    if isinstance(images, np.ma.MaskedArray):
        raise SourceError(
            f"The {what} is a masked array: its mask would be lost. Fill it first, e.g. images.filled(0)."
        )
    found = f"The {what} has shape {images.shape} and dtype {images.dtype}"
    if images.dtype.kind not in "biuf":
        raise SourceError(
            f"{found}: that is no real number per pixel. Convert it to uint8, uint16 or float32."
        )
    if images.ndim == 3 and images.shape[2] in (3, 4) and images.shape[1] > 4:  # noqa: PLR2004 - (H, W, 3 or 4)
        raise SourceError(
            f"{found}, which looks like one single image. Allowed is (N, H, W) or (N, H, W, C); "
            "add the first axis with images[None], or the last with images[..., None]."
        )
    if images.ndim not in (3, 4):
        raise SourceError(f"{found}. Allowed is (N, H, W) or (N, H, W, C): many images of equal size.")
    if 0 in images.shape:
        raise SourceError(f"{found}: there is no image in it. At least one image of one pixel is needed.")
