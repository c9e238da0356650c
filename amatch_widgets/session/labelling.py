"""The part of a session that keeps what its user says about the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amatch_widgets.events import LabelsChanged
from amatch_widgets.labels.reason import AT_THE_START, from_table
from amatch_widgets.labels.table import LabelImport, read_label_csv
from amatch_widgets.session.parts import Parts

if TYPE_CHECKING:
    from amatch_widgets.labels import Label

__all__ = ["Labelling"]


class Labelling(Parts):
    """Labels, stars, tags and notes of a `Session`; all of it is on disk when a call returns."""

    def label(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
        reason: str | Mapping[str, str] = "",
    ) -> None:
        """Label images; on return the labels are on disk. A running training takes them in.

        One call is one action of `undo`.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to "anomaly", "normal", or None to take the label back. All or none.
        by : str, optional
            Who says so; by default the session's annotator.
        tags : sequence of str, optional
            Free words for all of these images, in place of those they have; None leaves them.
        note : str, optional
            Free text, in place of what there is; None leaves it.
        reason : str or mapping of str to str
            Why the images were shown; the same for all, or by image id.

        Raises
        ------
        LabelError
            If an id or a label is unknown. Nothing is changed.
        JournalError
            If the labels cannot be written; they are then not kept.
        """
        self._label(labels, by=by, tags=tags, note=note, reason=reason)

    def annotate(
        self,
        image_ids: str | Sequence[str],
        *,
        by: str | None = None,
        star: bool | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        """Star, tag or note images, labelled or not; on return it is on disk. Their labels stay.

        Parameters
        ----------
        image_ids : str or sequence of str
        by : str, optional
            Who says so; by default the session's annotator.
        star : bool, optional
            Whether they are starred; None leaves it.
        add, remove : sequence of str
            Tags.
        note : str, optional
            Free text, in place of what there is; None leaves it.

        Raises
        ------
        LabelError, JournalError
            As for `label`.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        self._check_ids(wanted, " Nothing was changed.")
        by = self.annotator if by is None else by
        self._tell(self.labels.annotate(wanted, by=by, star=star, add=add, remove=remove, note=note))

    def undo(self) -> tuple[str, ...]:
        """Take back the last call of `label` or `annotate`, here or in the gallery; again, the one before.

        It works over restarts, and never on what was read from a table.

        Returns
        -------
        tuple of str
            The images that were changed; none if there is nothing to undo.

        Raises
        ------
        JournalError
            If it cannot be written; nothing is changed then.
        """
        return self._tell(self.labels.undo(by=self.annotator))

    def redo(self) -> tuple[str, ...]:
        """Do again what was undone last; see `undo`."""
        return self._tell(self.labels.redo(by=self.annotator))

    def _label(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
        reason: str | Mapping[str, str] = "",
        can_undo: bool = True,
    ) -> None:
        self._check_ids(labels, " No label was changed.")
        scores, step = self._board.of(labels)
        lines = self.labels.set(
            labels,
            by=self.annotator if by is None else by,
            tags=tags,
            note=note,
            scores=scores,
            step=step,
            reason=reason,
            can_undo=can_undo,
        )
        self._tell(lines)

    def _tell(self, lines: Sequence[Label]) -> tuple[str, ...]:
        """Let everybody know of new lines of the journal; return the images they are about."""
        image_ids = tuple(line.image_id for line in lines)
        if image_ids:
            self._tiers.refit()
            self.hub.publish(LabelsChanged(image_ids))
        return image_ids

    def import_labels(self, path: str | Path) -> LabelImport:
        """Take in a label table (CSV with the columns id or filename, and label).

        Labels are "anomaly", "normal" or "removed" (takes a label back). Rows that say what the
        session holds already change nothing.

        Parameters
        ----------
        path : path

        Returns
        -------
        LabelImport
            What was found, unknown and ambiguous ids listed.

        Raises
        ------
        LabelError
            If the table makes no sense, or no row fits an image. Nothing is changed.
        """
        table = read_label_csv(path, self._index.keys())
        now = self.labels.current()
        self._label(
            {i: label for i, label in table.labels.items() if (now[i].label if i in now else None) != label},
            reason=from_table(Path(path).name),
            can_undo=False,
        )
        self._tables.add(Path(path).resolve())
        return table

    def _take_first_labels(self, labels: str | Path | Mapping[str, str]) -> None:
        reason = AT_THE_START
        if not isinstance(labels, Mapping):
            table = read_label_csv(labels, self._index.keys())
            self._tables.add(Path(labels).resolve())
            reason = from_table(Path(labels).name)
            if table.notice:
                self._notices.append(f"{Path(labels).name}: {table.notice}.")
            labels = {i: label for i, label in table.labels.items() if label is not None}
        seen = {line.image_id for line in self.labels.history()}
        new = {i: label for i, label in labels.items() if i not in seen}
        self._label(new, reason=reason, can_undo=False)
