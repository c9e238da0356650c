"""The labels of another session on the same images, which are only read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from amatch_widgets.errors import LabelError
from amatch_widgets.labels import LabelStore
from amatch_widgets.session.workspace import read_manifest

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from amatch_widgets.labels import Label

__all__ = ["OtherLabels", "read_other_labels"]

_JOURNAL = "labels.jsonl"


@dataclass(frozen=True, slots=True)
class OtherLabels:
    """All lines of another session's journal.

    Parameters
    ----------
    name : str
        Of its folder, or of the file.
    lines : list of Label
        Oldest first.
    notice : str
        What of it could not be read, in plain words; "" if all could.
    """

    name: str
    lines: list[Label]
    notice: str


def read_other_labels(path: Path, *, own: Path, fingerprint: str, ids: Container[str]) -> OtherLabels:
    """Read the labels of another session.

    Parameters
    ----------
    path : Path
        Its folder, or its journal alone.
    own : Path
        The journal that it is to be merged into.
    fingerprint : str
        Of the images. A session folder says which images it is of; a journal alone does not.
    ids : container of str
        The ids of the images.

    Returns
    -------
    OtherLabels
        A last line that is cut short, as by a copy made while it was written, is left out.

    Raises
    ------
    LabelError
        If there is no such journal, if it is the same one, or of other images.
    JournalError
        If it is damaged.
    WorkspaceError
        If the folder's manifest is.
    """
    journal = path / _JOURNAL if path.is_dir() else path
    if not journal.is_file():
        raise LabelError(
            f"There are no labels to merge in {str(path)!r}: {journal.name!r} is not there. Give the folder "
            f"of a session, or its journal ({_JOURNAL})."
        )
    if own.exists() and own.samefile(journal):
        raise LabelError(
            f"{str(path)!r} holds this session's own labels. Give the folder of the other session, or a "
            "copy of its journal."
        )
    manifest = read_manifest(journal.parent) if journal.name == _JOURNAL else None
    if manifest is not None and manifest.get("fingerprint") != fingerprint:
        raise LabelError(
            f"The session in {str(journal.parent)!r} is of other images: {manifest.get('source_name')!r} "
            f"with {manifest.get('n_images')}, or the same number under other names. Nothing was merged. If "
            "the ids mean the same images all the same, give a copy of its journal under another name."
        )
    other = LabelStore(journal, test_share=0)  # which writes nothing until it is told to
    lines, notice = other.history(), other.notice
    other.close()
    if lines and not any(line.image_id in ids for line in lines):
        raise LabelError(
            f"No label in {str(journal)!r} is of an image of this session; the first is of "
            f"{lines[0].image_id!r}. Is it the journal of another set of images? Nothing was merged."
        )
    name = journal.resolve().parent.name if journal.name == _JOURNAL else journal.stem
    return OtherLabels(name, lines, notice)
