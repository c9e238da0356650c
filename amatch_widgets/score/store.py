"""Scores of all images, one folder of Parquet parts per cycle.

A part appears under its name only when it is whole, and a cycle counts only when its
``complete.json`` is there, so a run that was cut off leaves nothing that looks like scores.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amatch_widgets.errors import ConfigError, WorkspaceError
from amatch_widgets.score.writer import COMPLETE, CycleScores, ScoreWriter, remove_others

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CycleScores", "ScoreStore", "ScoreWriter"]

_FOLDER = re.compile(r"cycle=(\d+)")


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
        """Begin the scores of a cycle; complete ones of the same cycle count until it is finished.

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
        path = self._path(cycle)
        return ScoreWriter(
            self._memory,
            path,
            cycle=cycle,
            n_images=n_images,
            model=model,
            first_part=0 if path is None else self._tidy(cycle, path),
        )

    def cycles(self) -> list[int]:
        """Return the complete cycles, in rising order."""
        if self._folder is None:
            return sorted(self._memory)
        return sorted(c for c, path in self._all().items() if (path / COMPLETE).is_file())

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
        return self._memory[cycle][0] if path is None else _read_record(path)

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
        for name in info.parts():
            indices, values = _read_part(path / name, n_images)
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

    def _tidy(self, cycle: int, path: Path) -> int:
        """Make room for new parts of a cycle beside complete ones; return the number of the first."""
        try:
            info = _read_record(path)
        except WorkspaceError:  # nothing there, or nothing that counts
            self._remove(cycle)
            return 0
        remove_others(path, info)
        return info.first_part + info.n_parts

    def _remove(self, cycle: int) -> None:
        self._memory.pop(cycle, None)
        path = self._path(cycle)
        if path is None or not path.exists():
            return
        try:
            (path / COMPLETE).unlink(missing_ok=True)  # first: half a folder must not look complete
            shutil.rmtree(path)
        except OSError as error:
            raise WorkspaceError(f"The old scores in {str(path)!r} cannot be removed: {error}.") from error


def _read_record(folder: Path) -> CycleScores:
    path = folder / COMPLETE
    try:
        record = json.loads(path.read_text("utf-8"))
        return CycleScores(**{field: record[field] for field in CycleScores.__slots__})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


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
    what = str(why).partition("\n")[0]  # Arrow adds its whole schema
    return WorkspaceError(f"The scores in {str(path)!r} are damaged: {what}. Score again to replace them.")
