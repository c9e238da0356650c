"""Score the parts of an archive on a Dask cluster; each worker writes what it has scored."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import threading
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from amatch_widgets.archive.run import Held, Rate, ScoredPart, score_part
from amatch_widgets.errors import ConfigError, MissingExtraError, StateError
from amatch_widgets.events import ScoringProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.archive.ranker import Ranker
    from amatch_widgets.images.source import ImageSource

__all__ = ["connect", "score_on_cluster"]

_AHEAD = 2  # parts a thread of the cluster that are handed out: the next one waits where it is needed
_LOOK_S = 0.5  # how often a stop is looked for
_READING_THREADS = 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_ATTEMPTS = 3  # of a part that raises

_ready: dict[tuple[str, str], Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {}
"""On a worker: what scores, by the ranker's key and device; the last alone, since it may fill a GPU."""
_making = threading.Lock()
_scoring = threading.Lock()  # a network is one thread's at a time; others of the worker read meanwhile


def connect(address: str) -> Any:
    """Connect to the scheduler of a Dask cluster.

    Raises
    ------
    StateError
        If there is none at this address.
    MissingExtraError
        If distributed is not installed.
    """
    try:
        return _distributed().Client(address)
    except (OSError, ValueError) as error:
        raise StateError(
            f"There is no Dask scheduler at {address!r}: {error}. Start one with `dask scheduler`, and "
            "workers with `dask worker ADDRESS`; or leave the scheduler out, to score on this machine."
        ) from error


def score_on_cluster(
    client: Any,
    source: ImageSource,
    ranker: Ranker,
    parts: Parts,
    cycle: Cycle,
    *,
    device: str = "auto",
    batch_size: int = 256,
) -> Generator[ScoringProgress]:
    """Score the parts of a cycle that are not there yet, wherever there is a worker.

    Workers may join, die and come back: Dask gives what a lost worker had in hand to another one. They
    must see the images and the folder of the scores under the same paths as this process.

    Parameters
    ----------
    client : distributed.Client
        Of any cluster.
    source : ImageSource
        Is pickled.
    ranker : Ranker
        Is sent to each worker once.
    parts, cycle
        Where the scores go.
    device : str
        On each worker; "auto" takes its GPU, if it sees one.
    batch_size : int, >= 1

    Yields
    ------
    ScoringProgress
        After each part, and twice a second, so that a stop is heard.

    Raises
    ------
    ConfigError
        If `client` is no client of a Dask cluster.
    MissingExtraError
        If distributed is not installed.
    SourceError
        As of `score_missing`.
    StateError
        If the cluster is lost, or a part brings one worker after the other down; what is there is kept.
    """
    distributed = _distributed()
    if not isinstance(client, distributed.Client):
        raise ConfigError(
            f"client is {client!r}; allowed is a distributed.Client, e.g. Client(LocalCluster()), or None "
            "for this machine alone."
        )
    missing = parts.missing(cycle)
    n_done = parts.n_images - sum(stop - start for start, stop in map(parts.bounds, missing))
    held, rate = Held(source, parts, cycle, len(missing)), Rate()
    hand = _Hand(client, distributed, source, ranker, (parts, cycle), device=device, batch_size=batch_size)
    progress = ScoringProgress(n_done, parts.n_images, 0.0, float("inf"))
    waiting = deque(missing)
    try:
        while waiting or hand.futures:
            for number, lost in hand.work(waiting):
                if lost is None:
                    held.release()
                else:
                    held.hold(lost)
                start, stop = parts.bounds(number)
                n_done += stop - start
                per_s = rate.add(stop - start)
                progress = ScoringProgress(n_done, parts.n_images, per_s, (parts.n_images - n_done) / per_s)
                yield progress
            yield progress
        held.finish()
    except _lost_errors() as error:
        raise StateError(
            f"The cluster was lost while it scored: {type(error).__name__}: {error}. All parts that were "
            "done are kept: connect to a cluster and score again, it goes on from here."
        ) from error
    finally:
        hand.close()


