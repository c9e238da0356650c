"""Images in a ``.npy`` file, read one by one."""

from __future__ import annotations

import math
import os
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import check_array, plain_pixels, read_npy_header
from amatch_widgets.images.ids import NumberedIds, check_ids, check_index, hash_ids
from amatch_widgets.images.place import as_place, name_of, open_place, size_of, spec_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.unreadable import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = ["NpySource"]


class NpySource:
    """The images of one array in a ``.npy`` file.

    The file is read and not mapped into memory: the operating system ends a process that touches the pages
    of a mapped file which has become shorter, or whose volume is gone. Here such images are unreadable.

    Thread safety: all methods may be called from any thread; nothing changes after the source is made. A
    file on a disk stays open, a forked process reads from the same.

    Parameters
    ----------
    path : path or URL
        An array of shape (N, H, W) or (N, H, W, C), of any boolean, integer or real dtype; on a server in C
        order.
    ids : sequence of str, optional
        One unique id per image; default the zero-padded position (``"000"``, ``"001"``, ...).
    name : str, optional
        Short name for people; default the name of the file.

    Raises
    ------
    SourceError
        It is no such file or cut off, or the ids do not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Remote,
        *,
        ids: Iterable[str] | None = None,
        name: str | None = None,
    ) -> None:
        self._path = as_place(path)
        self.name = name or Path(name_of(self._path)).stem
        try:
            self._look()
        except (OSError, ValueError, EOFError, SyntaxError) as exc:
            raise SourceError(
                f"{self._path!r} cannot be opened as a .npy array: {exc}. It may be cut off, or hold Python "
                "objects or several arrays; write one array of a numeric dtype with numpy.save."
            ) from exc
        check_array(self._shape, self._dtype, f"file {self._path!r}")
        self._own_ids = None if ids is None else check_ids(ids, len(self))
        self.ids: Sequence[str] = self._own_ids or NumberedIds(len(self))
        self.channels: int = self._shape[3] if len(self._shape) == 4 else 1  # noqa: PLR2004 - NHWC

    def __len__(self) -> int:
        return int(self._shape[0])

    def __repr__(self) -> str:
        return f"NpySource({self._path!r}, {self._shape}, {self._dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the path; the file is opened again."""
        return _opened, (self._path, self._own_ids, self.name)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image as (H, W, C); see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        shape = self._shape[1:]
        size, n_pixels = self._dtype.itemsize, int(np.prod(shape))
        try:
            if self._is_interleaved:
                pixels = b"".join(self._bytes(size, (k * len(self) + index) * size) for k in range(n_pixels))
            else:
                pixels = self._bytes(n_pixels * size, index * n_pixels * size)
        except OSError as exc:  # the volume is gone
            raise ImageReadError(self.ids[index], in_words(exc)) from exc
        if len(pixels) < n_pixels * size:
            raise ImageReadError(self.ids[index], "the file has become shorter since it was opened")
        flat = np.frombuffer(pixels, self._dtype)
        image = plain_pixels(flat.reshape(shape, order="F" if self._is_interleaved else "C"))
        return image if image.ndim == 3 else image[..., None]  # noqa: PLR2004 - (H, W, C)

    def fingerprint(self) -> str:
        """Return a hash of shape, dtype and ids; pixels are not looked at."""
        return hash_ids(self._own_ids or (), f"{self._shape} {self._dtype.str}")

    def spec(self) -> dict[str, Any]:
        """Return the absolute path or URL, and the ids if they were given."""
        spec: dict[str, Any] = {"kind": "npy", **spec_of(self._path)}
        return spec if self._own_ids is None else {**spec, "ids": list(self._own_ids)}

    def _look(self) -> None:
        """Read the header, and compare it with the length of the file."""
        place = self._path
        with ExitStack() as stack:
            file = stack.enter_context(open_place(place))
            # In Fortran's order the first pixels of all images come first.
            self._shape, self._is_interleaved, self._dtype = read_npy_header(file)
            self._offset, size = file.tell(), size_of(file)
            if self._dtype.hasobject:
                raise ValueError("its pixels are Python objects")
            if min(self._shape, default=0) < 0:
                raise ValueError(f"its shape is {self._shape}")
            end = self._offset + math.prod(self._shape) * self._dtype.itemsize
            if end > size:
                raise ValueError(f"its pixels go on to byte {end}, the file ends at byte {size}")
            if not isinstance(place, Remote):
                self._file = file
                weakref.finalize(self, stack.pop_all().close)
                return
            if self._is_interleaved:  # each image would take all of the file
                raise ValueError(
                    "on a server images have to lie one after the other, and these are in Fortran order: "
                    "write it with numpy.save(path, numpy.ascontiguousarray(images))"
                )
            self._version = place.version()  # the state that was opened

    def _bytes(self, n: int, at: int) -> bytes:
        """Read `n` bytes of the array from byte `at` on; fewer where the file ends."""
        found = part = self._part(n, at)
        while part and len(found) < n:  # more than 2 GB, or an interrupted call
            part = self._part(n - len(found), at + len(found))
            found += part
        return found

    def _part(self, n: int, at: int) -> bytes:
        at += self._offset
        if isinstance(self._path, Remote):
            return self._path.read(self._version, at, at + n)
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), n, at)
        with Path(self._path).open("rb", buffering=0) as file:  # Windows
            file.seek(at)
            return file.read(n)


def _opened(path: Place, ids: Sequence[str] | None, name: str) -> NpySource:
    return NpySource(path, ids=ids, name=name)
