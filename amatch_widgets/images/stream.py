"""Read and prepare very many images, once each and in no order, beside the work on those before."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from amatch_widgets.errors import ConfigError, ImageReadError
from amatch_widgets.images.source import read_many

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from amatch_widgets.images.source import ImageSource

__all__ = ["Batch", "ModelInput", "reading_threads", "spans", "stream"]

_SPAN = 256  # images of a span where the source does not say how many lie together
_FEWEST_THREADS, _MOST_THREADS = 2, 8
_LOOK_S = 0.2  # how often a thread that waits looks whether it is still wanted


class ModelInput(Protocol):
    """What makes of an image what a model sees: a `Preprocess`, `FitsboltInput` or `Pair`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a result, uint8."""

    @property
    def min_side(self) -> int | None:
        """Hint for `ImageSource.read`."""

    def __call__(self, image: NDArray[Any], /) -> NDArray[np.uint8]:
        """Prepare one image, shape (H, W, B); ValueError where it cannot be, in plain words."""

    def to_dict(self) -> dict[str, Any]:
        """Return the options, JSON-able."""


class Batch(NamedTuple):
    """Some images that could be read, and why others could not."""

    images: NDArray[np.uint8]
    """Shape (n, size, size, channels), or what a `ModelInput` makes."""
    indices: NDArray[np.int64]
    """Their indices, shape (n,)."""
    problems: dict[int, str]
    """Index to reason, of images that cannot be read."""


def reading_threads() -> int:
    """Return how many threads shall read: as many as this process has cores, from 2 to 8.

    A quota of a container, which leaves all cores visible, is not known here: beyond 2 cores a few more
    threads than it allows may wait for each other.
    """
    # Pillow, zarr and pyarrow decode without the GIL; astropy (FITS) is Python, and HDF5 has one lock: there
    # more threads wait for each other. `benchmarks/scale.py --what reading` measures it.
    if hasattr(os, "process_cpu_count"):
        n = os.process_cpu_count()  # Python 3.13: as the next line, and what PYTHON_CPU_COUNT says
    else:
        n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(max(n or 1, _FEWEST_THREADS), _MOST_THREADS)


def spans(indices: ArrayLike, chunk: int = 1) -> list[NDArray[np.int64]]:
    """Cut indices so that what lies together is read together.

    Parameters
    ----------
    indices : array of int64, shape (N,)
        Different from each other, in any order.
    chunk : int, >= 1
        How many images lie together in the source, from index 0 on.

    Returns
    -------
    list of ndarray of int64
        Rising; each holds whole chunks, as far as they are wanted, and not many more than 256 images.
    """
    wanted = np.sort(np.asarray(indices, np.int64))
    if not len(wanted):
        return []
    n_chunks = max(1, _SPAN // chunk)  # of a span
    cuts = np.flatnonzero(np.diff(wanted // (chunk * n_chunks))) + 1
    return np.split(wanted, cuts)


def stream(
    source: ImageSource,
    preprocess: ModelInput,
    wanted: Iterable[NDArray[np.int64]],
    *,
    batch_size: int = 256,
    threads: int = 2,
    ahead: int = 2,
) -> Generator[Batch]:
    """Read and prepare images in several threads; each chunk of the source is read once.

    The memory does not depend on how many images are wanted: each thread holds a chunk of the source and
    a batch, and `ahead` batches wait.

    Parameters
    ----------
    source : ImageSource
    preprocess : ModelInput
        What is done to each image.
    wanted : iterable of ndarray of int64
        Indices to be read together, each once: of `spans`. Taken one after the other, while the images
        before are read; their order is not kept.
    batch_size : int, >= 1
        Images of a batch; those at the end of a thread's work are smaller.
    threads : int, >= 1
        Reading threads.
    ahead : int, >= 1
        Batches that may wait.

    Yields
    ------
    Batch
        Each index is in one of them, among its indices or its problems.

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """
    if min(batch_size, threads, ahead) < 1:
        raise ConfigError(
            f"stream(batch_size={batch_size!r}, threads={threads!r}, ahead={ahead!r}): each is 1 or more."
        )
    return _Stream(source, preprocess, wanted, batch_size).run(threads, ahead)


class _Stream:
    """The threads of one call.

    Thread safety: ``_spans`` is guarded by ``_taking``; ``_queue`` and ``_is_over`` guard themselves.
    """

    def __init__(
        self,
        source: ImageSource,
        preprocess: ModelInput,
        wanted: Iterable[NDArray[np.int64]],
        batch_size: int,
    ) -> None:
        self._source, self._preprocess, self._batch_size = source, preprocess, batch_size
        self._spans = iter(wanted)
        self._taking = threading.Lock()
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue()
        self._is_over = threading.Event()

    def run(self, threads: int, ahead: int) -> Generator[Batch]:
        self._queue = queue.Queue(ahead)
        workers = [
            threading.Thread(target=self._work, name="amatch-stream", daemon=True) for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        n_at_work = threads
        try:
            while n_at_work:
                found = self._queue.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    n_at_work -= 1
                else:
                    yield found
        finally:  # also when the caller closes the generator
            self._is_over.set()
            for worker in workers:
                worker.join()

    def _work(self) -> None:
        try:
            for batch in self._batches():
                if not self._put(batch):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 (a border: it is raised again where the batches are taken)
            self._put(error)

    def _batches(self) -> Iterator[Batch]:
        """Fill batches from one span after the other; what is left at the end is one, too."""
        shape = self._preprocess.shape
        images, indices = np.empty((self._batch_size, *shape), np.uint8), np.empty(self._batch_size, np.int64)
        problems: dict[int, str] = {}
        n = 0
        while (span := self._next()) is not None:
            for index, found in read_many(self._source, span.tolist(), min_side=self._preprocess.min_side):
                if self._is_over.is_set():
                    return
                prepared = self._prepared(found)
                if isinstance(prepared, str):
                    problems[index] = prepared
                    continue
                images[n], indices[n] = prepared, index
                n += 1
                if n == self._batch_size:
                    yield Batch(images, indices, problems)
                    images, indices = np.empty_like(images), np.empty_like(indices)
                    n, problems = 0, {}
        if n or problems:
            yield Batch(images[:n], indices[:n], problems)

    def _prepared(self, found: NDArray[Any] | ImageReadError) -> NDArray[np.uint8] | str:
        if isinstance(found, ImageReadError):
            return found.reason
        try:
            return self._preprocess(found)
        except ValueError as error:  # of Preprocess, in plain words
            return str(error)

    def _next(self) -> NDArray[np.int64] | None:
        with self._taking:
            return None if self._is_over.is_set() else next(self._spans, None)

    def _put(self, what: Batch | BaseException | None) -> bool:
        """Hand something over; whether anybody wants more."""
        while not self._is_over.is_set():
            try:
                self._queue.put(what, timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False
