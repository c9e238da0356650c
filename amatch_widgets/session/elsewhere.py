"""Labelled images of archives, as the deep tier learns from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ImageReadError, LabelError, NotTrainedError
from amatch_widgets.events import Message
from amatch_widgets.labels import CLASSES
from amatch_widgets.learn.feed import LabelledImages

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from amatch_widgets.events import EventHub
    from amatch_widgets.labels import Label, LabelStore
    from amatch_widgets.session.pictures import Pictures

__all__ = ["LabelledElsewhere"]


class LabelledElsewhere:
    """Read the labelled images of archives, each once, and keep them in memory.

    Parameters
    ----------
    labels : LabelStore
        Its version tells whether there is anything new.
    lines : callable
        Returns the labels of archives' images, by their names in the session.
    pictures : Pictures
        Reads the images.
    hub : EventHub
        Is told of images that cannot be read.

    Notes
    -----
    Thread safety: `classes` may be called from any thread; calls belong on the worker's, as they read files.
    """

    def __init__(
        self,
        labels: LabelStore,
        lines: Callable[[], dict[str, Label]],
        pictures: Pictures,
        hub: EventHub,
    ) -> None:
        self._labels, self._lines, self._pictures, self._hub = labels, lines, pictures, hub
        self._image = pictures.image
        self._read: dict[str, npt.NDArray[np.uint8] | None] = {}  # None for those that cannot be
        self._current: tuple[int, LabelledImages | None] = (-1, None)

    def classes(self) -> dict[str, int]:
        """Return which images have a label now: name to 1 (anomaly) or 0 (normal), by name."""
        lines = sorted(self._lines().items())
        return {i: CLASSES.index(line.label) for i, line in lines if line.label is not None}

    def __call__(self) -> tuple[int, LabelledImages | None]:
        """Return the number of the labels' version, and the images; None without any."""
        version, image = self._labels.version, self._pictures.image
        if image != self._image:  # they are prepared otherwise now
            self._image, self._read, self._current = image, {}, (-1, None)
        if version != self._current[0]:
            known = self.classes()
            self._look_at([i for i in known if i not in self._read])
            there = {i: pixels for i in known if (pixels := self._read[i]) is not None}
            images = None
            if there:
                classes = np.array([known[i] for i in there], np.int64)
                images = LabelledImages(np.stack(list(there.values())), classes)
            self._current = version, images
        return self._current

    def _look_at(self, image_ids: list[str]) -> None:
        """Read images; those that cannot be read are told, and left out until the next session."""
        reasons = {}
        for image_id in image_ids:
            try:
                self._read[image_id] = self._pictures.prepared(image_id)
            except (ImageReadError, LabelError, NotTrainedError) as error:
                self._read[image_id], reasons[image_id] = None, str(error)
        if reasons:
            reason = next(iter(reasons.values()))
            text = f"The training leaves out {len(reasons):,} labelled images of archives: {reason}"
            self._hub.publish(Message("warning", text))
