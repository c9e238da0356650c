"""Audits: a few images drawn at random, with known chances, among those that nobody has looked at.

The top of a ranking says nothing of what the ranking misses. So a small share of what is shown is
drawn here; `amatch_widgets.query.estimate` says what its labels tell of all other images.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_WEIGHT", "AuditDraw", "draw_audit"]

MAX_WEIGHT = 1.5
"""No drawn image stands for more than this many times n_free: 1 / chance <= 1.5 * n_free."""

# The chance falls as rank^(-1/3). With the power a, n * n^-a / (1^-a + ... + n^-a) > 1 - a, so the
# weight is below 1 / (1 - a). In simulated hunts 1/2 gained up to an eighth in standard error over 1/3
# where the ranking is good, and lost as much where it is useless or upside down; an even draw had 1.35
# to 1.6 times the standard error where it is good.
_FADE = 1 / 3
_BEST = np.uint32(0x3F800000)  # the bits of float32 1.0; those of what lies in [0, 1] rise with the value

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AuditDraw:
    """An image that was drawn at random, and what it turned out to be.

    Parameters
    ----------
    chance : float, in (0, 1]
        Probability of this draw at its moment, as `draw_audit` returned it.
    n_free : int, >= 1
        Images that could be drawn, this one counted.
    n_found : int, >= 0
        Anomalies that could not be drawn any more: those labelled before, and those among the
        earlier draws of the same page. Counted by today's labels, should some have been changed.
    is_anomaly : bool
        Its label. Every drawn image needs one: to leave out the doubtful ones would bias the estimate.
    """

    chance: float
    n_free: int
    n_found: int
    is_anomaly: bool

    def __post_init__(self) -> None:
        if not 0 < self.chance <= 1:
            raise ConfigError(f"The chance of an audit is {self.chance!r}; it must be above 0 and at most 1.")
        if self.n_free < 1 or self.n_found < 0:
            raise ConfigError(
                f"An audit has n_free={self.n_free!r} and n_found={self.n_found!r}; "
                "at least 1 image can be drawn, and 0 or more anomalies are found."
            )

    @classmethod
    def of_page(
        cls, chances: Iterable[float], labels: Iterable[bool | None], *, n_free: int, n_found: int
    ) -> list[AuditDraw]:
        """Return the draws of one call of `draw_audit`.

        Parameters
        ----------
        chances : iterable of float, shape (n,)
            As returned, in this order.
        labels : iterable of bool or None, shape (n,)
            True for an anomaly, None where there is no label yet; such a draw is left out.
        n_free, n_found : int
            Images without a label and labelled anomalies when `draw_audit` was called.

        Returns
        -------
        list of AuditDraw
        """
        draws: list[AuditDraw] = []
        for place, (chance, label) in enumerate(zip(chances, labels, strict=True)):
            if label is not None:
                draws.append(cls(float(chance), n_free - place, n_found, bool(label)))
                n_found += bool(label)
        return draws


def draw_audit(
    scores: NDArray[np.float32], free: NDArray[np.int64], n: int, *, seed: int
) -> tuple[NDArray[np.int64], _Floats]:
    """Draw different images at random, one after the other, higher ranks more often.

    Among the images with a score, the chance falls as rank^(-1/3), ties ranked by index; an image
    without a score has the chance 1 / n_free. Scores need not be calibrated. Each image that is
    free can be drawn, and its weight is bounded: 1 / (n_free * chance) <= 1.5 (`MAX_WEIGHT`).

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
        Scores in [0, 1] of all images; NaN where there is none.
    free : ndarray of int64, shape (M,)
        Indices of the images without a label, each once, in any order. What cannot be read should
        be left out: such anomalies are then not counted.
    n : int, >= 0
        How many; fewer come if there are fewer. The time grows as its square.
    seed : int, >= 0
        Seed of the draw; another one for each call.

    Returns
    -------
    indices : ndarray of int64, shape (n,)
        The images, in the order in which they were drawn.
    chances : ndarray of float64, shape (n,)
        Probability of each draw given the ones before it.

    Raises
    ------
    ConfigError
        If `n` is negative, an index is not one of an image or comes twice, or a score is outside
        of [0, 1].
    """
    ranked, n_scored = _ranking(scores, free, n)
    n_left, rng = len(ranked), np.random.default_rng(seed)
    sums = np.cumsum(np.arange(1, n_scored + 1) ** -_FADE)
    taken: list[int] = []  # places in the ranking, rising
    places, chances = [], []
    for _ in range(min(n, n_left)):
        if rng.random() * n_left < n_scored:
            place = int(np.searchsorted(sums[:n_scored], rng.random() * sums[n_scored - 1], side="right"))
            place = min(place, n_scored - 1)  # the product can be rounded up to the sum
            chances.append(n_scored / n_left * (place + 1) ** -_FADE / sums[n_scored - 1])
            n_scored -= 1
        else:
            place = int(rng.integers(n_scored, n_left))
            chances.append(1 / n_left)
        n_left -= 1
        for earlier in taken:  # from a place among what is left to one in the whole ranking
            place += earlier <= place
        insort(taken, place)
        places.append(place)
    return ranked[np.array(places, np.intp)], np.array(chances, np.float64)


def _ranking(scores: NDArray[np.float32], free: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], int]:
    """Return the free images, highest score first and those without one last, and how many have one."""
    if n < 0:
        raise ConfigError(f"n is {n}; it must be 0 or more.")
    free = np.asarray(free, np.int64)
    if len(free) and not (free.min() >= 0 and free.max() < len(scores)):
        raise ConfigError(
            f"free has indices from {free.min()} to {free.max()}; there are {len(scores):,} images."
        )
    is_free = np.zeros(len(scores), np.bool_)
    is_free[free] = True
    if np.count_nonzero(is_free) != len(free):
        raise ConfigError("free holds an image more than once; each can be drawn once. Use np.unique(free).")
    values = np.asarray(scores, np.float32)[free]
    has_score = ~np.isnan(values)
    values = np.where(has_score, values, 0) + np.float32(0)  # -0.0 becomes 0.0, which has other bits
    if len(free) and not (values.min() >= 0 and values.max() <= 1):
        raise ConfigError(
            f"Scores lie between {values.min():.3g} and {values.max():.3g}; "
            "they must be in [0, 1], or NaN where there is none."
        )
    # One number per image, of rank and index: sorts 5 times faster than a stable argsort, ties by index.
    falling = np.where(has_score, _BEST - values.view(np.uint32), _BEST + np.uint32(1)).astype(np.uint64)
    keys = np.sort((falling << np.uint64(32)) | free.astype(np.uint64))
    return (keys & np.uint64(2**32 - 1)).astype(np.int64), int(np.count_nonzero(has_score))
