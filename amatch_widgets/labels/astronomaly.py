"""The table that Astronomaly keeps its scores and labels in, ``ml_scores.csv``.

A data frame as pandas writes it: the first column, which has no name, holds the ids, and the others are
`score`, `trained_score` once it has learnt from labels, and `human_label`, a number from 0 (boring) to 5
(interesting), -1 for none. The id of an image file is its name without folder and ending.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from amatch_widgets.errors import LabelError
from amatch_widgets.labels.label import ANOMALY, NORMAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["is_of_astronomaly", "with_labels"]

_HUMAN, _NOT_LABELLED = "human_label", -1


def is_of_astronomaly(header: Sequence[str]) -> bool:
    """Tell whether a table is Astronomaly's: pandas leaves the name of its first column, the ids, empty."""
    return header[:1] == [""] and bool({"score", _HUMAN} & set(header))


def with_labels(
    name: str, header: list[str], rows: Iterable[tuple[int, list[str]]], anomaly_from: float | None
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Turn a table of Astronomaly into one with ids and labels, without the rows that have none.

    Parameters
    ----------
    name : str
        Of the file, for errors.
    header : list of str
    rows : iterable of (int, list of str)
        With their numbers in the file.
    anomaly_from : float or None
        The `human_label` from which on an image is an anomaly.

    Returns
    -------
    list of str
        The columns: those of the table, the first named, and the label.
    iterator of (int, list of str)

    Raises
    ------
    LabelError
        If nothing is labelled, `anomaly_from` is not given, or, from the iterator, a label is no number.
    """
    if _HUMAN not in header:
        raise LabelError(f"{name!r} is a table of Astronomaly in which nothing was labelled yet.")
    if anomaly_from is None:
        raise LabelError(
            f"{name!r} is a table of Astronomaly, with a human_label from 0 to 5. Say from which on it is an "
            "anomaly, e.g. anomaly_from=4; those below are normal then."
        )
    column = header.index(_HUMAN)

    def labelled() -> Iterator[tuple[int, list[str]]]:
        for number, row in rows:
            try:
                value = float(row[column])
            except ValueError:
                value = math.nan
            if math.isnan(value):
                raise LabelError(
                    f"Row {number} of {name!r} has the human_label {row[column]!r}; Astronomaly writes a "
                    "number, -1 for none."
                )
            if value != _NOT_LABELLED:
                yield number, [*row, ANOMALY if value >= anomaly_from else NORMAL]

    return ["id", *header[1:], "label"], labelled()