class _Hand:
    """Hands parts out to the workers there are, and takes them back.

    Source and ranker lie on the workers. Where the last of these is lost, they are sent again with the next
    worker that comes.
    """

    def __init__(
        self,
        client: Any,
        distributed: Any,
        source: ImageSource,
        ranker: Ranker,
        where: tuple[Parts, Cycle],
        **options: Any,
    ) -> None:
        self._client, self._distributed = client, distributed
        self._what, self._where, self._options = [source, ranker], where, options
        self._shared: list[Any] | None = None
        # A key is never used again: what has it may be on its way out.
        self._run, self._n_submitted = uuid.uuid4().hex, 0
        self.futures: dict[Any, int] = {}

    def work(self, waiting: deque[int]) -> Iterator[tuple[int, ScoredPart | None]]:
        """Hand out what can be, wait a moment, and give the parts that were scored."""
        if not self._fill(waiting):
            return
        with contextlib.suppress(TimeoutError, self._distributed.CancelledError):
            self._distributed.wait(list(self.futures), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
        for future in [future for future in self.futures if future.done()]:
            number = self.futures.pop(future)
            try:
                yield number, future.result()
            except self._distributed.CancelledError:
                if self._client.status != "running":
                    raise
                self._shared = None  # it went with the last worker that had it
                waiting.appendleft(number)

    def close(self) -> None:
        """Take back what is handed out."""
        self._client.cancel(list(self.futures), force=True)

    def _fill(self, waiting: deque[int]) -> bool:
        """Hand out parts; whether there is something to wait for."""
        n_threads = sum(self._client.nthreads().values())
        if not n_threads:
            with contextlib.suppress(TimeoutError):
                self._client.wait_for_workers(1, timeout=_LOOK_S)
            return False
        if self._shared is None:
            self._shared = self._client.scatter(self._what, broadcast=True, hash=False)
        while waiting and len(self.futures) < _AHEAD * n_threads:
            number = waiting.popleft()
            self._n_submitted += 1
            future = self._client.submit(
                _score,
                *self._shared,
                *self._where,
                number,
                key=f"amatch-{self._run}-{self._n_submitted}",
                retries=_ATTEMPTS - 1,
                pure=False,
                **self._options,
            )
            self.futures[future] = number
        return True


def _score(
    source: ImageSource,
    ranker: Ranker,
    parts: Parts,
    cycle: Cycle,
    number: int,
    *,
    device: str,
    batch_size: int,
) -> ScoredPart | None:
    """Score a part and write it; on a worker. One of which nothing can be read is given back instead."""
    score = _ready_for(ranker, device)
    part = score_part(
        source,
        ranker.image,
        score,
        parts.bounds(number),
        number=number,
        batch_size=batch_size,
        threads=_READING_THREADS,
    )
    if part.is_lost:
        return part
    part.write(source, parts, cycle)
    return None


def _ready_for(ranker: Ranker, device: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what scores, made once on each worker."""
    # Before torch: it says how threads wait, which OpenMP reads once.
    importlib.import_module("amatch_widgets.learn")
    import torch  # noqa: PLC0415 (the process that hands out needs none)

    worker = importlib.import_module("distributed").get_worker()
    # The cores that the worker was given; Dask asks for one, and OpenMP counts for each thread anew.
    torch.set_num_threads(max(1, worker.state.nthreads))
    key = ranker.key, device
    with _making:
        if key not in _ready:
            _keep_freed_memory()
            made = ranker.ready(device)

            def one_at_a_time(images: NDArray[np.uint8]) -> NDArray[np.float32]:
                with _scoring:
                    return made(images)

            _ready.clear()
            _ready[key] = one_at_a_time
        return _ready[key]


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, as it does by default: a network asks for it again at once.

    Dask has its workers give each piece back to the system, and the page faults halved the rate.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise MissingExtraError(
            "To score on a cluster, Dask is needed. Type: pip install 'amatch-widgets[cluster]', then "
            "restart the kernel."
        ) from error


def _lost_errors() -> tuple[type[Exception], ...]:
    """Return what Dask raises where the cluster, and not the work, is at fault."""
    distributed = _distributed()
    closed: type[Exception] = distributed.comm.core.CommClosedError
    return distributed.CancelledError, distributed.KilledWorker, closed
