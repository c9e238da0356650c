"""The files of a cycle as they are at one moment, and DuckDB to ask them."""

from __future__ import annotations

import base64
import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amatch_widgets.archive.parts import ID_DIGEST
from amatch_widgets.errors import MissingExtraError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from amatch_widgets.archive.parts import Cycle, Parts

__all__ = ["Piece", "Snapshot", "connect"]

_AT_ONCE = 8  # files that are read, where there are as many processors

_PARTS = "FROM read_parquet($files, hive_partitioning = false) "
_PARTS_AND_FIRST = (
    "FROM (SELECT * FROM read_parquet($files, hive_partitioning = false) "
    "UNION ALL SELECT * FROM read_parquet($first, hive_partitioning = false) "
    'WHERE NOT list_contains($done, "index" // $part_rows)) '
)


class Piece:
    """The rows of one file, of which columns are read as they are asked for.

    Attributes
    ----------
    part : int or None
        Its number; None for what was scored before its part.
    indices : ndarray of int64, shape (M,)
        Positions in the source, rising.
    """

    def __init__(self, file: pq.ParquetFile, part: int | None, indices: NDArray[np.int64]) -> None:
        self._file, self.part, self.indices = file, part, indices
        self._rows: NDArray[np.bool] | None = None  # that count, where not all do

    @classmethod
    def of_part(cls, file: pq.ParquetFile, part: int, start: int, stop: int) -> Piece:
        """Return the rows of a part: it has one for each position, in order."""
        if file.metadata.num_rows != stop - start:
            raise pa.ArrowInvalid(f"it has {file.metadata.num_rows} rows, not {stop - start}")
        known = file.metadata.row_group(0).column(file.schema_arrow.get_field_index("index")).statistics
        if known is not None and known.has_min_max and known.min != start:
            raise pa.ArrowInvalid(f"its first position is {known.min}, not {start}")
        return cls(file, part, np.arange(start, stop))

    @classmethod
    def of_first(cls, file: pq.ParquetFile, done: Iterable[int], part_rows: int) -> Piece:
        """Return the rows of what was scored before its part, but for those of parts that are done."""
        piece = cls(file, None, np.empty(0, np.int64))
        indices = piece._column("index").to_numpy()
        piece._rows = ~np.isin(indices // part_rows, list(done))
        piece.indices = indices[piece._rows]
        return piece

    @property
    def scores(self) -> NDArray[np.float32]:
        """Scores, shape (M,); NaN where there is none."""
        scores: NDArray[np.float32] = self._column("score").to_numpy(zero_copy_only=False)
        return scores

    @property
    def ids(self) -> pa.StringArray:
        """Ids, length M."""
        return self._column("id")

    @property
    def digest(self) -> bytes | None:
        """What tells which texts no id of the file has, see `digest`; None where it was not written."""
        known = (self._file.metadata.metadata or {}).get(ID_DIGEST)
        return None if known is None else base64.b64decode(known)

    @property
    def has_problem(self) -> NDArray[np.bool]:
        """Which cannot be read, shape (M,)."""
        has: NDArray[np.bool] = self._column("problem").is_valid().to_numpy(zero_copy_only=False)
        return has

    def _column(self, name: str) -> pa.Array:
        column = self._file.read([name], use_threads=False)[name]
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        return array if self._rows is None else array.filter(pa.array(self._rows))


class Snapshot:
    """What is there of a cycle now: its parts, and what was scored before them.

    Parameters
    ----------
    duckdb : duckdb.DuckDBPyConnection
    parts : Parts
    cycle : Cycle

    Attributes
    ----------
    n_images : int
        Of the archive, scored or not.
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
        self.n_images = parts.n_images
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
        parts = self._parts
        done, first = self._meant(of)
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

    def each(self, look: Callable[[Piece], None], *, of: Iterable[int] | None = None) -> None:
        """Look at all rows, or at the files with some images, several files at once.

        Parameters
        ----------
        look : callable
            Is called with each `Piece`, by any thread, in about the order of the positions.
        of : iterable of int, optional
            Positions of the images that are meant.

        Raises
        ------
        WorkspaceError
            If a file is gone or damaged.
        """
        parts = self._parts
        done, first = self._meant(of)
        paths: list[tuple[str, int | None]] = list(zip(parts.paths(self._cycle, done), done, strict=True))
        if first is not None:
            paths.append((first, None))

        def read(path: str, part: int | None) -> None:
            try:
                with pq.ParquetFile(path) as file:
                    look(
                        Piece.of_first(file, self._done, parts.part_rows)
                        if part is None
                        else Piece.of_part(file, part, *parts.bounds(part))
                    )
            except (OSError, pa.ArrowException) as error:
                raise WorkspaceError(
                    f"{path!r} cannot be read: {error}. If it is damaged, move it away and score again."
                ) from error

        with ThreadPoolExecutor(min(os.cpu_count() or 1, _AT_ONCE), "amatch-look") as executor:
            looks = [executor.submit(read, path, part) for path, part in paths]
            try:
                for done_with in looks:
                    done_with.result()
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise

    def scores_of(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of some images by their positions, shape (M,); NaN where there is none."""
        scores = np.full(len(indices), np.nan, np.float32)

        def look(piece: Piece, where: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
            scores[where] = piece.scores[rows]

        self._each_of(indices, look)
        return scores

    def ids_of(self, indices: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return the ids of some images by their positions, shape (M,); None where one is not there."""
        ids = np.full(len(indices), None, object)

        def look(piece: Piece, where: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
            ids[where] = piece.ids.take(pa.array(rows)).to_pylist()

        self._each_of(indices, look)
        return ids

    def _each_of(
        self,
        indices: NDArray[np.int64],
        look: Callable[[Piece, NDArray[np.int64], NDArray[np.int64]], None],
    ) -> None:
        """Look at some images, each once: which of them a piece has, and in which of its rows."""
        order = np.argsort(indices)
        wanted = indices[order]

        def find(piece: Piece) -> None:
            if len(piece.indices):
                near = slice(*np.searchsorted(wanted, [piece.indices[0], piece.indices[-1] + 1]))
                rows = np.searchsorted(piece.indices, wanted[near])
                is_here = piece.indices[rows] == wanted[near]
                look(piece, order[near][is_here], rows[is_here])

        self.each(find, of=wanted.tolist())

    def _meant(self, of: Iterable[int] | None) -> tuple[list[int], str | None]:
        """Return the parts that may have some images, and the path of what was scored before them."""
        if of is None:
            return self._done, self._first
        wanted = {int(i) // self._parts.part_rows for i in of}
        done = [part for part in self._done if part in wanted]
        return done, self._first if wanted.difference(done) else None


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
