"""Which labels are held out to measure with: decided once per image, for good."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

__all__ = ["SPLITS", "TEST", "TRAIN", "Splits"]

TRAIN, TEST = "train", "test"
SPLITS = (TRAIN, TEST)
_ALWAYS_TRAIN = 4  # the first labels of a class all go to training: with so few, measuring comes second
_MAX_TEST_SHARE = 0.5


class Splits:
    """The split of every image that ever had a label.

    Of each class the first 4 images train. After that one of each run of
    ``round(1 / test_share)`` is held out, at a place drawn by a hash of the class and the run,
    so that neither the order of the clicks nor a restart can choose it. An image keeps its
    split when it is relabelled or its label is taken back.

    Parameters
    ----------
    test_share : float, in [0, 0.5]
        Share of the labels of a class to hold out.
    own : container of str, optional
        The ids of the images that are measured on. Labels of others train, and are not counted.

    Raises
    ------
    ConfigError
        If `test_share` is out of its range.

    Notes
    -----
    Thread safety: none of its own; the `LabelStore` that owns it calls it under its writing lock.
    """

    def __init__(self, test_share: float, own: Container[str] | None = None) -> None:
        if not 0 <= test_share <= _MAX_TEST_SHARE:
            raise ConfigError(f"test_share is {test_share!r}; it must lie between 0 and {_MAX_TEST_SHARE}.")
        self._run = round(1 / test_share) if test_share else 0
        self._own = own
        self._splits: dict[str, str] = {}
        self._n: Counter[str] = Counter()  # images per class of their first label

    def draw(
        self, labels: Mapping[str, str | None], elsewhere: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the split of each image that has one or gets one now; nothing is noted yet.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to its new class; None for a label that is taken back.
        elsewhere : mapping of str to str, optional
            The splits that images have in another session, which they keep if they have none here;
            where nothing is held out, they train.

        Returns
        -------
        dict of str to str
            Image id to "train" or "test". Images that never had a label and get none are left out.
        """
        n = self._n.copy()
        splits = {}
        for image_id, label in labels.items():
            if not self._is_own(image_id):
                continue  # it trains
            if image_id in self._splits:
                splits[image_id] = self._splits[image_id]
            elif label is not None:
                kept = (elsewhere or {}).get(image_id) if self._run else None
                splits[image_id] = kept or self._next(label, n[label])
                n[label] += 1
        return splits

    def note(self, image_id: str, label: str, split: str) -> None:
        """Keep the split of an image's first label; later ones change nothing."""
        if image_id not in self._splits and self._is_own(image_id):
            self._splits[image_id] = split
            self._n[label] += 1

    def _is_own(self, image_id: str) -> bool:
        return self._own is None or image_id in self._own

    def _next(self, label: str, position: int) -> str:
        """Return the split of the image at `position` (from 0) among those first labelled `label`."""
        if not self._run or position < _ALWAYS_TRAIN:
            return TRAIN
        run, place = divmod(position - _ALWAYS_TRAIN, self._run)
        digest = hashlib.sha256(f"{label}:{run}".encode()).digest()
        return TEST if place == int.from_bytes(digest[:8], "big") % self._run else TRAIN
