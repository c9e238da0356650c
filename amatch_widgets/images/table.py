"""Columns of a table of objects: CSV, Parquet, FITS and VOTable files, and tables in memory."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import MissingExtraError, SourceError
from amatch_widgets.images.stored_ids import to_arrow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pyarrow as pa
__all__ = ["TABLES", "Table", "import_astropy", "open_table"]

ALLOWED = (
    "a .csv, .parquet, .fits or .vot (VOTable) file, a pandas DataFrame, or a Table of astropy or pyarrow"
)
TABLES = frozenset({".csv", ".parquet", ".pq", ".fits", ".fit", ".vot", ".votable"})  # also of other things
_BLOCK = 2**18  # rows at a time: what is made of them takes some tens of MB


@dataclass(frozen=True, slots=True)
class Table:
    """A table of which nothing but the names of its columns has been read.

    Attributes
    ----------
    what : str
        What it is, for errors, e.g. ``"'objects.csv'"``.
    names : tuple of str
        Of its columns, in its order.
    load : callable
        Takes a dict of column to Arrow type, and gives blocks of rows: dicts of column to array.
    units : dict of str to str
        Of the columns that say it.
    """

    what: str
    names: tuple[str, ...]
    load: Callable[[dict[str, pa.DataType]], Iterable[Mapping[str, Any]]]
    units: Mapping[str, str] = field(default_factory=dict)

    def read(self, wanted: Mapping[str, pa.DataType]) -> dict[str, pa.ChunkedArray]:
        """Read some columns.

        Parameters
        ----------
        wanted : dict of str to pyarrow.DataType
            Which, and what is to be made of them: large_string, float64, or a dictionary.

        Returns
        -------
        dict of str to pyarrow.ChunkedArray

        Raises
        ------
        SourceError
            A column cannot be read, or is of another type.
        """
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

        chunks: dict[str, list[pa.Array]] = {name: [] for name in wanted}
        try:
            for block in self.load(dict(wanted)):
                for name, kind in wanted.items():
                    chunks[name] += self._converted(name, block[name], kind).chunks
        except SourceError:
            raise
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as exc:
            raise SourceError(
                f"The columns {', '.join(map(repr, wanted))} of {self.what} cannot be read: {exc}"
            ) from exc
        return {name: pa.chunked_array(chunks.pop(name), kind) for name, kind in wanted.items()}

    def _converted(self, name: str, column: Any, kind: pa.DataType) -> pa.ChunkedArray:
        import pyarrow as pa  # noqa: PLC0415 - as above

        is_number = kind == pa.float64()
        wanted = "numbers" if is_number else "text or whole numbers"
        wrong = f"The column {name!r} of {self.what} does not hold {wanted}"
        try:
            array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
            chunked = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
            if chunked.type == kind:
                return chunked
            if is_number:
                return chunked.cast(kind, safe=False)  # or a number of 17 digits would not become a float
            if _is_text(chunked.type):
                texts = chunked.cast(pa.large_string())
                return texts.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else texts
        except (pa.ArrowException, TypeError, ValueError) as exc:
            raise SourceError(f"{wrong}: {exc}. Name another column.") from exc
        raise SourceError(f"{wrong}: it is of type {chunked.type}. Convert it, or name another column.")


def open_table(what: object) -> Table:
    """Look at a table; its rows are not read.

    Parameters
    ----------
    what : path, pandas.DataFrame, astropy.table.Table or pyarrow.Table

    Returns
    -------
    Table

    Raises
    ------
    SourceError
        It is none, or cannot be opened.
    MissingExtraError
        astropy is needed and not installed.
    """
    if isinstance(what, (str, os.PathLike)):
        return _open_file(os.fspath(what))
    import pandas as pd  # noqa: PLC0415 - import amatch_widgets must be quick
    import pyarrow as pa  # noqa: PLC0415 - as above

    if isinstance(what, pd.DataFrame):
        named = {str(name): name for name in what.columns}
        return Table(
            "the DataFrame", tuple(named), lambda wanted: [{n: pa.array(what[named[n]]) for n in wanted}]
        )
    if isinstance(what, pa.Table):
        return Table("the table", tuple(what.column_names), lambda wanted: [{n: what[n] for n in wanted}])
    if type(what).__module__.startswith("astropy.table") and hasattr(what, "colnames"):
        return _of_astropy(what, "the table")
    raise SourceError(f"Cannot take objects from something of type {type(what).__name__!r}. Pass {ALLOWED}.")


def import_astropy(module: str, what: str) -> Any:
    """Import a module of astropy, which is an extra; `what` needs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{what} need astropy. Type: pip install 'amatch-widgets[fits]', then restart the kernel. "
            f"({error})"
        ) from error


