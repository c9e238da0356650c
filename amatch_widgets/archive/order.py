"""The images of an archive in an order, as they were when it was made: what is looked at page by page."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from amatch_widgets.archive.snapshot import Snapshot

__all__ = ["Chosen", "Order", "Picked", "Row", "named"]


@dataclass(frozen=True, slots=True)
class Row:
    """An image of an archive: position in the source, id, score (None without one), why it has none."""

    index: int
    id: str
    score: float | None
    problem: str = ""


class Order(Protocol):
    """Images in an order that does not change any more."""

    def __len__(self) -> int:
        """How many there are."""

    def rows(self, start: int, n: int) -> list[Row]:
        """Return `n` of them, after `start` others; fewer at the end."""

    def place(self, index: int) -> int | None:
        """Return the place, from 0, of the image at a position of the source; None if it is not listed."""

    def seek(self, text: str, after: int) -> int | None:
        """Return the place of the next image whose id contains a text, after the last the first again.

        One whose id is just that comes before the others; None if there is none.
        """


class Chosen:
    """A few images, held in memory.

    Parameters
    ----------
    rows : sequence of Row
        In their order, each image once.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, start: int, n: int) -> list[Row]:
        """Return `n` images, after `start` others."""
        return self._rows[start : start + n]

    def place(self, index: int) -> int | None:
        """Return the place of an image; None if it is not listed."""
        return next((k for k, row in enumerate(self._rows) if row.index == index), None)

    def seek(self, text: str, after: int) -> int | None:
        """Return the place of the next image whose id contains a text."""
        exact = [k for k, row in enumerate(self._rows) if row.id == text]
        found = exact or [k for k, row in enumerate(self._rows) if text.lower() in row.id.lower()]
        return next((k for k in found if k > after), found[0] if found else None)


class Picked:
    """A few images by their positions and scores, whose ids are asked for when they are looked at.

    Parameters
    ----------
    files : Snapshot
    indices : ndarray of int64, shape (M,)
        Positions in the source, in their order, each once.
    scores : ndarray of float32, shape (M,)
    """

    def __init__(self, files: Snapshot, indices: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        self._files, self._indices, self._scores = files, indices, scores

    def __len__(self) -> int:
        return len(self._indices)

    def rows(self, start: int, n: int) -> list[Row]:
        """Return `n` images, after `start` others."""
        return named(self._files, self._indices[start : start + n], self._scores[start : start + n])

    def place(self, index: int) -> int | None:
        """Return the place of an image; None if it is not listed."""
        found = np.flatnonzero(self._indices == index)
        return int(found[0]) if len(found) else None

    def seek(self, text: str, after: int) -> int | None:
        """Return the place of the next image whose id contains a text."""
        return self._all.seek(text, after)

    @functools.cached_property
    def _all(self) -> Chosen:
        return Chosen(self.rows(0, len(self)))


def named(files: Snapshot, indices: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Row]:
    """Return images, shape (M,) each, with their ids and why they have no score, where that is NaN."""
    wanted = indices.tolist()
    known = files.ask(_NAMES, of=wanted, wanted=wanted) if wanted else None
    if known is None:
        return []
    names = {index: (name, problem or "") for index, name, problem in known.fetchall()}
    return [
        Row(index, names[index][0], None if np.isnan(score) else score, names[index][1])
        for index, score in zip(wanted, scores.tolist(), strict=True)
    ]


_NAMES = 'SELECT "index", id, problem {rows} WHERE "index" IN (SELECT unnest($wanted))'
