"""Cutouts around the objects of a catalogue, made from the tiles of a survey when they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ConfigError, ImageReadError, SourceError
from amatch_widgets.images.cutout import corners, cut, grids_on
from amatch_widgets.images.description import row_facts
from amatch_widgets.images.host import is_url
from amatch_widgets.images.ids import check_index, hash_ids
from amatch_widgets.images.local_copy import local_copy
from amatch_widgets.images.objects import read_objects
from amatch_widgets.images.place import name_of, parent_of
from amatch_widgets.images.remote import Remote, remote_from_spec, why_unreachable
from amatch_widgets.images.row import file_row, memory_row
from amatch_widgets.images.table import import_astropy, open_table
from amatch_widgets.images.tiles import Tiles
from amatch_widgets.images.unreadable import UnreadableError, plain_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place
    from amatch_widgets.images.tile import Tile
    from amatch_widgets.images.wcs import Projection

__all__ = ["CatalogueSource", "catalogue_from_spec"]

_MOST_SIZE = 4096
_TOGETHER = 4096  # objects whose tiles are opened once where the table is in no order of tiles
_LONG_RUN = 256  # objects of one tile in a row: then any piece of the table lies on few tiles
_SHARES = 16  # of all objects: no more lie together, so that there is work for several threads
_BLOCK = 4096  # objects of one tile whose places are found at once


class CatalogueSource:
    """Cutouts around the objects of a table, made of the FITS tiles they lie on when read.

    Nothing is written, and of a tile no more is read than a cutout takes. `open_source` does not make it:
    half of its options have no meaning for other images, and a table alone is no set of images.

    Parameters
    ----------
    table : path, URL, pandas.DataFrame, astropy.table.Table or pyarrow.Table
        A row for each object: ``.csv``, ``.parquet``, ``.fits`` or ``.vot`` (VOTable). Behind a URL it is
        fetched once, to the cache folder.
    tiles : path or URL, optional
        The folder of the tiles; default the one of the table.
    bands : mapping of str to str, optional
        Name of each band to the name of its files below the folder, with ``{tile}`` in the place of the name
        of the tile, ``*`` for what else differs, and in brackets the HDU where it is not the first image:
        ``{"VIS": "VIS_{tile}-*.fits", "Y": "NISP_Y_{tile}.fits[SCI]"}``. Default one band; the names of the
        tiles are then those of its files.
    size : int, in [1, 4096]
        Side of the cutouts, in pixels of the first band.
    radec_from : (str, str), optional
        Columns of right ascension and declination, ICRS, degrees; default ``ra`` and ``dec``,
        ``right_ascension`` and ``declination``, ``ALPHA_J2000`` and ``DELTA_J2000``, and the like, in upper
        and lower case.
    xy_from : (str, str), optional
        Instead, columns of the position on the tile of the first band, in pixels counted from 0: (0, 0) is
        the centre of the first pixel. (FITS and SExtractor count from 1: subtract 1.) Default, if there is
        no position on the sky, ``x`` and ``y``.
    tile_from : str, optional
        The column with the name of the tile; default ``tile``, ``tile_name``, ``tile_id``, and the like. If
        there is none, or for ``"footprint"``, the tile is found by the headers of all tiles of the first
        band: of several the one in which the object is furthest from the edge.
    ids_from : str, optional
        The column of ids, of text or whole numbers; default ``object_id``, ``id``, ``source_id``, ``name``,
        and the like. If there is none, or for ``"position"``, the objects are numbered.
    max_missing : float, in [0, 1]
        Share of the pixels that may be missing in each band: cutouts at an edge are filled up with NaN. With
        more missing, the image cannot be read.
    name : str, optional
        Short name for people; default the name of the table.
    storage_options, cache_gb : optional
        Where the table or `tiles` is a URL; see `open_source`.

    Attributes
    ----------
    channels : int
        As many as there are bands.
    bands : tuple of str, or None
        Their names in the order given; None if none was given.
    ids : sequence of str
        In the order of the table.
    chunk : int
        How many objects are best read by one `read_many`.
    skipped : dict of str to str
        Tiles whose footprint cannot be told, with the reason. They are looked at if the table does not say on
        which tile an object lies.

    Raises
    ------
    SourceError
        The table or the tiles cannot be opened, a column is missing, or no object lies on any tile.
    ConfigError
        An option is out of its range.
    MissingExtraError
        astropy is not installed.
    """

    def __init__(
        self,
        table: object,
        *,
        tiles: str | os.PathLike[str] | Remote | None = None,
        bands: Mapping[str, str] | None = None,
        size: int = 64,
        radec_from: Sequence[str] | None = None,
        xy_from: Sequence[str] | None = None,
        tile_from: str | None = None,
        ids_from: str | None = None,
        max_missing: float = 0.5,
        name: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        cache_gb: float | None = None,
    ) -> None:
        import_astropy("astropy", "Cutouts from FITS tiles")
        self._size, self._max_missing = _check_size(size), _check_share(max_missing)
        has_options = storage_options is not None or cache_gb is not None
        if has_options and not is_url(tiles) and not is_url(table):
            raise SourceError(
                "storage_options= and cache_gb= are for a table or tiles= behind a URL. Leave them out."
            )
        if is_url(table):
            table = Remote(str(table), storage_options=storage_options, cache_gb=cache_gb)
        if is_url(tiles):
            tiles = Remote(str(tiles), storage_options=storage_options, cache_gb=cache_gb)
        self._place = _place(table)
        self._path = _on_disk(self._place)
        self._tiles = Tiles(_folder(tiles, self._place), _check_bands(bands))
        self._columns: dict[str, Any] = {
            "radec_from": _check_pair("radec_from", radec_from),
            "xy_from": _check_pair("xy_from", xy_from),
            "tile_from": tile_from,
            "ids_from": ids_from,
        }
        self.name = name or _stem(self._place) or "catalogue"
        self.bands = None if bands is None else tuple(bands)
        self.channels = len(self.bands or ("",))
        self._table = table if self._path is None else None  # only to describe its objects
        self._objects = read_objects(open_table(self._path or table), self._tiles, **self._columns)
        self.ids: Sequence[str] = self._objects.ids
        self.skipped = self._objects.skipped
        self.chunk = _chunk(self._objects.codes)

    def __len__(self) -> int:
        return len(self._objects.codes)

    def __repr__(self) -> str:
        table = repr(self._place) if self._place else "a table in memory"
        bands = f"bands {self.bands}" if self.bands else "one band"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"CatalogueSource({table}, {len(self)} objects, {len(self._objects.tiles)} tiles"
            f"{skipped}, {bands}, {self._size} px)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the path of the table; one in memory goes along, without its other columns."""
        if self._path is None:
            return _rebuilt, ({**self.__dict__, "_table": None},)
        return partial(CatalogueSource, self._place, **self._options(), name=self.name), ()

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[np.float32]:
        """Make one cutout; see `ImageSource.read`. The hint `min_side` is not used.

        Returns
        -------
        ndarray of float32, shape (size, size, bands)
            The pixels of the first band are those of its tile. The other bands are brought to its pixels by
            the WCS of both: the same part of the sky, turned as the first band is, interpolated linearly,
            or averaged where their pixels are smaller. Values stay in the unit of the file for each pixel;
            they are not scaled with the area of the pixels. NaN where there are no data.
        """
        del min_side
        index = check_index(index, len(self))
        ((_, found),) = self._on_one_tile(np.array([index]))
        if isinstance(found, ImageReadError):
            raise found
        return found

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32] | ImageReadError]]:
        """Make cutouts, tile after tile, each of them opened once; see `source.read_many`."""
        del min_side
        wanted = np.asarray(indices, np.int64)
        if not len(wanted):
            return
        check_index(int(wanted.min()), len(self))
        check_index(int(wanted.max()), len(self))
        codes = self._objects.codes[wanted]
        order = np.argsort(codes, kind="stable")
        ends = np.flatnonzero(np.diff(codes[order])) + 1
        for those in np.split(wanted[order], ends):
            for start in range(0, len(those), _BLOCK):
                yield from self._on_one_tile(those[start : start + _BLOCK])

    def position(self, index: int) -> tuple[float, float] | None:
        """Return the right ascension and declination of an object, ICRS, degrees; None if it has none."""
        index = check_index(index, len(self))
        objects = self._objects
        place = objects.first[[index]], objects.second[[index]]
        if not objects.is_sky:
            try:
                (tile,) = self._tiles.open(objects.tile_of(index), n_bands=1)
            except UnreadableError:
                return None
            if tile.sky is None:
                return None
            place = tile.sky.to_sky(*place)
        ra, dec = float(place[0][0]), float(place[1][0])
        return (ra, dec) if np.isfinite(ra) and abs(dec) <= 90 else None  # noqa: PLR2004 - the pole

    def describe(self, index: int) -> dict[str, str]:
        """Return the other columns of an object's row; nothing where the table has changed since.

        Of a table of more than 64 MB that can only be read from its beginning (CSV) nothing is told.
        """
        index = check_index(index, len(self))
        try:
            with plain_errors():
                if self._path is not None:
                    row = file_row(self._path, index, self._objects.columns)
                else:
                    row = {} if self._table is None else memory_row(self._table, index)
        except (UnreadableError, OSError):
            return {}
        known = tuple(name for name in self._objects.columns if name is not None)
        return row_facts(row, known) if self._is_of(row, index) else {}

    def fingerprint(self) -> str:
        """Return a hash of ids, positions, bands and size; the tiles are not looked at."""
        objects, digest = self._objects, hashlib.blake2b(digest_size=8)
        for values in (objects.first, objects.second):
            digest.update(np.ascontiguousarray(values, "<f8").data)
        looks = f"{self.bands} {self._size} {objects.is_sky} {digest.hexdigest()}"
        return hash_ids(self.ids, "catalogue", looks)

    def spec(self) -> dict[str, Any]:
        """Return the absolute paths or URLs and the options; a table in memory cannot be opened again."""
        if self._path is None:
            return {"kind": "catalogue"}
        options = {key: value for key, value in self._options().items() if value is not None}
        if isinstance(self._tiles.folder, Remote):
            options["tiles"] = self._tiles.folder.spec()
        if self.bands is not None:
            options["bands"] = [list(pair) for pair in (self._tiles.patterns or {}).items()]  # in their order
        path = self._place.spec() if isinstance(self._place, Remote) else self._path
        return {"kind": "catalogue", "path": path, **options}

    def _is_of(self, row: Mapping[str, Any], index: int) -> bool:
        """Whether a row, read now, is that of an object as it was when the table was opened."""
        objects = self._objects
        *places, by_id = objects.columns
        for name, values in zip(places, (objects.first, objects.second), strict=True):
            value = row.get(name)
            try:
                number = np.nan if value is None or value == "" else float(value)
            except (TypeError, ValueError):
                return False
            if not np.isclose(number, values[index], rtol=1e-12, atol=0, equal_nan=True):
                return False
        return by_id is None or str(row.get(by_id)).rstrip(" ") == self.ids[index].rstrip(" ")

    def _options(self) -> dict[str, Any]:
        return {
            "tiles": self._tiles.folder,
            "bands": self._tiles.patterns,
            "size": self._size,
            **self._columns,
            "max_missing": self._max_missing,
        }

    def _on_one_tile(
        self, indices: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.float32] | ImageReadError]]:
        """Make the cutouts of objects on the same tile, from its bottom to its top."""
        objects = self._objects
        try:
            tile = objects.tile_of(int(indices[0]))
            tiles = self._tiles.open(tile)
            corner = self._corners(tiles[0], indices)
            grids = [
                None,
                *(grids_on(_sky(other), _sky(tiles[0]), corner, self._size) for other in tiles[1:]),
            ]
        except UnreadableError as exc:
            for index in indices.tolist():
                yield index, self._error(index, exc)
            return
        for i in np.argsort(corner[:, 1]).tolist():
            index = int(indices[i])
            try:
                image = cut(tiles, grids, corner, self._size, i)
            except UnreadableError as exc:
                self._tiles.forget()  # what was wrong with an open file may be put right in another
                yield index, self._error(index, exc)
                continue
            try:
                self._check_missing(image, tile)
            except UnreadableError as exc:
                yield index, self._error(index, exc)
            else:
                yield index, image

    def _corners(self, tile: Tile, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        place = self._objects.first[indices], self._objects.second[indices]
        if self._objects.is_sky:
            place = _sky(tile).to_pixels(*place)
        return corners(*place, self._size)

    def _check_missing(self, image: NDArray[np.float32], tile: str) -> None:
        missing = np.isnan(image).mean(axis=(0, 1))
        worst = int(missing.argmax())
        if missing[worst] > self._max_missing:
            band = f" in the band {self.bands[worst]!r}" if self.bands else ""
            raise UnreadableError(
                f"{missing[worst]:.0%} of its pixels are missing{band}: it lies at the edge of the tile "
                f"{tile!r}, or of its data, or beyond; allowed is max_missing={self._max_missing}"
            )

    def _error(self, index: int, exc: UnreadableError) -> ImageReadError:
        error = ImageReadError(self.ids[index], str(exc))
        error.__cause__ = exc.__cause__
        return error


def catalogue_from_spec(spec: Mapping[str, Any]) -> CatalogueSource:
    """Open a catalogue again from what its `spec` method returned."""
    options = {key: value for key, value in spec.items() if key not in ("kind", "path", "bands")}
    if "path" not in spec:
        raise SourceError(
            "The table of the objects was in memory, which is not kept. Make the CatalogueSource again, and "
            "pass that as source=."
        )
    bands, tiles = spec.get("bands"), spec.get("tiles")
    if isinstance(tiles, Mapping):
        options["tiles"] = remote_from_spec(tiles)
    path = spec["path"]
    table = remote_from_spec(path) if isinstance(path, Mapping) else path
    return CatalogueSource(table, bands=None if bands is None else dict(bands), **options)


def _rebuilt(state: dict[str, Any]) -> CatalogueSource:
    source = CatalogueSource.__new__(CatalogueSource)
    source.__dict__.update(state)
    return source


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - resolve() would follow links


def _place(table: object) -> Place | None:
    """Return where a table lies; None for one in memory."""
    if isinstance(table, Remote):
        return table
    return _absolute(table) if isinstance(table, (str, os.PathLike)) else None


def _on_disk(table: Place | None) -> str | None:
    """Return the path by which a table is read."""
    if not isinstance(table, Remote):
        return table
    try:
        return str(local_copy(table))
    except OSError as exc:
        raise why_unreachable(table, exc) from exc


def _stem(table: Place | None) -> str:
    return "" if table is None else name_of(table).split(".")[0]


def _folder(tiles: str | os.PathLike[str] | Remote | None, table: Place | None) -> Place:
    if tiles is not None:
        folder = tiles if isinstance(tiles, Remote) else _absolute(tiles)
    elif table is not None:
        folder = parent_of(table)
    else:
        raise SourceError("Where are the tiles? Name their folder by tiles=.")
    if isinstance(folder, str) and not os.path.isdir(folder):  # noqa: PTH112 - as above
        raise SourceError(f"There is no folder {folder!r}. Name the folder of the tiles by tiles=.")
    return folder


def _chunk(codes: NDArray[np.int32]) -> int:
    """Say how many objects are best read together: many, where neighbours in the table lie on many tiles."""
    n_runs = 1 + int(np.count_nonzero(np.diff(codes)))
    if len(codes) // n_runs >= _LONG_RUN:
        return 1
    return max(1, min(_TOGETHER, len(codes) // _SHARES))


def _sky(tile: Tile) -> Projection:
    if tile.sky is None:
        raise UnreadableError(f"{tile.name!r} has no celestial WCS in its header that can be used")
    return tile.sky


def _check_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 1 <= size <= _MOST_SIZE:
        raise ConfigError(
            f"CatalogueSource(size={size!r}): allowed is a whole number of pixels from 1 to {_MOST_SIZE}."
        )
    return int(size)


def _check_share(share: object) -> float:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ConfigError(
            f"CatalogueSource(max_missing={share!r}): allowed is a share from 0 to 1, e.g. 0.5."
        )
    return float(share)


def _check_bands(bands: object) -> Mapping[str, str] | None:
    if bands is None or (isinstance(bands, Mapping) and bands and all(isinstance(b, str) for b in bands)):
        return bands
    raise SourceError(
        f"bands={bands!r} does not say where the bands are. Give name and files of each, e.g. "
        "{'VIS': 'VIS_{tile}.fits', 'Y': 'NISP_Y_{tile}.fits'}, or leave it out."
    )


def _check_pair(option: str, names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    pair = list(names)
    if isinstance(names, str) or len(pair) != 2 or not all(isinstance(n, str) for n in pair):  # noqa: PLR2004
        raise SourceError(f"{option}={names!r}: two names of columns are wanted, e.g. ('RA', 'DEC').")
    return pair
