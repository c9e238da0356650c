"""Folders of image files: finding them, and decoding JPEG, PNG and TIFF."""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import plain_pixels
from amatch_widgets.images.ids import check_index, hash_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

__all__ = ["MAX_PIXELS", "SUFFIXES", "FolderSource", "decode"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
MAX_PIXELS = 200_000_000  # 0.6 GB as RGB: more is an attack or not a cutout

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OURS = (
    "image",
    "folder",
    "link",
    "broken",
    "hidden",
)  # no file ending looks like these: they begin with "."
_ESCAPED = re.compile(r"[\udc80-\udcff]|\\udc[89a-f][0-9a-f]")

# tifffile logs what it finds wrong in a file and raises as well. Without a handler Python would print the
# record to stderr of the notebook; handlers that the user has set still get it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


class _UnreadableError(Exception):
    """A reason, in plain words, on its way to an ImageReadError."""


class FolderSource:
    r"""All JPEG, PNG and TIFF files under a folder.

    Hidden files and folders are left out. Links are followed, each folder is listed once, so that a loop of
    links ends. The files are found when the source is made and opened when they are read.

    Parameters
    ----------
    path : path
        The folder.
    name : str, optional
        Short name for people; default the folder's name.

    Attributes
    ----------
    ids : tuple of str
        Paths relative to the folder with ``/`` between the parts, sorted. Bytes of a name that are no UTF-8
        are written as ``\udcXX``, so that each id is valid text.
    skipped : dict of str to str
        Folders and files under the folder that could not be looked at, with the reason.

    Raises
    ------
    SourceError
        The folder is missing, cannot be listed, or holds no image file.
    """

    channels = 3

    def __init__(self, path: str | os.PathLike[str], *, name: str | None = None) -> None:
        self._root = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
        self.name = name or os.path.basename(self._root) or self._root  # noqa: PTH119 - as above
        files, self.skipped, others = _find(self._root)
        if not files:
            raise SourceError(_nothing_found(self._root, self.skipped, others))
        named = sorted((_to_id(relative), relative) for relative in files)
        self.ids: Sequence[str] = tuple(image_id for image_id, _ in named)
        self._odd = {image_id: relative for image_id, relative in named if image_id != relative}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"FolderSource({self._root!r}, {len(self)} images)"

    def path_of(self, index: int) -> Path:
        """Return the file of one image."""
        image_id = self.ids[check_index(index, len(self))]
        return Path(self._root, self._odd.get(image_id, image_id))

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one file; see `ImageSource.read`.

        Pixels stay as they are stored: a rotation asked for by EXIF is not applied. Palette and CMYK files
        become RGB; of a file with several pages the first is read.
        """
        path = self.path_of(index)
        try:
            with path.open("rb") as file:
                return decode(file, min_side=min_side)
        except _UnreadableError as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc.__cause__
        except OSError as exc:
            raise ImageReadError(self.ids[index], _plain(exc)) from exc

    def fingerprint(self) -> str:
        """Return a hash of all ids; the files are not opened."""
        return hash_ids(self.ids, "folder")

    def spec(self) -> dict[str, Any]:
        """Return the folder's absolute path."""
        return {"kind": "folder", "path": self._root}


def decode(file: IO[bytes], *, min_side: int | None = None) -> NDArray[Any]:
    """Decode one JPEG, PNG or TIFF file, told apart by its first bytes.

    Parameters
    ----------
    file : binary file at its start
    min_side : int, optional
        A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets below this, in pixels.

    Returns
    -------
    ndarray of uint8, uint16 or float32, shape (H, W, C)
        C is 1 (grey), 3 (RGB) or 4 (RGBA); as many as there are in a TIFF.
    """
    head = file.read(32)
    file.seek(0)
    try:
        if head.startswith(_JPEG):
            return _decode_jpeg(file, min_side)
        if head.startswith(_PNG):
            return _decode_png(file, head)
        if head.startswith(_TIFF):
            return _decode_tiff(file)
    except _UnreadableError:
        raise
    except MemoryError as exc:
        raise _UnreadableError("there is not enough memory to decode it") from exc
    # Decoders meet hostile bytes with any exception there is (SyntaxError, struct.error, KeyError, ...), and
    # one bad file must not stop a run.
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno is not None:  # the disk, not the file
            raise
        raise _UnreadableError(f"it is damaged or cut off ({exc})") from exc
    if not head:
        raise _UnreadableError("the file is empty (0 bytes)")
    raise _UnreadableError("its content is not JPEG, PNG or TIFF, whatever its name says")


def _decode_jpeg(file: IO[bytes], min_side: int | None) -> NDArray[Any]:
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - import amatch_widgets must be quick

    # The class and not Image.open: that one warns or fails by a size limit which is global to the process.
    image = JpegImageFile(file)
    _check_size(*image.size)
    if min_side is not None:
        image.draft(image.mode, (min_side, min_side))  # type: ignore[no-untyped-call]
    return _pillow_pixels(image)


def _decode_png(file: IO[bytes], head: bytes) -> NDArray[Any]:
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - as above

    image = PngImageFile(file)
    _check_size(*image.size)
    if head[24] != 16:  # noqa: PLR2004 - the bit depth in IHDR, always the first chunk
        return _pillow_pixels(image)
    # Pillow keeps 16-bit grey, but cuts 16-bit colour down to 8 bits: not to be mixed in one folder. So the
    # upper and the lower bytes are decoded one after the other, the latter as if the file were
    # little-endian. (imagecodecs decodes 16 bits at once, but each damaged file costs it a reference to
    # None, and after some ten thousands of them Python 3.11 dies.)
    tiles: Any = image.tile
    arranged = tiles[0][3]
    if arranged == "LA;16B":  # four bytes a pixel: read as 8-bit RGBA
        pairs = _raw_pixels(image, "RGBA").astype(np.uint16)
        return (pairs[..., ::2] << 8 | pairs[..., 1::2])[..., [0, 0, 0, 1]]
    upper = np.asarray(image).astype(np.uint16)
    if arranged == "I;16B":
        return upper[..., None]
    file.seek(0)
    return upper << 8 | _raw_pixels(
        PngImageFile(file), {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}[arranged]
    )


def _raw_pixels(image: ImageFile, arrangement: str) -> NDArray[np.uint8]:
    """Decode a file that is not loaded yet as if its bytes were arranged in another way."""
    # Pillow's own plugins do it like this; the tests of 16-bit files watch over it.
    tiles: Any = image.tile
    codec, extent, offset, _ = tiles[0]
    tiles[0] = (codec, extent, offset, arrangement)
    return np.asarray(image)


def _pillow_pixels(image: ImageFile) -> NDArray[Any]:
    target = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA"}.get(image.mode, "RGB")
    if image.mode == "P" and "transparency" in image.info:
        target = "RGBA"
    pixels = np.asarray(image if image.mode == target else image.convert(target))
    return pixels if pixels.ndim == 3 else pixels[..., None]  # noqa: PLR2004 - (H, W, C)


def _decode_tiff(file: IO[bytes]) -> NDArray[Any]:
    import tifffile  # noqa: PLC0415 - import amatch_widgets must be quick

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        sizes = (page.imagewidth, page.imagelength, page.imagedepth, page.samplesperpixel, *page.chunks)
        if not all(isinstance(size, int) for size in sizes):  # of a damaged tag, e.g. a tuple of a million
            raise _UnreadableError("it is damaged: its size is no number")
        _check_size(page.imagewidth, page.imagelength * page.imagedepth, page.samplesperpixel)
        _check_segments(page, file.seek(0, os.SEEK_END))
        pixels = page.asarray(maxworkers=1)  # the caller has its own threads
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            return np.moveaxis(page.colormap[:, pixels] >> 8, 0, -1).astype(np.uint8)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise _UnreadableError(
                f"its axes are {page.axes!r}; allowed are images (YX) with samples (YXS, SYX)"
            )
        alpha = bool(page.extrasamples)
        inverse = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        cmyk = page.photometric == tifffile.PHOTOMETRIC.SEPARATED
    pixels = plain_pixels(np.ascontiguousarray(pixels))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]  # noqa: PLR2004 - (H, W, C)
    if pixels.dtype != np.float32:
        white = np.iinfo(pixels.dtype).max
        if inverse:
            pixels = white - pixels
        if cmyk and pixels.shape[2] >= 4:  # noqa: PLR2004 - C, M, Y, K
            ink = pixels[..., :4].astype(np.float32) / white
            pixels = ((1 - ink[..., :3]) * (1 - ink[..., 3:]) * white + 0.5).astype(pixels.dtype)
    return _grey_alpha_to_rgba(pixels) if alpha else pixels


