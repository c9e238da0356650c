"""Score first what was highest in the cycle before, so that there is something to look at early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.archive.run import Rate
from amatch_widgets.events import ScoringProgress
from amatch_widgets.images.stream import spans, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.images.stream import ModelInput

    Scored = tuple[NDArray[np.int64], NDArray[np.float32]]

__all__ = ["keep_first", "score_few", "score_first", "spans_first"]

_LEAST, _MOST = 1_000, 100_000  # images that are scored before all others; between, one in a hundred


def spans_first(source: ImageSource, parts: Parts, cycle: Cycle) -> list[NDArray[np.int64]]:
    """Return the indices of what is to be scored before all others, cut as by `spans`.

    There are none in a first cycle, where it has been done, and where all parts are there.
    """
    before = [c for c in parts.cycles() if c.number < cycle.number]
    if not before or parts.first(cycle) or not parts.missing(cycle):
        return []
    wanted = parts.highest(before[-1], min(max(_LEAST, parts.n_images // 100), _MOST))
    return spans(wanted, getattr(source, "chunk", 1))


def score_few(
    source: ImageSource,
    image: ModelInput,
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    wanted: Iterable[NDArray[np.int64]],
    *,
    batch_size: int = 256,
    threads: int = 2,
) -> Iterator[tuple[Scored, int]]:
    """Score some images; those that cannot be read are left out.

    Parameters
    ----------
    source, image, score, wanted, batch_size, threads
        As for `stream` and `score_part`.

    Yields
    ------
    (ndarray of int64, ndarray of float32), each of shape (n,)
        Indices, in no order, and scores.
    int
        How many images were looked at.
    """
    for batch in stream(source, image, wanted, batch_size=batch_size, threads=threads):
        values = score(batch.images) if len(batch.images) else np.empty(0, np.float32)
        yield (batch.indices, values), len(batch.indices) + len(batch.problems)


def keep_first(source: ImageSource, parts: Parts, cycle: Cycle, scored: Iterable[Scored]) -> None:
    """Write what `score_few` gave."""
    found = list(scored)
    indices = np.concatenate([np.empty(0, np.int64), *(indices for indices, _ in found)])
    values = np.concatenate([np.empty(0, np.float32), *(values for _, values in found)])
    order = np.argsort(indices)
    ids = [source.ids[int(i)] for i in indices[order]]
    parts.write_first(cycle, indices[order], ids, values[order])


def score_first(
    source: ImageSource,
    image: ModelInput,
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    parts: Parts,
    cycle: Cycle,
    *,
    batch_size: int = 256,
    threads: int = 2,
) -> Generator[ScoringProgress]:
    """Score what was highest in the cycle before.

    Nothing to do in a first cycle, and where it has been done. Images that cannot be read are left to their
    parts.

    Parameters
    ----------
    source, image, score, parts, cycle, batch_size, threads
        As for `score_missing`.

    Yields
    ------
    ScoringProgress
        After each batch; counts these images alone.
    """
    cut = spans_first(source, parts, cycle)
    if not cut:
        return
    scored: list[Scored] = []
    rate, n_done, n = Rate(), 0, parts.n_images
    for some, n_seen in score_few(source, image, score, cut, batch_size=batch_size, threads=threads):
        scored.append(some)
        n_done += n_seen
        per_s = rate.add(n_seen)
        yield ScoringProgress(n_done, n, per_s, (n - n_done) / per_s)
    keep_first(source, parts, cycle, scored)
