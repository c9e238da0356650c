"""What is kept of the objects of a catalogue: id, position, and the tile that each lies on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.footprint import find_tiles
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.stored_ids import BY_POSITION, pack_ids
from amatch_widgets.images.unreadable import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from amatch_widgets.images.table import Table
    from amatch_widgets.images.tile import Tile
    from amatch_widgets.images.tiles import Tiles

__all__ = ["BY_FOOTPRINT", "Objects", "read_objects"]

BY_FOOTPRINT = "footprint"  # as tile_from=: find the tiles, whatever columns there are
# Looked for in this order, upper and lower case alike.
_RADEC = (
    ("ra", "dec"),
    ("right_ascension", "declination"),
    ("alpha_j2000", "delta_j2000"),
    ("ra_j2000", "dec_j2000"),
    ("raj2000", "dej2000"),
    ("ra_deg", "dec_deg"),
)
_XY = (("x", "y"),)
_TILES = ("tile", "tile_name", "tile_file", "tile_id", "tile_index")
_IDS = ("object_id", "objid", "id", "ids", "source_id", "name", "names")
_DEGREES = ("deg", "degree", "degrees")
_MOST_NAMES = 12  # of columns, in an error


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a catalogue, about 20 bytes each beside their ids.

    Attributes
    ----------
    ids : PackedIds or NumberedIds
    is_sky : bool
        Whether the positions are on the sky or on the tile.
    first, second : ndarray of float64, shape (N,)
        Right ascension and declination, ICRS, degrees; or x and y, pixels of the tile counted from 0. NaN for
        an object without a position.
    codes : ndarray of int32, shape (N,)
        Number of the tile in `tiles`; -1 for none.
    tiles : pyarrow.LargeStringArray
        Names of the tiles.
    by_footprint : bool
        Whether the tiles were found by their headers.
    skipped : dict of str to str
        Tiles whose headers cannot be used, with the reason.
    columns : (str, str, str or None)
        The columns of the two numbers of the position, and of the ids.
    """

    ids: Sequence[str]
    is_sky: bool
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    codes: NDArray[np.int32]
    tiles: pa.LargeStringArray
    by_footprint: bool
    skipped: dict[str, str]
    columns: tuple[str, str, str | None]

    def tile_of(self, index: int) -> str:
        """Return the name of an object's tile; raise UnreadableError, saying why, if it has none."""
        code = int(self.codes[index])
        if code >= 0:
            tile: str = self.tiles[code].as_py()
            return tile
        place = f"({self.first[index]:.5f}, {self.second[index]:.5f})"
        if not self.by_footprint:
            raise UnreadableError("the table names no tile for it")
        if not np.isfinite(self.first[index] + self.second[index]):
            raise UnreadableError("the table gives no position for it")
        unknown = f"; the footprints of {len(self.skipped)} cannot be told" if self.skipped else ""
        raise UnreadableError(
            f"its position, RA and Dec {place}, lies on none of the {len(self.tiles)} tiles{unknown}"
        )


def read_objects(
    table: Table,
    tiles: Tiles,
    *,
    radec_from: Sequence[str] | None,
    xy_from: Sequence[str] | None,
    tile_from: str | None,
    ids_from: str | None,
) -> Objects:
    """Read the objects of a table; the options are those of `CatalogueSource`.

    Raises
    ------
    SourceError
        A column is missing or of the wrong kind, there is no object, or all of them lie on no tile.
    """
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    is_sky, places = _places(table, radec_from, xy_from)
    by_id = None if ids_from == BY_POSITION else _column(table, "ids_from", ids_from, _IDS)
    by_tile = None if tile_from == BY_FOOTPRINT else _column(table, "tile_from", tile_from, _TILES)
    if by_tile is None and not is_sky:
        raise SourceError(
            f"{table.what} has positions in pixels, and does not say on which tile: looked for were "
            f"the columns {', '.join(_TILES)}. Name it by tile_from=, or give positions on the "
            "sky by radec_from=."
        )
    # Ids alone and first: of very many, packing them takes more memory than all else.
    ids = None if by_id is None else _packed(table, by_id)
    wanted: dict[str, pa.DataType] = dict.fromkeys(places, pa.float64())
    codes = None
    if by_tile is not None:
        codes = _coded(table.read({by_tile: pa.dictionary(pa.int32(), pa.large_string())})[by_tile])
    columns = table.read(wanted)
    first, second = (columns.pop(name).to_numpy() for name in places)
    if not len(first):
        raise SourceError(f"{table.what} has no row: there is no object in it.")
    ids = ids or NumberedIds(len(first))
    if codes is not None:
        tiles.check(codes[1][:16].to_pylist())
        return Objects(
            ids, is_sky, first, second, *codes, by_footprint=False, skipped={}, columns=(*places, by_id)
        )
    names = tiles.find()
    skipped: dict[str, str] = {}
    found = find_tiles(first, second, _usable(names, tiles, skipped))
    if len(skipped) == len(names):
        name, reason = next(iter(skipped.items()))
        raise SourceError(
            f"None of the {len(names)} tiles in {tiles.folder!r} has a footprint. {name!r}: {reason}."
        )
    if (found < 0).all():
        raise SourceError(
            f"No object of {table.what} lies on any of the {len(names)} tiles in {tiles.folder!r}; the first "
            f"is at {places[0]}={first[0]}, {places[1]}={second[0]}. Check that the positions are ICRS in "
            "degrees, and that these are their tiles."
        )
    return Objects(
        ids,
        is_sky,
        first,
        second,
        found,
        pa.array(names, pa.large_string()),
        by_footprint=True,
        skipped=skipped,
        columns=(*places, by_id),
    )