def _check_segments(page: Any, end: int) -> None:
    """Refuse a TIFF page of which pixels are missing: tifffile would fill the gap with zeros."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if math.prod(page.chunks) > 4 * MAX_PIXELS:
        raise _UnreadableError("it is damaged: one of its tiles would be larger than any image")
    is_whole = len(offsets) == len(counts) == math.prod(page.chunked) and all(offsets) and all(counts)
    if page.compression == 1 and page.bitspersample % 8 == 0:
        is_whole = is_whole and sum(counts) >= page.nbytes
    if not is_whole:
        raise _UnreadableError("it is damaged: parts of its pixels are missing")
    last = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    if last > end:
        raise _UnreadableError(f"it is cut off: its pixels go on to byte {last}, the file ends at byte {end}")


def _grey_alpha_to_rgba(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 2:  # noqa: PLR2004 - (H, W)
        return pixels[..., None]
    return pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels  # noqa: PLR2004 - grey and alpha


def _check_size(width: int, height: int, samples: int = 1) -> None:
    if width * height > MAX_PIXELS or width * height * samples > 4 * MAX_PIXELS:
        raise _UnreadableError(
            f"it has {width} x {height} pixels; more than {MAX_PIXELS // 10**6} million are not decoded. "
            "Cut it into smaller images"
        )


def _find(root: str) -> tuple[list[str], dict[str, str], Counter[str]]:
    """List the image files under `root`, what could not be looked at, and how many files of other types."""
    files: list[str] = []
    skipped: dict[str, str] = {}
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    folders = [""]
    links: list[str] = []
    while folders or links:
        # Real folders first: what is there both by itself and by a link gets the id without the link.
        if not folders:
            links.sort(reverse=True)
        prefix = folders.pop() if folders else links.pop()
        try:
            at = os.path.join(root, prefix)  # noqa: PTH118 - Path objects cost more than the listing itself
            info = os.stat(at)  # noqa: PTH116 - as above
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(at) as entries:
                listing = [(entry.name, _kind(entry)) for entry in entries]
        except OSError as exc:
            if not prefix:
                raise SourceError(
                    f"The folder {root!r} cannot be listed: {exc.strerror}. Check path and permissions."
                ) from exc
            skipped[_to_id(prefix)] = _plain(exc)
            continue
        files += [prefix + name for name, kind in listing if kind == "image"]
        folders += [prefix + name + "/" for name, kind in listing if kind == "folder"]
        links += [prefix + name + "/" for name, kind in listing if kind == "link"]
        broken = [prefix + name for name, kind in listing if kind == "broken"]
        skipped |= {_to_id(relative): "it is a broken link or no ordinary file" for relative in broken}
        others.update(kind for _, kind in listing if kind not in _OURS)
    return files, skipped, others


def _kind(entry: os.DirEntry[str]) -> str:
    """Return one of `_OURS`, or the ending of a file of another type."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir():
        return "link" if entry.is_symlink() else "folder"
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - quicker than a Path
    if suffix not in SUFFIXES:
        return suffix or "without ending"
    return "image" if entry.is_file() else "broken"


def _to_id(relative: str) -> str:
    """Write a path as valid text; no two paths give the same."""
    if _ESCAPED.search(relative) is None:
        return relative
    return relative.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()


def _nothing_found(root: str, skipped: dict[str, str], others: Counter[str]) -> str:
    wanted = "Wanted are files that end in .jpg, .jpeg, .png, .tif or .tiff, in it or in its subfolders."
    if others:
        types = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
        found = f"The folder {root!r} holds no image; found were other files: {types}."
    elif skipped:
        found = f"The folder {root!r} holds no image that can be looked at."
    else:
        found = f"The folder {root!r} is empty."
    for what, reason in list(skipped.items())[:3]:
        found += f" Skipped {what!r}: {reason}."
    return f"{found} {wanted}"


def _plain(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "the file is gone since the folder was opened"
    if isinstance(exc, PermissionError):
        return "you have no permission to read it"
    return exc.strerror or str(exc)
