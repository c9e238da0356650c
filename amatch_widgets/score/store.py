"""Scores of all images, one folder of Parquet parts per cycle.

A part appears under its name only when it is whole, and a cycle counts only when its
``complete.json`` is there, so a run that was cut off leaves nothing that looks like scores.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amatch_widgets.errors import ConfigError, StateError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["CycleScores", "ScoreStore", "ScoreWriter"]

_PART_ROWS = 100_000  # about 3 MB: small enough to lose little, large enough for few files
_COMPLETE = "complete.json"
_FOLDER = re.compile(r"cycle=(\d+)")
_SCHEMA = pa.schema([("id", pa.string()), ("index", pa.int64()), ("score", pa.float32())])


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleScores:
    """What is known about the scores of a complete cycle.

    Parameters
    ----------
    cycle : int
        The cycle.
    model : str
        Name of the model that gave the scores.
    n_images : int
        Images in the source.
    n_scored : int
        Rows written; images that could not be read have none.
    n_parts : int
        Files.
    time : str
        When the cycle was finished, ISO 8601 in UTC.
    """

    cycle: int
    model: str
    n_images: int
    n_scored: int
    n_parts: int
    time: str


class ScoreStore:
    """The scores of a session, on disk or in memory.

    Parameters
    ----------
    root : Path or None
        The session's folder; the parts lie in ``root/scores/cycle=0003/part-00012.parquet`` with
        the columns id (string), index (int64) and score (float32). None keeps scores in memory.

    Notes
    -----
    Thread safety: on disk there is no state to share; in memory ``_memory`` gets whole entries
    only, by single assignments. One writer at a time, any number of readers.
    """

    def __init__(self, root: Path | None) -> None:
        self._folder = None if root is None else Path(root) / "scores"
        self._memory: dict[int, tuple[CycleScores, NDArray[np.float32]]] = {}

    def __repr__(self) -> str:
        where = "memory" if self._folder is None else str(self._folder)
        return f"ScoreStore({where!r}, cycles {self.cycles()})"

    def writer(self, cycle: int, *, n_images: int, model: str) -> ScoreWriter:
        """Begin the scores of a cycle; what was there of it is removed.

        Parameters
        ----------
        cycle : int, >= 0
            The cycle.
        n_images : int
            Images in the source.
        model : str
            Name of the model that gives the scores.

        Returns
        -------
        ScoreWriter
            Takes the scores; the cycle counts when its ``finish`` has been called.

        Raises
        ------
        WorkspaceError
            If the folder cannot be made or emptied.
        """
        if cycle < 0:
            raise ConfigError(f"The cycle is {cycle}; it must be 0 or more.")
        self._remove(cycle)
        return ScoreWriter(self._memory, self._path(cycle), cycle=cycle, n_images=n_images, model=model)

    def cycles(self) -> list[int]:
        """Return the complete cycles, in rising order."""
        if self._folder is None:
            return sorted(self._memory)
        return sorted(c for c, path in self._all().items() if (path / _COMPLETE).is_file())

    def info(self, cycle: int) -> CycleScores:
        """Return what is known about a complete cycle.

        Parameters
        ----------
        cycle : int
            One of `cycles`.

        Returns
        -------
        CycleScores
            Its model, counts and time.

        Raises
        ------
        WorkspaceError
            If the cycle is not there, or its record is damaged.
        """
        if cycle not in self.cycles():
            raise WorkspaceError(
                f"There are no complete scores of cycle {cycle}; there are those of {self.cycles()}."
            )
        path = self._path(cycle)
        if path is None:
            return self._memory[cycle][0]
        try:
            record = json.loads((path / _COMPLETE).read_text("utf-8"))
            return CycleScores(**{field: record[field] for field in CycleScores.__slots__})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path / _COMPLETE, error) from error

    def load(self, cycle: int, n_images: int) -> NDArray[np.float32]:
        """Read the scores of a complete cycle.

        Parameters
        ----------
        cycle : int
            One of `cycles`.
        n_images : int
            Images in the source.

        Returns
        -------
        ndarray of float32, shape (n_images,)
            Scores in [0, 1] by index; NaN where there is none.

        Raises
        ------
        WorkspaceError
            If the cycle is not there, is of a source of another size, or a part is missing or
            damaged; the message names the file.
        """
        info = self.info(cycle)
        if info.n_images != n_images:
            raise WorkspaceError(
                f"The scores of cycle {cycle} are of {info.n_images} images, but the source has {n_images}. "
                "Open the session with the source it was made with, or score again."
            )
        path = self._path(cycle)
        if path is None:
            return self._memory[cycle][1].copy()
        scores = np.full(n_images, np.nan, np.float32)
        n_rows = 0
        for number in range(info.n_parts):
            indices, values = _read_part(path / _part_name(number), n_images)
            scores[indices] = values
            n_rows += len(indices)
        if n_rows != info.n_scored:
            raise _damaged(path, f"{n_rows} rows instead of {info.n_scored}")
        return scores

    def prune(self, keep: int) -> None:
        """Remove all but the latest complete cycles, and what is left of incomplete ones before them.

        Parameters
        ----------
        keep : int, >= 1
            Complete cycles to keep.

        Raises
        ------
        ConfigError
            If `keep` is less than 1.
        WorkspaceError
            If a folder cannot be removed.
        """
        if keep < 1:
            raise ConfigError(f"keep is {keep}; at least 1 cycle is kept.")
        kept = self.cycles()[-keep:]
        if not kept:
            return
        for cycle in self._memory.keys() | self._all().keys():
            if cycle not in kept and cycle < kept[-1]:  # behind the last complete one a writer may be at work
                self._remove(cycle)

    def _all(self) -> dict[int, Path]:
        """Return the folders of all cycles, complete or not."""
        try:
            entries = list(self._folder.iterdir()) if self._folder else []
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise WorkspaceError(f"The scores in {str(self._folder)!r} cannot be read: {error}.") from error
        return {int(m[1]): path for path in entries if (m := _FOLDER.fullmatch(path.name))}

    def _path(self, cycle: int) -> Path | None:
        return None if self._folder is None else self._folder / f"cycle={cycle:04d}"

    def _remove(self, cycle: int) -> None:
        self._memory.pop(cycle, None)
        path = self._path(cycle)
        if path is None or not path.exists():
            return
        try:
            (path / _COMPLETE).unlink(missing_ok=True)  # first: half a folder must not look complete
            shutil.rmtree(path)
        except OSError as error:
            raise WorkspaceError(f"The old scores in {str(path)!r} cannot be removed: {error}.") from error


class ScoreWriter:
    """Takes the scores of one cycle, made by `ScoreStore.writer`.

    Notes
    -----
    Thread safety: none; it belongs to the thread that scores.
    """

    def __init__(
        self,
        memory: dict[int, tuple[CycleScores, NDArray[np.float32]]],
        folder: Path | None,
        *,
        cycle: int,
        n_images: int,
        model: str,
    ) -> None:
        self._memory = memory
        self._folder = folder
        self._cycle, self._n_images, self._model = cycle, n_images, model
        self._buffer: list[tuple[NDArray[np.int64], list[str], NDArray[np.float32]]] = []
        self._scores = np.full(n_images if folder is None else 0, np.nan, np.float32)
        self._n_buffered = self._n_scored = self._n_parts = 0
        self._is_open = True
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._not_written(error) from error

    def add(self, indices: ArrayLike, ids: Sequence[str], scores: ArrayLike) -> None:
        """Take the scores of some images; full parts go to disk.

        Parameters
        ----------
        indices : array_like of int, shape (n,)
            Positions in the source.
        ids : sequence of str, length n
            Ids of the same images.
        scores : array_like of float, shape (n,)
            Their scores, in [0, 1].

        Raises
        ------
        ValueError
            If the lengths differ or an index is not in the source.
        StateError
            If the writer has been finished or abandoned.
        WorkspaceError
            If a part cannot be written.
        """
        self._check_open()
        rows = np.asarray(indices, np.int64)
        values = np.asarray(scores, np.float32)
        if rows.ndim != 1 or rows.shape != values.shape or len(ids) != len(rows):
            raise ValueError(f"There are {rows.shape} indices, {len(ids)} ids and {values.shape} scores.")
        if not len(rows):
            return
        if rows.min() < 0 or rows.max() >= self._n_images:
            raise ValueError(f"The indices {rows.min()} to {rows.max()} do not fit {self._n_images} images.")
        self._n_scored += len(rows)
        if self._folder is None:
            self._scores[rows] = values
            return
        self._buffer.append((rows, list(ids), values))
        self._n_buffered += len(rows)
        while self._n_buffered >= _PART_ROWS:
            self._flush(_PART_ROWS)

    def finish(self) -> CycleScores:
        """Write what is left and make the cycle count.

        Returns
        -------
        CycleScores
            What was written.

        Raises
        ------
        StateError
            If the writer has been finished or abandoned.
        WorkspaceError
            If it cannot be written; the cycle then does not count.
        """
        self._check_open()
        while self._n_buffered:
            self._flush(min(self._n_buffered, _PART_ROWS))
        info = CycleScores(
            cycle=self._cycle,
            model=self._model,
            n_images=self._n_images,
            n_scored=self._n_scored,
            n_parts=self._n_parts,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if self._folder is None:
            self._memory[self._cycle] = (info, self._scores)
        else:
            self._write(_COMPLETE, json.dumps({"format": 1, **asdict(info)}).encode())
        self._is_open = False
        return info

    def abandon(self) -> None:
        """Give up, e.g. because scoring was stopped; the cycle does not count. Harmless after ``finish``."""
        self._is_open = False
        self._buffer.clear()

    def _check_open(self) -> None:
        if not self._is_open:
            raise StateError(
                f"The scores of cycle {self._cycle} are finished or abandoned. Begin a new writer."
            )

    def _flush(self, n: int) -> None:
        """Write the first `n` rows of the buffer as one part."""
        indices = np.concatenate([b[0] for b in self._buffer])
        ids = [image_id for b in self._buffer for image_id in b[1]]
        scores = np.concatenate([b[2] for b in self._buffer])
        table = pa.table({"id": _text(ids[:n]), "index": indices[:n], "score": scores[:n]}, schema=_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        self._write(_part_name(self._n_parts), sink.getvalue())
        self._n_parts += 1
        self._n_buffered -= n
        self._buffer = [(indices[n:], ids[n:], scores[n:])] if self._n_buffered else []

    def _write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file under a temporary name, and give it its own when it is on disk."""
        assert self._folder is not None
        temporary = self._folder / f".{name}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave the name without the bytes
            temporary.replace(self._folder / name)
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> WorkspaceError:
        return WorkspaceError(
            f"The scores of cycle {self._cycle} cannot be written to {str(self._folder)!r}: "
            f"{error.strerror or error}. Labels and earlier scores are safe. Free some space and score again."
        )


def _part_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _text(ids: list[str]) -> pa.Array:
    try:
        return pa.array(ids, pa.string())
    except UnicodeEncodeError:
        # File names that are no UTF-8; the index says which image it is.
        return pa.array([i.encode("utf-8", "backslashreplace").decode() for i in ids], pa.string())


def _read_part(path: Path, n_images: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    try:
        table = pq.read_table(path, columns=["index", "score"], partitioning=None)
        indices = table["index"].to_numpy().astype(np.int64, copy=False)
        scores = table["score"].to_numpy().astype(np.float32, copy=False)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    if len(indices) and (indices.min() < 0 or indices.max() >= n_images):
        raise _damaged(
            path, f"an index out of range: {indices.min()} to {indices.max()} of {n_images} images"
        )
    return indices, scores


def _damaged(path: Path, why: object) -> WorkspaceError:
    return WorkspaceError(f"The scores in {str(path)!r} are damaged: {why}. Score again to replace them.")
