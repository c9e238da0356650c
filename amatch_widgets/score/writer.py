"""Write the scores of one cycle: whole parts only, and a last file that makes them count."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amatch_widgets.errors import StateError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

__all__ = ["COMPLETE", "CycleScores", "ScoreWriter", "part_name", "remove_others"]

COMPLETE = "complete.json"  # the file that makes a cycle count
_PART_ROWS = 100_000  # about 3 MB: small enough to lose little, large enough for few files
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
    first_part : int
        Number of the first file; not 0 if the cycle has been written again.
    n_parts : int
        Files, numbered upwards.
    time : str
        When the cycle was finished, ISO 8601 in UTC.
    """

    cycle: int
    model: str
    n_images: int
    n_scored: int
    first_part: int
    n_parts: int
    time: str

    def parts(self) -> list[str]:
        """Return the names of the files."""
        return [part_name(self.first_part + i) for i in range(self.n_parts)]


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
        first_part: int = 0,
    ) -> None:
        self._memory = memory
        self._folder = folder
        self._cycle, self._n_images, self._model = cycle, n_images, model
        self._first_part = first_part
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
            first_part=self._first_part,
            n_parts=self._n_parts,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if self._folder is None:
            self._memory[self._cycle] = (info, self._scores)
        else:
            # This one replacement makes the new scores count in place of any earlier ones.
            self._write(COMPLETE, json.dumps({"format": 1, **asdict(info)}).encode())
            remove_others(self._folder, info)
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
        self._write(part_name(self._first_part + self._n_parts), sink.getvalue())
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


def part_name(number: int) -> str:
    """Return the file name of a part, from its number."""
    return f"part-{number:05d}.parquet"


def remove_others(folder: Path, info: CycleScores) -> None:
    """Remove the parts in `folder` that do not belong to `info`: replaced or never finished ones."""
    keep = {COMPLETE, *info.parts()}
    for path in [*folder.glob("part-*.parquet"), *folder.glob(".*.tmp")]:
        if path.name not in keep:
            with contextlib.suppress(OSError):  # in nobody's way: only what `info` names is read
                path.unlink()


def _text(ids: list[str]) -> pa.Array:
    try:
        return pa.array(ids, pa.string())
    except UnicodeEncodeError:
        # File names that are no UTF-8; the index says which image it is.
        return pa.array([i.encode("utf-8", "backslashreplace").decode() for i in ids], pa.string())
