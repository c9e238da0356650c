"""The vectors of some images of an archive, in files on this disk that only grow.

They lie in the folder ``<root>/<16 hexadecimal digits>/``; the digits are those of the key::

    key.json        what the vectors depend on: images, network, projection
    indices.i64     positions of the images in the archive, little-endian
    vectors.f16     little-endian float16, a row for each of them
    lock            held by whoever adds some

Rows are added to the vectors first, and count when their index is there too: what a kill leaves behind is
whole rows. What makes no sense is made anew, as vectors can always be computed again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from amatch_widgets.errors import WorkspaceError
from amatch_widgets.images.local_copy import write_whole
from amatch_widgets.score.embedding_files import DAMAGE, VECTOR_TYPE, canonical, check_space, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Add = Callable[[NDArray[np.int64], NDArray[np.float16]], None]

__all__ = ["Embedded", "VectorFile"]

_KEY, _INDICES, _VECTORS, _LOCK = "key.json", "indices.i64", "vectors.f16", "lock"
_INDEX_TYPE = np.dtype("<i8")
_NOT_KEPT = (
    "The vectors of the archive's images cannot be kept in {}. Labels and scores are safe. Free some space, "
    "or set the environment variable AMATCH_CACHE to a folder that you can write to."
)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """Images of an archive that have a vector; more may come, which these arrays do not show.

    Attributes
    ----------
    indices : ndarray of int64, shape (N,)
        Positions in the archive, each once, in no order.
    vectors : ndarray of float16, shape (N, D)
        Memory-mapped, read-only.
    """

    indices: NDArray[np.int64]
    vectors: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of images at positions in the archive, shape (M,); -1 for one without a vector."""
        wanted = np.asarray(indices, np.int64)
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        order = np.argsort(self.indices)
        places = np.minimum(np.searchsorted(self.indices, wanted, sorter=order), len(self) - 1)
        rows = order[places]
        return np.where(self.indices[rows] == wanted, rows, -1).astype(np.int64, copy=False)


