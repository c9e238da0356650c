"""Labels: what a person said about each image, kept for good.

Every change is a line of an append-only journal (`amatch_widgets.labels.journal`), so undo is
a new line and the whole history can be read back. Part of the labels is held out to measure
with; which part is decided once per image and written down, so that no label ever moves
between training and test.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from amatch_widgets.errors import ConfigError, LabelError, StateError
from amatch_widgets.labels.actions import Actions, Change
from amatch_widgets.labels.journal import Journal
from amatch_widgets.labels.label import ANOMALY, CLASSES, NORMAL, Label, checked_id, checked_label
from amatch_widgets.labels.split import SPLITS, TEST, TRAIN, Splits

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ANOMALY", "CLASSES", "NORMAL", "SPLITS", "TEST", "TRAIN", "Label", "LabelStore"]


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
    own : container of str, optional
        The ids of the images that are measured on, by default all; labels of others train.

    Raises
    ------
    JournalError
        If the journal cannot be read or a line in its middle is damaged.
    ConfigError
        If `test_share` is out of its range.

    Notes
    -----
    Thread safety: ``_writing`` serialises `set` and guards the journal and ``_splits``;
    ``_lock`` guards ``_current``, ``_unlabelled``, ``_tags``, ``_history`` and ``_actions`` and is never held
    during a write, so that readers do not wait for the disk.
    """

    def __init__(
        self, path: Path | None, *, test_share: float = 0.25, own: Container[str] | None = None
    ) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._current: dict[str, Label] = {}  # in order of the last change
        self._unlabelled: dict[str, Label] = {}  # that are starred, tagged or noted all the same
        self._history: list[Label] = []
        self._tags: Counter[str] = Counter()  # kept as labels come: asked for after each of them
        self._actions = Actions()
        self._splits = Splits(test_share, own)
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
        tags: Sequence[str] | None = None,
        note: str | None = None,
        scores: Mapping[str, float] | None = None,
        step: int | None = None,
        reason: str | Mapping[str, str] = "",
        can_undo: bool = True,
        action: int | None = None,
    ) -> list[Label]:
        """Label images, all or none of them; on return the labels are on disk.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to "anomaly", "normal", or None to take the label back.
        by : str
            Who says so.
        tags : sequence of str, optional
            Free words for all of these images; None leaves each with those it has.
        note : str, optional
            Free text for all of these images; None leaves each with what it has.
        scores : mapping of str to float, optional
            The images' present scores, in [0, 1]; missing and NaN mean none.
        step : int, optional
            The training step that `scores` come from.
        reason : str or mapping of str to str
            Why the images were shown; the same for all, or by image id.
        can_undo : bool
            Whether `undo` takes the call back; not so for a table that was read.
        action : int, optional
            An earlier action that these labels belong to and are undone with, see `Label`; where that was
            undone, nothing is changed.

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
        words = None if tags is None else _words(tags)
        checked = {checked_id(i): checked_label(label, repr(i)) for i, label in labels.items()}
        with self._writing:
            if action is not None and not self._actions.is_done(action):
                return []
            lines = []
            for image_id, label in checked.items():
                before = self.get(image_id) or Label(image_id=image_id, label=None)
                line = dataclasses.replace(
                    before,
                    label=label,
                    tags=before.tags if words is None else words,
                    note=before.note if note is None else str(note),
                    score=_finite((scores or {}).get(image_id)),
                    step=None if step is None else int(step),
                    reason=str(reason if isinstance(reason, str) else reason.get(image_id, "")),
                )
                lines.append(line)
            if action is None and can_undo:
                action = self._actions.next
            return self._write(lines, by, action=action)

    def annotate(
        self,
        image_ids: Sequence[str],
        *,
        by: str = "",
        star: bool | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        note: str | None = None,
    ) -> list[Label]:
        """Star, tag or note images, labelled or not; their labels stay. On return it is on disk.

        Parameters
        ----------
        image_ids : sequence of str
        by : str
            Who says so.
        star : bool, optional
            Whether they are starred; None leaves it.
        add, remove : sequence of str
            Tags.
        note : str, optional
            Free text in place of the one there is; None leaves it.

        Returns
        -------
        list of Label
            The new lines; images that are so already get none.

        Raises
        ------
        LabelError, JournalError, StateError
            As for `set`.
        """
        added, removed = _words(add), _words(remove)
        with self._writing:
            lines = []
            for image_id in dict.fromkeys(map(checked_id, image_ids)):
                before = self.get(image_id) or Label(image_id=image_id, label=None)
                kept = (tag for tag in before.tags if tag not in removed)
                line = dataclasses.replace(
                    before,
                    star=before.star if star is None else bool(star),
                    tags=tuple(dict.fromkeys((*kept, *added))),
                    note=before.note if note is None else str(note),
                )
                if line != before:
                    lines.append(line)
            return self._write(lines, by, action=self._actions.next)

    def merge(self, plan: Callable[[list[Label]], Sequence[Label]]) -> list[Label]:
        """Take over lines of another journal, all or none; they keep who said so and when.

        One `undo` takes all of them back. An image that has a split here keeps it; a new one
        keeps the split that it has there, so that no label moves between training and test by
        going from one session to the other.

        Parameters
        ----------
        plan : callable
            Takes all lines of this journal, oldest first, and returns those to add, one for an
            image; see `amatch_widgets.labels.merge`. Nothing else is written until it returns.

        Returns
        -------
        list of Label
            The new lines.

        Raises
        ------
        JournalError, StateError
            As for `set`.
        """
        with self._writing:
            return self._write(list(plan(self.history())), None, action=self._actions.next)

    def undo(self, *, by: str = "") -> list[Label]:
        """Take back the last action that was not taken back yet, whoever's it was.

        Returns
        -------
        list of Label
            The new lines, which say what the images were before; none if there is nothing to undo.

        Raises
        ------
        JournalError, StateError
            As for `set`.
        """
        with self._writing:
            return self._take_back(self._actions.last_done(), by, "undo")

    def redo(self, *, by: str = "") -> list[Label]:
        """Do again what was undone last; nothing else may have been done since. See `undo`."""
        with self._writing:
            return self._take_back(self._actions.last_undone(), by, "redo")

    @property
    def n_undo(self) -> int:
        """How many actions can be undone, one after the other."""
        return self._actions.n_done

    @property
    def n_redo(self) -> int:
        """How many can be done again."""
        return self._actions.n_undone

    def get(self, image_id: str) -> Label | None:
        """Return what is said of `image_id` now: label, tags, note or star; None if nothing."""
        return self._current.get(image_id) or self._unlabelled.get(image_id)

    def current(self) -> dict[str, Label]:
        """Return the labels of all images that have one, least recently changed first."""
        with self._lock:
            return dict(self._current)

    def unlabelled(self) -> dict[str, Label]:
        """Return what is said of images without a label: tags, notes, stars."""
        with self._lock:
            return dict(self._unlabelled)

    def tags(self) -> dict[str, int]:
        """Return the tags there are and how many images have each, the most frequent first."""
        with self._lock:
            return dict((+self._tags).most_common())  # without those that no image has any more

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

    def _take_back(self, action: tuple[int, list[Change]] | None, by: str, reason: str) -> list[Label]:
        """Write lines that say what the images were before an action; the writing lock is held."""
        if action is None:
            return []
        number, changes = action
        lines = [
            dataclasses.replace(before or Label(image_id=line.image_id, label=None), reason=reason)
            for before, line in changes
        ]
        return self._write(lines, by, action=self._actions.next, undoes=number)

    def _write(
        self, lines: list[Label], by: str | None, *, action: int | None, undoes: int | None = None
    ) -> list[Label]:
        """Put lines on disk and in memory as one action; the writing lock is held.

        With `by` None they are of another journal and keep who said so, when, and their splits.
        """
        if not lines:
            return []
        if self._closed:
            raise StateError("The labels are closed, so this label is NOT kept. Open the session again.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        elsewhere = {line.image_id: line.split for line in lines} if by is None else None
        splits = self._splits.draw({line.image_id: line.label for line in lines}, elsewhere)
        lines = [
            dataclasses.replace(
                line,
                by=line.by if by is None else str(by),
                time=line.time if by is None else now,
                score=_finite(line.score),
                split=splits.get(line.image_id, TRAIN),
                action=action,
                undoes=undoes,
            )
            for line in lines
        ]
        if self._journal is not None:
            self._journal.append([line.to_record() for line in lines])
        self._remember(lines)
        return lines

    def _remember(self, lines: Sequence[Label]) -> None:
        with self._lock:
            self._history.extend(lines)
            for line in lines:
                image_id = line.image_id
                before = self._current.pop(image_id, None) or self._unlabelled.pop(image_id, None)
                self._actions.note(before, line)
                self._tags.subtract(() if before is None else before.tags)
                self._tags.update(line.tags)
                if line.label is not None:
                    self._current[image_id] = line
                elif not line.is_empty:
                    self._unlabelled[image_id] = line
        for line in lines:
            if line.label is not None:
                self._splits.note(line.image_id, line.label, line.split)


def _finite(score: float | None) -> float | None:
    return None if score is None or not math.isfinite(score) else float(score)


def _words(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise LabelError(f"tags is the string {tags!r}; give a list of words: [{tags!r}].")
    return tuple(map(str, tags))
