"""What a set of images is: the protocol, arrays, and the function that opens anything."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload, runtime_checkable

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ArraySource",
    "ImageSource",
    "NumberedIds",
    "hash_ids",
    "index_of",
    "open_source",
    "plain_pixels",
    "source_from_spec",
]

ALLOWED = "a folder of JPEG, PNG or TIFF files, a .npy file, or a NumPy array (N, H, W) or (N, H, W, C)"


@runtime_checkable
class ImageSource(Protocol):
    """A set of images with stable ids that can be read one by one, from several threads at once."""

    @property
    def name(self) -> str:
        """Short name for people, e.g. ``"cutouts"``."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the images as the model sees them: 3 for folders, C for arrays."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Stable unique strings, one per image, in the order of the indices."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image.

        Parameters
        ----------
        index : int, in [0, len)
            Which image.
        min_side : int, optional
            A hint: the smaller side may be reduced while decoding, to no less than this, in pixels.

        Returns
        -------
        ndarray of uint8, uint16 or float32, shape (H, W, C)
            The pixels in the unit of the source. C may differ from `channels` (grey or RGBA files).

        Raises
        ------
        ImageReadError
            The image cannot be read; never anything else.
        IndexError
            There is no such index.
        """
        ...

    def fingerprint(self) -> str:
        """Return a short hex string that changes when the set of images changes; cheap."""
        ...

    def spec(self) -> dict[str, Any]:
        """Return what is needed to open the source again, JSON-able."""
        ...


class NumberedIds(Sequence[str]):
    """The ids ``"000" ... "999"``, made when asked for, so that a hundred million cost nothing.

    Parameters
    ----------
    n : int
        How many there are.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._width = len(str(max(n - 1, 0)))

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [f"{i:0{self._width}d}" for i in range(self._n)[index]]
        return f"{range(self._n)[index]:0{self._width}d}"

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, str)
            and len(value) == self._width
            and value.isascii()
            and value.isdigit()
            and int(value) < self._n
        )

    def __repr__(self) -> str:
        return f"NumberedIds({self._n})"


