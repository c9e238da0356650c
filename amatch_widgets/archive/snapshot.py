"""The files of a cycle as they are at one moment, and DuckDB to ask them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amatch_widgets.archive.parts import Cycle, Parts

__all__ = ["PASSED", "Snapshot", "connect", "passing"]

PASSED = (
    "WHERE score >= $least AND score <= $most "
    "AND ($text = '' OR contains(CASE WHEN $has_case THEN lower(id) ELSE id END, $text)) "
)
"""What `passing` gives the values of."""

_PARTS = "FROM read_parquet($files, hive_partitioning = false) "
_PARTS_AND_FIRST = (
    "FROM (SELECT * FROM read_parquet($files, hive_partitioning = false) "
    "UNION ALL SELECT * FROM read_parquet($first, hive_partitioning = false) "
    'WHERE NOT list_contains($done, "index" // $part_rows)) '
)


class Snapshot:
    """What is there of a cycle now: its parts, and what was scored before them.

    Parameters
    ----------
    duckdb : duckdb.DuckDBPyConnection
    parts : Parts
    cycle : Cycle

    Attributes
    ----------
    n_done : int
        Images of the parts that are there; those scored before them are not counted.
    has_first : bool
        Whether some are scored before their parts.

    Notes
    -----
    Thread safety: nothing changes after the construction; any number of threads may ask.
    """

    def __init__(self, duckdb: Any, parts: Parts, cycle: Cycle) -> None:
        self._duckdb, self._parts, self._cycle = duckdb, parts, cycle
        self._done = parts.done(cycle)
        self._first = parts.first(cycle) if len(self._done) < parts.n_parts else None
        self.has_first = self._first is not None
        bounds = map(parts.bounds, self._done)
        self.n_done = sum(stop - start for start, stop in bounds)

    def ask(self, question: str, *, of: Iterable[int] | None = None, **values: Any) -> Any:
        """Ask all rows, or those of some images.

        Parameters
        ----------
        question : str
            A constant, with ``{rows}`` in place of FROM; what a user types comes as a value.
        of : iterable of int, optional
            Positions of the images that are meant; only files that may have them are read.
        values
            Of all its parameters, ``$name``.

        Returns
        -------
        duckdb.DuckDBPyConnection or None
            With the answer; None where nothing is there that could be asked.
        """
        parts, done, first = self._parts, self._done, self._first
        if of is not None:
            wanted = {int(i) // parts.part_rows for i in of}
            done = [part for part in done if part in wanted]
            first = first if wanted.difference(done) else None
        files = parts.paths(self._cycle, done)
        rows = _PARTS
        if first is not None and files:
            rows = _PARTS_AND_FIRST
            values |= {"first": first, "done": done, "part_rows": parts.part_rows}
        elif first is not None:
            files = [first]
        if not files:
            return None
        return self._duckdb.cursor().execute(question.format(rows=rows), {"files": files, **values})


def passing(least: float, most: float, contains: str) -> dict[str, Any]:
    """Return the values of `PASSED`: a range of scores, both ends included, and a part of the id."""
    # Lower case takes as long again, and digits have none.
    has_case = contains.lower() != contains.upper()
    return {"least": least, "most": most, "text": contains.lower(), "has_case": has_case}


def connect() -> Any:
    """Begin with DuckDB.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module("duckdb").connect()
    except ImportError as error:
        raise MissingExtraError(
            "To look at the scores of an archive, DuckDB is needed. Type: pip install "
            "'amatch-widgets[archive]', then restart the kernel."
        ) from error
