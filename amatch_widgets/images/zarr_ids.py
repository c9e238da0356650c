"""Ids of the images of a Zarr store: an array in it, or a column of a Parquet file beside it."""

from __future__ import annotations

import importlib
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import SourceError
from amatch_widgets.images.place import join, name_of, names_in, open_place, parent_of
from amatch_widgets.images.stored_ids import BY_POSITION, blocks_of, holds_ids, names_to_try, to_arrow

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from amatch_widgets.images.place import Place

__all__ = ["find_ids", "find_table"]


def find_ids(
    images: Any, path: Place, ids_from: str | None
) -> tuple[str | None, Callable[[], pa.LargeStringArray] | None]:
    """Find the ids of the images of a store.

    Parameters
    ----------
    images : zarr.Array
        The images, along its first axis.
    path : str or Remote
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
    tables = _tables(path, n)
    for name in names_to_try(ids_from):
        having = [file for file, columns in tables.items() if name in columns]
        if len(having) > 1:
            raise SourceError(
                f"Beside {path!r} lie several Parquet files with {n} rows and a column {name!r}: "
                f"{', '.join(repr(name_of(file)) for file in having)}. Keep only one of them, or number "
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


def find_table(path: Place, n: int) -> Place | None:
    """Find the one Parquet file with `n` rows that belongs to a store; see `find_ids`."""
    tables = list(_tables(path, n))
    return tables[0] if len(tables) == 1 else None


def _read_array(array: Any, where: str) -> pa.LargeStringArray:
    try:
        return to_arrow(blocks_of(array, array.shape[0], (array.shards or array.chunks)[0]), where)
    except SourceError:
        raise
    except Exception as exc:  # codecs meet damaged chunks with anything
        raise SourceError(f"{where} cannot be read: {exc}. Choose other ids with ids_from=.") from exc


def _tables(store: Place, n: int) -> dict[Place, list[str]]:
    """Return the Parquet files that belong to a store and have `n` rows, with their columns."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - import amatch_widgets must be quick

    stem = re.sub(r"\.zip$|\.zarr(\.zip)?$", "", name_of(store), flags=re.IGNORECASE)
    folder = parent_of(store)
    try:
        names = names_in(folder)
    except OSError:
        return {}
    files = [name for name in names if name.endswith(".parquet")]
    is_alone = sum(".zarr" in name for name in names) <= 1
    like_it = re.compile(re.escape(stem) + r"([^0-9A-Za-z].*)?", re.DOTALL)
    named = [name for name in files if like_it.fullmatch(name.removesuffix(".parquet"))]
    tables = {}
    for file in (join(folder, name) for name in named or files * is_alone):
        try:
            with open_place(file) as opened:
                metadata = pq.read_metadata(opened)
        except (OSError, ValueError):  # damaged, or no Parquet: another may be the one
            continue
        if metadata.num_rows == n:
            tables[file] = list(metadata.schema.to_arrow_schema().names)
    return tables


def _read_column(file: Place, column: str) -> pa.LargeStringArray:
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    try:
        # Not by its path: the folder "batch=3/" would become a column.
        with open_place(file) as opened:
            found = pq.read_table(opened, columns=[column], partitioning=None).column(column)
        if found.null_count:
            raise pa.ArrowInvalid(f"{found.null_count} of its rows are empty")
        return pa.concat_arrays(found.cast(pa.large_string()).chunks)
    except (pa.ArrowException, OSError) as exc:
        raise SourceError(
            f"The column {column!r} of {file!r} cannot be used as ids: {exc}. Choose others with "
            f"ids_from=, or number the images with ids_from={BY_POSITION!r}."
        ) from exc
