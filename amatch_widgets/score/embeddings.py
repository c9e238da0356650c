"""The vectors of all images: made once, memory-mapped, shared by sessions, never half right after a kill."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock, Timeout

from amatch_widgets.errors import StateError, WorkspaceError
from amatch_widgets.score import embedding_files as files
from amatch_widgets.score.embedding_files import VECTOR_TYPE, Contents, default_roots

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["EmbeddingStore", "default_roots"]

# What a kill may cost. A flush takes some 10 ms on a disk, so neither is felt.
_FLUSH_ROWS = 20_000
_FLUSH_S = 5.0


class EmbeddingStore:
    """The vectors of the images of one source by one network, made by `EmbeddingStore.open`.

    A store that lacks vectors belongs to the one object that opened it first; a complete one is
    shared by any number of processes.

    Attributes
    ----------
    folder : Path
        Where it lies.
    notice : str
        What the user should know: that a damaged store was found and is made anew. Mostly empty.

    Notes
    -----
    Thread safety: one thread at a time may call `set_projection`, `write`, `mark_unreadable`,
    `flush` and `close`; any number may read meanwhile. No lock is needed: a row is in the file
    before its byte in ``_state`` says so, and the rest is set by single assignments. Vectors go to
    the file by writing, not through the mapping, where a full disk would end the process (SIGBUS).
    """

    def __init__(self, folder: Path, contents: Contents, lock: FileLock | None, notice: str = "") -> None:
        self.folder = folder
        self.notice = notice
        self._contents = contents
        self._state = contents.state
        self._lock = lock
        self._vectors: np.memmap[Any, Any] | None = None
        self._vectors_file: io.FileIO | None = None
        self._state_file: io.FileIO | None = None
        self._is_open = True
        self._n_unsaved = 0
        self._saved_at = time.monotonic()
        if contents.dims:
            self._map(contents.dims)
        if lock is not None:
            self._state_file = (folder / files.STATE).open("r+b", buffering=0)

    @classmethod
    def open(
        cls, roots: Sequence[Path], key: Mapping[str, Any], n_images: int, *, max_dims: int = 0
    ) -> EmbeddingStore:
        """Open the store of `key` where it is complete, else the first that can be filled.

        Parameters
        ----------
        roots : sequence of Path
            Folders that may hold it, the best first; see `default_roots`.
        key : mapping of str to JSON values
            All that the vectors depend on: the source's fingerprint, the network and a digest of
            its weights, preprocessing, version of the format. Another key is another store.
        n_images : int, >= 1
            Images in the source.
        max_dims : int, >= 0
            Roots without room for the missing vectors of that many numbers are passed over.

        Returns
        -------
        EmbeddingStore
            To be filled from `missing` on, if that is not empty.

        Raises
        ------
        WorkspaceError
            If no root will do: it cannot be written, has no room, or another session fills it.
        """
        if n_images < 1:
            raise ValueError(f"There are {n_images} images; a store is of 1 or more.")
        text = files.canonical(key)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        folders = [Path(root).absolute() / name for root in roots]
        for folder in folders:
            try:
                contents = files.read(folder, text, n_images)
                if contents.is_complete:  # it changes no more: no lock is needed
                    return cls(folder, contents, None)
            except files.DAMAGE:  # or not there, or just being made: below, whoever has the lock sees
                continue
        reasons = []
        for folder in folders:
            try:
                return cls._open_locked(folder, text, n_images, max_dims)
            except OSError as error:
                reasons.append(f"{str(folder.parent)!r} ({error.strerror or error})")
        raise WorkspaceError(
            f"Nowhere can the vectors of the images be kept: {', '.join(reasons) or 'no folder was given'}. "
            "Free some space, or set the environment variable AMATCH_CACHE to a folder that you can write to."
        )

    @classmethod
    def _open_locked(cls, folder: Path, text: str, n_images: int, max_dims: int) -> EmbeddingStore:
        """Open a store to be filled, held by a lock that dies with its process."""
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        lock = FileLock(folder / files.LOCK, thread_local=False)  # close() may come on any thread
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise WorkspaceError("another session is filling it") from error
        try:
            contents, notice = files.restore(folder, text, n_images)
            n_missing = n_images - int(np.count_nonzero(contents.state))
            files.check_space(folder, n_missing * (contents.dims or max_dims) * VECTOR_TYPE.itemsize)
            return cls(folder, contents, lock, notice)
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        text = f"{self.n_done} of {self.n_images} images, {self.n_unreadable} unreadable, {self.dims} dims"
        return f"EmbeddingStore({str(self.folder)!r}, {text}{'' if self._is_open else ', closed'})"

    @property
    def n_images(self) -> int:
        """Images in the source."""
        return len(self._state)

    @property
    def dims(self) -> int:
        """Numbers per vector; 0 before `set_projection`."""
        return self._contents.dims

    @property
    def projection(self) -> dict[str, NDArray[Any]] | None:
        """The arrays given to `set_projection`, read-only; None before."""
        projection = self._contents.projection
        return None if projection is None else dict(projection)

    @property
    def vectors(self) -> np.memmap[Any, Any]:
        """All vectors: read-only memory map of float16, shape (n_images, dims); 0 where missing.

        One that was taken shows what is written later too, and stays valid after `close`.
        """
        if self._vectors is None:
            cure = "call set_projection first" if self._is_open else "open it again"
            raise StateError(f"{self!r} has no vectors to show: {cure}.")
        return self._vectors

    @property
    def is_done(self) -> NDArray[np.bool_]:
        """Whether each image has its vector: bool, shape (n_images,), a read-only copy."""
        is_done: NDArray[np.bool_] = self._state == files.DONE
        is_done.setflags(write=False)
        return is_done

    @property
    def missing(self) -> NDArray[np.int64]:
        """The images neither done nor unreadable: int64 indices in rising order."""
        return np.flatnonzero(self._state == files.MISSING).astype(np.int64, copy=False)

    @property
    def n_done(self) -> int:
        """Images that have their vector."""
        return int(np.count_nonzero(self._state == files.DONE))

    @property
    def n_unreadable(self) -> int:
        """Images that could not be read, and so have no vector."""
        return int(np.count_nonzero(self._state == files.UNREADABLE))

    @property
    def is_complete(self) -> bool:
        """Whether no image is missing."""
        return self._contents.is_complete

    def set_projection(self, arrays: Mapping[str, NDArray[Any]], dims: int) -> None:
        """Keep how vectors are made, and make room for them. Only once: vectors of two do not mix.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Any arrays but those of objects; names do not begin with an underscore.
        dims : int, >= 1
            Numbers per vector.

        Raises
        ------
        StateError
            If there is a projection, or the store is closed or complete.
        WorkspaceError
            If there is no room on the disk, or the files cannot be written.
        """
        self._check_writable()
        if self.dims:
            raise StateError(f"{self!r} has its projection; its vectors would not fit another.")
        kept = {name: np.array(array) for name, array in arrays.items()}
        wrong = [name for name, array in kept.items() if name.startswith("_") or array.dtype.hasobject]
        if dims < 1 or wrong:
            raise ValueError(f"A projection to {dims} dims with the arrays {wrong} cannot be kept.")
        try:
            files.make_room(self.folder, kept, dims, self.n_images)
            self._map(dims)
        except OSError as error:
            raise self._not_written(error) from error
        for array in kept.values():
            array.setflags(write=False)
        self._contents = Contents(self._state, kept, dims)

    def write(self, indices: ArrayLike, vectors: NDArray[np.float16]) -> None:
        """Take the vectors of some images; they can be read at once, and survive a kill from the next flush.

        Parameters
        ----------
        indices : array_like of int, shape (n,)
            Positions in the source, in any order.
        vectors : ndarray of float16, shape (n, dims)
            Their vectors, finite.

        Raises
        ------
        ValueError
            If shapes, type or indices are wrong, or a number is not finite; nothing is written.
        StateError
            If there is no projection yet, or the store is closed or was complete when it was opened.
        WorkspaceError
            If they cannot be written, e.g. on a full disk; there, these images stay missing.
        """
        self._check_writable()
        if self._vectors_file is None:
            raise StateError(f"{self!r} has no room for vectors yet: call set_projection first.")
        rows, dims = self._rows(indices), self.dims
        if vectors.dtype != np.float16 or vectors.shape != (len(rows), dims):
            raise ValueError(
                f"The vectors are {vectors.dtype} {vectors.shape}; float16 {(len(rows), dims)} is what fits."
            )
        is_finite = np.isfinite(vectors).all(axis=1)
        if not is_finite.all():
            raise ValueError(f"The vectors of the images {rows[~is_finite][:10].tolist()} are not finite.")
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")  # neighbours go to the disk in one piece
        rows, values = rows[order], np.ascontiguousarray(vectors[order], VECTOR_TYPE)
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        try:
            for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
                offset = int(rows[start]) * dims * VECTOR_TYPE.itemsize
                files.write_at(self._vectors_file, offset, values[start:end].view(np.uint8))
        except OSError as error:
            raise self._not_written(error) from error
        self._mark(rows, files.DONE)

    def mark_unreadable(self, indices: ArrayLike) -> None:
        """Take note that images (int indices, shape (n,)) cannot be read, so that none waits for them.

        Raises
        ------
        ValueError, StateError, WorkspaceError
            As `write` does; a projection is not needed.
        """
        self._check_writable()
        self._mark(self._rows(indices), files.UNREADABLE)

    def flush(self) -> None:
        """Bring what was written to the disk: vectors first, then the states that say so.

        Called by itself every few seconds of writing and when the last image is done.

        Raises
        ------
        WorkspaceError
            If it cannot be written; on disk the states are then those of before, or right ones.
        """
        if not self._n_unsaved or self._state_file is None:
            return
        try:
            if self._vectors_file is not None:
                os.fsync(self._vectors_file.fileno())
            # In place: a byte is old or new, so this cannot be torn, whenever the process dies.
            files.write_at(self._state_file, 0, self._state)
            os.fsync(self._state_file.fileno())
        except OSError as error:
            raise self._not_written(error) from error
        self._n_unsaved = 0
        self._saved_at = time.monotonic()

    def close(self) -> None:
        """Flush, and give the store free; closing twice does no harm."""
        try:
            self.flush()
        finally:
            self._is_open = False
            self._vectors = None
            for file in (self._vectors_file, self._state_file):
                if file is not None:
                    file.close()
            self._vectors_file = self._state_file = None
            if self._lock is not None:
                self._lock.release()

    def _map(self, dims: int) -> None:
        path = self.folder / files.VECTORS
        vectors = np.memmap(path, VECTOR_TYPE, "r", shape=(self.n_images, dims))
        if self._lock is not None:
            self._vectors_file = path.open("r+b", buffering=0)
        self._vectors = vectors

    def _mark(self, rows: NDArray[np.int64], state: int) -> None:
        self._state[rows] = state
        self._n_unsaved += len(rows)
        is_due = self._n_unsaved >= _FLUSH_ROWS or time.monotonic() - self._saved_at >= _FLUSH_S
        if is_due or self.is_complete:
            self.flush()

    def _rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        rows = np.asarray(indices)
        is_right = rows.ndim == 1 and (not len(rows) or rows.dtype.kind in "iu")
        if not is_right or (len(rows) and (rows.min() < 0 or rows.max() >= self.n_images)):
            raise ValueError(
                f"The indices {rows.dtype} {rows.shape} {rows.ravel()[:5].tolist()} are no list of positions "
                f"among {self.n_images} images."
            )
        return rows.astype(np.int64, copy=False)

    def _check_writable(self) -> None:
        if not self._is_open or self._lock is None:
            why = "was complete when it was opened, and is shared" if self._is_open else "is closed"
            raise StateError(f"{self!r} {why}: nothing can be written.")

    def _not_written(self, error: OSError) -> WorkspaceError:
        return WorkspaceError(
            f"The vectors of the images cannot be kept in {str(self.folder)!r}: {error.strerror or error}. "
            "Labels and scores are safe. Free some space, or set the environment variable AMATCH_CACHE to "
            "another folder."
        )
