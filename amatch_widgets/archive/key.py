"""What the images of an archive are sorted by: whole numbers, of which the least come first."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["KEYS", "Best", "Found", "Key", "Span", "mixed"]

_STEP_BITS = 16  # of the number of steps of a span
_ONE = 0x3F800000  # the bits of 1 as a float32: from 0 to 1, bits rise as the numbers do
_UNIT = 2.0**54  # the distance of a float32 from a half, as a float64, has no digit below one in so many


class Key(NamedTuple):
    """What an order sorts by; of equal keys the smaller position comes first.

    Attributes
    ----------
    of : callable
        From scores (float32, in [0, 1]) and positions (int64), each of shape (M,), to keys (int), shape (M,).
    most : int
        No key is greater, and none is less than 0.
    """

    of: Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[Any]]
    most: int


def _bits(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    return (scores + np.float32(0)).view(np.int32)  # -0 becomes 0


KEYS = {
    "highest": Key(lambda scores, _: _ONE - _bits(scores), _ONE),
    "lowest": Key(lambda scores, _: _bits(scores), _ONE),
    "uncertain": Key(
        lambda scores, _: (np.abs(scores.astype(np.float64) - 0.5) * _UNIT).astype(np.int64), int(_UNIT / 2)
    ),
    "position": Key(lambda _, indices: np.zeros(len(indices), np.int32), 0),
}


def mixed(seed: int) -> Key:
    """Return the key of a random order: each position its own number, which says nothing of it."""

    def of(_: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.int64]:
        # SplitMix64 (Steele, Lea and Flood 2014).
        z = (indices + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % (1 << 64))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(33)).astype(np.int64)

    return Key(of, (1 << 31) - 1)


class Span(NamedTuple):
    """A stretch of an order, ends included: of keys, or where it is one key, of positions that have it.

    It has at most 65,536 steps of the same width.
    """

    low: int
    high: int
    first: int
    last: int

    @property
    def n_steps(self) -> int:
        """How many steps it has; 1 if no shorter stretch can be told from it."""
        return (self._width >> self._shift) + 1

    def has(self, keys: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.bool]:
        """Return which of some images lie in it."""
        is_in: NDArray[np.bool] = (keys >= self.low) & (keys <= self.high)
        if self.low == self.high:
            is_in &= (indices >= self.first) & (indices <= self.last)
        return is_in

    def by_step(self, keys: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count images, which all lie in it, by its steps, shape (n_steps,)."""
        numbers = keys - self.low if self.low < self.high else indices - self.first
        return np.bincount(numbers >> self._shift, minlength=self.n_steps)

    def step(self, number: int) -> Span:
        """Return one of its steps."""
        start, stop = number << self._shift, ((number + 1) << self._shift) - 1
        if self.low < self.high:
            return self._replace(low=self.low + start, high=min(self.low + stop, self.high))
        return self._replace(first=self.first + start, last=min(self.first + stop, self.last))

    @property
    def _width(self) -> int:
        return self.high - self.low or self.last - self.first

    @property
    def _shift(self) -> int:
        return max(0, self._width.bit_length() - _STEP_BITS)


@dataclass(frozen=True, slots=True)
class Found:
    """Images and what they are sorted by.

    Attributes
    ----------
    keys : ndarray of int, shape (M,)
    indices : ndarray of int64, shape (M,)
        Positions in the source.
    scores : ndarray of float32, shape (M,)
        NaN where there is none.
    """

    keys: NDArray[Any]
    indices: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, which: NDArray[Any] | slice) -> Found:
        """Return some of them; none are copied where it is all."""
        if not isinstance(which, slice) and which.dtype == np.bool:
            which = np.flatnonzero(which)  # to be gone through once, not for each of the arrays
            if len(which) == len(self):
                return self
        return Found(self.keys[which], self.indices[which], self.scores[which])

    def before(self, key: int, index: int) -> NDArray[np.bool]:
        """Return which come before an image."""
        is_before: NDArray[np.bool] = (self.keys < key) | ((self.keys == key) & (self.indices < index))
        return is_before

    def after(self, key: int, index: int) -> NDArray[np.bool]:
        """Return which come after an image."""
        is_after: NDArray[np.bool] = (self.keys > key) | ((self.keys == key) & (self.indices > index))
        return is_after


class Best:
    """The first of an order, among images that are seen in any order.

    Thread safety: ``_lock`` guards all attributes but ``_last``, which is replaced as a whole.

    Parameters
    ----------
    n : int, >= 1
        How many; twice as many are held at most, besides those of one call of `add`.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._lock = threading.Lock()
        self._held: list[Found] = []
        self._last: tuple[int, int] | None = None  # no image after it can be among the first

    def add(self, found: Found) -> None:
        """Look at some images."""
        if self._last is not None:
            found = found.take(~found.after(*self._last))
        if not len(found):
            return
        with self._lock:
            self._held.append(found)
            if sum(map(len, self._held)) > 2 * self._n:
                self._held = [self._cut()]

    def sorted(self) -> Found:
        """Return the first of all that were seen, in order."""
        with self._lock:
            found = _joined(self._held)
        return found.take(np.lexsort((found.indices, found.keys))[: self._n])

    def _cut(self) -> Found:
        found = _joined(self._held)
        key = np.partition(found.keys, self._n - 1)[self._n - 1]
        is_tied = found.keys == key
        n_tied = self._n - int(np.count_nonzero(found.keys < key))
        index = np.partition(found.indices[is_tied], n_tied - 1)[n_tied - 1]
        self._last = int(key), int(index)
        return found.take(~found.after(*self._last))


def _joined(found: list[Found]) -> Found:
    if not found:
        return Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return Found(
        np.concatenate([f.keys for f in found]),
        np.concatenate([f.indices for f in found]),
        np.concatenate([f.scores for f in found]),
    )
