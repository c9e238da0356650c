"""The part of a session that keeps what its user says about the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amatch_widgets.errors import LabelError
from amatch_widgets.events import LabelsChanged
from amatch_widgets.labels.merge import MergeResult, Take, merge
from amatch_widgets.labels.reason import AT_THE_START, from_table
from amatch_widgets.labels.stars import StarImport, read_star_list
from amatch_widgets.labels.table import LabelImport, read_label_csv
from amatch_widgets.session.other import read_other_labels
from amatch_widgets.session.own import is_outside
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
        action: int | None = None,
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
        action : int, optional
            The action of an earlier call (``action`` of its lines in ``labels.history()``) that these labels
            belong to: one undo takes both back. Where that was undone meanwhile, nothing is changed.

        Raises
        ------
        LabelError
            If an id or a label is unknown. Nothing is changed.
        JournalError
            If the labels cannot be written; they are then not kept.
        """
        self._label(labels, by=by, tags=tags, note=note, reason=reason, action=action)

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
        action: int | None = None,
    ) -> None:
        self._check_ids(labels, " No label was changed.")
        scores, step = self._standing_of(labels)
        lines = self.labels.set(
            labels,
            by=self.annotator if by is None else by,
            tags=tags,
            note=note,
            scores=scores,
            step=step,
            reason=reason,
            can_undo=can_undo,
            action=action,
        )
        self._tell(lines)

    def _standing_of(self, image_ids: Iterable[str]) -> tuple[dict[str, float], int | None]:
        """Return the scores of images, and the step of the trained model behind them, if it is one."""
        ids = list(image_ids)
        elsewhere = {i: self._archives.of(i) for i in ids if i not in self._index}
        scores, step = self._board.of(i for i in ids if i in self._index)
        for image_id, archive in elsewhere.items():
            seen = None if archive is None else archive.standing(image_id)
            if seen is not None:
                scores[image_id] = seen
        return scores, None if elsewhere else step

    def _tell(self, lines: Sequence[Label]) -> tuple[str, ...]:
        """Let everybody know of new lines of the journal; return the images they are about."""
        image_ids = tuple(line.image_id for line in lines)
        if image_ids:
            self._tiers.refit()
            self._teaching.note()
            self.hub.publish(LabelsChanged(image_ids))
        return image_ids

    def import_labels(self, path: str | Path, *, anomaly_from: float | None = None) -> LabelImport:
        """Take in a label table (CSV with the columns id or filename, and label).

        Labels are "anomaly", "normal" or "removed" (takes a label back). Rows that say what the
        session holds already change nothing. Tables of AnomalyMatch, versions 1 and 2, are such; the
        ``ml_scores.csv`` of Astronomaly is read too.

        Parameters
        ----------
        path : path
        anomaly_from : float, optional
            For Astronomaly, whose labels go from 0 to 5: from which on an image is an anomaly. One below
            is normal.

        Returns
        -------
        LabelImport
            What was found, unknown and ambiguous ids listed.

        Raises
        ------
        LabelError
            If the table makes no sense, or no row fits an image. Nothing is changed.
        """
        table = read_label_csv(path, self._index.keys(), anomaly_from=anomaly_from, store=self.source.name)
        now = self.labels.current()
        self._label(
            {i: label for i, label in table.labels.items() if (now[i].label if i in now else None) != label},
            reason=from_table(Path(path).name),
            can_undo=False,
        )
        self._tables.add(Path(path).resolve())
        return table

    def import_stars(self, path: str | Path) -> StarImport:
        """Star the images of a list: a CSV with the column id or filename, or a name on each line.

        The remembered files of AnomalyMatch are such a list. One `undo` takes it back.

        Parameters
        ----------
        path : path

        Returns
        -------
        StarImport
            Which images were meant, unknown and ambiguous names listed.

        Raises
        ------
        LabelError
            If the file cannot be read, or no name fits an image. Nothing is changed.
        """
        stars = read_star_list(path, self._index.keys(), store=self.source.name)
        self.annotate(stars.image_ids, star=True)
        self._tables.add(Path(path).resolve())
        return stars

    def merge_labels(
        self,
        path: str | Path,
        *,
        take: Take | None = None,
        only: Collection[str] | None = None,
        dry_run: bool = False,
    ) -> MergeResult:
        """Take over what another annotator said of the same images; one `undo` takes all of it back.

        The other session may have begun as a copy of this one, or by itself. It is only read, and may
        be open. Its labels, tags, notes and stars keep who said so and when; they are no looks of
        this session. What changed on one side only since both knew the same is as on that side, see
        `amatch_widgets.labels.merge`. To merge again changes nothing.

        No label moves between training and test: an image that ever had a label here keeps its
        split, even where the other session's differs (`MergeResult.n_splits_differ`); one that is
        new here keeps the split it has there.

        Parameters
        ----------
        path : path
            The other session's folder, or its ``labels.jsonl``.
        take : {"theirs", "mine", "newest"}, optional
            Who is right where both changed a label, and differently. By default nobody is: such
            labels stay as they are here, and are listed.
        only : collection of str, optional
            Ids of the images that are merged, as to settle a single disagreement; by default all.
        dry_run : bool
            Change nothing, and return what would be done.

        Returns
        -------
        MergeResult
            What was taken over, the disagreements, and ids that are of no image here.

        Raises
        ------
        LabelError
            If there are no labels to merge, or they are of other images. Nothing is changed.
        JournalError
            If the other journal is damaged, or this one cannot be written. Nothing is changed.
        ConfigError
            If there is no such `take`.
        """
        try:
            place = Path(path).expanduser()
        except RuntimeError as error:
            raise LabelError(f"There is no such user as in {str(path)!r}. Write the path out.") from error
        ids = self._archives.with_own(self._index)
        other = read_other_labels(
            place,
            own=self._workspace.labels,
            fingerprint=self.source.fingerprint(),
            ids=ids,
        )

        def plan(mine: Sequence[Label]) -> MergeResult:
            found = merge(mine, other.lines, name=other.name, ids=ids, take=take, only=only)
            return dataclasses.replace(found, notice=other.notice, is_dry_run=dry_run)

        if dry_run:
            return plan(self.labels.history())
        results: list[MergeResult] = []

        def lines(mine: Sequence[Label]) -> Sequence[Label]:
            results.append(plan(mine))
            return results[-1].lines

        self._tell(self.labels.merge(lines))
        return results[-1]

    def _take_first_labels(self, labels: str | Path | Mapping[str, str]) -> None:
        reason = AT_THE_START
        if not isinstance(labels, Mapping):
            table = read_label_csv(labels, self._index.keys(), store=self.source.name)
            self._tables.add(Path(labels).resolve())
            reason = from_table(Path(labels).name)
            if table.notice:
                self._notices.append(f"{Path(labels).name}: {table.notice}.")
            labels = {i: label for i, label in table.labels.items() if label is not None}
        elif outside := [i for i in labels if is_outside(self.source, i)]:  # named when it was continued
            self._notices.append(
                f"{len(outside)} of the labels given, the first for {outside[0]!r}, are of images outside "
                "this session's sample, and were left out. Score all images, and label them there."
            )
            labels = {i: label for i, label in labels.items() if i not in set(outside)}
        seen = {line.image_id for line in self.labels.history()}
        new = {i: label for i, label in labels.items() if i not in seen}
        self._label(new, reason=reason, can_undo=False)
