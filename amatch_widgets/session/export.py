"""The shortlist: what leaves a session."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import Label

__all__ = ["shortlist", "write_shortlist", "write_whole"]


def shortlist(
    source: ImageSource,
    scores: npt.NDArray[np.float32],
    ranks: npt.NDArray[np.int64],
    labels: dict[str, Label],
    chosen: npt.NDArray[np.int64],
) -> pd.DataFrame:
    """Put images into a table.

    Parameters
    ----------
    source : ImageSource
    scores : ndarray of float32, shape (N,)
        Of all images; NaN where there is none.
    ranks : ndarray of int64, shape (N,)
        Of all images, 1 = highest score; 0 where there is no score.
    labels : dict of str to Label
        What is said of images, labelled or not.
    chosen : ndarray of int64, shape (M,)
        Positions of the images wanted, in the order wanted.

    Returns
    -------
    DataFrame
        A row per image: id, score, rank, label, tags (joined by ";"), note, starred.
    """
    import pandas as pd  # noqa: PLC0415 (a third of a second that only tables need)

    ids = [source.ids[i] for i in chosen]
    lines = [labels.get(i) for i in ids]
    return pd.DataFrame(
        {
            "id": [_valid(i) for i in ids],
            "score": scores[chosen],
            "rank": pd.array(np.where(ranks[chosen] > 0, ranks[chosen], 0), dtype="Int64"),
            "label": ["" if line is None else line.label or "" for line in lines],
            "tags": ["" if line is None else _valid(";".join(line.tags)) for line in lines],
            "note": ["" if line is None else _valid(line.note) for line in lines],
            "starred": [line is not None and line.star for line in lines],
        }
    )


_COLUMNS = ("id", "score", "rank", "label", "tags", "note", "starred")


def write_shortlist(table: pd.DataFrame, path: Path, *, protected: Collection[Path]) -> Path:
    """Write a table as CSV (UTF-8), all or nothing.

    Parameters
    ----------
    table : DataFrame
    path : Path
        Replaced if it exists.
    protected : collection of Path
        Files of the user that are never written to; nor is any other table of labels.

    Raises
    ------
    WorkspaceError
        If it is protected or cannot be written.
    """
    if path.resolve() in protected or _is_label_table(path):
        raise WorkspaceError(
            f"{str(path)!r} is a table of labels that is not of this session's making; it is never written "
            "to. Choose another name."
        )
    return write_whole(path, table.to_csv(index=False).encode(), what="The shortlist")


def write_whole(path: Path, content: bytes, *, what: str) -> Path:
    """Write a file, all or nothing; its folder is made where it is missing.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    content : bytes
    what : str
        What it is, to begin the message with, e.g. "The shortlist".

    Raises
    ------
    WorkspaceError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise WorkspaceError(
            f"{what} cannot be written to {str(path)!r}: {getattr(error, 'strerror', None) or error}. "
            "Choose a file in a folder that you can write to."
        ) from error
    return path


def _valid(text: str) -> str:
    """Return `text` as valid Unicode: half a character, as browsers may send, must not lose the table."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_label_table(path: Path) -> bool:
    """Tell whether a file is a table with labels, but no shortlist, so that it may be the user's only one."""
    try:
        with path.open("rb") as file:
            first = file.readline(10_000).decode("utf-8-sig", "replace")
    except OSError:  # not there
        return False
    columns = [name.strip().strip('"').casefold() for name in re.split("[,;\t]", first)]
    has_labels = "label" in columns and not {"id", "filename"}.isdisjoint(columns)
    return has_labels and tuple(columns) not in {_COLUMNS, _COLUMNS[:-1]}  # the latter of version 0.1
