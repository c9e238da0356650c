"""Images as files of their own, for people and other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from amatch_widgets.errors import ImageReadError, WorkspaceError
from amatch_widgets.images.files import SUFFIXES
from amatch_widgets.session.export import write_whole
from amatch_widgets.session.tables import csv_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

__all__ = ["Cutouts", "write_cutouts"]

_INDEX = "cutouts.csv"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_MOST = 80  # characters of an id in a file name: systems allow 143 to 255


@dataclass(frozen=True, slots=True)
class Cutouts:
    """What was written.

    Attributes
    ----------
    folder : Path
    index : Path
        A CSV that says which file is of which image: file, the columns of `Session.top`, and problem.
    n_written : int
        Pictures.
    problems : dict of str to str
        Ids of images that could not be read, with the reason.
    """

    folder: Path
    index: Path
    n_written: int
    problems: dict[str, str]

    def __repr__(self) -> str:
        bad = f", {len(self.problems):,} could not be read" if self.problems else ""
        return f"Cutouts({self.n_written:,} pictures in {str(self.folder)!r}{bad})"


def write_cutouts(
    folder: Path,
    table: pd.DataFrame,
    image_ids: Sequence[str],
    pictures: Iterable[tuple[str, bytes | ImageReadError]],
) -> Cutouts:
    """Write pictures into a folder of their own, and a table of them.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; nothing may be in it.
    table : DataFrame
        A row for each image.
    image_ids : sequence of str
        Of the rows, each once.
    pictures : iterable of (str, bytes or ImageReadError)
        The PNG file of each image, in any order, or why there is none.

    Returns
    -------
    Cutouts

    Raises
    ------
    WorkspaceError
        If something is in the folder, or it cannot be written.
    """
    _make_empty(folder)
    names = dict(zip(image_ids, _file_names(image_ids), strict=True))
    problems: dict[str, str] = {}
    n_written = 0
    for image_id, picture in pictures:
        if isinstance(picture, ImageReadError):
            problems[image_id] = picture.reason
            continue
        try:
            (folder / names[image_id]).write_bytes(picture)
        except OSError as error:
            raise WorkspaceError(
                f"{names[image_id]!r} cannot be written to {str(folder)!r}: {error.strerror or error}. The "
                f"{n_written:,} of {len(image_ids):,} cutouts before it are there. Free some space and "
                "export to another folder."
            ) from error
        n_written += 1
    rows = table.copy()
    rows.insert(0, "file", ["" if i in problems else names[i] for i in image_ids])
    rows["problem"] = [problems.get(i, "") for i in image_ids]
    index = write_whole(folder / _INDEX, csv_of(rows), what="The table of the cutouts")
    return Cutouts(folder, index, n_written, problems)


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = next(folder.iterdir(), None)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise WorkspaceError(
            f"The cutouts cannot be written to {str(folder)!r}: {getattr(error, 'strerror', None) or error}. "
            "Choose a folder that you can write to."
        ) from error
    if found is not None:
        raise WorkspaceError(
            f"{str(folder)!r} is not empty, {found.name!r} is in it, and nothing is written over. Choose a "
            "new folder."
        )


def _file_names(image_ids: Sequence[str]) -> Iterator[str]:
    """Name files so that any system can hold them, all different, in order, and told by their ids."""
    digits = max(4, len(str(len(image_ids))))
    for number, image_id in enumerate(image_ids, start=1):
        plain = PurePosixPath(image_id.replace("\\", "/").rpartition("/")[2])
        stem = plain.stem if plain.suffix.lower() in SUFFIXES else plain.name
        told = _UNSAFE.sub("_", stem)[:_MOST].strip("_.-")
        yield f"{number:0{digits}d}{'_' if told else ''}{told}.png"
