"""Label tables: read the one that the user has, write the one that leaves the session.

The user's file is never written back in place.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amatch_widgets.errors import LabelError, WorkspaceError
from amatch_widgets.labels import ANOMALY, CLASSES, NORMAL, Label
from amatch_widgets.labels.astronomaly import is_of_astronomaly, with_labels
from amatch_widgets.labels.match import Matcher, misfits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

__all__ = [
    "LabelImport",
    "nothing_fits",
    "parse_table",
    "read_label_csv",
    "read_text",
    "write_label_csv",
    "write_rows",
]

_ID_COLUMNS = ("id", "filename")
_REMOVED = "removed"
_ALLOWED = (ANOMALY, NORMAL, _REMOVED)
_SEPARATORS = ",;\t"  # a spreadsheet set to a decimal comma writes semicolons
_SHOWN = 5  # names or rows listed in an error
_COLUMNS = ("id", "label", "split", "tags", "note", "by", "time")


@dataclass(frozen=True, slots=True, eq=False)
class LabelImport:
    """What a label table holds, as far as it fits the images.

    Parameters
    ----------
    labels : dict of str to str or None
        Image id to "anomaly", "normal", or None for a row that says "removed".
    extra : pandas.DataFrame
        The table's other columns as strings, one row per image of `labels`, indexed by id.
    unknown_ids : tuple of str
        Names in the table that no image has.
    ambiguous : tuple of str
        Names in the table that fit several images, e.g. a bare file name that occurs in two folders.
    duplicates : tuple of str
        Ids of images that stand in several rows; the last row wins.
    n_removed : int
        Images whose last row says "removed".
    """

    labels: dict[str, str | None]
    extra: pd.DataFrame
    unknown_ids: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    n_removed: int = 0

    @property
    def notice(self) -> str:
        """What does not fit the images, in plain words; "" if all does."""
        return misfits(self.unknown_ids, self.ambiguous)

    def __repr__(self) -> str:
        counts = {c: sum(label == c for label in self.labels.values()) for c in CLASSES}
        parts = [f"{counts[ANOMALY]} anomaly", f"{counts[NORMAL]} normal", f"{self.n_removed} removed"]
        for names, what in (
            (self.unknown_ids, "unknown"),
            (self.ambiguous, "ambiguous"),
            (self.duplicates, "given more than once"),
        ):
            if names:
                parts.append(f"{len(names)} {what}")
        return f"LabelImport({', '.join(parts)})"


def read_label_csv(
    path: str | os.PathLike[str],
    ids: Collection[str],
    *,
    anomaly_from: float | None = None,
    store: str = "",
) -> LabelImport:
    """Read a table of labels.

    The first row names the columns: `id` or `filename`, `label`, and any others, which are kept.
    Labels are "anomaly", "normal" or "removed" (no label), in any case. Ids are text, so leading
    zeros stay. Absolute paths and bare file names are accepted where they fit one image only.
    The last row of an image wins. Commas, semicolons and tabs are understood as separators.

    Such are the tables of AnomalyMatch, versions 1 and 2. That of Astronomaly, ``ml_scores.csv``, has
    a `human_label` from 0 (boring) to 5, and -1 for none; its ids are file names without their endings.

    Parameters
    ----------
    path : str or path
        The file, UTF-8 with or without a byte-order mark.
    ids : collection of str
        The ids of the images that labels may be for.
    anomaly_from : float, optional
        For Astronomaly alone: the `human_label` from which on an image is an anomaly; one below is normal.
    store : str
        Name of the Zarr store that the images are in, if they are in one: AnomalyMatch numbers images
        without a name after it.

    Returns
    -------
    LabelImport
        The labels, and what was left out.

    Raises
    ------
    LabelError
        If the file cannot be read as such a table, if a label is none of the three, or if no
        row at all fits an image.
    """
    name = str(os.fspath(path))
    header, rows = parse_table(name, read_text(name))
    if is_of_astronomaly(header) and "label" not in map(str.casefold, header):
        header, rows = with_labels(name, header, rows, anomaly_from)
        matcher = Matcher(ids, without_endings=True)
    else:
        if anomaly_from is not None:
            raise LabelError(f"anomaly_from= is for the human_label of Astronomaly; {name!r} has none.")
        matcher = Matcher(ids, store=store)
    id_column, label_column = _find_columns(name, header)
    others = [i for i in range(len(header)) if i not in (id_column, label_column)]
    labels: dict[str, str | None] = {}
    extra: dict[str, list[str]] = {}
    unknown: dict[str, None] = {}  # dicts as ordered sets
    ambiguous: dict[str, None] = {}
    duplicates: dict[str, None] = {}
    wrong: list[str] = []
    for number, row in rows:
        label = row[label_column].strip().casefold()
        if label not in _ALLOWED:
            wrong.append(f"row {number} has {row[label_column]!r}{_hint(label)}")
            continue
        if not row[id_column].strip():
            wrong.append(f"row {number} has no {header[id_column]}")
            continue
        fits = matcher.find(row[id_column])
        if len(fits) != 1:
            (ambiguous if fits else unknown)[row[id_column]] = None
            continue
        if fits[0] in labels:
            duplicates[fits[0]] = None
            del labels[fits[0]], extra[fits[0]]  # the last row also decides the order
        labels[fits[0]] = None if label == _REMOVED else label
        extra[fits[0]] = [row[i] for i in others]
    if wrong:
        raise LabelError(
            f"{name!r} holds labels that are not known: {_some(wrong, '; ')}. "
            "Allowed are 'anomaly', 'normal' and 'removed' (no label). The first row of the file is row 1."
        )
    if (unknown or ambiguous) and not labels:
        raise nothing_fits(name, [*unknown, *ambiguous], ids)
    return LabelImport(
        labels=labels,
        extra=_frame(extra, [header[i] for i in others]),
        unknown_ids=tuple(unknown),
        ambiguous=tuple(ambiguous),
        duplicates=tuple(duplicates),
        n_removed=sum(label is None for label in labels.values()),
    )


def write_label_csv(path: str | os.PathLike[str], labels: Mapping[str, Label]) -> Path:
    """Write labels as a table that `read_label_csv` reads back.

    The columns are id, label, split, tags (separated by ";"), note, by and time.

    Parameters
    ----------
    path : str or path
        The file; one that exists is replaced in one step.
    labels : mapping of str to Label
        As from ``LabelStore.current()``; a label of None is written as "removed".

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WorkspaceError
        If the file cannot be written; one that exists is then as it was.
    """
    rows = (
        (
            image_id,
            _REMOVED if line.label is None else line.label,
            line.split,
            ";".join(line.tags),
            line.note,
            line.by,
            line.time,
        )
        for image_id, line in labels.items()
    )
    return write_rows(path, [_COLUMNS, *rows])


def write_rows(path: str | os.PathLike[str], rows: Iterable[Sequence[str]]) -> Path:
    """Write a table of text as CSV, its head first.

    Parameters
    ----------
    path : str or path
        The file; one that exists is replaced in one step.
    rows : iterable of sequence of str

    Returns
    -------
    Path
        The file.

    Raises
    ------
    WorkspaceError
        If the file cannot be written; one that exists is then as it was.
    """
    target = Path(path)
    text = io.StringIO(newline="")
    # RFC 4180; also has odd names with "\r" quoted
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WorkspaceError(
            f"The labels cannot be written to {str(target)!r}: {error.strerror or error}. "
            "Give another file, or free some space."
        ) from error
    return target


def read_text(name: str) -> str:
    """Read a text file of a user, UTF-8 or what spreadsheets make of it."""
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise LabelError(f"The label table {name!r} cannot be read: {error.strerror or error}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"  # what some spreadsheets call "Unicode text"
    elif b"\0" in data:
        raise LabelError(f"{name!r} is not a text file. Save the label table as CSV (UTF-8).")
    else:
        encoding = "utf-8"
    try:
        # surrogatepass: names of files that are not UTF-8, as `write_label_csv` writes them
        text = data.decode(encoding, "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise LabelError(
            f"{name!r} is not {encoding.upper()} text: byte 0x{data[error.start]:02x} in line {line}. "
            "Save the label table as CSV (UTF-8)."
        ) from error
    if not text.strip():
        raise LabelError(
            f"The label table {name!r} is empty. It needs the columns id,label and one row per image."
        )
    return text


def parse_table(name: str, text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the column names of a table, and its rows with their numbers, all as wide as the header."""
    first = text.lstrip().partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)  # of equals the comma, which comes first
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        table = list(enumerate(reader, start=1))
    except csv.Error as error:
        raise LabelError(
            f"{name!r} cannot be read as a table near line {reader.line_num}: {error}."
        ) from error
    filled = [(number, row) for number, row in table if any(cell.strip() for cell in row)]
    header = [column.strip() for column in filled[0][1]]
    return header, _rows(name, len(header), filled[1:])


