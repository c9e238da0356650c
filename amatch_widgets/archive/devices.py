"""Which GPUs score: all of this machine, or one for each worker that shares it with others."""

from __future__ import annotations

import importlib
import os
import queue
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

__all__ = ["Together", "claim", "devices_of", "names_of_gpus"]

_SEATS = 64  # processes that may share a GPU before nobody counts any more

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

_claimed: list[int] = []
"""Descriptors of the locks of this process: closed, and so given back, when it ends, however it ends."""


class Together:
    """Scores on several devices at once, each thread's images on one that is free.

    Parameters
    ----------
    scores : sequence of callable
        Of `Ranker.ready`, one for each device.

    Attributes
    ----------
    at_once : int
        How many threads may call it at once without waiting.

    Notes
    -----
    Thread safety: any thread may call it.
    """

    def __init__(self, scores: Sequence[Score]) -> None:
        self.at_once = len(scores)
        self._free: queue.SimpleQueue[Score] = queue.SimpleQueue()
        for score in scores:
            self._free.put(score)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score images; see `Ranker.ready`."""
        score = self._free.get()
        try:
            return score(images)
        finally:
            self._free.put(score)


def devices_of(name: str) -> list[str]:
    """Return the devices to score on by this process alone.

    Parameters
    ----------
    name : str
        As of `TrainConfig`. "auto" is all GPUs, where there are several; any other is itself.
    """
    n = _n_gpus() if name == "auto" else 0
    return [f"cuda:{i}" for i in range(n)] if n > 1 else [name]


def claim(name: str) -> str:
    """Choose a GPU of this machine that the fewest other workers have, and have it until the process ends.

    Dask starts workers that all see all GPUs, and each would take the first. Those of dask-cuda see them
    in an order of their own, and get the first of it here, too.

    Parameters
    ----------
    name : str
        As of `TrainConfig`. "auto" and "cuda" choose; any other is itself.

    Returns
    -------
    str
        "cuda:2", say, or `name` where there are not several GPUs.
    """
    n = _n_gpus() if name in ("auto", "cuda") else 0
    if n < 2 or fcntl is None:  # noqa: PLR2004 (one needs no choice)
        return name
    return f"cuda:{_take_seat(names_of_gpus(n))}"


def names_of_gpus(n: int) -> list[str]:
    """Return what each of the `n` GPUs that this process sees is called on the machine."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible if len(visible) == n and all(visible) else [str(i) for i in range(n)]


def _take_seat(names: list[str]) -> int:
    """Lock a file for a GPU: the first that nobody has locked, then the first that one other has, ..."""
    for seat in range(_SEATS):
        for i, name in enumerate(names):
            file = f"amatch-{os.getuid()}-gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}-{seat}.lock"
            descriptor = os.open(Path(tempfile.gettempdir(), file), _LOCK_FLAGS, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                continue
            _claimed.append(descriptor)
            return i
    return os.getpid() % len(names)


def _n_gpus() -> int:
    torch: Any = importlib.import_module("torch")  # late: who hands out needs none
    return int(torch.cuda.device_count())
