"""All images of an archive in an order of their scores, found in their files page by page."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.archive.key import KEYS, Best, Found, Span, mixed
from amatch_widgets.archive.order import named
from amatch_widgets.archive.search import Search
from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.archive.order import Row
    from amatch_widgets.archive.search import Sought
    from amatch_widgets.archive.snapshot import Piece, Snapshot

__all__ = ["SCANNED", "Scan"]

SCANNED = ("highest", "lowest", "uncertain", "random", "problem")
"""The orders of all images; "problem" are those that cannot be read."""

_HELD = 200_000  # images from the beginning that are held, with 20 bytes each
_AROUND = 20_000  # images before and after a page far down that are held with it
_PASSED = 500_000  # images that are passed on the way to such a page; if there are more, they are counted


class Scan:
    """Very many images, of which the first are held in memory, and others are found anew in their files.

    Parameters
    ----------
    files : Snapshot
    how : {"highest", "lowest", "uncertain", "random", "problem"}
        Ties go by position in the source.
    least, most : float, in [0, 1]
        Range of the score, both ends included; "problem" has none.
    contains : str
        Part of the id, upper and lower case alike.
    left_out : sequence of int
        Positions of images that are not listed.
    seed : int
        Of the random order.
    search : Search, optional
        What remembers which ids have a text.

    Raises
    ------
    ConfigError
        If there is no such order.

    Notes
    -----
    Thread safety: ``_far`` is replaced as a whole, and nothing else changes but what is counted once; any
    thread may ask.
    """

    def __init__(
        self,
        files: Snapshot,
        how: str = "highest",
        *,
        least: float = 0.0,
        most: float = 1.0,
        contains: str = "",
        left_out: Sequence[int] = (),
        seed: int = 0,
        search: Search | None = None,
    ) -> None:
        if how not in SCANNED:
            raise ConfigError(f"Unknown order {how!r}. There are {', '.join(map(repr, SCANNED))}.")
        self._files = files
        self._search = Search() if search is None else search
        self._sought = [self._search.of(contains)] if contains else []
        self._range = None if how == "problem" else _inside(least, most)
        self._key = mixed(seed) if how == "random" else KEYS["position" if how == "problem" else how]
        self._left_out = np.sort(np.asarray(left_out, np.int64))
        self._whole = Span(0, self._key.most, 0, files.n_images - 1)
        self._far: tuple[int, Found] | None = None  # how many come before these

    def __len__(self) -> int:
        return int(self._begun[0].sum())

    def rows(self, start: int, n: int) -> list[Row]:
        """Return `n` images, after `start` others; far from the beginning it takes another look or two."""
        found = self.found(start, n)
        return named(self._files, found.indices, found.scores)

    def found(self, start: int, n: int) -> Found:
        """Return `n` images, after `start` others, without their ids."""
        first, n = 0, max(0, min(n, len(self) - start))
        held = self._begun[1]
        if n and start + n > len(held):
            far = self._far
            if far is None or not far[0] <= start <= start + n <= far[0] + len(far[1]):
                self._far = far = self._reached(max(0, start - _AROUND), start + n + _AROUND)
            first, held = far
        return held.take(slice(start - first, start - first + n))

    def place(self, index: int) -> int | None:
        """Return the place of an image; None if it is not listed."""
        key = self._key_of(index)
        return None if key is None else self._n_before(key, index)

    def seek(self, text: str, after: int) -> int | None:
        """Return the place of the next image whose id contains a text."""
        here = self.found(after, 1) if after >= 0 else None
        sought = self._search.of(text)
        all_first, next_first = Best(1), Best(1)

        def look(piece: Piece) -> None:
            found = self._listed(piece, sought)
            all_first.add(found)
            if here is not None and len(here):
                next_first.add(found.take(found.after(int(here.keys[0]), int(here.indices[0]))))

        self._files.each(look)
        exact = [(key, i) for i in sought.exact if (key := self._key_of(i)) is not None]
        if exact:
            return self._n_before(*min(exact))
        following = next_first.sorted()
        found = following if len(following) else all_first.sorted()
        return self._n_before(int(found.keys[0]), int(found.indices[0])) if len(found) else None

    @functools.cached_property
    def _begun(self) -> tuple[NDArray[np.int64], Found]:
        """Return how many images each step of the order has, and the first images."""
        best = Best(_HELD)
        counts = self._counted(self._whole, best.add)
        return counts, best.sorted()

    def _counted(self, span: Span, see: Callable[[Found], None] | None = None) -> NDArray[np.int64]:
        """Count images in the steps of a span, and see all images."""
        counts, lock = np.zeros(span.n_steps, np.int64), threading.Lock()

        def look(piece: Piece) -> None:
            found = self._listed(piece)
            if see is not None:
                see(found)
            if span is not self._whole:
                found = found.take(span.has(found.keys, found.indices))
            if len(found):
                n_each = span.by_step(found.keys, found.indices)
                with lock:
                    np.add(counts, n_each, out=counts)

        self._files.each(look)
        return counts

    def _reached(self, start: int, stop: int) -> tuple[int, Found]:
        """Return images from some place on, at or before `start`, and how many come before them."""
        before, span, counts = 0, self._whole, self._begun[0]
        while True:
            ends = np.cumsum(counts)
            number = int(np.searchsorted(ends, start - before, side="right"))
            before += int(ends[number - 1]) if number else 0
            span = span.step(number)
            if start - before <= _PASSED:
                break
            counts = self._counted(span)
        best = Best(stop - before)

        def look(piece: Piece) -> None:
            found = self._listed(piece)
            best.add(found.take(~found.before(span.low, span.first)))

        self._files.each(look)
        return before, best.sorted()

    def _n_before(self, key: int, index: int) -> int:
        """Count the images that come before one."""
        held = self._begun[1]
        n = int(np.count_nonzero(held.before(key, index)))
        if n < len(held) or len(held) == len(self):
            return n
        counts: list[int] = []

        def look(piece: Piece) -> None:
            counts.append(int(np.count_nonzero(self._listed(piece).before(key, index))))

        self._files.each(look)
        return sum(counts)

    def _key_of(self, index: int) -> int | None:
        """Return what an image is sorted by; None if it is not listed."""
        keys: list[int] = []

        def look(piece: Piece) -> None:
            found = self._listed(piece)
            keys.extend(map(int, found.keys[found.indices == index]))

        self._files.each(look, of=[index])
        return keys[0] if keys else None

    def _listed(self, piece: Piece, *also: Sought) -> Found:
        """Return the images of a piece that are listed, and have another text in their ids."""
        if self._range is None:
            scores = np.full(len(piece.indices), np.nan, np.float32)
            is_in = piece.has_problem
        else:
            scores = piece.scores
            is_in = (scores >= self._range[0]) & (scores <= self._range[1])
        if len(self._left_out) and len(piece.indices):
            is_in = is_in & ~_among(piece.indices, self._left_out)
        for sought in (*self._sought, *also):
            if is_in.any():  # else the ids need not be read
                is_in = is_in & sought.among(piece)
        indices, which = piece.indices, np.flatnonzero(is_in)
        if len(which) < len(indices):
            indices, scores = indices[which], scores[which]
        return Found(self._key.of(scores, indices), indices, scores)


def _inside(least: float, most: float) -> tuple[np.float32, np.float32]:
    """Return the least and the greatest score between two numbers, which need not be float32 themselves."""
    least, most = max(least, 0.0), min(most, 1.0)
    low, high = np.float32(least), np.float32(most)
    if float(low) < least:
        low = np.nextafter(low, np.float32(np.inf))
    if float(high) > most:
        high = np.nextafter(high, np.float32(-np.inf))
    return low, high


def _among(indices: NDArray[np.int64], few: NDArray[np.int64]) -> NDArray[np.bool]:
    """Return which of some positions are among a few others; both rise."""
    is_among = np.zeros(len(indices), np.bool)
    few = few[np.searchsorted(few, indices[0]) : np.searchsorted(few, indices[-1], side="right")]
    at = np.searchsorted(indices, few)
    is_among[at[indices[at] == few]] = True
    return is_among
