"""Score the parts of an archive on a Dask cluster; each worker writes what it has scored."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from amatch_widgets.archive import worker
from amatch_widgets.archive.first import keep_first, spans_first
from amatch_widgets.archive.run import Held, Rate
from amatch_widgets.errors import ConfigError, MissingExtraError, StateError
from amatch_widgets.events import ScoringProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.archive.ranker import Ranker
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.learn.inference import Precision

__all__ = ["choose_precision", "connect", "score_on_cluster"]

_AHEAD = 2  # parts a thread of the cluster that are handed out: the next one waits where it is needed
_LOOK_S = 0.5  # how often a stop is looked for
_ATTEMPTS = 3  # of a part that raises
_FEW = 256  # images of a task, of those that are scored first


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

    What was highest in the cycle before is scored before the parts, as by `score_first`. Workers may join,
    die and come back: Dask gives what a lost worker had in hand to another one. They must see the images
    and the folder of the scores under the same paths or URLs as this process.

    Parameters
    ----------
    client : distributed.Client
        Of any cluster.
    source : ImageSource
        Is pickled.
    ranker : Ranker
        Is sent to each worker once. With a precision of its own, not "auto", an image gets the same score
        wherever it is scored, as far as the workers are of one kind.
    parts, cycle
        Where the scores go.
    device : str
        On each worker; "auto" takes its GPU, if it sees one.
    batch_size : int, >= 1

    Yields
    ------
    ScoringProgress
        After each task, and twice a second, so that a stop is heard.

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
    options: dict[str, Any] = {"device": device, "batch_size": batch_size}
    hand = _Hand(client, [source, ranker], options)
    try:
        yield from _score_first(hand, source, parts, cycle)
        yield from _score_missing(hand, source, parts, cycle)
    except _lost_errors() as error:
        raise StateError(
            f"The cluster was lost while it scored: {type(error).__name__}: {error}. All parts that were "
            "done are kept: connect to a cluster and score again, it goes on from here."
        ) from error
    finally:
        hand.close()


def choose_precision(
    client: Any, ranker: Ranker, n_images: int, *, device: str = "auto"
) -> Generator[ScoringProgress, None, Precision]:
    """Let a worker measure which precision is faster; see `Ranker.choose_precision`.

    Parameters
    ----------
    client, ranker, device
        As for `score_on_cluster`.
    n_images : int
        That will be scored, for the progress.

    Yields
    ------
    ScoringProgress
        Twice a second, so that a stop is heard while there is no worker.

    Returns
    -------
    {"float32", "bfloat16"}

    Raises
    ------
    ConfigError, MissingExtraError, StateError
        As of `score_on_cluster`.
    """
    hand = _Hand(client, [ranker], {})
    waiting: deque[Any] = deque([device])
    try:
        while True:
            for _, precision in hand.work(worker.choose_precision, waiting):
                found: Precision = precision
                return found
            yield ScoringProgress(0, n_images, 0.0, float("inf"))
    except _lost_errors() as error:
        raise StateError(
            f"The cluster was lost before it scored: {type(error).__name__}: {error}. Connect to a cluster "
            "and score again."
        ) from error
    finally:
        hand.close()


def _score_first(hand: _Hand, source: ImageSource, parts: Parts, cycle: Cycle) -> Generator[ScoringProgress]:
    waiting: deque[list[NDArray[np.int64]]] = deque()
    for span in spans_first(source, parts, cycle):
        if not waiting or sum(map(len, waiting[-1])) >= _FEW:
            waiting.append([])
        waiting[-1].append(span)
    if not waiting:
        return
    scored, rate, n_done, n = [], Rate(), 0, parts.n_images
    progress = ScoringProgress(0, n, 0.0, float("inf"))
    while waiting or hand.futures:
        for few, found in hand.work(worker.score_few, waiting):
            scored.append(found)
            n_seen = sum(map(len, few))
            n_done += n_seen
            per_s = rate.add(n_seen)
            progress = ScoringProgress(n_done, n, per_s, (n - n_done) / per_s)
        yield progress
    keep_first(source, parts, cycle, scored)


def _score_missing(
    hand: _Hand, source: ImageSource, parts: Parts, cycle: Cycle
) -> Generator[ScoringProgress]:
    missing = parts.missing(cycle)
    n_done = parts.n_images - sum(stop - start for start, stop in map(parts.bounds, missing))
    held, rate = Held(source, parts, cycle, len(missing)), Rate()
    progress = ScoringProgress(n_done, parts.n_images, 0.0, float("inf"))
    waiting = deque(missing)
    while waiting or hand.futures:
        for number, doubtful in hand.work(worker.score_part, waiting, parts, cycle):
            if doubtful is None:
                held.release()
            else:
                held.hold(doubtful)
            start, stop = parts.bounds(number)
            n_done += stop - start
            per_s = rate.add(stop - start)
            progress = ScoringProgress(n_done, parts.n_images, per_s, (parts.n_images - n_done) / per_s)
            yield progress
        yield progress
    held.finish()


class _NoSchedulerError(Exception):
    """The scheduler does not answer."""


class _Hand:
    """Hands tasks out to the workers there are, and takes them back.

    Source and ranker lie on the workers. Where the last of these is lost, they are sent again with the next
    worker that comes.

    Parameters
    ----------
    client : distributed.Client
    what : list
        What each task takes first.
    options : dict
        What each task takes by name.

    Attributes
    ----------
    futures : dict
        What is handed out, and of what.

    Raises
    ------
    ConfigError
        If `client` is no client.
    """

    def __init__(self, client: Any, what: list[Any], options: dict[str, Any]) -> None:
        self._distributed = _distributed()
        if not isinstance(client, self._distributed.Client):
            raise ConfigError(
                f"client is {client!r}; allowed is a distributed.Client, e.g. Client(LocalCluster()), or "
                "None for this machine alone."
            )
        self._client, self._what, self._options = client, what, options
        self._shared: list[Any] | None = None
        # A key is never used again: what has it may be on its way out.
        self._run, self._n_submitted = uuid.uuid4().hex, 0
        self.futures: dict[Any, Any] = {}

    def work(
        self, task: Callable[..., Any], waiting: deque[Any], *arguments: Any
    ) -> Iterator[tuple[Any, Any]]:
        """Hand out what can be, wait a moment, and give of what was done what it was, and its result.

        Parameters
        ----------
        task : callable
            Takes `what`, an item of `waiting`, `arguments` and `options`; on a worker.
        waiting : deque
            Loses what is handed out.
        arguments
            The same for each.
        """
        if not self._fill(task, waiting, arguments):
            return
        with contextlib.suppress(TimeoutError, self._distributed.CancelledError):
            self._distributed.wait(list(self.futures), timeout=_LOOK_S, return_when="FIRST_COMPLETED")
        for future in [future for future in self.futures if future.done()]:
            item = self.futures.pop(future)
            try:
                yield item, future.result()
            except self._distributed.CancelledError:
                if self._client.status != "running":
                    raise
                self._shared = None  # it went with the last worker that had it
                waiting.appendleft(item)

    def close(self) -> None:
        """Take back what is handed out."""
        self._client.cancel(list(self.futures), force=True)

    def _fill(self, task: Callable[..., Any], waiting: deque[Any], arguments: tuple[Any, ...]) -> bool:
        """Hand out tasks; whether there is something to wait for."""
        try:
            n_threads = sum(self._client.nthreads().values())
            if not n_threads:
                with contextlib.suppress(TimeoutError):
                    self._client.wait_for_workers(1, timeout=_LOOK_S)
                return False
            if self._shared is None:
                self._shared = self._client.scatter(self._what, broadcast=True, hash=False)
        except OSError as error:  # what a task raises comes with its result, and not from here
            raise _NoSchedulerError(str(error)) from error
        while waiting and len(self.futures) < _AHEAD * n_threads:
            item = waiting.popleft()
            self._n_submitted += 1
            future = self._client.submit(
                task,
                *self._shared,
                item,
                *arguments,
                key=f"amatch-{self._run}-{self._n_submitted}",
                retries=_ATTEMPTS - 1,
                pure=False,
                **self._options,
            )
            self.futures[future] = item
        return True


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
    return distributed.CancelledError, distributed.KilledWorker, closed, _NoSchedulerError
