"""Labels: what a person said about each image, kept for good.

Every change is a line of an append-only journal (`amatch_widgets.labels.journal`), so undo is
a new line and the whole history can be read back. Part of the labels is held out to measure
with; which part is decided once per image and written down, so that no label ever moves
between training and test.
"""

from __future__ import annotations

import difflib
import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import ConfigError, LabelError, StateError
from amatch_widgets.labels.journal import Journal
from amatch_widgets.labels.split import SPLITS, TEST, TRAIN, Splits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ANOMALY", "CLASSES", "NORMAL", "SPLITS", "TEST", "TRAIN", "Label", "LabelStore"]

ANOMALY, NORMAL = "anomaly", "normal"
CLASSES = (NORMAL, ANOMALY)  # the index of a class is its column in the model's output
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of the journal: what was said about an image, by whom and when.

    Parameters
    ----------
    image_id : str
        The image's id in its source.
    label : str or None
        "anomaly", "normal", or None where the label was taken back.
    tags : tuple of str
        Free words, e.g. ("merger",).
    note : str
        Free text.
    by : str
        Who said it.
    time : str
        When, ISO 8601 in UTC.
    score : float or None
        The image's score when it was labelled, in [0, 1]; None if it had none.
    step : int or None
        The training step that the score came from.
    reason : str
        Why the image was shown, e.g. "top: rank 3".
    split : str
        "train", or "test" if the label is held out to measure with.
    """

    image_id: str
    label: str | None
    tags: tuple[str, ...] = ()
    note: str = ""
    by: str = ""
    time: str = ""
    score: float | None = None
    step: int | None = None
    reason: str = ""
    split: str = TRAIN

    def to_record(self) -> dict[str, Any]:
        """Return the JSON object that stands in the journal."""
        return {
            "id": self.image_id,
            "label": self.label,
            "split": self.split,
            "tags": list(self.tags),
            "note": self.note,
            "by": self.by,
            "time": self.time,
            "score": self.score,
            "step": self.step,
            "reason": self.reason,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Label:
        """Read a journal object; fields that this version does not know are left aside.

        Parameters
        ----------
        record : mapping
            A parsed line.

        Returns
        -------
        Label
            What it says.

        Raises
        ------
        LabelError
            If a field is missing or has a value that makes no sense.
        """
        for field in ("id", "label"):
            if field not in record:
                raise LabelError(f"it has no {field!r}")
        split = record.get("split", TRAIN)
        if split not in SPLITS:
            raise LabelError(f"its split is {split!r} instead of 'train' or 'test'")
        score, step, tags = record.get("score"), record.get("step"), record.get("tags") or ()
        if not isinstance(tags, list | tuple):
            raise LabelError(f"its tags are {tags!r} instead of a list")
        try:
            return cls(
                image_id=_checked_id(record["id"]),
                label=_checked_label(record["label"], "it"),
                tags=tuple(map(str, tags)),
                note=str(record.get("note") or ""),
                by=str(record.get("by") or ""),
                time=str(record.get("time") or ""),
                score=None if score is None else float(score),
                step=None if step is None else int(step),
                reason=str(record.get("reason") or ""),
                split=split,
            )
        except (TypeError, ValueError) as error:
            raise LabelError(str(error)) from error


class LabelStore:
    """All labels of a session, in memory and in a journal.

    Parameters
    ----------
    path : Path or None
        The journal, e.g. ``runs/mergers/labels.jsonl``; it is replayed if it exists. None keeps
        the labels in memory only.
    test_share : float, in [0, 0.5]
        Share of the labels of each class that is held out to measure with. The first 4 labels
        of a class always train; after that one of each ``round(1 / test_share)`` is held out.
        0 holds out nothing. Labels that already have their split keep it.

    Raises
    ------
    JournalError
        If the journal cannot be read or a line in its middle is damaged.
    ConfigError
        If `test_share` is out of its range.

    Notes
    -----
    Thread safety: ``_writing`` serialises `set` and guards the journal and ``_splits``;
    ``_lock`` guards ``_current`` and ``_history`` and is never held during a write, so that
    readers do not wait for the disk.
    """

    def __init__(self, path: Path | None, *, test_share: float = 0.25) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._current: dict[str, Label] = {}  # in order of the last change
        self._history: list[Label] = []
        self._splits = Splits(test_share)
        self._closed = False
        self._journal = None if path is None else Journal(path)
        if self._journal is not None:
            self._replay(self._journal)

    def __repr__(self) -> str:
        counts = self.counts()
        return f"LabelStore({counts[ANOMALY]} anomaly, {counts[NORMAL]} normal)"

    def __len__(self) -> int:
        """Return the number of images that have a label now."""
        return len(self._current)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._current

    @property
    def version(self) -> int:
        """Number of changes ever made; it grows by one with each."""
        return len(self._history)

    @property
    def notice(self) -> str:
        """What was cut away from a torn journal, in plain words; "" if nothing."""
        return "" if self._journal is None else self._journal.notice

    def set(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str = "",
        tags: Sequence[str] = (),
        note: str = "",
        scores: Mapping[str, float] | None = None,
        step: int | None = None,
        reason: str = "",
    ) -> list[Label]:
        """Label images, all or none of them; on return the labels are on disk.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to "anomaly", "normal", or None to take the label back.
        by : str
            Who says so.
        tags : sequence of str
            Free words for all of these images.
        note : str
            Free text for all of these images.
        scores : mapping of str to float, optional
            The images' present scores, in [0, 1]; missing and NaN mean none.
        step : int, optional
            The training step that `scores` come from.
        reason : str
            Why the images were shown.

        Returns
        -------
        list of Label
            The new lines, in the order of `labels`.

        Raises
        ------
        LabelError
            If an id or a label makes no sense. Nothing is changed.
        JournalError
            If the journal cannot be written. Nothing is changed; the labels are not kept.
        StateError
            If the store is closed.
        """
        if not isinstance(labels, Mapping):
            raise LabelError(f"labels is {labels!r}; give a mapping such as {{'a/0017.png': 'anomaly'}}.")
        if isinstance(tags, str):
            raise LabelError(f"tags is the string {tags!r}; give a list of words: [{tags!r}].")
        checked = {_checked_id(i): _checked_label(label, repr(i)) for i, label in labels.items()}
        if not checked:
            return []
        with self._writing:
            if self._closed:
                raise StateError("The labels are closed, so this label is NOT kept. Open the session again.")
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            splits = self._splits.draw(checked)
            lines = [
                Label(
                    image_id=image_id,
                    label=label,
                    tags=tuple(map(str, tags)),
                    note=str(note),
                    by=str(by),
                    time=now,
                    score=_finite((scores or {}).get(image_id)),
                    step=None if step is None else int(step),
                    reason=str(reason),
                    split=splits.get(image_id, TRAIN),
                )
                for image_id, label in checked.items()
            ]
            if self._journal is not None:
                self._journal.append([line.to_record() for line in lines])
            self._remember(lines)
        return lines

    def get(self, image_id: str) -> Label | None:
        """Return the label that `image_id` has now, or None."""
        return self._current.get(image_id)

    def current(self) -> dict[str, Label]:
        """Return the labels of all images that have one, least recently changed first."""
        with self._lock:
            return dict(self._current)

    def counts(self) -> dict[str, int]:
        """Return the number of images per class, e.g. ``{"normal": 45, "anomaly": 5}``."""
        counts = dict.fromkeys(CLASSES, 0)
        for line in self.current().values():
            counts[str(line.label)] += 1
        return counts

    def for_split(self, split: str) -> dict[str, str]:
        """Return image id to class of the labels that train, or of those held out.

        Parameters
        ----------
        split : str
            "train" or "test".

        Returns
        -------
        dict of str to str
            In order of the last change.

        Raises
        ------
        ConfigError
            If there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"Unknown split {split!r}; there are 'train' and 'test'.")
        return {i: str(line.label) for i, line in self.current().items() if line.split == split}

    def history(self, image_id: str | None = None) -> list[Label]:
        """Return every change ever made, oldest first, or only those of `image_id`."""
        with self._lock:
            lines = list(self._history)
        return lines if image_id is None else [line for line in lines if line.image_id == image_id]

    def close(self) -> None:
        """Close the journal; closing twice does no harm. What was read stays readable."""
        with self._writing:
            self._closed = True
            if self._journal is not None:
                self._journal.close()

    def _replay(self, journal: Journal) -> None:
        lines = []
        for number, record in journal.records:
            try:
                lines.append(Label.from_record(record))
            except LabelError as error:
                raise journal.damaged(number, str(error)) from error
        journal.records.clear()
        self._remember(lines)

    def _remember(self, lines: Sequence[Label]) -> None:
        with self._lock:
            self._history.extend(lines)
            for line in lines:
                self._current.pop(line.image_id, None)
                if line.label is not None:
                    self._current[line.image_id] = line
        for line in lines:
            if line.label is not None:
                self._splits.note(line.image_id, line.label, line.split)


def _checked_id(image_id: object) -> str:
    if not isinstance(image_id, str) or not image_id:
        raise LabelError(f"An image id is {image_id!r}; it must be a string that is not empty.")
    if _SPLIT_PAIR.search(image_id):
        # JSON would join the two halves, and the id would come back as another one.
        raise LabelError(
            f"The image id {image_id!r} holds a split surrogate pair. Write it as one character."
        )
    return str(image_id)


def _checked_label(label: object, what: str) -> str | None:
    if label is None or (isinstance(label, str) and label in CLASSES):
        return None if label is None else str(label)
    near = difflib.get_close_matches(str(label).casefold(), CLASSES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise LabelError(
        f"Unknown label {label!r} of {what}. There are 'anomaly', 'normal' and None (no label).{hint}"
    )


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)