class VectorFile:
    """The vectors of the images of one archive by one network and projection.

    Parameters
    ----------
    roots : sequence of Path
        Folders that may hold it, the best first.
    key : mapping of str to JSON values
        All that the vectors depend on. Another key is another file.
    n_images : int
        Images of the archive.
    dims : int
        Numbers per vector.

    Notes
    -----
    Thread safety: nothing changes after the construction; one thread at a time, of all processes, may be
    in `adding`, any number may `read` meanwhile.
    """

    def __init__(self, roots: Sequence[Path], key: Mapping[str, Any], *, n_images: int, dims: int) -> None:
        self._text = canonical(key)
        name = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        self._folders = [root.absolute() / name for root in roots]
        self._n_images, self._dims = n_images, dims

    def read(self) -> Embedded:
        """Return what is there now; nothing where it is damaged or cannot be read."""
        for folder in self._folders:
            with contextlib.suppress(*DAMAGE):
                return self._read(folder)
        return Embedded(np.empty(0, np.int64), np.empty((0, self._dims), np.float16))

    @contextlib.contextmanager
    def adding(self, n_more: int) -> Iterator[Add]:
        """Let vectors be added: yields a function that takes indices and vectors, which are then on disk.

        The indices, int64 of shape (n,), are of images without a vector; the vectors are float16 of shape
        (n, D), and finite. What was given stays, however this is left.

        Parameters
        ----------
        n_more : int
            How many there will be, at most: there has to be room for them.

        Raises
        ------
        WorkspaceError
            If nowhere they can be kept, or they cannot be written any more.
        """
        folder, lock = self._lock(n_more)
        with contextlib.ExitStack() as stack:
            stack.callback(lock.release)
            try:
                n = self._n_rows(folder)
                # Vectors before indices: an index says that its vector is on the disk.
                files = [
                    (stack.enter_context((folder / name).open("r+b", buffering=0)), kind)
                    for name, kind in ((_VECTORS, VECTOR_TYPE), (_INDICES, _INDEX_TYPE))
                ]
            except OSError as error:
                raise _not_kept(folder, error) from error

            def add(more: NDArray[np.int64], rows: NDArray[np.float16]) -> None:
                nonlocal n
                if rows.shape != (len(more), self._dims) or not np.isfinite(rows).all():
                    raise ValueError(f"{len(more)} images and vectors {rows.shape}, or not finite.")
                if not len(more):
                    return
                try:
                    for (file, kind), data in zip(files, (rows, more), strict=True):
                        values = np.ascontiguousarray(data, kind).view(np.uint8)
                        write_at(file, n * values.nbytes // len(more), values)
                        os.fsync(file.fileno())
                except OSError as error:
                    raise _not_kept(folder, error) from error
                n += len(more)

            yield add

    def _read(self, folder: Path) -> Embedded:
        """Return what is in a folder; one of DAMAGE if that makes no sense."""
        if canonical(json.loads((folder / _KEY).read_text("utf-8"))) != self._text:
            raise ValueError(f"{_KEY} is of something else")
        n = self._n_rows(folder)
        indices = np.fromfile(folder / _INDICES, _INDEX_TYPE, n).astype(np.int64, copy=False)
        if len(indices) != n or len(np.unique(indices)) != n:
            raise ValueError(f"{_INDICES} names an image twice")
        if n and (indices.min() < 0 or indices.max() >= self._n_images):
            raise ValueError(f"{_INDICES} names images beyond the last")
        if not n:
            return Embedded(indices, np.empty((0, self._dims), np.float16))
        return Embedded(indices, np.memmap(folder / _VECTORS, VECTOR_TYPE, "r", shape=(n, self._dims)))

    def _n_rows(self, folder: Path) -> int:
        """Count whole rows."""
        n_indices = (folder / _INDICES).stat().st_size // _INDEX_TYPE.itemsize
        return min(n_indices, (folder / _VECTORS).stat().st_size // (self._dims * VECTOR_TYPE.itemsize))

    def _lock(self, n_more: int) -> tuple[Path, FileLock]:
        """Return the folder to add to and its lock, which is held; where there are vectors already, first."""
        reasons = []
        for folder in sorted(self._folders, key=lambda folder: not (folder / _KEY).exists()):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "Permission denied")
                check_space(folder, n_more * (self._dims * VECTOR_TYPE.itemsize + _INDEX_TYPE.itemsize))
                lock = FileLock(folder / _LOCK, thread_local=False)
                lock.acquire(timeout=0)
            except Timeout as error:
                raise WorkspaceError(
                    f"Another session is adding vectors in {str(folder)!r}. Wait until it has ended."
                ) from error
            except OSError as error:
                reasons.append(_where(folder, error))
                continue
            try:
                self._mend(folder)
            except OSError as error:
                lock.release()
                raise _not_kept(folder, error) from error
            return folder, lock
        raise WorkspaceError(_NOT_KEPT.format(", ".join(reasons)))

    def _mend(self, folder: Path) -> None:
        """Cut off what is no whole row; begin anew where what is there makes no sense."""
        try:
            self._read(folder)
            n = self._n_rows(folder)
        except DAMAGE:
            n = 0
            for name in (_INDICES, _VECTORS):  # removed, not cut short: a reader may have it mapped
                (folder / name).unlink(missing_ok=True)
                (folder / name).touch()
            write_whole(folder / _KEY, json.dumps(json.loads(self._text), indent=1).encode())
        os.truncate(folder / _INDICES, n * _INDEX_TYPE.itemsize)
        os.truncate(folder / _VECTORS, n * self._dims * VECTOR_TYPE.itemsize)


def _not_kept(folder: Path, error: OSError) -> WorkspaceError:
    return WorkspaceError(_NOT_KEPT.format(_where(folder, error)))


def _where(folder: Path, error: OSError) -> str:
    return f"{str(folder)!r} ({error.strerror or error})"