def _rows(name: str, width: int, table: list[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    for number, row in table:
        if any(cell.strip() for cell in row[width:]):
            raise LabelError(
                f"Row {number} of {name!r} has {len(row)} cells, but there are {width} columns. "
                'Put double quotes round names that hold the separator: "a,b.png".'
            )
        yield number, row + [""] * (width - len(row))


def _find_columns(name: str, header: list[str]) -> tuple[int, int]:
    """Return the positions of the id and the label column."""
    plain = [column.casefold() for column in header]
    id_column = next((c for c in _ID_COLUMNS if c in plain), None)
    missing = [] if id_column else ["'id' (or 'filename')"]
    missing += [] if "label" in plain else ["'label'"]
    if missing or id_column is None:
        raise LabelError(
            f"{name!r} has no column {' and no column '.join(missing)}. Its first row names the columns "
            f"{_some([repr(c) for c in header], ', ')}. A label table starts with the row: id,label"
        )
    for column in (id_column, "label"):
        if plain.count(column) > 1:
            raise LabelError(
                f"{name!r} has {plain.count(column)} columns named {column!r}. Leave one of them."
            )
    return plain.index(id_column), plain.index("label")


def _hint(label: str) -> str:
    if not label:
        return " (empty)"
    near = difflib.get_close_matches(label, _ALLOWED, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _some(items: list[str], separator: str) -> str:
    more = f"{separator}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more


def nothing_fits(name: str, found: list[str], ids: Collection[str]) -> LabelError:
    """Say that no name in a file fits an image, and how both are named."""
    here = ", ".join(repr(i) for i, _ in zip(ids, range(_SHOWN), strict=False)) or "nothing"
    return LabelError(
        f"No row of {name!r} fits an image. It names {_some([repr(i) for i in found], ', ')}; "
        f"the {len(ids)} images are named {here}{', ...' if len(ids) > _SHOWN else ''}. "
        "Is it the table of another set of images?"
    )


def _frame(extra: dict[str, list[str]], columns: list[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 (a third of a second that only an import of labels needs)

    index = pd.Index(list(extra), name="id", dtype=object)
    return pd.DataFrame(list(extra.values()), index=index, columns=columns, dtype=object)
