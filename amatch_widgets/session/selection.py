"""Which images are listed: by their label, star or problem, and by a filter."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from amatch_widgets.labels import LabelStore

__all__ = ["Filter", "Selection", "Show"]

Show = Literal["all", "unlabelled", "labelled", "anomaly", "normal", "starred", "problem"]
"""The images to list, by what is known of them; "problem" are those that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """What images must have to be listed; the default lets all of them through.

    Attributes
    ----------
    contains : str
        Part of the id, upper and lower case alike.
    tag : str
        One of the image's tags.
    least, most : float, in [0, 1]
        Range of the score, both ends included. Unless it is the whole range, images without a score
        are left out.
    """

    contains: str = ""
    tag: str = ""
    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= 1:
            raise ConfigError(
                f"Filter(least={self.least!r}, most={self.most!r}): allowed are scores from 0 to 1, "
                "the least first."
            )

    @property
    def is_open(self) -> bool:
        """Whether it lets all images through."""
        return self == Filter()


class Selection:
    """Choose images among all of a source.

    Parameters
    ----------
    ids : sequence of str
    index : mapping of str to int
        Id to position, in the order of `ids`.
    labels : LabelStore
    problems : callable
        Returns the ids of the images that cannot be read.

    Notes
    -----
    Thread safety: ``_lock`` guards ``_lower`` and ``_last``. All may be called from any thread.
    """

    def __init__(
        self,
        ids: Sequence[str],
        index: Mapping[str, int],
        labels: LabelStore,
        problems: Callable[[], Iterable[str]],
    ) -> None:
        self._ids, self._index, self._labels, self._problems = ids, index, labels, problems
        self._lock = threading.Lock()
        self._lower: list[str] | None = None
        self._last: tuple[str, npt.NDArray[np.bool_]] | None = None  # the text last looked for

    def choose(
        self, show: Show, only: Filter, scores: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int64] | None:
        """Return the positions of the images to list; None for all of them.

        Parameters
        ----------
        show : Show
        only : Filter
        scores : ndarray of float32, shape (N,)
            In [0, 1]; NaN where there is none.

        Returns
        -------
        ndarray of int64, shape (M,), or None
            Rising but for what only labelled or starred images are in: those come in the order of
            their labels, the latest first.

        Raises
        ------
        ConfigError
            If there is no such `show`.
        """
        if show not in get_args(Show):
            allowed = ", ".join(map(repr, get_args(Show)))
            raise ConfigError(f"Unknown show={show!r}. Allowed are {allowed}.")
        chosen = self._shown(show)
        if only.is_open:
            return chosen
        found = np.arange(len(self._ids), dtype=np.int64) if chosen is None else chosen
        if only.tag:
            tagged = np.zeros(len(self._ids), bool)
            tagged[self._places(self._said(lambda line: only.tag in line.tags))] = True
            found = found[tagged[found]]
        if (only.least, only.most) != (0, 1):
            found = found[(scores[found] >= only.least) & (scores[found] <= only.most)]
        if only.contains:
            found = found[self._contains(only.contains)[found]]
        return found

    def find(self, contains: str) -> npt.NDArray[np.int64]:
        """Return the positions of all images whose id contains a text, upper and lower case alike."""
        return np.flatnonzero(self._contains(contains)).astype(np.int64, copy=False)

    def _shown(self, show: Show) -> npt.NDArray[np.int64] | None:
        if show == "all":
            return None
        if show == "problem":
            return np.sort(self._places(self._problems()))
        if show == "starred":
            return self._places(self._said(lambda line: line.star))
        labels = self._labels.current()
        if show == "unlabelled":
            is_free = np.ones(len(self._ids), bool)
            is_free[self._places(labels)] = False
            return np.flatnonzero(is_free)
        wanted = labels if show == "labelled" else [i for i, line in labels.items() if line.label == show]
        return self._places(wanted)[::-1]

    def _said(self, holds: Callable[..., bool]) -> list[str]:
        """Return the ids of the images of whose last line something holds, the latest label first."""
        said = [*self._labels.unlabelled().items(), *self._labels.current().items()]
        return [i for i, line in reversed(said) if holds(line)]

    def _places(self, image_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.array([self._index[i] for i in image_ids if i in self._index], np.int64)

    def _contains(self, text: str) -> npt.NDArray[np.bool_]:
        """Say of each image whether its id contains a text; kept, as each label lists images anew."""
        text = text.casefold()
        with self._lock:
            if self._last is None or self._last[0] != text:
                self._last = text, self._search(text)
            return self._last[1]

    def _search(self, text: str) -> npt.NDArray[np.bool_]:
        """Look through all ids; the lock is held."""
        if hasattr(self._ids, "contain"):  # they do it by themselves, and need no copies
            found: npt.NDArray[np.bool_] = self._ids.contain(text)
            return found
        if self._lower is None:
            self._lower = [i.casefold() for i in self._ids]
        return np.fromiter((text in i for i in self._lower), bool, len(self._lower))
