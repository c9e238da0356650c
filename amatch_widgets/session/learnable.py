"""The labels to learn from, as positions in the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amatch_widgets.labels import CLASSES
from amatch_widgets.labels.reason import was_merged
from amatch_widgets.labels.split import TRAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amatch_widgets.labels import LabelStore

__all__ = ["Learnable"]


class Learnable:
    """The labels that both tiers learn from: all but those held out for the metrics.

    Parameters
    ----------
    labels : LabelStore
    index : mapping of str to int
        Id to position in the source.

    Notes
    -----
    Thread safety: ``_known`` is a single tuple, replaced as a whole; it may be called from any thread.
    """

    def __init__(self, labels: LabelStore, index: Mapping[str, int]) -> None:
        self._labels, self._index = labels, index
        self._known: tuple[int, Mapping[int, int]] = (-1, {})

    def __call__(self) -> tuple[int, Mapping[int, int]]:
        """Return (version, {index: class}), with 1 for an anomaly and 0 for a normal image."""
        version, known = self._labels.version, self._known
        if known[0] != version:
            train = self._labels.for_split(TRAIN)
            labels = {self._index[i]: CLASSES.index(c) for i, c in train.items() if i in self._index}
            known = self._known = version, labels
        return known

    def merged(self) -> frozenset[int]:
        """Return the positions whose label is another session's: no ranking of this one brought them up."""
        now = self._labels.current().items()
        return frozenset(self._index[i] for i, line in now if was_merged(line.reason) and i in self._index)
