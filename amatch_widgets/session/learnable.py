"""Which labels each tier learns from, and which anomalies judge between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.labels import ANOMALY, CLASSES
from amatch_widgets.labels.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from amatch_widgets.labels import LabelStore

__all__ = ["Learnable"]

_EVERY = 3  # of the anomalies to learn from, the third, sixth ... is kept from the deep tier


class Learnable:
    """The labels to learn from, as positions in the source.

    The instant tier learns from all of them. The deep tier does without every third anomaly, in
    the order of their first label, so that there is something to judge both by; an anomaly never
    changes its side, however often it is labelled anew.

    Parameters
    ----------
    labels : LabelStore
    index : mapping of str to int
        Id to position in the source.

    Notes
    -----
    Thread safety: ``_known`` is a single tuple, replaced as a whole; all may be called from any thread.
    """

    def __init__(self, labels: LabelStore, index: Mapping[str, int]) -> None:
        self._labels, self._index = labels, index
        self._known: tuple[int, Mapping[int, int], Mapping[int, int]] = (-1, {}, {})

    def instant(self) -> tuple[int, Mapping[int, int]]:
        """Return (version, {index: class}) for the instant tier."""
        version, labels, _ = self._now()
        return version, labels

    def deep(self) -> tuple[int, Mapping[int, int]]:
        """Return (version, {index: class}) for the deep tier."""
        version, _, labels = self._now()
        return version, labels

    def judged(self) -> npt.NDArray[np.int64]:
        """Return the positions of the anomalies that the deep tier does without."""
        _, labels, deep = self._now()
        return np.array([i for i in labels if i not in deep], np.int64)

    def _now(self) -> tuple[int, Mapping[int, int], Mapping[int, int]]:
        version, known = self._labels.version, self._known
        if known[0] != version:
            train = self._labels.for_split(TRAIN)
            labels = {self._index[i]: CLASSES.index(c) for i, c in train.items() if i in self._index}
            lines = [line for line in self._labels.history() if (line.label, line.split) == (ANOMALY, TRAIN)]
            first_seen = dict.fromkeys(line.image_id for line in lines)
            judged = {i for position, i in enumerate(first_seen, start=1) if position % _EVERY == 0}
            deep = {
                self._index[i]: CLASSES.index(c)
                for i, c in train.items()
                if i in self._index and not (c == ANOMALY and i in judged)
            }
            known = self._known = version, labels, deep
        return known
