"""Score the parts of an archive that are not there yet, on this machine."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.events import ScoringProgress
from amatch_widgets.images.stream import spans, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.images.stream import Batch, ModelInput

__all__ = [
    "Held",
    "Rate",
    "ScoredPart",
    "part_rows_for",
    "score_missing",
    "score_part",
]

_N_PARTS, _FEWEST, _MOST = 500, 2_000, 100_000
_LOST = 3  # parts in a row of which nothing can be read: then it is the volume, and not the images
_RECENT_S = 30.0  # what the rate is a mean of


def part_rows_for(n_images: int, chunk: int = 1) -> int:
    """Return how many images a part shall have: little is lost by a stop, and there are not too many files.

    Parameters
    ----------
    n_images : int, >= 1
    chunk : int, >= 1
        How many images lie together in the source; no chunk is read for two parts, if it is not too large.
    """
    rows = min(max(n_images // _N_PARTS, _FEWEST), _MOST)
    return -(-rows // chunk) * chunk if chunk <= _MOST else rows


@dataclass(slots=True)
class ScoredPart:
    """A part that is being scored.

    Attributes
    ----------
    number, start : int
        Of the part, and of its first image.
    scores : ndarray of float32, shape (M,)
        NaN where there is none.
    problems : dict of int to str
        Index to reason, of the images without a score.
    n_left : int
        Images that are not scored yet.
    """

    number: int
    start: int
    scores: NDArray[np.float32]
    problems: dict[int, str]
    n_left: int

    @classmethod
    def empty(cls, number: int, start: int, stop: int) -> ScoredPart:
        """Return a part before its first image."""
        return cls(number, start, np.full(stop - start, np.nan, np.float32), {}, stop - start)

    @property
    def is_lost(self) -> bool:
        """Whether nothing of it can be read."""
        return len(self.problems) == len(self.scores)

    def write(self, source: ImageSource, parts: Parts, cycle: Cycle) -> None:
        """Write it where it belongs."""
        ids = source.ids[self.start : self.start + len(self.scores)]
        parts.write(cycle, self.number, ids=ids, scores=self.scores, problems=self.problems)


class Held:
    """Parts with images that cannot be read, held back until it shows whether that is the images' fault.

    Where others after them can be read, they are written, with their problems. Where nothing can be read of
    several in a row, the volume is gone, and they are left to the next run, with those before them of which
    some images could no longer be read.

    Parameters
    ----------
    source, parts, cycle
        What is scored.
    n_parts : int
        How many parts there are to score.
    """

    def __init__(self, source: ImageSource, parts: Parts, cycle: Cycle, n_parts: int) -> None:
        self._of, self._n_parts = (source, parts, cycle), n_parts
        self._held: list[ScoredPart] = []

    def hold(self, part: ScoredPart) -> None:
        """Hold a part with problems back; SourceError where it is the last of several without a score."""
        self._held.append(part)
        last = self._held[-_LOST:]
        if len(last) == _LOST and all(part.is_lost for part in last):
            raise self._gone(last)
        # Where there are problems everywhere, no more than these wait.
        while sum(not part.is_lost for part in self._held) > _LOST:
            self._held.pop(0).write(*self._of)

    def release(self) -> None:
        """Write what is held: another part could be read, all of it."""
        for part in self._held:
            part.write(*self._of)
        self._held.clear()

    def finish(self) -> None:
        """Write what is held, unless nothing at all could be read: then SourceError."""
        if len(self._held) == self._n_parts and self._held and all(part.is_lost for part in self._held):
            raise self._gone(self._held)
        self.release()

    def _gone(self, lost: list[ScoredPart]) -> SourceError:
        source = self._of[0]
        index, why = next(iter(lost[0].problems.items()))
        n = sum(len(part.scores) for part in lost)
        return SourceError(
            f"None of {n:,} images in a row of {source.name!r} could be read; the first, "
            f"{source.ids[index]!r}: {why}. They are left for the next run, and all scores until here are "
            "kept. Look whether the images are still there, then score again: it goes on from here."
        )


def score_part(
    source: ImageSource,
    image: ModelInput,
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    bounds: tuple[int, int],
    *,
    number: int = 0,
    batch_size: int = 256,
    threads: int = 2,
) -> ScoredPart:
    """Score the images of one part.

    Parameters
    ----------
    source : ImageSource
    image : ModelInput
    score : callable
        Of `Ranker.ready`.
    bounds : (int, int)
        First index, and the one after the last.
    number : int
        Of the part.
    batch_size, threads : int
        As for `stream`.
    """
    part = ScoredPart.empty(number, *bounds)
    wanted = spans(np.arange(*bounds), getattr(source, "chunk", 1))
    for batch in stream(source, image, wanted, batch_size=batch_size, threads=threads):
        if len(batch.images):
            part.scores[batch.indices - part.start] = score(batch.images)
        part.problems |= batch.problems
        part.n_left -= len(batch.indices) + len(batch.problems)
    return part


def score_missing(
    source: ImageSource,
    image: ModelInput,
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    parts: Parts,
    cycle: Cycle,
    *,
    batch_size: int = 256,
    threads: int = 2,
) -> Generator[ScoringProgress]:
    """Score the parts of a cycle that are not there yet; closed before its end, it loses those in hand.

    Reading, preparing and scoring overlap, across the parts too. The memory does not depend on the number
    of images.

    Parameters
    ----------
    source, image, score, batch_size, threads
        As for `score_part`; a `Together` is called by as many threads as it has devices.
    parts : Parts
    cycle : Cycle

    Yields
    ------
    ScoringProgress
        After each batch; counts images, with those of the parts that were there.

    Raises
    ------
    SourceError
        If nothing can be read of several parts in a row, which are then not written: the images may be
        gone for a while.
    WorkspaceError
        If a part cannot be written.
    """
    missing = parts.missing(cycle)
    n_done = parts.n_images - sum(stop - start for start, stop in map(parts.bounds, missing))
    open_parts: dict[int, ScoredPart] = {}
    held, rate = Held(source, parts, cycle, len(missing)), Rate()
    batches = stream(source, image, _spans_of(source, parts, missing), batch_size=batch_size, threads=threads)
    for batch, values in _scored(batches, score):
        for part in _deal(batch, values, parts, open_parts):
            if part.problems:
                held.hold(part)
            else:
                part.write(source, parts, cycle)
                held.release()
        n = len(batch.indices) + len(batch.problems)
        n_done += n
        per_s = rate.add(n)
        yield ScoringProgress(n_done, parts.n_images, per_s, (parts.n_images - n_done) / per_s)
    held.finish()


def _scored(
    batches: Generator[Batch], score: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
    """Score batches, several at once where `score` says that it can."""

    def values(batch: Batch) -> NDArray[np.float32]:
        return score(batch.images) if len(batch.images) else np.empty(0, np.float32)

    at_once = getattr(score, "at_once", 1)
    if at_once == 1:
        with contextlib.closing(batches):
            yield from ((batch, values(batch)) for batch in batches)
        return
    waiting: deque[tuple[Batch, Future[NDArray[np.float32]]]] = deque()
    with contextlib.closing(batches), ThreadPoolExecutor(at_once, "amatch-device") as executor:
        for batch in batches:
            waiting.append((batch, executor.submit(values, batch)))
            if len(waiting) > at_once:  # one more than there are devices, so that none waits for this loop
                done, found = waiting.popleft()
                yield done, found.result()
        for done, found in waiting:
            yield done, found.result()


def _spans_of(source: ImageSource, parts: Parts, missing: Iterable[int]) -> Iterator[NDArray[np.int64]]:
    chunk = getattr(source, "chunk", 1)
    for part in missing:
        yield from spans(np.arange(*parts.bounds(part)), chunk)


def _deal(
    batch: Batch, values: NDArray[np.float32], parts: Parts, open_parts: dict[int, ScoredPart]
) -> Iterator[ScoredPart]:
    """Deal a batch out to its parts; give those that are whole now."""
    bad = np.fromiter(batch.problems, np.int64, len(batch.problems))
    numbers = batch.indices // parts.part_rows
    for number in np.unique(np.concatenate([numbers, bad // parts.part_rows])).tolist():
        if number not in open_parts:
            open_parts[number] = ScoredPart.empty(number, *parts.bounds(number))
        part = open_parts[number]
        those = numbers == number
        part.scores[batch.indices[those] - part.start] = values[those]
        problems = {i: why for i, why in batch.problems.items() if i // parts.part_rows == number}
        part.problems |= problems
        part.n_left -= int(those.sum()) + len(problems)
        if not part.n_left:
            yield open_parts.pop(number)


class Rate:
    """Images a second, over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(time.perf_counter(), 0)])
        self._n = 0

    def add(self, n: int) -> float:
        """Count `n` more images; return the rate."""
        self._n += n
        now = time.perf_counter()
        self._seen.append((now, self._n))
        while len(self._seen) > 2 and now - self._seen[0][0] > _RECENT_S:  # noqa: PLR2004 (two make a rate)
            self._seen.popleft()
        then, before = self._seen[0]
        return max(self._n - before, 1) / max(now - then, 1e-9)
