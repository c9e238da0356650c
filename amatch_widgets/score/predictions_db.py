"""The scores that AnomalyMatch 2 keeps in ``predictions.db``.

SQLite with two tables: `results` has a `filename` and a `score` for each image, the bits of a float32 as a
whole number, and `run_metadata` has pairs of a key and JSON. Its `schema_version` is 4; before it the same
column held the bits of a float16, which cannot be told apart by looking at them.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ScoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["MAGIC", "read_predictions"]

MAGIC = b"SQLite format 3\0"
_SCHEMA = 4
_ROWS = 100_000  # held as Python objects at a time
_ONE = 0x3F800000  # the bits of 1.0: those of all scores from 0 to 1 are not above


def read_predictions(path: Path) -> tuple[pa.LargeStringArray, NDArray[np.float64]]:
    """Read all names and scores; the file is not changed, and no other is made beside it.

    Returns
    -------
    pyarrow.LargeStringArray, length M
        What AnomalyMatch calls the images.
    ndarray of float64, shape (M,)
        In [0, 1]. AnomalyMatch writes 0 where its model gave no number.

    Raises
    ------
    ScoreError
        If it is no such file, of another version, damaged, or being written.
    """
    import pyarrow as pa  # noqa: PLC0415 (only an import of scores needs it)

    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise ScoreError(
            f"{path.name!r} is being written, or its run was cut off: {log.name!r} beside it holds what is "
            "not in it yet. Close AnomalyMatch, or open and close the file in it once more."
        )
    names: list[pa.Array] = [pa.array([], pa.large_string())]
    bits = [np.empty(0, np.uint32)]
    try:
        # immutable: SQLite would make files beside a database that is written with a log
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            _check_version(path.name, database)
            for filenames, scores in _blocks(database):
                names.append(pa.array(filenames, pa.large_string()))
                bits.append(_as_bits(path.name, filenames, scores))
    except (sqlite3.Error, pa.ArrowException, UnicodeError) as error:
        raise ScoreError(f"{path.name!r} cannot be read as scores of AnomalyMatch: {error}.") from error
    return pa.concat_arrays(names), np.concatenate(bits).view(np.float32).astype(np.float64)


def _check_version(name: str, database: sqlite3.Connection) -> None:
    row = database.execute("SELECT value FROM run_metadata WHERE key = 'schema_version'").fetchone()
    try:
        found = None if row is None else json.loads(row[0])
    except (ValueError, TypeError):
        found = row[0]
    if found != _SCHEMA or isinstance(found, bool):
        raise ScoreError(
            f"{name!r} has the schema version {found!r}; this program reads {_SCHEMA}. Let AnomalyMatch "
            "2 score the images once more, or make a CSV with the columns filename and score."
        )


def _blocks(database: sqlite3.Connection) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    rows = database.execute("SELECT filename, score FROM results ORDER BY id")
    while block := rows.fetchmany(_ROWS):
        filenames, scores = zip(*block, strict=True)
        yield filenames, scores


def _as_bits(name: str, filenames: tuple[str, ...], scores: tuple[int, ...]) -> NDArray[np.uint32]:
    """Check that a block holds names, and the bits of numbers from 0 to 1."""
    for filename, score in zip(filenames, scores, strict=True):
        if not isinstance(filename, str) or not isinstance(score, int) or not 0 <= score <= _ONE:
            raise ScoreError(
                f"{name!r} is damaged: the image {filename!r} has the score {score!r}, which are not the "
                "bits of a number from 0 to 1."
            )
    return np.array(scores, np.uint32)
