"""A scoring that is killed in the middle, and goes on: no row doubled or missing, and how soon."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

_SIDE = 8
_SAMPLE = 3  # parts that are scored again, to compare


def kill(n: int, folder: Path, make_ranker: Callable[[int], Any]) -> dict[str, Any]:
    """Score `n` images; SIGKILL at a third and at two thirds.

    `make_ranker` takes the side of the images; it is called in the processes that score.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 (in the child process alone)

    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415
    from amatch_widgets.archive.run import score_part  # noqa: PLC0415

    _write(n, folder / "images.zarr")
    runs = [_run(folder, make_ranker, stop_at) for stop_at in (n // 3, 2 * n // 3, None)]

    parts = Parts.open(folder / "scores")
    (cycle,) = parts.cycles()
    column = [pq.read_table(file, partitioning=None) for file in parts.files(cycle)]
    indices = np.concatenate([table["index"].to_numpy() for table in column])
    is_whole = bool(np.array_equal(indices, np.arange(n)))
    source, ranker = _opened(folder, make_ranker, cycle.precision)
    score = ranker.ready("cpu")
    same = [
        np.array_equal(
            score_part(source, ranker.image, score, parts.bounds(number), number=number).scores,
            column[number]["score"].to_numpy(),
        )
        for number in np.linspace(0, parts.n_parts - 1, _SAMPLE).astype(int).tolist()
    ]
    return {
        "n": n,
        "rows": len(indices),
        "each_once": is_whole,
        "scores_as_alone": all(same),
        "killed_at": [run["last"] for run in runs[:-1]],
        "lost_images": [before["last"] - after["begun_at"] for before, after in pairwise(runs)],
        "resume_s": [round(run["first_s"], 2) for run in runs[1:]],
        "start_s": round(runs[0]["first_s"], 2),
        "seconds": round(sum(run["seconds"] for run in runs)),
    }


def _run(folder: Path, make_ranker: Callable[[int], Any], stop_at: int | None) -> dict[str, Any]:
    """Score in a process of its own until so many images are done, or the end."""
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_score, args=(folder, make_ranker, sender))
    started = time.perf_counter()
    process.start()
    sender.close()
    begun_at, last, first_s = receiver.recv(), 0, 0.0
    try:
        while stop_at is None or last < stop_at:
            last = receiver.recv()
            first_s = first_s or time.perf_counter() - started
    except EOFError:
        if stop_at is not None:
            raise RuntimeError(f"The scoring ended at {last:,} images, before it was to be killed.") from None
    process.kill()
    process.join()
    return {"begun_at": begun_at, "last": last, "first_s": first_s, "seconds": time.perf_counter() - started}


def _score(folder: Path, make_ranker: Callable[[int], Any], progress: Connection) -> None:
    """Score as a session does, on all cores; in a process that may be killed at any moment."""
    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415
    from amatch_widgets.archive.run import part_rows_for, score_missing  # noqa: PLC0415

    source, ranker = _opened(folder, make_ranker, "auto")
    n = len(source)
    parts = Parts.create(
        folder / "scores",
        fingerprint=source.fingerprint(),
        n_images=n,
        spec=source.spec(),
        part_rows=part_rows_for(n, source.chunk),
    )
    cycle = parts.begun(ranker.key) or parts.begin(ranker.key, "", ranker.choose_precision("cpu"))
    ranker = replace(ranker, precision=cycle.precision)
    missing = parts.missing(cycle)
    progress.send(n - sum(stop - start for start, stop in map(parts.bounds, missing)))
    for event in score_missing(source, ranker.image, ranker.ready("cpu"), parts, cycle):
        progress.send(event.done)


def _opened(folder: Path, make_ranker: Callable[[int], Any], precision: Any) -> tuple[Any, Any]:
    import amatch_widgets as am  # noqa: PLC0415

    return am.open_source(folder / "images.zarr"), replace(make_ranker(4 * _SIDE), precision=precision)


def _write(n: int, path: Path) -> None:
    import zarr  # noqa: PLC0415

    array = zarr.create_array(
        path, shape=(n, _SIDE, _SIDE, 3), chunks=(500, _SIDE, _SIDE, 3), dtype="uint8", compressors=None
    )
    for start in range(0, n, 10**5):
        rng, few = np.random.default_rng(start), min(10**5, n - start)
        array[start : start + few] = rng.integers(0, 256, (few, _SIDE, _SIDE, 3), np.uint8)
