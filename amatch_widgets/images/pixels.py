"""A cache of prepared images, filled by a few decoding threads."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ConfigError, ImageReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from amatch_widgets.images.fitsbolt import FitsboltInput
    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.images.source import ImageSource

__all__ = ["PixelPool"]

_UNKNOWN, _FAILED = -1, -2  # in place of a slot of the cache


class PixelPool:
    """Prepared images of a source, kept in memory as far as a budget goes.

    An image that cannot be read is listed in `problems` once and left out of each result; it is not tried
    again and never replaced by another.

    Thread safety: all methods may be called from any thread. ``_lock`` guards ``problems`` and what is in
    ``_kept``, which is replaced as a whole; a row of its cache is written before its slot is published and
    never changed after.

    Parameters
    ----------
    source : ImageSource
        Where the images come from.
    preprocess : Preprocess or FitsboltInput
        What is done to each.
    budget_bytes : int
        Memory for the cache, in bytes. Images beyond it are decoded each time.
    threads : int, >= 1
        Decoding threads; they live as long as a call of `batch`, or as a stream.
    on_problem : callable (image_id, reason), optional
        Called once for each unreadable image, on a decoding thread; must not raise.
    """

    def __init__(
        self,
        source: ImageSource,
        preprocess: Preprocess | FitsboltInput,
        *,
        budget_bytes: int = 512 * 2**20,
        threads: int = 2,
        on_problem: Callable[[str, str], None] | None = None,
    ) -> None:
        if budget_bytes < 0 or threads < 1:
            raise ConfigError(
                f"PixelPool(budget_bytes={budget_bytes!r}, threads={threads!r}): "
                "the budget must not be negative, and at least one thread is needed."
            )
        self._source = source
        self._budget_bytes, self._threads = budget_bytes, threads
        self._on_problem = on_problem
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}
        self._kept = _Kept(preprocess, len(source), budget_bytes)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return (
            f"PixelPool({self._source.name!r}, {len(self)} images, {self.n_cached} in memory, "
            f"{len(self.problems)} unreadable)"
        )

    @property
    def n_cached(self) -> int:
        """Number of images in memory."""
        return self._kept.n

    def kept(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images in memory, shape (n, size, size, channels), and their indices, shape (n,).

        Not a copy: it holds the memory of these images, and its rows do not change.
        """
        with self._lock:
            kept, slots = self._kept, self._kept.slots.copy()
            images = kept.cache[: kept.n]
        indices = np.flatnonzero(slots >= 0)
        return images, indices[slots[indices].argsort()]

    def prepare(self, preprocess: Preprocess) -> None:
        """Prepare images in another way from now on: all that is kept is dropped, problems too."""
        with self._lock:
            self._kept = _Kept(preprocess, len(self._source), self._budget_bytes)
            self.problems = {}

    def batch(self, indices: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Read some images.

        Parameters
        ----------
        indices : array of int64, shape (N,)
            Which images, in any order; repeats are allowed.

        Returns
        -------
        images : ndarray of uint8, shape (n_ok, size, size, channels)
            Those that could be read, in the order asked for.
        indices : ndarray of int64, shape (n_ok,)
            Their indices.

        Raises
        ------
        IndexError
            An index is out of range.
        """
        wanted = self._checked(indices)
        executor = ThreadPoolExecutor(self._threads, "amatch-pixels")
        try:
            return _Pending(self, wanted, executor).result()
        finally:  # after an error or an interrupt the rest is not read
            executor.shutdown(wait=True, cancel_futures=True)

    def stream(
        self, indices: ArrayLike | None = None, *, batch_size: int = 256
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Read many images in batches, the next ones while the caller works on this one.

        Parameters
        ----------
        indices : array of int64, shape (N,), optional
            Which images; default all of them in order.
        batch_size : int, >= 1
            Images a batch. Unreadable ones make a batch smaller; an empty batch is left out.

        Yields
        ------
        images : ndarray of uint8, shape (n_ok, size, size, channels)
        indices : ndarray of int64, shape (n_ok,)
        """
        wanted = np.arange(len(self)) if indices is None else self._checked(indices)
        if batch_size < 1:
            raise ConfigError(f"stream(batch_size={batch_size!r}): at least 1 is needed.")
        return self._stream(wanted, batch_size)

    def _stream(
        self, wanted: NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        executor = ThreadPoolExecutor(self._threads, "amatch-pixels")
        ahead: deque[_Pending] = deque()
        try:
            for start in range(0, len(wanted), batch_size):
                ahead.append(_Pending(self, wanted[start : start + batch_size], executor))
                if len(ahead) > 2:  # noqa: PLR2004 - one being decoded, one ready
                    images, got = ahead.popleft().result()
                    if len(got):
                        yield images, got
            while ahead:
                images, got = ahead.popleft().result()
                if len(got):
                    yield images, got
        finally:  # also when the caller closes the generator
            executor.shutdown(wait=True, cancel_futures=True)

    def _checked(self, indices: ArrayLike) -> NDArray[np.int64]:
        wanted = np.asarray(indices)
        if wanted.size == 0:
            return np.empty(0, dtype=np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise IndexError(f"Indices must be a list of whole numbers; found {wanted.dtype} {wanted.shape}.")
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(
                f"Image indices from {wanted.min()} to {wanted.max()} were asked for; "
                f"there are {len(self)} images, 0 to {len(self) - 1}."
            )
        return wanted.astype(np.int64)

    def _decode(self, kept: _Kept, index: int) -> NDArray[np.uint8] | None:
        """Read and prepare one image, keep it if there is room; None if it cannot be read."""
        try:
            image = kept.preprocess(self._source.read(index, min_side=kept.preprocess.min_side))
        except ImageReadError as exc:
            self._fail(kept, index, exc.reason)
            return None
        except ValueError as exc:  # of Preprocess, in plain words
            self._fail(kept, index, str(exc))
            return None
        with self._lock:
            if kept.slots[index] == _UNKNOWN and kept.n < len(kept.cache):
                kept.cache[kept.n] = image
                kept.slots[index] = kept.n
                kept.n += 1
        return image

    def _fail(self, kept: _Kept, index: int, reason: str) -> None:
        image_id = self._source.ids[index]
        with self._lock:
            # Another thread was here meanwhile, or the images are prepared otherwise by now.
            if kept.slots[index] != _UNKNOWN or kept is not self._kept:
                return
            kept.slots[index] = _FAILED
            self.problems[image_id] = reason
        if self._on_problem is not None:
            self._on_problem(image_id, reason)


class _Kept:
    """Images prepared in one way, in the order in which they were first read."""

    def __init__(self, preprocess: Preprocess | FitsboltInput, n_images: int, budget_bytes: int) -> None:
        self.preprocess = preprocess
        self.shape = (preprocess.size, preprocess.size, preprocess.channels)
        capacity = min(n_images, budget_bytes // int(np.prod(self.shape)))
        # np.empty asks the system for address space alone: memory is used up as rows are written.
        self.cache: NDArray[np.uint8] = np.empty((capacity, *self.shape), dtype=np.uint8)
        self.slots = np.full(n_images, _UNKNOWN, dtype=np.int32)
        self.n = 0


class _Pending:
    """A batch whose missing images are being decoded."""

    def __init__(self, pool: PixelPool, indices: NDArray[np.int64], executor: ThreadPoolExecutor) -> None:
        self._indices = indices
        self._kept = kept = pool._kept  # noqa: SLF001 - a part of PixelPool
        with pool._lock:  # noqa: SLF001 - as above
            slots = kept.slots[indices]
        self._ok = slots >= 0
        self._images = np.empty((len(indices), *kept.shape), dtype=np.uint8)
        self._images[self._ok] = kept.cache[slots[self._ok]]
        missing = np.flatnonzero(slots == _UNKNOWN)
        # Small jobs keep all threads busy to the end of a batch; a job for each image would cost too much.
        parts = np.array_split(missing, max(1, len(missing) // 8))
        self._jobs: list[Future[Any]] = [
            executor.submit(self._fill, pool, part) for part in parts if len(part)
        ]

    def _fill(self, pool: PixelPool, positions: NDArray[np.int64]) -> None:
        for position in positions:
            image = pool._decode(self._kept, int(self._indices[position]))  # noqa: SLF001 - as above
            if image is not None:
                self._images[position] = image
                self._ok[position] = True

    def result(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        for job in self._jobs:
            job.result()
        if self._ok.all():
            return self._images, self._indices
        return self._images[self._ok], self._indices[self._ok]