def _places(
    table: Table, radec_from: Sequence[str] | None, xy_from: Sequence[str] | None
) -> tuple[bool, tuple[str, str]]:
    """Find the columns of the positions, and whether these are on the sky."""
    if radec_from is not None and xy_from is not None:
        raise SourceError("radec_from= and xy_from= were both given. Leave one of them out.")
    if xy_from is not None:
        return False, (_named(table, "xy_from", xy_from[0]), _named(table, "xy_from", xy_from[1]))
    lower = {name.lower(): name for name in reversed(table.names)}
    if radec_from is not None:
        places = (_named(table, "radec_from", radec_from[0]), _named(table, "radec_from", radec_from[1]))
    else:
        pairs = [(ra, dec) for ra, dec in _RADEC + _XY if ra in lower and dec in lower]
        if not pairs:
            raise SourceError(
                f"{table.what} has no columns of positions by a name that is known, such as 'ra' and 'dec'. "
                f"Its columns are {_listed(table)}. Name them by radec_from=('RA', 'DEC'), or by xy_from=."
            )
        places = (lower[pairs[0][0]], lower[pairs[0][1]])
        if pairs[0] in _XY:
            return False, places
    for name in places:
        unit = table.units.get(name, "deg")
        if unit.lower() not in _DEGREES:
            raise SourceError(
                f"The column {name!r} of {table.what} is in {unit!r}. Wanted are degrees: convert it, or "
                "name another by radec_from=."
            )
    return True, places


def _column(table: Table, option: str, given: str | None, usual: tuple[str, ...]) -> str | None:
    """Find a column by the name that was given, or by a usual one; None if it is not there."""
    if given is not None:
        return _named(table, option, given)
    lower = {name.lower(): name for name in reversed(table.names)}
    return next((lower[name] for name in usual if name in lower), None)


def _named(table: Table, option: str, name: str) -> str:
    if name not in table.names:
        raise SourceError(
            f"{option}={name!r}: {table.what} has no such column. Its columns are {_listed(table)}."
        )
    return name


def _listed(table: Table) -> str:
    more = len(table.names) - _MOST_NAMES
    named = ", ".join(map(repr, table.names[:_MOST_NAMES]))
    return named + (f" and {more} more" if more > 0 else "")


def _packed(table: Table, column: str) -> Sequence[str]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    # In one piece, and the pieces given back to the system: packing takes as much once more.
    chunks = table.read({column: pa.large_string()}).pop(column).chunks
    array = pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
    del chunks
    pa.default_memory_pool().release_unused()
    return pack_ids(array, f"The column {column!r} of {table.what}")


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.LargeStringArray]:
    """Return the number of each row's text, -1 where there is none, and the texts."""
    import pyarrow as pa  # noqa: PLC0415 - as above
    import pyarrow.compute as pc  # noqa: PLC0415 - as above

    if not pa.types.is_dictionary(column.type):  # it holds the ids, too
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    codes[codes == pc.index(whole.dictionary, pa.scalar("", whole.dictionary.type)).as_py()] = -1
    return codes, whole.dictionary


def _usable(names: Sequence[str], tiles: Tiles, skipped: dict[str, str]) -> Iterator[Tile | None]:
    """Open the headers of tiles one after the other, and note those that are of no use."""
    for name, tile in zip(names, tiles.headers(names), strict=True):
        if isinstance(tile, UnreadableError):
            skipped[name] = str(tile)
        elif tile.sky is None:
            skipped[name] = "it has no celestial WCS in its header that can be used"
        else:
            yield tile
            continue
        yield None
