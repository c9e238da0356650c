"""The images of an archive in an order, as they were when it was made: what is looked at page by page."""

from __future__ import annotations

import bisect
import functools
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amatch_widgets.archive.snapshot import Snapshot

__all__ = ["SCANNED", "Chosen", "Order", "Row", "Scan"]

_FEW = 200_000  # rows with a text in the id that are held in memory: to look through all ids takes long
_NEAR = 5_000  # rows from the beginning that are found by themselves; beyond, where they lie is counted first


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


class _How(NamedTuple):
    """An order in SQL: which rows, what they are sorted by, and a whole number that never falls along it."""

    where: str
    key: str
    step: str


_SCORED = "score >= $least AND score <= $most"
_LOGIT = "ln(greatest(score::DOUBLE, 1e-38) / greatest(1 - score::DOUBLE, 1e-9))"
_FROM_EVEN = "abs(score::DOUBLE - 0.5)"
_MIXED = 'hash("index" + $seed)'
# Steps on the logit: scores of a trained network lie close to 0 and to 1.
_HOW = {
    "highest": _How(_SCORED, "-score::DOUBLE", f"-ceil(64 * {_LOGIT})::BIGINT"),
    "lowest": _How(_SCORED, "score::DOUBLE", f"floor(64 * {_LOGIT})::BIGINT"),
    "uncertain": _How(_SCORED, _FROM_EVEN, f"floor(8192 * {_FROM_EVEN})::BIGINT"),
    "random": _How(_SCORED, _MIXED, f"({_MIXED} >> 51)::BIGINT"),
    "problem": _How("problem IS NOT NULL", '"index"', '"index" >> 12'),
}
SCANNED = tuple(_HOW)
"""The orders of all images; "problem" are those that cannot be read."""


