"""What runs on a worker of a Dask cluster."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.archive import devices, first, run
from amatch_widgets.images.stream import reading_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.archive.ranker import Ranker
    from amatch_widgets.images.source import ImageSource

__all__ = ["choose_precision", "score_few", "score_part"]

_LEAST_THREADS = 2  # that read for one task
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_ready: dict[tuple[str, str, str], Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {}
"""What scores, by the ranker's key, its precision and the device; the last alone: it may fill a GPU."""
_devices: dict[str, str] = {}
"""By the name that was asked for, the device of this worker."""
_making = threading.Lock()
_scoring = threading.Lock()  # a network is one thread's at a time; others of the worker read meanwhile


def choose_precision(ranker: Ranker, device: str) -> str:
    """Measure which precision is faster here; see `Ranker.choose_precision`."""
    _import_torch()
    with _making, _scoring:
        return ranker.choose_precision(_device(device))


def score_few(
    source: ImageSource, ranker: Ranker, wanted: list[NDArray[np.int64]], *, device: str, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score some images; see `first.score_few`.

    Parameters
    ----------
    source, ranker, device, batch_size
        As for `score_on_cluster`.
    wanted : list of ndarray of int64
        Of `spans`.

    Returns
    -------
    ndarray of int64, shape (n,)
        Indices of those that could be read, in no order.
    ndarray of float32, shape (n,)
        Their scores.
    """
    found = first.score_few(
        source,
        ranker.image,
        _ready_for(ranker, device),
        wanted,
        batch_size=batch_size,
        threads=_threads(),
    )
    scored = [some for some, _ in found]
    return np.concatenate([indices for indices, _ in scored]), np.concatenate(
        [values for _, values in scored]
    )


def score_part(
    source: ImageSource,
    ranker: Ranker,
    number: int,
    parts: Parts,
    cycle: Cycle,
    *,
    device: str,
    batch_size: int,
) -> run.ScoredPart | None:
    """Score a part and write it. One with images that cannot be read is given back instead.

    Parameters
    ----------
    source, ranker, parts, cycle, device, batch_size
        As for `score_on_cluster`.
    number : int
        Of the part.
    """
    part = run.score_part(
        source,
        ranker.image,
        _ready_for(ranker, device),
        parts.bounds(number),
        number=number,
        batch_size=batch_size,
        threads=_threads(),
    )
    if part.problems:
        return part
    part.write(source, parts, cycle)
    return None


def _ready_for(ranker: Ranker, device: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what scores, made once on each worker."""
    _import_torch()
    key = ranker.key, ranker.precision, device
    with _making:
        if key not in _ready:
            _keep_freed_memory()
            made = ranker.ready(_device(device))

            def one_at_a_time(images: NDArray[np.uint8]) -> NDArray[np.float32]:
                with _scoring:
                    return made(images)

            _ready.clear()
            _ready[key] = one_at_a_time
        return _ready[key]


def _device(name: str) -> str:
    if name not in _devices:
        _devices[name] = devices.claim(name)
    return _devices[name]


def _threads() -> int:
    """Return how many threads read for one task; a worker has as many tasks at a time as Dask threads."""
    torch = _import_torch()
    n_gpus: int = torch.cuda.device_count()
    if not n_gpus:
        return _LEAST_THREADS  # the cores are for the network
    # Other workers have the other GPUs, and their share of the cores.
    n_tasks: int = importlib.import_module("distributed").get_worker().state.nthreads
    return max(_LEAST_THREADS, reading_threads() // (n_tasks * n_gpus))


def _import_torch() -> Any:
    """Import torch for as many threads as the worker was given."""
    # Before torch: it says how threads wait, which OpenMP reads once.
    importlib.import_module("amatch_widgets.learn")
    torch = importlib.import_module("torch")  # late, as the process that hands out needs none
    worker = importlib.import_module("distributed").get_worker()
    # The cores that the worker was given; Dask asks for one, and OpenMP counts for each thread anew.
    torch.set_num_threads(max(1, worker.state.nthreads))
    return torch


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, as it does by default: a network asks for it again at once.

    Dask has its workers give each piece back to the system, and the page faults halved the rate.
    """
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 512 * 2**20)
