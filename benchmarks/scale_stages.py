"""What each stage of a scoring takes by itself, and the whole: read, decode, stretch, transfer, compute."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_GOAL = 10**8  # images
_THREADS = (1, 2, 4, 8)


def reading(sources: dict[str, Any], side: int, rounds: int) -> dict[str, Any]:
    """Read and prepare all images of each source by more and more threads; images/s, best of the rounds."""
    from amatch_widgets.images.preprocess import Preprocess  # noqa: PLC0415 (in the child process alone)
    from amatch_widgets.images.stream import spans, stream  # noqa: PLC0415

    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for name, source in sources.items():
            cut = spans(np.arange(len(source)), getattr(source, "chunk", 1))
            for threads in _THREADS:
                started = time.perf_counter()
                for _ in stream(source, Preprocess(size=side), cut, threads=threads):
                    pass
                seconds.setdefault((name, threads), []).append(time.perf_counter() - started)
    return {
        name: {threads: round(len(source) / min(seconds[name, threads])) for threads in _THREADS}
        for name, source in sources.items()
    }


def stages(path: Path, ranker: Any, folder: Path, *, device: str, batch: int = 1024) -> dict[str, Any]:
    """Measure each stage on the images of a source, in as many threads as a scoring has, and the whole."""
    import torch  # noqa: PLC0415 (in the child process alone)

    import amatch_widgets as am  # noqa: PLC0415
    from amatch_widgets.archive.parts import Parts  # noqa: PLC0415
    from amatch_widgets.archive.run import part_rows_for, score_missing  # noqa: PLC0415
    from amatch_widgets.images.source import read_many  # noqa: PLC0415
    from amatch_widgets.images.stream import reading_threads, spans  # noqa: PLC0415

    source = am.open_source(path)
    n, chunk = len(source), getattr(source, "chunk", 1)
    threads = reading_threads()
    cut = spans(np.arange(n), chunk)
    files = [file for file in path.rglob("*") if file.is_file()]
    seconds = {"read": _in_threads(threads, Path.read_bytes, files)}

    decoded: list[Any] = []

    def decode(span: Any) -> None:
        decoded.extend(image for _, image in read_many(source, span.tolist(), min_side=ranker.image.min_side))

    # The files are read from memory now: what is left is to decode them.
    seconds["decode"] = _in_threads(threads, decode, cut)
    seconds["stretch"] = _in_threads(threads, ranker.image, decoded)
    images = np.stack([ranker.image(image) for image in decoded[:batch]])
    decoded.clear()
    n_turns = -(-n // batch)

    def copy() -> None:
        torch.from_numpy(images).pin_memory().to(device) if device != "cpu" else images.copy()

    score = ranker.ready(device)
    seconds["transfer"] = _repeated(copy, n_turns, device) * n / (n_turns * batch)
    # With its transfer, which is taken off.
    seconds["compute"] = _repeated(lambda: score(images), n_turns, device) * n / (n_turns * batch)
    seconds["compute"] = max(seconds["compute"] - seconds["transfer"], 1e-9)
    parts = Parts.create(folder, fingerprint="x", n_images=n, spec={}, part_rows=part_rows_for(n, chunk))
    started = time.perf_counter()
    for _ in score_missing(
        source, ranker.image, score, parts, parts.begin("k", ""), batch_size=batch, threads=threads
    ):
        pass
    seconds["whole"] = time.perf_counter() - started
    return {
        "n": n,
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        "images_per_s": {name: round(n / taken) for name, taken in seconds.items()},
        "hours_for_1e8": {name: round(taken / n * _GOAL / 3600, 2) for name, taken in seconds.items()},
    }


def _in_threads(threads: int, work: Callable[[Any], object], items: Iterable[Any]) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        for _ in executor.map(work, items):
            pass
    return time.perf_counter() - started


def _repeated(work: Callable[[], object], n: int, device: str) -> float:
    """Return the seconds of `n` times, after one that warms up."""
    import torch  # noqa: PLC0415

    work()
    started = time.perf_counter()
    for _ in range(n):
        work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
