"""One row of a table, read where it lies: what a catalogue says of one object."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.images.table import import_astropy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow.parquet as pq

__all__ = ["file_row", "memory_row", "parquet_row"]

_MOST_BYTES = 2**26  # of a file that can only be read from its beginning: half a second
_MOST_PARSED = 2**23  # of a VOTable, whose parser is slow
_MOST_READ = 2**25  # of the columns of one row group, in bytes


def file_row(path: str, index: int, first: Sequence[str | None] = ()) -> dict[str, Any]:
    """Return a row of a table file; an empty dict if that would take long, or there is none.

    Parameters
    ----------
    path : path
        As of `open_table`.
    index : int, >= 0
    first : sequence of str
        Columns that are wanted in any case, where not all can be read quickly.

    Returns
    -------
    dict of str to value
        It may raise what the libraries raise on files that are damaged.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - import amatch_widgets must be quick

    lower, size = path.lower(), os.path.getsize(path)  # noqa: PTH202 - of any path
    if lower.endswith((".parquet", ".pq")):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            return parquet_row(file, index, first=first)
    if lower.endswith((".fits", ".fit")):
        return _fits_row(path, index)
    if size > (_MOST_BYTES if lower.endswith(".csv") else _MOST_PARSED):
        return {}
    if lower.endswith((".csv", ".csv.gz")):
        return _csv_row(path, index)
    if lower.endswith(".gz"):
        return _fits_row(path, index)
    table = import_astropy("astropy.io.votable", "VOTables").parse_single_table(path)
    return memory_row(table.to_table(use_names_over_ids=True), index)


def memory_row(table: Any, index: int) -> dict[str, Any]:
    """Return a row of a table in memory: a DataFrame, or a Table of astropy or pyarrow."""
    if hasattr(table, "colnames"):
        rows = [{name: table[index][name] for name in table.colnames}]
    elif hasattr(table, "iloc"):
        rows = table.iloc[index : index + 1].to_dict("records") if table.columns.is_unique else []
    else:
        rows = table.slice(index, 1).to_pylist()
    return {str(name): v for name, v in rows[0].items() if not _is_missing(v)} if rows else {}


def parquet_row(
    file: pq.ParquetFile,
    index: int,
    names: Iterable[str] | None = None,
    *,
    first: Sequence[str | None] = (),
    group: int | None = None,
) -> dict[str, Any]:
    """Return a row of an open Parquet file, without columns that are no scalars.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    index : int, >= 0
        Which row of the file, or of `group`.
    names : iterable of str, optional
        The columns that are wanted; default all.
    first : sequence of str
        Those that matter most.
    group : int, optional
        Number of a row group.

    Returns
    -------
    dict of str to value
        As many columns as can be read quickly: what lies before a row in its group is read along with it.
    """
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    schema, metadata = file.schema_arrow, file.metadata
    chosen = set(schema.names if names is None else names)
    if group is None:
        ends = np.cumsum([metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)])
        group = int(np.searchsorted(ends, index, "right"))
        index -= int(ends[group - 1]) if group else 0
    if group >= metadata.num_row_groups:
        return {}
    chunks = metadata.row_group(group)
    sizes = {
        chunk.path_in_schema: chunk.total_uncompressed_size
        for chunk in (chunks.column(k) for k in range(chunks.num_columns))
    }
    columns: list[str] = []
    total = 0
    for field in sorted(schema, key=lambda field: field.name not in first):
        is_scalar = not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))
        is_known = field.name in sizes and schema.names.count(field.name) == 1
        if field.name in chosen and is_scalar and is_known and total + sizes[field.name] <= _MOST_READ:
            columns.append(field.name)
            total += sizes[field.name]
    found = file.read_row_group(group, columns=columns, use_threads=False)
    return dict(found.slice(index, 1).to_pylist()[0]) if columns else {}


def _csv_row(path: str, index: int) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
    from pyarrow import csv  # noqa: PLC0415 - as above

    with csv.open_csv(path) as opened:
        names = opened.schema.names
    # As text: "0017" is to stay as it is.
    options = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names)
    start = 0
    with csv.open_csv(path, convert_options=options) as opened:
        for batch in opened:
            if index < start + len(batch):
                return dict(batch.slice(index - start, 1).to_pylist()[0])
            start += len(batch)
    return {}


def _fits_row(path: str, index: int) -> dict[str, Any]:
    fits = import_astropy("astropy.io.fits", "FITS tables")
    with fits.open(path, memmap=True) as hdus:
        data = next((hdu.data for hdu in hdus if hasattr(hdu, "columns")), None)
        if data is None or index >= len(data):
            return {}
        row = {name: data.field(name)[index] for name in data.columns.names}
        return {name: np.copy(v)[()] if isinstance(v, np.ndarray) else v for name, v in row.items()}


def _is_missing(value: Any) -> bool:
    """Whether a table has no value here: None, NaN, NaT, or masked."""
    if value is None or np.any(getattr(value, "mask", False)):
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - only what is missing differs from itself
    except (TypeError, ValueError):  # an array, or pandas.NA
        return not hasattr(value, "shape")
