"""The tiles of a survey: their names, the files of each band, and what is open of them."""

from __future__ import annotations

import glob
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import SourceError
from amatch_widgets.images.place import exists, join, names_in
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.tile import Tile
from amatch_widgets.images.unreadable import UnreadableError, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from amatch_widgets.images.place import Place

__all__ = ["Tiles"]

_PLACE = "{tile}"
_ENDINGS = (".fits", ".fit", ".fits.fz", ".fit.fz", ".fits.gz")
_HDU = re.compile(r"(.+)\[([^\[\]]+)\]")
_KEPT_OPEN = 64  # files: a system may allow a process no more than 256
_THREADS = 8  # that wait for headers on other machines
_SOME = 16  # tiles of a table that are looked for before the folder is taken for the wrong one


class Tiles:
    """The files of the tiles, by band; opened when they are wanted, and kept open.

    Thread safety: what is open is kept by `functools.lru_cache`, for each process apart.

    Parameters
    ----------
    folder : str or Remote
        In which they lie.
    bands : mapping of str to str, or None
        File name of each band, see `CatalogueSource`. Without, the names of the tiles are those of the files.

    Raises
    ------
    SourceError
        A file name has no place for the tile's name.
    """

    def __init__(self, folder: Place, bands: Mapping[str, str] | None) -> None:
        self.folder = folder
        self.patterns = None if bands is None else dict(bands)
        self._files = [_parsed(band, pattern) for band, pattern in (bands or {"": _PLACE}).items()]
        self._open = lru_cache(_KEPT_OPEN)(self._open_file)
        self._names = lru_cache(1)(self._all_names)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tiles, (self.folder, self.patterns)

    def open(self, tile: str, *, n_bands: int | None = None) -> list[Tile]:
        """Open a tile in all bands or the first `n_bands`, in their order.

        Raises
        ------
        UnreadableError
            One of the files cannot be read; it says which.
        """
        return [self._open(tile, pattern, hdu, os.getpid()) for pattern, hdu in self._files[:n_bands]]

    def forget(self) -> None:
        """Open all files anew from now on: one of them may be another one now."""
        self._open.cache_clear()
        self._names.cache_clear()

    def find(self) -> list[str]:
        """Return the names of the tiles that there are in the first band, sorted.

        Raises
        ------
        SourceError
            There is none.
        """
        pattern, _ = self._files[0]
        if pattern == _PLACE:
            names = self._listed(names_in)
            found = sorted(name for name in names if name.lower().endswith(_ENDINGS))
            looked_for = f"files that end in {', '.join(_ENDINGS)}"
        else:
            shape = _shape(pattern)
            paths = (
                path.replace(os.sep, "/") for path in self._listed(lambda _: self._matching(pattern, "*"))
            )
            found = sorted({match["tile"] for match in map(shape.fullmatch, paths) if match})
            looked_for = f"files {pattern!r}"
        if not found:
            raise SourceError(
                f"There is no tile in {self.folder!r}; looked for were {looked_for}. Name the folder by "
                "tiles=, and the files by bands=, e.g. {'VIS': 'VIS_{tile}.fits'}."
            )
        return found

    def check(self, tiles: Sequence[str]) -> None:
        """Raise SourceError if of none of the first tiles there is a file: of the first band, by its name."""
        pattern, _ = self._files[0]
        reasons = []
        for tile in tiles[:_SOME]:
            try:
                if exists(self._path(tile, pattern)):
                    return
                reasons.append("there is no such file")
            except (UnreadableError, OSError) as exc:
                reasons.append(in_words(exc))
        if reasons:
            raise SourceError(
                f"None of the tiles that the table names is in {self.folder!r}: for the first, "
                f"{_file_of(tiles[0], pattern)!r}, {reasons[0]}. Name the folder by tiles=, the files by "
                "bands=, e.g. {'VIS': 'VIS_{tile}.fits'}, the column of the tiles by tile_from=; or let the "
                "tiles be found by their footprints: tile_from='footprint'."
            )

    def headers(self, tiles: Sequence[str]) -> Iterator[Tile | UnreadableError]:
        """Open the first band of some tiles, one after the other, and keep none; several threads read."""

        def look(tile: str) -> Tile | UnreadableError:
            try:
                return self._open_file(tile, *self._files[0])
            except UnreadableError as error:
                return error

        with ThreadPoolExecutor(_THREADS, "amatch-headers") as executor:
            for start in range(0, len(tiles), _KEPT_OPEN):  # no more are in memory
                yield from executor.map(look, tiles[start : start + _KEPT_OPEN])

    def _open_file(self, tile: str, pattern: str, hdu: str | int | None, _process: int = 0) -> Tile:
        try:
            return Tile(self._path(tile, pattern), hdu)
        except UnreadableError as exc:
            raise UnreadableError(f"{_file_of(tile, pattern)!r} cannot be read: {exc}") from exc.__cause__

    def _path(self, tile: str, pattern: str) -> Place:
        """Return where a file is; raise UnreadableError if it cannot be told."""
        if "*" not in pattern:
            return join(self.folder, _file_of(tile, pattern))
        try:
            found = self._matching(pattern, tile)
        except OSError as exc:
            raise UnreadableError(in_words(exc)) from exc
        if len(found) > 1:
            raise UnreadableError(
                f"there are {len(found)} such files, among them {found[0]!r} and {found[1]!r}"
            )
        if not found:
            raise UnreadableError("there is no such file")
        return join(self.folder, found[0])

    def _listed(self, look: Callable[[Place], list[str]]) -> list[str]:
        try:
            return look(self.folder)
        except OSError as exc:
            raise SourceError(
                f"The folder of the tiles, {self.folder!r}, cannot be listed: {exc.strerror}. Name it by "
                "tiles=."
            ) from exc

    def _matching(self, pattern: str, tile: str) -> list[str]:
        """List the files of a tile, or of all for ``*``; in `pattern`, nothing but ``*`` has a meaning."""
        if isinstance(self.folder, Remote):
            wanted = _shape(pattern) if tile == "*" else _shape(_file_of(tile, pattern))
            return [name for name in self._names() if wanted.fullmatch(name)]
        tile = tile if tile == "*" else glob.escape(tile)
        escaped = "*".join(tile.join(map(glob.escape, part.split(_PLACE))) for part in pattern.split("*"))
        return sorted(glob.glob(escaped, root_dir=self.folder))  # noqa: PTH207 - of any folder

    def _all_names(self) -> list[str]:
        """List all files below a folder on a server; once, as it takes long where there are many."""
        assert isinstance(self.folder, Remote)
        return sorted(name for name, _ in self.folder.files())


def _parsed(band: str, pattern: Any) -> tuple[str, str | int | None]:
    """Part the name of a file and its HDU."""
    if not isinstance(pattern, str) or _PLACE not in pattern:
        raise SourceError(
            f"The file name of the band {band!r} is {pattern!r}. Wanted is one with {_PLACE!r} in the place "
            "of the tile's name, e.g. 'VIS_{tile}.fits', or 'VIS_{tile}.fits[SCI]' for the HDU 'SCI'."
        )
    match = _HDU.fullmatch(pattern)
    if match is None or _PLACE not in match[1]:
        return pattern, None
    return match[1], int(match[2]) if match[2].isdecimal() else match[2]


def _file_of(tile: str, pattern: str) -> str:
    return pattern.replace(_PLACE, tile)  # not str.format: both are untrusted text


def _shape(pattern: str) -> re.Pattern[str]:
    """Return what finds the name of the tile in that of a file; as short a name as there can be."""
    first, *others = ("[^/]*".join(map(re.escape, part.split("*"))) for part in pattern.split(_PLACE))
    return re.compile(first + ("(?P<tile>[^/]+?)" + "(?P=tile)".join(others) if others else ""))
