"""Where the files of an archive's scores lie: a folder of this machine, or one in an object store."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from amatch_widgets.images.local_copy import local_copy, write_whole
from amatch_widgets.images.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from amatch_widgets.images.blocks import Version

__all__ = ["Shelf", "shelf_of"]

_AT_ONCE = 8  # files that are fetched


class Shelf(Protocol):
    """A folder of files, called by their paths in it, with ``/``; all methods raise OSError.

    It may be pickled, and used by any number of threads and processes at once.
    """

    def where(self, name: str) -> str:
        """Return how a file is called in a message."""

    def names(self, folder: str = "") -> list[str]:
        """Return what is in a folder; nothing where there is none."""

    def read(self, name: str) -> bytes:
        """Return the content of a file as it is now."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is there whole or not at all, whoever else writes it."""

    def paths(self, folder: str, names: Sequence[str]) -> list[str]:
        """Return paths on this machine by which files of a folder can be read; they are there."""


def shelf_of(root: Path | Remote) -> Shelf:
    """Return the shelf of a place."""
    return _RemoteShelf(root) if isinstance(root, Remote) else _Folder(root)


class _Folder:
    """A folder of this machine, or of a volume that it has."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, name: str) -> str:
        return str(self._root / name)

    def names(self, folder: str = "") -> list[str]:
        try:
            return [path.name for path in (self._root / folder).iterdir()]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        write_whole(self._root / name, data)

    def paths(self, folder: str, names: Sequence[str]) -> list[str]:
        return [str(self._root / folder / name) for name in names]


class _RemoteShelf:
    """A folder behind a URL. What is read by path is kept on this disk: 4 bytes for each image and cycle.

    Thread safety: ``_listed`` is replaced as a whole; the rest never changes.
    """

    def __init__(self, root: Remote) -> None:
        self._root = root
        self._listed: dict[str, dict[str, Version]] = {}  # by folder, as it was looked at last

    def __reduce__(self) -> tuple[type[_RemoteShelf], tuple[Remote]]:
        return _RemoteShelf, (self._root,)

    def where(self, name: str) -> str:
        return str(self._root / name)

    def names(self, folder: str = "") -> list[str]:
        try:
            if not folder:
                return [name for name, _ in self._root.listing()]
            return list(self._look(folder))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        return (self._root / name).fetch()

    def write(self, name: str, data: bytes) -> None:
        (self._root / name).put(data)

    def paths(self, folder: str, names: Sequence[str]) -> list[str]:
        listed = self._listed.get(folder, {})
        if any(name not in listed for name in names):
            listed = self._look(folder)
        if gone := [name for name in names if name not in listed]:
            raise FileNotFoundError(errno.ENOENT, f"{gone[0]} is not there any more")
        place = self._root / folder
        with ThreadPoolExecutor(_AT_ONCE, "amatch-fetch") as executor:
            return list(executor.map(lambda name: str(local_copy(place / name, listed[name])), names))

    def _look(self, folder: str) -> dict[str, Version]:
        found = dict((self._root / folder).files())
        self._listed = {**self._listed, folder: found}
        return found