class ArraySource:
    """Images in one array, in memory or memory-mapped.

    Parameters
    ----------
    images : ndarray, shape (N, H, W) or (N, H, W, C)
        Any boolean, integer or real dtype. It is not copied.
    ids : sequence of str, optional
        One unique id per image; default the zero-padded position (``"000"``, ``"001"``, ...).
    name : str
        Short name for people.
    path : path, optional
        The ``.npy`` file behind a memory map; without it the source cannot be opened again. The file must
        not be shortened while it is open: the operating system ends a process that reads lost pages.

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
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        _check_array(images, f"file {os.fspath(path)!r}" if path is not None else "array")
        self._images = images
        self._path = None if path is None else Path(path)
        self._own_ids = None if ids is None else _check_ids(ids, len(images))
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
        return _open_npy, (self._path, self._own_ids, self.name)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image as (H, W, C); see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        try:
            image = plain_pixels(np.array(self._images[index]))
        except OSError as exc:  # a memory map on a disk that went away
            raise ImageReadError(self.ids[index], exc.strerror or str(exc)) from exc
        return image if image.ndim == 3 else image[..., None]  # noqa: PLR2004 - (H, W, C)

    def fingerprint(self) -> str:
        """Return a hash of shape, dtype and ids; pixels are not looked at."""
        return hash_ids(self._own_ids or (), f"{self._images.shape} {self._images.dtype.str}")

    def spec(self) -> dict[str, Any]:
        """Return the path of the ``.npy`` file; an array in memory has none and cannot be reopened."""
        if self._path is None:
            return {"kind": "array"}
        spec: dict[str, Any] = {"kind": "npy", "path": os.path.abspath(self._path)}  # noqa: PTH100 - no links
        if self._own_ids is not None:
            spec["ids"] = list(self._own_ids)
        return spec


def open_source(what: object, *, ids: Iterable[str] | None = None, name: str | None = None) -> ImageSource:
    """Open a set of images.

    Parameters
    ----------
    what : path, ndarray or ImageSource
        A folder (recursive; JPEG, PNG, TIFF), a ``.npy`` file (memory-mapped), an array of shape (N, H, W)
        or (N, H, W, C), or any object that is an `ImageSource`, which is returned as it is.
    ids : sequence of str, optional
        For arrays and ``.npy`` alone: one unique id per image.
    name : str, optional
        Short name for people; default the name of the folder or file.

    Returns
    -------
    ImageSource
        The images.

    Raises
    ------
    SourceError
        There is nothing to open; the message says what was found and what to do.
    """
    if isinstance(what, np.ndarray):
        return ArraySource(what, ids=ids, name=name or "array")
    if isinstance(what, (str, os.PathLike)):
        return _open_path(Path(what), ids, name)
    if isinstance(what, ImageSource):
        if ids is not None or name is not None:
            raise SourceError(f"{what!r} is open already: ids and name cannot be changed. Leave them out.")
        return what
    raise SourceError(
        f"Cannot take images from an object of type {type(what).__name__!r}. Pass {ALLOWED}"
        + ("; join images of equal size with numpy.stack." if isinstance(what, (list, tuple)) else ".")
    )


def source_from_spec(spec: Mapping[str, Any]) -> ImageSource:
    """Open a source again from what its `spec` method returned.

    Raises
    ------
    SourceError
        The spec is of an array in memory, of an unknown kind, or what it names is gone.
    """
    kind = spec.get("kind")
    if kind in {"folder", "npy"}:
        return open_source(Path(spec["path"]), ids=spec.get("ids"))
    if kind == "array":
        raise SourceError(
            "The images were an array in memory, which is not kept. Pass the array again as source=."
        )
    raise SourceError(f"Unknown kind of source {kind!r}. Known are 'folder', 'npy' and 'array'.")


def index_of(source: ImageSource) -> dict[str, int]:
    """Map each id of a source to its index; build it once and keep it."""
    return {image_id: i for i, image_id in enumerate(source.ids)}


def hash_ids(ids: Iterable[str], *more: str) -> str:
    """Return 16 hex digits that depend on all ids, their order, and `more`."""
    digest = hashlib.blake2b(digest_size=8)
    for text in more:
        digest.update(text.encode() + b"\xff")  # 0xff never occurs in UTF-8, so no two lists look the same
    for text in ids:
        digest.update(text.encode() + b"\xff")
    return digest.hexdigest()


def check_index(index: int, n: int) -> int:
    """Return `index` as an int in [0, n); raise IndexError for all others, negative ones too."""
    index = operator.index(index)
    if not 0 <= index < n:
        raise IndexError(f"Image index {index} is out of range: there are {n} images, 0 to {n - 1}.")
    return index


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


def _open_path(path: Path, ids: Iterable[str] | None, name: str | None) -> ImageSource:
    from amatch_widgets.images.files import SUFFIXES, FolderSource  # noqa: PLC0415 - it imports this module

    try:
        if path.is_dir():
            if ids is not None:
                raise SourceError("A folder's ids are its file names: ids= is for arrays. Leave it out.")
            return FolderSource(path, name=name)
        if not path.exists():
            raise SourceError(
                f"There is no file or folder {str(path)!r}. Check the path; allowed is {ALLOWED}."
            )
    except (OSError, ValueError) as exc:  # no permission, name too long, NUL in it
        raise SourceError(f"Cannot look at {str(path)!r}: {exc}. Allowed is {ALLOWED}.") from exc
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _open_npy(path, ids, name)
    if suffix in SUFFIXES:
        raise SourceError(f"{str(path)!r} is a single image. Open the folder that holds it.")
    raise SourceError(f"{str(path)!r} is a file of type {suffix or 'unknown'!r}. Allowed is {ALLOWED}.")


def _open_npy(path: Path, ids: Iterable[str] | None, name: str | None) -> ArraySource:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as exc:
        raise SourceError(
            f"{str(path)!r} cannot be opened as a .npy array: {exc}. It may be cut off or hold Python "
            "objects; write it again with numpy.save and a numeric dtype."
        ) from exc
    if not isinstance(images, np.ndarray):  # a .npz under the wrong name
        images.close()
        raise SourceError(f"{str(path)!r} is an .npz archive. Save one array with numpy.save.")
    return ArraySource(images, ids=ids, name=name or path.stem, path=path)


def _rebuild(images: NDArray[Any], ids: Sequence[str] | None, name: str) -> ArraySource:
    return ArraySource(images, ids=ids, name=name)


def _check_array(images: NDArray[Any], what: str) -> None:
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


def _check_ids(ids: Iterable[str], n: int) -> tuple[str, ...]:
    given = (ids,) if isinstance(ids, str) else tuple(ids)
    for image_id in given:
        if not isinstance(image_id, str):
            raise SourceError(f"The id {image_id!r} is no string. Make strings of the ids, e.g. str(id).")
        if not image_id.isprintable() and any(0xD800 <= ord(c) < 0xE000 for c in image_id):  # noqa: PLR2004
            raise SourceError(
                f"The id {image_id!r} cannot be written as UTF-8. Take the surrogates out of it."
            )
    if len(given) != n:
        raise SourceError(f"{len(given)} ids were given for {n} images. Give one id per image.")
    if len(set(given)) != n:
        seen: set[str] = set()
        twice = next(i for i in given if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise SourceError(f"The id {twice!r} is given more than once. Each image needs an id of its own.")
    return given
