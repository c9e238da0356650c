"""Images in Zarr stores: one, or a folder of them."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images.description import row_facts
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids
from amatch_widgets.images.place import (
    as_place,
    exists,
    join,
    name_of,
    names_in,
    open_place,
    parent_of,
    spec_of,
)
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.row import parquet_row
from amatch_widgets.images.stack import Stack, bands_of, check_axes, pixel_stack, read_rows
from amatch_widgets.images.stored_ids import join_ids, pack_ids
from amatch_widgets.images.unreadable import UnreadableError, plain_errors
from amatch_widgets.images.zarr_ids import find_ids, find_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = ["ZarrSource", "find_stores"]

_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")
_BATCH = "images.zarr"  # in a folder for each batch, as images_to_zarr and Cutana write
_LOOKED_AT = 100  # subfolders without a store of such a name, after which no more are looked at
_KEPT_OPEN = 64  # stores; a zip file takes a file handle


@dataclass(frozen=True, slots=True)
class _Store:
    """One store: where it is, its short name, how its images lie, and what reads its ids."""

    path: Place
    name: str
    stack: Stack
    looks: str
    bands: tuple[str, ...] | None
    ids_where: str | None
    ids: Callable[[], pa.LargeStringArray] | None


class ZarrSource:
    """Images in Zarr stores of format 2 or 3: a store, a store in a zip file, or a folder of stores.

    A folder of stores is one with ``*.zarr`` (or ``*.zarr.zip``) in it, or with folders that each hold an
    ``images.zarr``. A chunk that is missing is what the store says of missing chunks (its fill value).

    Parameters
    ----------
    path : path or URL
        The store, or the folder of stores.
    dataset : str, optional
        Name of the array in each store; default the one that fits, or that named ``images``.
    axes : {"NHW", "NHWC", "NCHW"}, optional
        Default what the shape says: the axis of channels is the last or the second, at most 16 long and
        shorter than the two others.
    ids_from : str, optional
        The array of ids in the same group, or the column of a Parquet file beside the store with a row for
        each image, of text or whole numbers; default the first of ``filenames``, ``ids``, ``id``, ``names``,
        ``object_id``, ``original_filename``, ``filename``, ``source_id`` that is there, else, or for
        ``"position"``, the images are numbered.
    name : str, optional
        Short name for people; default the name of the store or folder.

    Attributes
    ----------
    ids : sequence of str
        In a folder of several stores each id comes after the name of its store: ``"store/0001"``.
    skipped : dict of str to str
        Stores of a folder that cannot be opened, with the reason.
    chunk : int
        How many images lie together and are best read by one `read_many`: the most of all stores.
    bands : tuple of str, or None
        Names of the channels, from the attribute ``bands``, ``filters`` or ``channels`` of the array.

    Raises
    ------
    SourceError
        There is no store, none can be opened, or which images are meant cannot be told.
    MissingExtraError
        zarr is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Remote,
        *,
        dataset: str | None = None,
        axes: str | None = None,
        ids_from: str | None = None,
        name: str | None = None,
    ) -> None:
        self._path = as_place(path)
        self.name = name or _short(self._path) or str(self._path)
        self._options: dict[str, Any] = {
            "dataset": dataset,
            "axes": check_axes(axes),
            "ids_from": ids_from,
        }
        self._open = lru_cache(_KEPT_OPEN)(self._open_store)
        self.skipped: dict[str, str] = {}
        self._stores = self._look_at(find_stores(self._path) or [self._path])
        first = self._stores[0]
        self.channels, self.bands = first.stack.channels, first.bands
        self.chunk = max(store.stack.shard for store in self._stores)
        self._starts = np.cumsum([0] + [store.stack.n for store in self._stores])
        self.ids: Sequence[str] = self._all_ids()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        where = self._stores[0].ids_where
        stores = f"{len(self._stores)} stores, " if len(self._stores) > 1 else ""
        skipped = f"{len(self.skipped)} skipped, " if self.skipped else ""
        ids = f"ids from {where!r}" if where else "numbered"
        return f"ZarrSource({self._path!r}, {stores}{skipped}{len(self)} images, {ids})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(ZarrSource, **self._options, name=self.name), (self._path,)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image; see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        row = index - int(self._starts[number])
        try:
            return self._stores[number].stack.image(self._rows(number, row, row + 1)[0])
        except UnreadableError as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc.__cause__

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read images, each chunk once, store after store; see `source.read_many`."""
        ordered = np.sort(np.asarray(indices, np.int64))
        if len(ordered):
            check_index(int(ordered[0]), len(self))
            check_index(int(ordered[-1]), len(self))
        ends = np.searchsorted(ordered, self._starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():
            first = int(self._starts[number])
            wanted = ordered[ends[number] : ends[number + 1]] - first
            rows = self._reader(number)
            for row, image in read_rows(self._stores[number].stack, rows, wanted, min_side=min_side):
                i = first + row
                yield (
                    i,
                    ImageReadError(self.ids[i], str(image)) if isinstance(image, UnreadableError) else image,
                )

    def describe(self, index: int) -> dict[str, str]:
        """Return the row of the Parquet file beside the store, if there is one with a row for each image.

        Nothing of stores on a server, which it would take too long to ask.
        """
        if isinstance(self._path, Remote):
            return {}
        index = check_index(index, len(self))
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        store = self._stores[number]
        try:
            with plain_errors():
                row = self._row_beside(store, index - int(self._starts[number]))
        except (UnreadableError, OSError):
            return {}
        named = str(row.pop(store.ids_where, "")) if store.ids_where else ""
        is_his = not named or self.ids[index] in (named, f"{store.name}/{named}")
        return row_facts(row) if is_his else {}

    def fingerprint(self) -> str:
        """Return a hash of names, shapes, dtypes and ids; pixels are not looked at."""
        ids = () if isinstance(self.ids, NumberedIds) else self.ids
        return hash_ids(ids, "zarr", *(store.looks for store in self._stores))

    def spec(self) -> dict[str, Any]:
        """Return the absolute path or URL and the options that were given."""
        given = {key: value for key, value in self._options.items() if value is not None}
        return {"kind": "zarr", **spec_of(self._path), **given}

    def _open_store(self, path: Place, _process: int) -> Any:
        """Open the images of a store; kept for each process, as a zip file is not to be shared by two."""
        return _zarr_array().open_array(path, self._options["dataset"])

    def _row_beside(self, store: _Store, row: int) -> dict[str, Any]:
        import pyarrow.parquet as pq  # noqa: PLC0415 - import amatch_widgets must be quick

        table = find_table(store.path, store.stack.n)
        if table is None:
            return {}
        with open_place(table) as opened, pq.ParquetFile(opened, pre_buffer=False) as file:
            return parquet_row(file, row, first=(store.ids_where,))

    def _reader(self, number: int) -> Callable[[int, int], Any]:
        return lambda start, stop: self._rows(number, start, stop)

    def _rows(self, number: int, start: int, stop: int) -> Any:
        try:
            opened = self._open(self._stores[number].path, os.getpid())
        except SourceError as exc:
            raise UnreadableError(f"its store cannot be opened again: {exc}") from exc
        return opened.rows(start, stop)

    def _look_at(self, paths: Sequence[Place]) -> list[_Store]:
        """Open each store; set aside those that cannot be."""
        names = _names(paths)
        stores: list[_Store] = []
        for path, name in zip(paths, names, strict=True):
            try:
                stores.append(self._look_at_one(path, name))
            except SourceError as exc:
                if len(paths) == 1:
                    raise
                self.skipped[name] = str(exc)
        if not stores:
            reason = next(iter(self.skipped.values()))
            raise SourceError(f"None of the {len(paths)} stores in {self._path!r} can be opened. {reason}")
        first = stores[0]
        for store in stores:
            if store.stack.channels != first.stack.channels:
                raise SourceError(
                    f"The stores in {self._path!r} differ: {first.name!r} has {first.stack.channels} "
                    f"channels, {store.name!r} {store.stack.channels}. Open them one by one."
                )
        return stores

    def _look_at_one(self, path: Place, name: str) -> _Store:
        array = self._open(path, os.getpid()).array
        what = f"{array.path or 'The array'!r} of {path!r}"
        stack = pixel_stack(
            array.shape,
            array.dtype,
            what=what,
            axes=self._options["axes"],
            chunks=array.chunks,
            shards=array.shards,
        )
        where, ids = find_ids(array, path, self._options["ids_from"])
        bands = bands_of(array.attrs.asdict(), stack.channels)
        return _Store(path, name, stack, f"{name} {array.shape} {array.dtype.str}", bands, where, ids)

    def _all_ids(self) -> Sequence[str]:
        if len(self._stores) == 1:
            (store,) = self._stores
            return (
                NumberedIds(len(self)) if store.ids is None else pack_ids(store.ids(), str(store.ids_where))
            )
        where = f"What lies in {self._path!r}"
        return pack_ids(join_ids(((s.name, s.stack.n, s.ids) for s in self._stores), where), where)


def find_stores(place: Place) -> list[Place]:
    """Return the Zarr stores that a path or URL means, sorted; none if it means something else.

    Parameters
    ----------
    place : str or Remote
        A store; a folder of ``*.zarr`` or ``*.zarr.zip``; a folder of folders with an ``images.zarr``.
    """
    if name_of(place).lower().endswith((".zarr", ".zip")) or _is_store(place):
        return [place]
    try:
        # On a server each question takes its time, and there may be a million files.
        listing = place.listing() if isinstance(place, Remote) else [(name, True) for name in names_in(place)]
    except OSError:
        return []
    names = [name for name, _ in listing if not name.startswith(".")]
    folders = [name for name, is_one in listing if is_one and not name.startswith(".")]
    stores = [join(place, name) for name in names if name.lower().endswith((".zarr", ".zarr.zip"))]
    if stores:
        return stores
    batches = (join(place, name, _BATCH) for name in folders)
    found = [store for store in islice(batches, _LOOKED_AT) if exists(store)]
    return [*found, *filter(exists, batches)] if found else []


def _is_store(place: Place) -> bool:
    return any(exists(join(place, name)) for name in _DOCUMENTS)


def _zarr_array() -> Any:
    try:
        importlib.import_module("zarr")
    except ImportError as error:
        raise MissingExtraError(
            "Zarr stores need zarr. Type: pip install 'amatch-widgets[zarr]', then restart the kernel. "
            f"({error})"
        ) from error
    return importlib.import_module("amatch_widgets.images.zarr_array")


def _short(path: Place) -> str:
    """Return the name of a store for people: of its batch, or of itself without its ending."""
    base = name_of(path)
    if base == _BATCH:
        base = name_of(parent_of(path)) or base
    for ending in (".zip", ".zarr"):
        base = base[: -len(ending)] if base.lower().endswith(ending) else base
    return os.fsencode(base).decode("utf-8", "backslashreplace")


def _names(paths: Sequence[Place]) -> list[str]:
    """Name stores so that no two have the same name."""
    names = [_short(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    return [os.fsencode(name_of(path)).decode("utf-8", "backslashreplace") for path in paths]
