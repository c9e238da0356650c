"""Which row of a set of Parquet files lies where."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.column import find_column, storage_type
from amatch_widgets.images.kept import KEPT_BYTES
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.unreadable import UnreadableError, in_words, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = ["RowGroups", "parquet_files"]

_BLOCK_BYTES = KEPT_BYTES // 4  # of rows in memory at a time: a row group may be larger than the memory
_BLOCK_ROWS = 256  # where a dictionary hides how large the rows are
_BUFFER = 2**20  # of a file that is read bit by bit, in bytes


class RowGroups:
    """The row groups of some Parquet files, in order, and the column of their images.

    Attributes
    ----------
    n : int
        Rows of all files together.
    column : ImageColumn
        The column of the images.
    schema : pyarrow Schema
        Of the first file.
    starts : ndarray of int64, shape (G + 1,)
        The first row of each group, and `n`.
    file_of, group_of : ndarray of int64, shape (G,)
        The file of each group, and its number there.
    block_rows : ndarray of int64, shape (G,)
        How many rows of each group may be in memory together, >= 1.

    Raises
    ------
    SourceError
        A file cannot be read, has no column of images, or another one than the first.
    """

    def __init__(self, files: Sequence[Place], column: str | None, shape: tuple[int, ...] | None) -> None:
        self._files = files
        self._n_rows = [-1] * len(files)
        found: list[tuple[int, int, int, int]] = []
        for i in range(len(files)):
            with self._first_look(i) as file:
                if i == 0:
                    self.schema: pa.Schema = file.schema_arrow
                    self.column = find_column(self.schema, column, shape)
                self._check_type(file.schema_arrow)
                found += [(i, *group) for group in _groups_of(file.metadata, self.column)]
                self._n_rows[i] = file.metadata.num_rows
        # Groups without a row would make the way from a row to its group ambiguous.
        table = np.array([group for group in found if group[2] > 0], np.int64).reshape(-1, 4)
        self.file_of, self.group_of, sizes, self.block_rows = table.T
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
        self.n = int(self.starts[-1])

    def find(self, row: int) -> tuple[int, int]:
        """Return the group of a row, and its place there."""
        group = int(np.searchsorted(self.starts, row, "right")) - 1
        return group, row - int(self.starts[group])

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the group of each row."""
        return np.searchsorted(self.starts, rows, "right") - 1

    @contextmanager
    def opened(self, i: int) -> Iterator[pq.ParquetFile]:
        """Open a file; UnreadableError if it is not the one that it was."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
        import pyarrow.parquet as pq  # noqa: PLC0415 - as above

        # Without buffers a whole column of a row group would be read before its first row is there.
        options = {"buffer_size": _BUFFER, "pre_buffer": False, "page_checksum_verification": True}
        place = self._files[i]
        opened = place.open() if isinstance(place, Remote) else pa.OSFile(os.fsencode(place))
        with opened as handle, pq.ParquetFile(handle, **options) as file:
            if self._n_rows[i] not in (-1, file.metadata.num_rows):
                raise UnreadableError("the file has changed since it was opened: open the source again")
            yield file

    def texts(self, name: str) -> pa.ChunkedArray | None:
        """Read a column of text or whole numbers of all files as text; None if it is no such."""
        import pyarrow as pa  # noqa: PLC0415 - as above
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        parts: list[pa.Array] = []
        for i in range(len(self._files)):
            with self._first_look(i) as file:
                if not _is_text(file.schema_arrow, name):
                    return None
                texts = file.read(columns=[name], use_threads=False).column(0)
                if pa.types.is_struct(texts.type):
                    texts = pc.struct_field(texts, name.rpartition(".")[2])
                texts.validate(full=True)  # of bytes that are no UTF-8
                parts += texts.cast(pa.large_string()).chunks
        return pa.chunked_array(parts, pa.large_string())

    @contextmanager
    def _first_look(self, i: int) -> Iterator[pq.ParquetFile]:
        path = self._files[i]
        try:
            with plain_errors(), self.opened(i) as file:
                yield file
        except SourceError as exc:
            raise SourceError(f"{path!r}: {exc}") from exc
        except (UnreadableError, OSError) as exc:
            raise SourceError(
                f"{path!r} cannot be opened as a Parquet file: {in_words(exc)}. It may be cut off or still "
                "being written: write it again, or take it out of the folder."
            ) from exc

    def _check_type(self, schema: pa.Schema) -> None:
        wanted, name = self.schema, self.column.name
        for leaf in (name, *self.column.sizes):
            found = schema.field(leaf).type if schema.names.count(leaf) == 1 else "missing"
            if found != wanted.field(leaf).type:
                raise SourceError(
                    f"the column {leaf!r} is {found}, in {self._files[0]!r} it is "
                    f"{wanted.field(leaf).type}. The files of one source need the same column."
                )


def parquet_files(place: Place) -> Sequence[Place]:
    """List the Parquet files under a folder, sorted by name, hidden ones left out; or the one file itself."""
    return _remote_files(place) if isinstance(place, Remote) else _local_files(place)


def _remote_files(place: Remote) -> list[Remote]:
    try:
        if not place.is_folder():
            return [place]
        names = [name for name, _ in place.files()]
    except OSError as exc:
        raise SourceError(f"{place!r} cannot be listed: {in_words(exc)}. Images would be missing.") from exc
    wanted = [name for name in names if name.lower().endswith(".parquet")]
    return [place / name for name in sorted(wanted) if not re.search(r"(^|/)[._]", name)]


def _local_files(path: str) -> list[str]:
    if not os.path.isdir(path):  # noqa: PTH112 - bytes that are no text are kept
        return [path]

    def fail(exc: OSError) -> None:
        raise SourceError(
            f"The folder {exc.filename!r} cannot be listed: {exc.strerror}. Images would be missing."
        ) from exc

    found: list[str] = []
    for folder, folders, files in os.walk(path, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [
            os.path.join(folder, name)  # noqa: PTH118 - as above
            for name in files
            if name.lower().endswith(".parquet") and not name.startswith((".", "_"))
        ]
    return sorted(found)


def _groups_of(metadata: Any, column: Any) -> Iterator[tuple[int, int, int]]:
    """Return number, rows and rows of a block of each row group of a file."""
    leaf = column.leaves[0]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        chunks = [c for c in chunks if c.path_in_schema == leaf or c.path_in_schema.startswith(f"{leaf}.")]
        n = group.num_rows
        if column.is_encoded:
            n_bytes = sum(c.total_uncompressed_size for c in chunks)
            most = _BLOCK_ROWS if any(c.has_dictionary_page for c in chunks) else n
        else:  # at most a double each; their dictionary says nothing of their size in memory
            n_bytes, most = sum(8 * c.num_values for c in chunks), n
        yield number, n, max(1, min(most, _BLOCK_BYTES * n // max(n_bytes, 1), n))


def _is_text(schema: pa.Schema, name: str) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    head, _, tail = name.rpartition(".")
    if schema.names.count(name) == 1:
        kind = schema.field(name).type
    elif schema.names.count(head) == 1 and pa.types.is_struct(schema.field(head).type):
        kind = next((field.type for field in schema.field(head).type if field.name == tail), None)
    else:
        return False
    if kind is None:
        return False
    kind = storage_type(kind)
    return pa.types.is_integer(kind) or str(kind) in ("string", "large_string", "string_view")
