"""The image files below a folder on a server."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.blocks import Version
from amatch_widgets.images.unreadable import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from amatch_widgets.images.remote import Remote

__all__ = ["RemoteFiles"]


class RemoteFiles:
    """All image files below a folder, sorted by their ids; what the listing says of them is kept.

    So an image takes one question, and not two: 16 bytes each, as there may be very many. The names are not
    kept.

    Parameters
    ----------
    folder : Remote
    suffixes : collection of str
        Endings of image files, in lower case; ``.gz`` alone is none.
    id_of : callable
        Makes an id of a path.
    add : callable
        Takes all paths, from the folder on, sorted by their ids, hidden ones left out.

    Attributes
    ----------
    others : Counter of str
        How many files there are of other endings.

    Raises
    ------
    SourceError
        The folder cannot be listed.
    """

    def __init__(
        self,
        folder: Remote,
        suffixes: Collection[str],
        id_of: Callable[[str], str],
        add: Callable[[list[str]], None],
    ) -> None:
        self._folder = folder
        self.others: Counter[str] = Counter()
        found: dict[str, tuple[int, int]] = {}  # a page may have several links to one file
        try:
            for name, version in folder.files():
                if any(part.startswith(".") for part in name.split("/")):
                    continue
                suffix = _suffix(name)
                if suffix in suffixes:
                    found[name] = version.size, _number(version.tag)
                else:
                    self.others[suffix or "without ending"] += 1
        except OSError as exc:
            raise SourceError(
                f"The folder {folder!r} cannot be listed: {in_words(exc)}. Check URL and permissions."
            ) from exc
        names = sorted(found, key=id_of)
        self._sizes = np.array([found[name][0] for name in names], np.int64)
        self._tags = np.array([found[name][1] for name in names], np.uint64)
        add(names)

    def open(self, index: int, name: str) -> IO[bytes]:
        """Open one of the files to be read: its place in the order, and its path."""
        place = self._folder / name
        if self._sizes[index] < 0:  # a web server's page of links says nothing of what they lead to
            return place.open()
        return place.open(Version(place.path, int(self._sizes[index]), f"{int(self._tags[index]):016x}"))


def _suffix(name: str) -> str:
    path = PurePosixPath(name.lower())
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def _number(tag: str) -> int:
    """Return 64 bits that change with a text."""
    return int.from_bytes(hashlib.blake2b(tag.encode(), digest_size=8).digest(), "little")
