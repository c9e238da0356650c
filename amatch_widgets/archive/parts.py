"""A folder of Parquet parts that many processes may fill: whole parts only, and each of them once.

It may lie on this machine, on a volume that all processes have, or in an object store.

    archive.json                 what was scored: source, number of images, images of a part
    cycle=0003/model.json        with which model, in which precision
    cycle=0003/part-00012.parquet    index, id, score (null where there is none), problem (why there is none)
    cycle=0003/first.parquet     the same of the highest of the cycle before, until their parts are there

A part holds the same images in each cycle. It appears under its name only when it is whole, so the parts
that are there are what is done, and a run that is begun again makes the others. Two processes that make
the same part write the same rows, and the later takes the place of the earlier.
"""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amatch_widgets.archive.search import digest
from amatch_widgets.archive.shelf import shelf_of
from amatch_widgets.errors import ConfigError, WorkspaceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from amatch_widgets.images.remote import Remote

__all__ = ["ID_DIGEST", "PART_ROWS", "Cycle", "Parts"]

PART_ROWS = 100_000
ID_DIGEST = b"amatch.id_digest"
"""In the footer of a file, in base64: what tells which texts no id of it has; older files have none."""
_FORMAT = 1
_MANIFEST, _MODEL, _FIRST = "archive.json", "model.json", "first.parquet"
_CYCLE, _PART = re.compile(r"cycle=(\d{4,})"), re.compile(r"part-(\d{5,})\.parquet")
_SCHEMA = pa.schema(
    [("index", pa.int64()), ("id", pa.string()), ("score", pa.float32()), ("problem", pa.string())]
)
# Neighbouring ids begin alike, and an index follows the one before: both then take next to nothing.
_ENCODING = {"index": "DELTA_BINARY_PACKED", "id": "DELTA_BYTE_ARRAY", "score": "BYTE_STREAM_SPLIT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """The scores of one model.

    Attributes
    ----------
    number : int
        Cycles are counted from 1.
    key : str
        Which model: two with the same key give the same scores, in one precision.
    note : str
        Which model, in plain words.
    precision : str
        What it computes in, chosen once for all that score the cycle; "auto" leaves it to each of them.
    details : dict of str to JSON values
        How images are prepared for it, and which file it came from, where it was trained elsewhere.
    """

    number: int
    key: str
    note: str
    precision: str = "auto"
    details: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def folder(self) -> str:
        """Its name."""
        return f"cycle={self.number:04d}"


class Parts:
    """The scores of an archive, in parts.

    Make one with `create` or `open`; it may be pickled, and used by any number of processes at once.

    Attributes
    ----------
    root : Path or Remote
    n_images : int
    part_rows : int
        Images of each part but the last.
    """

    def __init__(self, root: Path | Remote, n_images: int, part_rows: int) -> None:
        self.root, self.n_images, self.part_rows = root, n_images, part_rows
        self._shelf = shelf_of(root)

    def __repr__(self) -> str:
        return f"Parts({str(self.root)!r}, {self.n_images:,} images, {self.n_parts:,} parts)"

    @classmethod
    def create(
        cls,
        root: Path | Remote,
        *,
        fingerprint: str,
        n_images: int,
        spec: Mapping[str, Any],
        part_rows: int = PART_ROWS,
    ) -> Parts:
        """Open the folder of these images; make it if it is not there.

        Parameters
        ----------
        root : Path or Remote
        fingerprint, n_images, spec
            Of the source.
        part_rows : int, >= 1
            Images of a part; one that is there keeps its own.

        Raises
        ------
        ConfigError
            If `part_rows` or `n_images` is less than 1.
        WorkspaceError
            If the folder is of other images, damaged, or cannot be written.
        """
        if part_rows < 1 or n_images < 1:
            raise ConfigError(f"part_rows={part_rows!r} of {n_images!r} images: both are at least 1.")
        made = cls(root, n_images, part_rows)
        if _MANIFEST in made._names():
            found = cls.open(root)
            if (found.source()[0], found.n_images) != (fingerprint, n_images):
                raise WorkspaceError(
                    f"{str(root)!r} has the scores of other images: {found.n_images:,} of them, where there "
                    f"are {n_images:,} now. Choose another folder with path=."
                )
            return found
        manifest = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "n_images": n_images,
            "part_rows": part_rows,
            "source": dict(spec),
        }
        made._write(_MANIFEST, json.dumps(manifest, indent=1).encode())
        return made

    @classmethod
    def open(cls, root: Path | Remote) -> Parts:
        """Open a folder that is there.

        Raises
        ------
        WorkspaceError
            If there is none, or it is damaged.
        """
        found = cls(root, 0, 1)
        manifest = found._read_json(_MANIFEST)
        try:
            if manifest["format"] != _FORMAT:
                raise WorkspaceError(
                    f"{str(root)!r} has format {manifest['format']!r}; this version reads {_FORMAT}. Update "
                    "amatch-widgets."
                )
            return cls(root, int(manifest["n_images"]), int(manifest["part_rows"]))
        except (KeyError, TypeError, ValueError) as error:
            raise found._damaged(_MANIFEST, error) from error

    def source(self) -> tuple[str, dict[str, Any]]:
        """Return the fingerprint of the images, and what is needed to open them again."""
        manifest = self._read_json(_MANIFEST)
        try:
            return str(manifest["fingerprint"]), dict(manifest["source"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(_MANIFEST, error) from error

    @property
    def n_parts(self) -> int:
        """How many parts a whole cycle has."""
        return -(-self.n_images // self.part_rows)

    def bounds(self, part: int) -> tuple[int, int]:
        """Return the first index of a part, and the one after its last."""
        if not 0 <= part < self.n_parts:
            raise ConfigError(f"There is no part {part!r}: there are {self.n_parts}, from 0.")
        return part * self.part_rows, min((part + 1) * self.part_rows, self.n_images)

    # Cycles.

    def cycles(self) -> list[Cycle]:
        """Return all cycles that were begun, the first first."""
        numbers = sorted(int(m[1]) for name in self._names() if (m := _CYCLE.fullmatch(name)))
        found = []
        for number in numbers:
            name = f"cycle={number:04d}/{_MODEL}"
            record = self._read_json(name)
            try:
                precision = str(record.get("precision", "auto"))
                cycle = Cycle(
                    number=number,
                    key=str(record["key"]),
                    note=str(record["note"]),
                    precision=precision,
                    details=dict(record.get("details") or {}),
                )
                found.append(cycle)
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(name, error) from error
        return found

    def begun(self, key: str) -> Cycle | None:
        """Return the last cycle if it is of this model; None if another has to be begun."""
        cycles = self.cycles()
        return cycles[-1] if cycles and cycles[-1].key == key else None

    def begin(
        self, key: str, note: str, precision: str = "auto", details: Mapping[str, Any] | None = None
    ) -> Cycle:
        """Return the last cycle if it is of this model, with its own precision, or begin another.

        Raises
        ------
        WorkspaceError
            If it cannot be written.
        """
        if (begun := self.begun(key)) is not None:
            return begun
        cycles = self.cycles()
        number = cycles[-1].number + 1 if cycles else 1
        cycle = Cycle(number=number, key=key, note=note, precision=precision, details=dict(details or {}))
        self._write(f"{cycle.folder}/{_MODEL}", json.dumps(asdict(cycle)).encode())
        return cycle

    def done(self, cycle: Cycle) -> list[int]:
        """Return the parts of a cycle that are there, rising."""
        return sorted(int(m[1]) for name in self._names(cycle.folder) if (m := _PART.fullmatch(name)))

    def missing(self, cycle: Cycle) -> list[int]:
        """Return the parts of a cycle that are not there yet, rising."""
        done = set(self.done(cycle))
        return [part for part in range(self.n_parts) if part not in done]

    def files(self, cycle: Cycle) -> list[str]:
        """Return paths on this machine by which the parts of a cycle that are there can be read."""
        return self.files_of(cycle, self.done(cycle))

    def files_of(self, cycle: Cycle, parts: Iterable[int]) -> list[str]:
        """Return such paths of some parts of a cycle, as far as they are there."""
        there = set(self.done(cycle))
        return self.paths(cycle, sorted(there.intersection(parts)))

    def paths(self, cycle: Cycle, parts: Iterable[int]) -> list[str]:
        """Return such paths of parts of a cycle that are known to be there.

        Raises
        ------
        WorkspaceError
            If they lie elsewhere and cannot be fetched.
        """
        return self._paths(cycle, [_part(number) for number in parts])

    def n_problems(self, cycle: Cycle) -> int:
        """Count the images without a score in the parts of a cycle that are there; reads no rows."""
        column = _SCHEMA.get_field_index("score")
        return sum(
            group.column(column).statistics.null_count
            for file in map(pq.read_metadata, self.files(cycle))
            for group in map(file.row_group, range(file.num_row_groups))
        )

    def write(
        self,
        cycle: Cycle,
        part: int,
        *,
        ids: Sequence[str],
        scores: NDArray[np.float32],
        problems: Mapping[int, str],
    ) -> None:
        """Write a whole part.

        Parameters
        ----------
        cycle : Cycle
        part : int
        ids : sequence of str, length M
            Of the images of the part, in order.
        scores : ndarray of float32, shape (M,)
            In [0, 1]; NaN where there is none.
        problems : mapping of int to str
            Index in the source to reason, of the images without a score.

        Raises
        ------
        ValueError
            If the lengths do not fit the part, or an image has neither score nor problem, or both.
        WorkspaceError
            If it cannot be written.
        """
        start, stop = self.bounds(part)
        if len(ids) != stop - start or scores.shape != (stop - start,):
            raise ValueError(
                f"Part {part} has {stop - start} images, not {len(ids)} ids and {scores.shape} scores."
            )
        is_missing = np.isnan(scores)
        if set((np.flatnonzero(is_missing) + start).tolist()) != set(problems):
            raise ValueError(f"Part {part}: each image has either a score or a problem.")
        why = [problems.get(i) for i in range(start, stop)]
        rows = _as_parquet(np.arange(start, stop), ids, scores, why)
        self._write(f"{cycle.folder}/{_part(part)}", rows)

    # The highest of the cycle before.

    def first(self, cycle: Cycle) -> str | None:
        """Return the path of the file of those that are scored before all others; None if it is not there."""
        return self._paths(cycle, [_FIRST])[0] if _FIRST in self._names(cycle.folder) else None

    def write_first(
        self, cycle: Cycle, indices: NDArray[np.int64], ids: Sequence[str], scores: NDArray[np.float32]
    ) -> None:
        """Write the scores of some images, rising indices, which count until their parts are there."""
        rows = _as_parquet(indices, ids, scores, [None] * len(indices))
        self._write(f"{cycle.folder}/{_FIRST}", rows)

    def highest(self, cycle: Cycle, n: int) -> NDArray[np.int64]:
        """Return the indices of the `n` highest scores of a cycle that are there, the highest first.

        Of equal scores the smaller index comes first; the memory depends on `n` alone.
        """
        best, least = (np.empty(0, np.int64), np.empty(0, np.float32)), -np.inf
        for indices, scores in self._scored(cycle):
            can = scores >= least
            best = np.concatenate([best[0], indices[can]]), np.concatenate([best[1], scores[can]])
            if len(best[0]) > 2 * n:  # not each time: sorting is what takes long
                best = _highest(*best, n)
                least = best[1].min(initial=np.inf)
        return _highest(*best, n)[0]

    def _scored(self, cycle: Cycle) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Go through indices and scores, file by file."""
        done = self.done(cycle)
        files: list[tuple[str, bool]] = [(file, False) for file in self.paths(cycle, done)]
        first = self.first(cycle) if len(done) < self.n_parts else None
        for file, is_first in [*files, *([(first, True)] if first else [])]:
            table = pq.read_table(file, columns=["index", "score"], partitioning=None).drop_null()
            indices, scores = table["index"].to_numpy(), table["score"].to_numpy()
            if is_first:
                is_open = ~np.isin(indices // self.part_rows, done)
                indices, scores = indices[is_open], scores[is_open]
            yield indices, scores

    # Files.

    def _names(self, folder: str = "") -> list[str]:
        try:
            return self._shelf.names(folder)
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _paths(self, cycle: Cycle, names: Sequence[str]) -> list[str]:
        try:
            return self._shelf.paths(cycle.folder, names)
        except OSError as error:
            raise self._unreadable(cycle.folder, error) from error

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._shelf.write(name, data)
        except OSError as error:
            raise WorkspaceError(
                f"{self._shelf.where(name)!r} cannot be written: {error.strerror or error}. Free some space, "
                "or choose another folder with path=."
            ) from error

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._shelf.read(name))
        except FileNotFoundError as error:
            raise WorkspaceError(
                f"There is no file {self._shelf.where(name)!r}: no scores are kept there."
            ) from error
        except OSError as error:
            raise self._unreadable(name, error) from error
        except ValueError as error:
            raise self._damaged(name, error) from error
        if not isinstance(record, dict):
            raise self._damaged(name, f"it holds {type(record).__name__}")
        return record

    def _unreadable(self, name: str, error: OSError) -> WorkspaceError:
        what = self._shelf.where(name)
        return WorkspaceError(f"The scores in {what!r} cannot be read: {error.strerror or error}.")

    def _damaged(self, name: str, why: object) -> WorkspaceError:
        what = self._shelf.where(name)
        return WorkspaceError(f"{what!r} is damaged: {why}. Move its folder away and score again.")


def _highest(
    indices: NDArray[np.int64], scores: NDArray[np.float32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `n` highest in order, of equal scores the smaller index first."""
    kept = np.lexsort((indices, -scores))[:n]
    return indices[kept], scores[kept]


def _part(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _as_parquet(
    indices: NDArray[np.int64], ids: Sequence[str], scores: NDArray[np.float32], problems: list[str | None]
) -> bytes:
    table = pa.table(
        {
            "index": indices,
            "id": pa.array(ids, pa.string()),
            "score": pa.array(scores, pa.float32(), mask=np.isnan(scores)),
            "problem": pa.array(problems, pa.string()),
        },
        schema=_SCHEMA,
    )
    buffer = io.BytesIO()
    known = digest(table["id"].combine_chunks())
    with pq.ParquetWriter(
        buffer, _SCHEMA, compression="zstd", use_dictionary=["problem"], column_encoding=_ENCODING
    ) as file:
        file.write_table(table)
        if known is not None:
            file.add_key_value_metadata({ID_DIGEST.decode(): base64.b64encode(known).decode()})
    return buffer.getvalue()
