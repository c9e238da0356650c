"""What another journal of labels says of the same images, brought together with one's own.

A merge of three: an image's last line that both journals hold is what both knew once, and what
changed since then on one side only is taken. All functions are pure; `LabelStore.merge` writes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from amatch_widgets.errors import ConfigError
from amatch_widgets.labels.label import Label
from amatch_widgets.labels.reason import merged_from, was_looked_at, was_merged
from amatch_widgets.labels.table import write_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Container, Iterable, Sequence
    from pathlib import Path

    import pandas as pd

__all__ = ["MergeResult", "Merged", "Take", "merge"]

Take = Literal["theirs", "mine", "newest"]
"""Who is right where both changed an image's label, and differently."""

_COLUMNS = ("id", "mine", "mine_by", "mine_time", "theirs", "theirs_by", "theirs_time", "now")


@dataclass(frozen=True, slots=True)
class Merged:
    """An image of which the two journals do not say the same.

    Parameters
    ----------
    image_id : str
    mine : Label or None
        The last line here; None if there is none.
    theirs : Label
        The last line there.
    line : Label or None
        The new line here; None where nothing is to be changed.
    is_disagreement : bool
        Whether both sides changed the label, and differently.
    """

    image_id: str
    mine: Label | None
    theirs: Label
    line: Label | None
    is_disagreement: bool = False

    @property
    def changes_label(self) -> bool:
        """Whether the image's label becomes another one."""
        return self.line is not None and self.line.label != _class(self.mine)

    def to_row(self) -> tuple[str, ...]:
        """Return id, class, annotator and time of mine and of theirs, and the class from now on."""
        mine, theirs = self.mine or Label(image_id=self.image_id, label=None), self.theirs
        now = _class(self.line or self.mine)
        return (
            self.image_id,
            *(mine.label or "", mine.by, mine.time),
            *(theirs.label or "", theirs.by, theirs.time),
            now or "",
        )


@dataclass(frozen=True, slots=True, repr=False)
class MergeResult:
    """What a merge changed, and what it left for a person to decide.

    Parameters
    ----------
    name : str
        The other session.
    images : tuple of Merged
        What was taken over and joined, in the order of the other journal, and the disagreements.
    unknown_ids : tuple of str
        Labelled there, and no image of this source: left out.
    n_splits_differ : int
        Labelled images that are held out on one side and train on the other; they stay as here.
    n_agree : int
        Images that had the same label on both sides already.
    notice : str
        What of the other journal could not be read, in plain words; "" if all could.
    is_dry_run : bool
        Whether it is only what would have been done.
    """

    name: str
    images: tuple[Merged, ...] = ()
    unknown_ids: tuple[str, ...] = ()
    n_splits_differ: int = 0
    n_agree: int = 0
    notice: str = ""
    is_dry_run: bool = False

    @property
    def lines(self) -> tuple[Label, ...]:
        """The new lines of the journal."""
        return tuple(image.line for image in self.images if image.line is not None)

    @property
    def disagreements(self) -> tuple[Merged, ...]:
        """The images of which the two annotators say different things, settled or not."""
        return tuple(image for image in self.images if image.is_disagreement)

    @property
    def n_labels(self) -> int:
        """Images whose label changed: labelled only there, or changed there, or settled so."""
        return sum(image.changes_label for image in self.images)

    def __repr__(self) -> str:
        n_joined, n_open = len(self.lines) - self.n_labels, len(self.disagreements)
        parts = [
            f"{self.n_labels:,} label{'s' * (self.n_labels != 1)} "
            + ("to take" if self.is_dry_run else "taken"),
            f"{n_joined:,} joined",
            f"{n_open:,} disagreement{'s' * (n_open != 1)}",
        ]
        if self.unknown_ids:
            parts.append(f"{len(self.unknown_ids):,} of no image here")
        if self.n_splits_differ:
            parts.append(f"{self.n_splits_differ:,} held out on one side only")
        return f"MergeResult({self.name!r}: {', '.join(parts)})"

    def save_disagreements(self, path: str | os.PathLike[str]) -> Path:
        """Write the disagreements as CSV: who said what and when, and the class from now on.

        Raises
        ------
        WorkspaceError
            If the file cannot be written.
        """
        return write_rows(path, [_COLUMNS, *(image.to_row() for image in self.disagreements)])

    def to_pandas(self) -> pd.DataFrame:
        """Return the images as a table; `is_disagreement` tells those to be settled."""
        import pandas as pd  # noqa: PLC0415 (a third of a second that only who asks pays)

        rows = [image.to_row() for image in self.images]
        table = pd.DataFrame(rows, columns=list(_COLUMNS), dtype=object)
        table["is_disagreement"] = [image.is_disagreement for image in self.images]
        return table


