"""One large image in a FITS file, of which parts are read."""

from __future__ import annotations

import io
import os
import stat
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.images.hdu import KINDS, image_hdus, import_fits, scaled
from amatch_widgets.images.place import name_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.unreadable import UnreadableError, in_words, plain_errors
from amatch_widgets.images.wcs import find_projection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from amatch_widgets.images.hdu import ImageHdu
    from amatch_widgets.images.place import Place

__all__ = ["Tile"]

_MOST_PIXELS = 2**24  # of a window: more is no cutout
_PLANE = 2  # axes


class Tile:
    """One image of a FITS file, of which headers alone are read until pixels are wanted.

    Pixels are read, not mapped: where a file on another machine is cut off or goes away, the operating system
    ends a process that has it mapped. Memory is taken for the pixels that are wanted, no more.

    Thread safety: ``_lock`` guards the open file with its place in it. A forked process needs its own Tile.

    Parameters
    ----------
    path : str or Remote
        The file; it may be compressed in tiles (fpack).
    hdu : str or int, optional
        EXTNAME or number of the image; default the first.

    Attributes
    ----------
    shape : (int, int)
        Height and width, in pixels.
    name : str
        Of the file.
    sky : Projection, or None
        The way to the sky; None without a celestial WCS in the header that can be used.

    Raises
    ------
    UnreadableError
        There is no such image, or it is damaged; in plain words.
    """

    def __init__(self, path: Place, hdu: str | int | None = None) -> None:
        self._path, self.name = path, name_of(path)
        self._lock = threading.Lock()
        self._file: Any = None
        self._hdus: Any = None
        with _in_plain_words(), _open(path) as file:
            self._hdu = _find(file, hdu)
            self.shape = self._hdu.shape[-2], self._hdu.shape[-1]
            self.sky = find_projection(file, self._hdu)

    def __del__(self) -> None:
        for opened in (getattr(self, "_hdus", None), getattr(self, "_file", None)):
            if opened is not None:
                opened.close()

    def window(self, left: int, top: int, width: int, height: int) -> NDArray[np.float32]:
        """Read a part of the image.

        Parameters
        ----------
        left, top : int
            First column and row, counted from 0; they may lie outside.
        width, height : int, > 0
            Pixels.

        Returns
        -------
        ndarray of float32, shape (height, width)
            In the unit of the file (BSCALE and BZERO applied); NaN where there is no pixel.

        Raises
        ------
        UnreadableError
            It cannot be read.
        """
        if width * height > _MOST_PIXELS:
            raise UnreadableError(
                f"{width} x {height} pixels would be needed for one image; more than "
                f"{_MOST_PIXELS // 10**6} million are not read"
            )
        found = np.full((height, width), np.nan, np.float32)
        rows = slice(max(top, 0), min(top + height, self.shape[0]))
        columns = slice(max(left, 0), min(left + width, self.shape[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            with self._lock, _in_plain_words():
                part = self._rows(rows, columns) if self._hdu.tile is None else self._unpack(rows, columns)
            with np.errstate(over="ignore"):
                found[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = part
        return found

    def _rows(self, rows: slice, columns: slice) -> NDArray[Any]:
        if self._file is None:
            self._file = _raw(self._path)
        kind = np.dtype(KINDS[self._hdu.bitpix])
        raw = np.empty((rows.stop - rows.start, columns.stop - columns.start), kind)
        for y, row in zip(range(rows.start, rows.stop), raw, strict=True):
            self._file.seek(self._hdu.offset + (y * self.shape[1] + columns.start) * kind.itemsize)
            if self._file.readinto(row.view(np.uint8)) != row.nbytes:
                raise UnreadableError("it was cut off since it was opened")
        return scaled(raw, self._hdu)

    def _unpack(self, rows: slice, columns: slice) -> NDArray[Any]:
        if self._hdus is None:
            of = self._path.open() if isinstance(self._path, Remote) else self._path
            self._hdus = import_fits().open(of, memmap=False)
        section = self._hdus[self._hdu.number].section
        axes = (0,) * (len(section.shape) - _PLANE)  # of length 1
        return np.asarray(section[(*axes, rows, columns)])


@contextmanager
def _in_plain_words() -> Iterator[None]:
    """Make an UnreadableError of all that damaged files and failing disks raise."""
    try:
        with plain_errors():
            yield
    except FileNotFoundError as exc:
        raise UnreadableError("there is no such file") from exc
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise UnreadableError(in_words(exc)) from exc


class _Raw(io.FileIO):
    """A file without a buffer, as rows of a cutout lie far from each other, that closes itself silently.

    Where a tile and its file are garbage together, Python may finish the file first, and would warn of it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), closefd=False)

    def close(self) -> None:
        if not self.closed:
            descriptor = self.fileno()
            super().close()
            os.close(descriptor)


def _raw(path: Place) -> Any:
    return path.open() if isinstance(path, Remote) else _Raw(path)


def _open(path: Place) -> IO[bytes]:
    if isinstance(path, Remote):
        return path.open()
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - reading from a pipe would wait for ever
        raise UnreadableError("it is no ordinary file")
    return open(path, "rb")  # noqa: PTH123 - as it was given


def _find(file: IO[bytes], wanted: str | int | None) -> ImageHdu:
    """Find an image in a file."""
    head = file.read(2)
    if head == b"\x1f\x8b":
        raise UnreadableError(
            "it is packed by gzip, so that no part of it can be read alone. Unpack it with gunzip, or "
            "compress it with fpack instead"
        )
    if not head:
        raise UnreadableError("the file is empty (0 bytes)")
    names = []
    for hdu in image_hdus(file):
        if wanted is None or wanted == hdu.number or hdu.name.lower() == str(wanted).lower():
            if any(n > 1 for n in hdu.shape[:-_PLANE]):
                raise UnreadableError(f"it has the shape {hdu.shape}: it is a stack of images, not one")
            return hdu
        names.append(f"{hdu.number} {hdu.name}".strip())
    if wanted is None:
        raise UnreadableError("there is no image in it, at most tables")
    raise UnreadableError(
        f"there is no image in an HDU {wanted!r} in it, but in {', '.join(names) or 'none'}"
    )
