"""The labels of some of the images that a journal is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amatch_widgets.labels.label import CLASSES

if TYPE_CHECKING:
    from collections.abc import Container

    from amatch_widgets.labels.label import Label
    from amatch_widgets.labels.store import LabelStore

__all__ = ["OwnLabels"]


class OwnLabels:
    """What is said of a session's own images, without those of its archives, which are in the same journal.

    What is counted and estimated of the session's images rests on these alone. Nothing is kept here.

    Parameters
    ----------
    labels : LabelStore
    own : container of str
        The ids that are meant.
    """

    def __init__(self, labels: LabelStore, own: Container[str]) -> None:
        self._labels, self._own = labels, own

    def __len__(self) -> int:
        """Return the number of images that have a label now."""
        return len(self.current())

    @property
    def version(self) -> int:
        """Number of changes ever made, of all images."""
        return self._labels.version

    def current(self) -> dict[str, Label]:
        """Return the labels of all images that have one, least recently changed first."""
        return {i: line for i, line in self._labels.current().items() if i in self._own}

    def history(self) -> list[Label]:
        """Return every change ever made, oldest first."""
        return [line for line in self._labels.history() if line.image_id in self._own]

    def counts(self) -> dict[str, int]:
        """Return the number of images per class."""
        counts = dict.fromkeys(CLASSES, 0)
        for line in self.current().values():
            counts[str(line.label)] += 1
        return counts

    def for_split(self, split: str) -> dict[str, str]:
        """Return image id to class of the labels that train, or of those held out."""
        return {i: label for i, label in self._labels.for_split(split).items() if i in self._own}
