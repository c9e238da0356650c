"""A second look at labels: all that was said of an image is hidden until it is labelled again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amatch_widgets.labels import Label, LabelStore

__all__ = ["Blind"]


class Blind:
    """The images that are judged anew without seeing what was said of them.

    These are all that have a label now. One is shown again once it was labelled; a star, a tag or
    a note is no judgement, and who takes the new label back has not judged.

    Thread safety: none; the gallery's lock guards it.

    Parameters
    ----------
    store : LabelStore
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        # Before the labels: of what comes meanwhile nothing is missed then.
        self._n_read = store.version
        self._last = store.current()
        self._hidden = set(self._last)
        # Whether an image was hidden before an action, for when that is undone.
        self._before: dict[tuple[str, int], bool] = {}

    def hides(self, image_id: str) -> bool:
        """Whether what was said of an image must not be seen."""
        return image_id in self.hidden

    @property
    def hidden(self) -> set[str]:
        """The ids of all images that are hidden; not to be changed."""
        if self._store.version != self._n_read:
            lines = self._store.history()[self._n_read :]
            self._n_read += len(lines)
            for line in lines:
                if line.image_id in self._last:
                    self._read(line)
        return self._hidden

    def _read(self, line: Label) -> None:
        image_id, was_hidden = line.image_id, line.image_id in self._hidden
        if line.undoes is not None:
            is_hidden = self._before.get((image_id, line.undoes), was_hidden)
        else:
            is_hidden = was_hidden and not _is_judged(self._last[image_id], line)
        if line.action is not None:
            self._before.setdefault((image_id, line.action), was_hidden)
        self._last[image_id] = line
        (self._hidden.add if is_hidden else self._hidden.discard)(image_id)


def _is_judged(before: Label, line: Label) -> bool:
    """Whether a line is a new label, and not a star, a tag or a note beside the old one."""

    def judgement(of: Label) -> tuple[object, ...]:
        return of.label, of.score, of.step, of.reason

    def remarks(of: Label) -> tuple[object, ...]:
        return of.star, of.tags, of.note

    return judgement(line) != judgement(before) or remarks(line) == remarks(before)
