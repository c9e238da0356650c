"""Images in the rows of Parquet files: encoded, or as lists of numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.column import as_shape, list_columns
from amatch_widgets.images.decode import model_channels
from amatch_widgets.images.description import row_facts
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids, sort_indices
from amatch_widgets.images.kept import Kept
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.place import as_place, is_folder, name_of, spec_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.row import parquet_row
from amatch_widgets.images.rowgroups import RowGroups, parquet_files
from amatch_widgets.images.unreadable import UnreadableError, in_words, plain_errors

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

__all__ = ["ParquetSource"]

IDS = ("id", "ids", "object_id", "image_id", "filename", "file_name", "name")
_TRIED = 16  # rows of which the first readable one tells the channels


class ParquetSource:
    """Images in one column of a Parquet file, or of all those in a folder.

    A row holds a JPEG, PNG, TIFF, FITS or .npy file (a binary column, or a struct with the fields
    ``bytes`` and ``path`` as Hugging Face writes it), or the pixels: a list of numbers, lists within
    lists, or a fixed-shape tensor. Rows are read a row group at a time, and never more than some tens of
    MB of it at once; single images are quick to read where row groups are small (some thousand images or
    less), since what lies before an image in its row group is read along with it.

    Thread safety: all methods may be called from any thread. Files are opened for each reading and closed
    after it; only ``_kept``, which has its own lock, changes after the source is made.

    Parameters
    ----------
    path : path or URL
        A ``.parquet`` file, or a folder: its files in the order of their names, subfolders too.
    column : str, optional
        The column of the images. Default: the one that can hold images, preferably ``image``, ``images``
        or ``img``.
    ids_from : str, optional
        The column of the ids: text or whole numbers, each different. Default: the first such of ``id``,
        ``ids``, ``object_id``, ``image_id``, ``filename``, ``file_name``, ``name`` and the ``path`` within
        the column of the images; if none is, the images are numbered.
    shape : tuple of int, optional
        Shape of each image, (H, W), (H, W, C) or (C, H, W), where the rows are flat lists of numbers.
        Default: what the metadata say, or the columns ``height``, ``width`` and ``channels``; else
        squares of one channel.
    name : str, optional
        Short name for people; default the name of the file or folder.

    Attributes
    ----------
    chunk : int
        How many images lie together in a row group, as a rule.

    Raises
    ------
    SourceError
        There is no Parquet file, no such column, no image, or the files do not fit together.
    """

    bands: tuple[str, ...] | None = None

    def __init__(
        self,
        path: str | os.PathLike[str] | Remote,
        *,
        column: str | None = None,
        ids_from: str | None = None,
        shape: Iterable[int] | None = None,
        name: str | None = None,
    ) -> None:
        self._path = as_place(path)
        given = None if shape is None else as_shape(shape)
        self._options = {"column": column, "ids_from": ids_from, "shape": given}
        files = parquet_files(self._path)
        if not files:
            raise SourceError(f"The folder {self._path!r} holds no .parquet file. Name one that does.")
        own_name = name_of(self._path)
        self.name = name or (own_name if is_folder(self._path) else Path(own_name).stem)
        self._groups = RowGroups(files, column, given)
        self._column = self._groups.column
        if not len(self):
            raise SourceError(f"{self._path!r} has no row. At least one image is needed.")
        self.chunk = int(np.median(np.diff(self._groups.starts)))
        self.ids: Sequence[str] = self._find_ids(ids_from)
        self._kept = Kept()
        self.channels = self._count_channels()

    def __len__(self) -> int:
        return self._groups.n

    def __repr__(self) -> str:
        return f"ParquetSource({self._path!r}, {len(self)} images of {self._column.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the path; the files are opened again."""
        return partial(ParquetSource, name=self.name, **self._options), (self._path,)  # type: ignore[arg-type]

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image, and keep the rows beside it; see `ImageSource.read`."""
        index = check_index(index, len(self))
        group, row = self._groups.find(index)
        size = self._groups.block_rows[group]
        first = row // size * size
        try:
            with plain_errors():
                rows = self._kept.get((group, first), lambda: self._load(group, first, size))
        except (UnreadableError, OSError) as exc:
            raise ImageReadError(self.ids[index], in_words(exc)) from exc
        return self._image(rows, row - first, index, min_side)

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read many images, each row group once; see `read_many` of the module `source`."""
        wanted = sort_indices(indices, len(self))
        groups = self._groups.of(wanted)
        cuts = np.flatnonzero(np.diff(self._groups.file_of[groups])) + 1
        for part in np.split(wanted, cuts) if len(wanted) else ():
            yield from self._read_file(part, min_side)

    def describe(self, index: int) -> dict[str, str]:
        """Return the other columns of a row that are numbers, texts, dates or truth values.

        Nothing of files on a server, which it would take too long to ask.
        """
        if isinstance(self._path, Remote):
            return {}
        group, row = self._groups.find(check_index(index, len(self)))
        names = [name for name in self._groups.schema.names if name != self._column.name]
        try:
            with plain_errors(), self._groups.opened(int(self._groups.file_of[group])) as file:
                return row_facts(parquet_row(file, row, names, group=int(self._groups.group_of[group])))
        except (UnreadableError, OSError):  # reading the image says why
            return {}

    def fingerprint(self) -> str:
        """Return a hash of the ids, and of the type and shape of the images; rows are not looked at."""
        ids = self.ids if isinstance(self.ids, PackedIds) else ()
        column, kind = self._column, self._groups.schema.field(self._column.name).type
        return hash_ids(ids, f"parquet {len(self)} {column.name} {kind} {column.shape}")

    def spec(self) -> dict[str, Any]:
        """Return the absolute path or URL and the options."""
        spec: dict[str, Any] = {"kind": "parquet", **spec_of(self._path), **self._options}
        spec["column"] = self._column.name
        spec["shape"] = spec["shape"] and list(spec["shape"])
        return {key: value for key, value in spec.items() if value is not None}

    def _image(self, rows: pa.Table, row: int, index: int, min_side: int | None) -> NDArray[Any]:
        try:
            with plain_errors():
                return self._column.pixels(rows, row, min_side)
        except (UnreadableError, OSError) as exc:
            raise ImageReadError(self.ids[index], in_words(exc)) from exc

    def _load(self, group: int, first: int, size: int) -> tuple[pa.Table, int]:
        """Read the rows from `first` of a row group on, at most `size` of them."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

        parts, start = [], 0
        with self._groups.opened(int(self._groups.file_of[group])) as file:
            for batch in self._batches(file, group):
                if start + len(batch) > first:
                    parts.append(batch.slice(max(first - start, 0), first + size - max(start, first)))
                start += len(batch)
                if start >= first + size:
                    break
        if not parts:
            raise UnreadableError("the file ends before its row")
        rows = pa.Table.from_batches(parts)
        return rows, rows.nbytes

    def _batches(self, file: pq.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
        """Read a row group bit by bit."""
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            int(self._groups.block_rows[group]),
            row_groups=[int(self._groups.group_of[group])],
            columns=list(self._column.leaves),
            use_threads=False,  # the caller has threads of its own
        )
        return batches

    def _read_file(
        self, wanted: NDArray[np.int64], min_side: int | None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read images that are all in one file, in ascending order."""
        groups = self._groups.of(wanted)
        try:
            with plain_errors(), self._groups.opened(int(self._groups.file_of[groups[0]])) as file:
                for part in np.split(wanted, np.flatnonzero(np.diff(groups)) + 1):
                    yield from self._read_group(file, part, min_side)
                    wanted = wanted[len(part) :]
        except (UnreadableError, OSError) as exc:
            yield from self._errors(wanted, exc)

    def _read_group(
        self, file: pq.ParquetFile, wanted: NDArray[np.int64], min_side: int | None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        group, _ = self._groups.find(int(wanted[0]))
        start = int(self._groups.starts[group])
        batches = self._batches(file, group)
        while len(wanted):
            try:
                with plain_errors():
                    rows = _next(batches)
            except (UnreadableError, OSError) as exc:
                yield from self._errors(wanted, exc)
                return
            here = wanted[: np.searchsorted(wanted, start + len(rows))]
            wanted = wanted[len(here) :]
            for index in here.tolist():
                try:
                    yield index, self._image(rows, index - start, index, min_side)
                except ImageReadError as error:
                    yield index, error
            start += len(rows)

    def _errors(self, indices: NDArray[np.int64], exc: BaseException) -> Iterator[tuple[int, ImageReadError]]:
        for index in indices.tolist():
            yield index, ImageReadError(self.ids[index], in_words(exc))

    def _find_ids(self, ids_from: str | None) -> Sequence[str]:
        groups = self._groups
        if ids_from is not None:
            found = groups.texts(ids_from)
            if found is None:
                raise SourceError(
                    f"ids_from={ids_from!r} is no column of text or whole numbers in all files. "
                    f"The columns are {list_columns(groups.schema)}."
                )
            return PackedIds(found)
        names = [name for wanted in IDS for name in groups.schema.names if name.lower() == wanted]
        for name in (*names, f"{self._column.name}.path"):
            try:
                found = groups.texts(name)
                if found is not None:
                    return PackedIds(found)
            except SourceError:  # missing, or given more than once
                continue
        return NumberedIds(len(self))

    def _count_channels(self) -> int:
        """Return the channels as the model sees them, of the first image that can be read."""
        problem: ImageReadError | None = None
        if self._column.channels is not None:
            return self._column.channels
        for index in range(min(len(self), _TRIED)):
            try:
                image = self.read(index)
            except ImageReadError as exc:
                problem = problem or exc
                continue
            return model_channels(image) if self._column.is_encoded else image.shape[2]
        if self._column.is_encoded or problem is None:
            return 3
        raise SourceError(
            f"None of the first images of {self._path!r} can be read. {problem} "
            "Check column= and shape=, the shape of one image, (H, W, C)."
        ) from problem


def _next(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    for batch in batches:
        return pa.Table.from_batches([batch])
    raise UnreadableError("the file ends before its row")
