"""Lists of images that somebody starred elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amatch_widgets.labels.match import Matcher, misfits
from amatch_widgets.labels.table import nothing_fits, parse_table, read_text

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["StarImport", "read_star_list"]

_ID_COLUMNS = ("id", "filename")


@dataclass(frozen=True, slots=True, eq=False)
class StarImport:
    """What a list of images holds, as far as it fits the images.

    Parameters
    ----------
    image_ids : tuple of str
        Each once, in the order of the list.
    unknown_ids : tuple of str
        Names in the list that no image has.
    ambiguous : tuple of str
        Names that fit several images.
    """

    image_ids: tuple[str, ...]
    unknown_ids: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()

    @property
    def notice(self) -> str:
        """What does not fit the images, in plain words; "" if all does."""
        return misfits(self.unknown_ids, self.ambiguous)

    def __repr__(self) -> str:
        more = ((self.unknown_ids, "unknown"), (self.ambiguous, "ambiguous"))
        told = "".join(f", {len(names)} {what}" for names, what in more if names)
        return f"StarImport({len(self.image_ids)} starred{told})"


def read_star_list(path: str | os.PathLike[str], ids: Collection[str], *, store: str = "") -> StarImport:
    """Read which images are starred: a table with the column `id` or `filename`, or a name on each line.

    Such a table is what AnomalyMatch calls the remembered files. Absolute paths and bare file names
    are accepted where they fit one image only.

    Parameters
    ----------
    path : str or path
        The file, UTF-8 with or without a byte-order mark.
    ids : collection of str
        The ids of the images.
    store : str
        As for `read_label_csv`.

    Raises
    ------
    LabelError
        If the file cannot be read, or not one name fits an image.
    """
    name = str(os.fspath(path))
    matcher = Matcher(ids, store=store)
    found: dict[str, None] = {}  # dicts as ordered sets
    unknown: dict[str, None] = {}
    ambiguous: dict[str, None] = {}
    for given in _names(name):
        fits = matcher.find(given)
        if len(fits) == 1:
            found[fits[0]] = None
        else:
            (ambiguous if fits else unknown)[given] = None
    if not found and (unknown or ambiguous):
        raise nothing_fits(name, [*unknown, *ambiguous], ids)
    return StarImport(tuple(found), tuple(unknown), tuple(ambiguous))


def _names(name: str) -> list[str]:
    text = read_text(name)
    first = text.lstrip().partition("\n")[0]
    if {
        cell.strip().strip('"').casefold() for cell in first.replace(";", ",").replace("\t", ",").split(",")
    } & {*_ID_COLUMNS}:
        header, rows = parse_table(name, text)
        plain = [column.casefold() for column in header]
        column = next(plain.index(c) for c in _ID_COLUMNS if c in plain)
        return [row[column] for _, row in rows if row[column].strip()]
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
