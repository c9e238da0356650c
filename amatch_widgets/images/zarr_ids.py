"""Ids of the images of a Zarr store: an array in it, or a column of a Parquet file beside it."""

from __future__ import annotations

import importlib
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import SourceError
from amatch_widgets.images.stored_ids import BY_POSITION, blocks_of, holds_ids, names_to_try, to_arrow

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

__all__ = ["find_ids", "find_table"]


def find_ids(
    images: Any, path: str, ids_from: str | None
) -> tuple[str | None, Callable[[], pa.LargeStringArray] | None]:
    """Find the ids of the images of a store.

    Parameters
    ----------
    images : zarr.Array
        The images, along its first axis.
    path : str
        The store. A Parquet file beside it counts if it has a row for each image, in their order, and is
        named like the store (``images_metadata.parquet`` beside ``images.zarr``) or is beside no other store.
    ids_from : str, optional
        Name of the array or column; default the first of `ID_NAMES` that is there.

    Returns
    -------
    str or None
        Name of the array or column; None if the images are numbered.
    callable or None
        Reads the ids.

    Raises
    ------
    SourceError
        What was asked for is not there, or there are several.
    """
    if ids_from == BY_POSITION:
        return None, None
    n = images.shape[0]
    arrays: dict[str, Any] = importlib.import_module("amatch_widgets.images.zarr_array").arrays_beside(images)
    for name in names_to_try(ids_from):
        array = arrays.get(name)
        if array is not None and holds_ids(array.shape, array.dtype.kind, n):
            return name, partial(_read_array, array, f"{name!r} of {path!r}")
    tables = _tables(Path(path), n)
    for name in names_to_try(ids_from):
        having = [file for file, columns in tables.items() if name in columns]
        if len(having) > 1:
            raise SourceError(
                f"Beside {path!r} lie several Parquet files with {n} rows and a column {name!r}: "
                f"{', '.join(repr(file.name) for file in having)}. Keep only one of them there, or number "
                f"the images with ids_from={BY_POSITION!r}."
            )
        if having:
            return name, partial(_read_column, having[0], name)
    if ids_from is not None:
        columns = sorted({column for names in tables.values() for column in names})
        raise SourceError(
            f"ids_from={ids_from!r} is neither an array of {n} texts or whole numbers in {path!r}, where "
            f"there are {sorted(arrays)}, nor a column of a Parquet file of {n} rows beside it, where there "
            f"are {columns}. Number the images with ids_from={BY_POSITION!r}."
        )
    return None, None


def find_table(path: str, n: int) -> Path | None:
    """Find the one Parquet file with `n` rows that belongs to a store; see `find_ids`."""
    tables = list(_tables(Path(path), n))
    return tables[0] if len(tables) == 1 else None


def _read_array(array: Any, where: str) -> pa.LargeStringArray:
    try:
        return to_arrow(blocks_of(array, array.shape[0], (array.shards or array.chunks)[0]), where)
    except SourceError:
        raise
    except Exception as exc:  # codecs meet damaged chunks with anything
        raise SourceError(f"{where} cannot be read: {exc}. Choose other ids with ids_from=.") from exc


def _tables(store: Path, n: int) -> dict[Path, list[str]]:
    """Return the Parquet files that belong to a store and have `n` rows, with their columns."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - import amatch_widgets must be quick

    stem = re.sub(r"\.zip$|\.zarr(\.zip)?$", "", store.name, flags=re.IGNORECASE)
    try:
        files = sorted(store.parent.glob("*.parquet"))
        is_alone = sum(1 for _ in store.parent.glob("*.zarr*")) <= 1
    except OSError:
        return {}
    like_it = re.compile(re.escape(stem) + r"([^0-9A-Za-z].*)?", re.DOTALL)
    named = [file for file in files if like_it.fullmatch(file.stem)]
    tables = {}
    for file in named or files * is_alone:
        try:
            metadata = pq.read_metadata(file)
        except (OSError, ValueError):  # damaged, or no Parquet: another may be the one
            continue
        if metadata.num_rows == n:
            tables[file] = list(metadata.schema.to_arrow_schema().names)
    return tables


def _read_column(file: Path, column: str) -> pa.LargeStringArray:
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    try:
        # Not the file's folder as part of the data set: "batch=3/" would become a column.
        found = pq.read_table(file, columns=[column], partitioning=None).column(column)
        if found.null_count:
            raise pa.ArrowInvalid(f"{found.null_count} of its rows are empty")
        return pa.concat_arrays(found.cast(pa.large_string()).chunks)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(
            f"The column {column!r} of {str(file)!r} cannot be used as ids: {exc}. Choose others with "
            f"ids_from=, or number the images with ids_from={BY_POSITION!r}."
        ) from exc