class Scan:
    """Very many images, found anew in their files for each page.

    None is held in memory, but for the positions and scores of a few that have a text in their ids.

    Parameters
    ----------
    files : Snapshot
    how : {"highest", "lowest", "uncertain", "random", "problem"}
        Ties go by position in the source.
    least, most : float, in [0, 1]
        Range of the score, both ends included; "problem" has none.
    contains : str
        Part of the id, upper and lower case alike.
    left_out : sequence of int
        Positions of images that are not listed.
    seed : int
        Of the random order.

    Raises
    ------
    ConfigError
        If there is no such order.

    Notes
    -----
    Thread safety: nothing changes but what is counted once; any thread may ask.
    """

    def __init__(
        self,
        files: Snapshot,
        how: str = "highest",
        *,
        least: float = 0.0,
        most: float = 1.0,
        contains: str = "",
        left_out: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        if how not in _HOW:
            raise ConfigError(f"Unknown order {how!r}. There are {', '.join(map(repr, SCANNED))}.")
        self._files, self._how = files, _HOW[how]
        # What a user typed is a value; only constants are put together.
        self._wheres, self._values = [self._how.where], dict[str, Any]()
        if self._how.where == _SCORED:
            self._values |= {"least": least, "most": most}
        if contains:
            self._wheres.append(f"contains({_name_as(contains)}, $text)")
            self._values["text"] = contains.lower()
        if left_out:
            self._wheres.append('"index" NOT IN (SELECT unnest($left_out))')
            self._values["left_out"] = list(map(int, left_out))
        self._has_text = bool(contains)
        self._seed = {"seed": seed} if how == "random" else {}

    def __len__(self) -> int:
        return self._n if self._few is None else len(self._few)

    def rows(self, start: int, n: int) -> list[Row]:
        """Return `n` images, after `start` others; far from the beginning it takes two looks."""
        if n < 1 or start >= len(self):
            return []
        if self._few is not None:
            return self._named([(index, score) for _, index, score in self._few[start : start + n]])
        if start + n <= _NEAR:
            return self._named(self._narrow(start, n))
        steps, ends = self._steps
        first = bisect.bisect_right(ends, start)
        last = min(bisect.bisect_left(ends, start + n), len(steps) - 1)
        before = ends[first - 1] if first else 0
        where = f"{self._how.step} BETWEEN $low AND $high"
        return self._named(self._narrow(start - before, n, where, low=steps[first], high=steps[last]))

    def place(self, index: int) -> int | None:
        """Return the place of an image; None if it is not listed."""
        if self._few is not None:
            return next((k for k, row in enumerate(self._few) if row[1] == index), None)
        key = self._key(index)
        if key is None:
            return None
        before = f'({self._how.key} < $key OR ({self._how.key} = $key AND "index" < $index))'
        found = self._ask("SELECT count(*)", before, key=key, index=index)
        return int(found.fetchone()[0])

    def seek(self, text: str, after: int) -> int | None:
        """Return the place of the next image whose id contains a text."""
        has_text = f"contains({_name_as(text)}, $sought)"
        exact: list[Any] = self._narrow(0, 1, "id = $sought", sought=text)
        last = self.rows(after, 1) if after >= 0 and not exact else []
        if last:
            behind = f'({self._how.key} > $key OR ({self._how.key} = $key AND "index" > $index))'
            values = {"key": self._key(last[0].index), "index": last[0].index}
            exact = self._narrow(0, 1, has_text, behind, sought=text.lower(), **values)
        found = exact or self._narrow(0, 1, has_text, sought=text.lower())
        return self.place(found[0][0]) if found else None

    @functools.cached_property
    def _few(self) -> list[tuple[Any, int, float | None]] | None:
        """Return key, position and score of all that have the text in their ids; None if they are many."""
        if not self._has_text:
            return None
        found = self._ask(
            f'SELECT {self._how.key}, "index", score', then="LIMIT $most_held", most_held=_FEW + 1
        )
        rows = [] if found is None else found.fetchall()
        return None if len(rows) > _FEW else sorted(rows, key=lambda row: row[:2])

    @functools.cached_property
    def _n(self) -> int:
        found = self._ask("SELECT count(*)")
        return 0 if found is None else int(found.fetchone()[0])

    @functools.cached_property
    def _steps(self) -> tuple[list[int], list[int]]:
        """Return the steps of the order, rising, and how many images there are up to the end of each."""
        counted = self._ask(f"SELECT {self._how.step} AS step, count(*)", then="GROUP BY step").fetchall()
        counted.sort()
        return [step for step, _ in counted], list(accumulate(n for _, n in counted))

    def _key(self, index: int) -> Any:
        """Return what an image is sorted by; None if it is not listed."""
        found = self._ask(f"SELECT {self._how.key}", '"index" = $index', of=[index], index=index)
        row = None if found is None else found.fetchone()
        return None if row is None else row[0]

    def _narrow(self, start: int, n: int, *wheres: str, **values: Any) -> list[tuple[int, float | None]]:
        """Return positions and scores of some images; to take all ids along takes three times as long."""
        then = f'ORDER BY {self._how.key}, "index" LIMIT $n OFFSET $start'
        found = self._ask('SELECT "index", score', *wheres, then=then, n=n, start=start, **values)
        return [] if found is None else list(found.fetchall())

    def _named(self, found: Sequence[tuple[int, float | None]]) -> list[Row]:
        wanted = [index for index, _ in found]
        if not wanted:
            return []
        known = self._files.ask(_NAMES, of=wanted, wanted=wanted).fetchall()
        names = {index: (name, problem or "") for index, name, problem in known}
        return [Row(index, names[index][0], score, names[index][1]) for index, score in found]

    def _ask(
        self, what: str, *wheres: str, then: str = "", of: Sequence[int] | None = None, **values: Any
    ) -> Any:
        """Ask the rows that are listed; None where there are no files."""
        question = f"{what} {{rows}} WHERE {' AND '.join([*self._wheres, *wheres])} {then}"
        sorting = self._seed if "$seed" in question else {}
        return self._files.ask(question, of=of, **self._values, **sorting, **values)


_NAMES = 'SELECT "index", id, problem {rows} WHERE "index" IN (SELECT unnest($wanted))'


def _name_as(text: str) -> str:
    """Return the id as it is compared with a text: lower case takes as long again, and digits have none."""
    return "lower(id)" if text.lower() != text.upper() else "id"
