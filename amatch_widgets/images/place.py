"""Where images lie: a path on this machine, or a place behind a URL; the same questions to both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from amatch_widgets.images.host import is_url
from amatch_widgets.images.remote import Remote, remote_from_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Place",
    "as_place",
    "exists",
    "is_folder",
    "join",
    "name_of",
    "names_in",
    "open_place",
    "parent_of",
    "place_of_spec",
    "size_of",
    "spec_of",
]

Place = str | Remote  # an absolute path, or what is elsewhere


def as_place(what: str | os.PathLike[str] | Remote) -> Place:
    """Make a path absolute, or a place of a URL."""
    if isinstance(what, Remote):
        return what
    if is_url(what):
        return Remote(os.fspath(what))
    return os.path.abspath(what)  # noqa: PTH100 - resolve() would follow links


def open_place(place: Place) -> IO[bytes]:
    """Open a file to be read, at any place of it; OSError if it cannot be."""
    return place.open() if isinstance(place, Remote) else Path(place).open("rb")


def size_of(file: IO[bytes]) -> int:
    """Return how long an open file is now, in bytes."""
    known = getattr(file, "size", None)
    return int(known) if known is not None else os.fstat(file.fileno()).st_size


def join(place: Place, *names: str) -> Place:
    """Return what lies below a folder; `names` may have ``/`` in them."""
    if isinstance(place, Remote):
        return place / "/".join(names)
    return os.path.join(place, *names)  # noqa: PTH118 - of any path, and quicker


def name_of(place: Place) -> str:
    """Return the last part of a path."""
    return place.name if isinstance(place, Remote) else os.path.basename(place)  # noqa: PTH119 - of any path


def parent_of(place: Place) -> Place:
    """Return the folder that something is in."""
    return place.parent if isinstance(place, Remote) else os.path.dirname(place)  # noqa: PTH120 - as above


def names_in(place: Place) -> list[str]:
    """Return the names in a folder, sorted, hidden ones left out; OSError if it cannot be listed."""
    names = (
        [name for name, _ in place.listing()] if isinstance(place, Remote) else os.listdir(place)  # noqa: PTH208
    )
    return sorted(name for name in names if not name.startswith("."))


def exists(place: Place) -> bool:
    """Whether there is anything."""
    return place.exists() if isinstance(place, Remote) else os.path.exists(place)  # noqa: PTH110 - of any path


def is_folder(place: Place) -> bool:
    """Whether it is a folder."""
    return place.is_folder() if isinstance(place, Remote) else os.path.isdir(place)  # noqa: PTH112 - as above


def spec_of(place: Place) -> dict[str, Any]:
    """Return what is needed to come back to it, JSON-able; credentials are never in it."""
    return place.spec() if isinstance(place, Remote) else {"path": place}


def place_of_spec(spec: Mapping[str, Any]) -> Path | Remote:
    """Return the place that `spec_of` was of."""
    return remote_from_spec(spec) if is_url(spec["path"]) else Path(spec["path"])