def _is_text(kind: pa.DataType) -> bool:
    """Say whether an Arrow type is text or whole numbers, perhaps in a dictionary."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _open_file(path: str) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - as above

    lower = path.lower()
    reader = next((of for endings, of in _READERS.items() if lower.endswith(endings)), None)
    if not os.path.isfile(path):  # noqa: PTH113 - of any path
        raise SourceError(f"There is no file {path!r}. Pass {ALLOWED}.")
    if reader is None:
        raise SourceError(f"{path!r} is no table, by its ending. Pass {ALLOWED}.")
    try:
        return reader(path)
    except (MissingExtraError, SourceError):
        raise
    # Each library meets damaged files with exceptions of all kinds.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError) as exc:
        raise SourceError(
            f"The table {path!r} cannot be opened: {exc}. It may be damaged, or of another format than its "
            "ending says."
        ) from exc


def _of_csv(path: str) -> Table:
    from pyarrow import csv  # noqa: PLC0415 - as above

    def load(wanted: dict[str, pa.DataType]) -> Iterator[Mapping[str, Any]]:
        # The types are given: "0017" is to stay as it is.
        options = csv.ConvertOptions(include_columns=list(wanted), column_types=wanted)
        table = csv.read_csv(path, convert_options=options)
        yield {name: table[name] for name in wanted}

    with csv.open_csv(path) as opened:
        names = tuple(opened.schema.names)
    return Table(repr(path), names, load)


def _of_parquet(path: str) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    def load(wanted: dict[str, pa.DataType]) -> Iterator[Mapping[str, Any]]:
        coded = [name for name, kind in wanted.items() if pa.types.is_dictionary(kind)]
        with pq.ParquetFile(path, read_dictionary=coded, pre_buffer=False) as file:
            for batch in file.iter_batches(_BLOCK, columns=list(wanted)):
                yield {name: batch[name] for name in wanted}

    return Table(repr(path), tuple(pq.read_schema(path).names), load)


def _of_fits(path: str) -> Table:
    fits = import_astropy("astropy.io.fits", "FITS tables")

    def load(wanted: dict[str, pa.DataType]) -> Iterator[Mapping[str, Any]]:
        # Text as bytes: as Unicode it would take four times as much.
        with fits.open(path, character_as_bytes=True) as hdus:
            data = hdus[number].data
            yield from _blocks({name: data.field(name) for name in wanted})

    with fits.open(path) as hdus:
        number = next((i for i, hdu in enumerate(hdus) if hasattr(hdu, "columns")), None)
        if number is None:
            raise SourceError(
                f"{path!r} holds no table, at most images. Pass the table of the objects; the images that "
                "they lie on belong to tiles=."
            )
        columns = hdus[number].columns
        names = tuple(columns.names)
        units = {name: str(unit) for name, unit in zip(names, columns.units, strict=True) if unit}
    return Table(repr(path), names, load, units)


def _of_votable(path: str) -> Table:
    votable = import_astropy("astropy.io.votable", "VOTables")
    try:
        table = votable.parse_single_table(path).to_table(use_names_over_ids=True)
    except Exception as exc:  # its parser raises exceptions of its own, for each trifle another
        raise ValueError(str(exc)) from exc
    return _of_astropy(table, repr(path))


def _of_astropy(table: Any, what: str) -> Table:
    units = {name: str(table[name].unit) for name in table.colnames if getattr(table[name], "unit", None)}

    def load(wanted: dict[str, pa.DataType]) -> Iterator[Mapping[str, Any]]:
        yield from _blocks({name: table[name] for name in wanted})

    return Table(what, tuple(map(str, table.colnames)), load, units)


def _blocks(columns: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Make Arrow arrays of columns of NumPy, which may be masked, a part at a time."""
    n = max(map(len, columns.values()))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield {name: _as_arrow(name, column[rows]) for name, column in columns.items()}


def _as_arrow(name: str, column: Any) -> pa.Array:
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    values = np.asarray(column)
    masked = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    if values.ndim != 1:
        raise TypeError(f"{name!r} holds an array of shape {values.shape[1:]} for each row")
    if values.dtype.kind in "biuf":
        native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        return pa.array(native, mask=masked)
    texts = pc.utf8_rtrim(to_arrow([values], repr(name)), " ")  # FITS fills text up with blanks
    return texts if masked is None else pc.if_else(pa.array(~masked), texts, pa.scalar(None, texts.type))


_READERS: dict[tuple[str, ...], Callable[[str], Table]] = {
    (".csv", ".csv.gz"): _of_csv,
    (".parquet", ".pq"): _of_parquet,
    (".fits", ".fit", ".fits.gz"): _of_fits,
    (".vot", ".votable", ".xml"): _of_votable,
}