def merge(
    mine: Sequence[Label],
    theirs: Sequence[Label],
    *,
    name: str,
    ids: Container[str],
    take: Take | None = None,
    only: Collection[str] | None = None,
) -> MergeResult:
    """Find what is to be written so that one journal also says what another one does.

    Parameters
    ----------
    mine, theirs : sequence of Label
        All lines of both journals, oldest first.
    name : str
        The other session, for the reason beside what is taken over.
    ids : container of str
        The ids of the images that labels may be for.
    take : {"theirs", "mine", "newest"}, optional
        How disagreements are settled; by default they are left as they are.
    only : collection of str, optional
        The ids of the images that are looked at; by default all.

    Returns
    -------
    MergeResult
        To merge the same again then changes nothing.

    Raises
    ------
    ConfigError
        If there is no such `take`.

    Notes
    -----
    Of each image, the last line that both journals hold is what both knew. Lines are the same if
    label, annotator and time are, or if both were known before for the same reason (two sessions
    that began with one table). A side whose label is not what it was then has changed it:

    * one side changed it: that side's label stands, a label taken back included;
    * both changed it alike: nothing is to be done;
    * both changed it, differently, or the two have swapped their labels: a disagreement.

    What there added to or removed from tags since then is done here too, the star and the note
    likewise; notes that both wrote are put one under the other. What is taken over keeps who said it
    and when. Where both sides gave the same label, the one given here does.

    Merges that were undone are looked through as if they had not been, so that they can be made
    again, and do not take back there what was only undone here.
    """
    if take is not None and take not in get_args(Take):
        raise ConfigError(f"Unknown take={take!r}. Allowed are 'theirs', 'mine', 'newest' and None.")
    here, there = _by_image(mine), _by_image(theirs)
    last = {line.image_id: k for k, line in enumerate(theirs)}
    images, unknown = [], []
    n_splits_differ = n_agree = 0
    for image_id in sorted(there, key=last.__getitem__):
        if only is not None and image_id not in only:
            continue
        if image_id not in ids:
            if not there[image_id][-1].is_empty:
                unknown.append(image_id)
            continue
        found = _merge_image(here.get(image_id, []), there[image_id], name, take)
        if found is not None:
            images.append(found)
        said = here[image_id][-1] if image_id in here else None
        other = there[image_id][-1]
        n_splits_differ += bool(_class(said) and other.label and said and said.split != other.split)
        n_agree += bool(other.label and _class(said) == other.label)
    return MergeResult(name, tuple(images), tuple(unknown), n_splits_differ, n_agree)


def _merge_image(mine: list[Label], theirs: list[Label], name: str, take: Take | None) -> Merged | None:
    """Merge what is said of one image; None if there is nothing to do and nothing to tell."""
    image_id, there = theirs[-1].image_id, theirs[-1]
    here = mine[-1] if mine else None
    my_base, their_base = _last_common(mine, theirs), _last_common(theirs, mine)
    changed_here = _class(here) != _class(my_base)
    changed_there = there.label != _class(their_base)
    differ = _class(here) != there.label
    is_disagreement = differ and changed_here == changed_there
    if is_disagreement:
        is_newer = there.time > (here.time if here else "")  # ISO 8601 in UTC: in order as text
        takes_theirs = take == "theirs" or (take == "newest" and is_newer)
    else:
        takes_theirs = differ and changed_there
    start = here or Label(image_id=image_id, label=None, by=there.by, time=there.time, split=there.split)
    joined = _joined(start, there, my_base, their_base)
    line = joined
    if takes_theirs or (here is my_base and not differ):  # or nothing was said here since
        line = dataclasses.replace(there, tags=joined.tags, note=joined.note, star=joined.star)
    is_new = (line.label, line.tags, line.note, line.star) != _said(here)
    if not (is_new or is_disagreement):
        return None
    line = dataclasses.replace(line, reason=merged_from(name, there.reason), action=None, undoes=None)
    return Merged(image_id, here, there, line if is_new else None, is_disagreement)


def _joined(here: Label, there: Label, my_base: Label | None, their_base: Label | None) -> Label:
    """Do to what is said here what was done there since the line that both hold."""
    old = their_base or Label(image_id=here.image_id, label=None)
    removed = set(old.tags) - set(there.tags)
    added = (tag for tag in there.tags if tag not in old.tags)
    note = here.note
    if there.note != old.note:
        if note == (my_base.note if my_base else ""):
            note = there.note
        elif there.note not in note:
            note = f"{note}\n{there.note}"
    return dataclasses.replace(
        here,
        tags=tuple(dict.fromkeys((*(tag for tag in here.tags if tag not in removed), *added))),
        note=note,
        star=there.star if there.star != old.star else here.star,
    )


def _by_image(lines: Iterable[Label]) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    for line in _without_undone_merges(list(lines)):
        found.setdefault(line.image_id, []).append(line)
    return found


def _without_undone_merges(lines: list[Label]) -> list[Label]:
    """Leave out the merges that were undone in the end, and all undoing and redoing of merges."""
    merges = {line.action for line in lines if line.action is not None and was_merged(line.reason)}
    root: dict[int, int] = {}  # undoing and redoing actions, to the merge that they are about
    for line in lines:
        if line.action is not None and line.undoes is not None:
            about = root.get(line.undoes, line.undoes)
            if about in merges:
                root[line.action] = about
    undone = {action for action, n in Counter(root.values()).items() if n % 2}
    return [line for line in lines if line.action not in root and line.action not in undone]


def _last_common(lines: list[Label], others: list[Label]) -> Label | None:
    """Return the last of `lines` that is among the others, too."""
    known = {key for line in others for key in _keys(line)}
    return next((line for line in reversed(lines) if known.intersection(_keys(line))), None)


def _keys(line: Label) -> list[tuple[str | None, str, str]]:
    """Return what tells a line from all others of its image; a merge leaves the first as it is."""
    keys = [(line.label, line.by, line.time)]
    if not was_looked_at(line.reason) and not was_merged(line.reason):
        keys.append((line.label, "known before", line.reason))
    return keys


def _class(line: Label | None) -> str | None:
    return None if line is None else line.label


def _said(line: Label | None) -> tuple[str | None, tuple[str, ...], str, bool]:
    return (None, (), "", False) if line is None else (line.label, line.tags, line.note, line.star)
