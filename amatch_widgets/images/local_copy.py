"""Whole files of a server, kept on this disk for what reads files by their paths."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from amatch_widgets.images.disk_cache import cache_folder

if TYPE_CHECKING:
    from amatch_widgets.images.blocks import Version
    from amatch_widgets.images.remote import Remote

__all__ = ["local_copy", "write_whole"]


def local_copy(place: Remote, version: Version | None = None) -> Path:
    """Return the path of a copy of a file, which is fetched unless it is here.

    Parameters
    ----------
    place : Remote
    version : Version, optional
        Its state, where it is known: a file that has changed is fetched anew.

    Raises
    ------
    OSError
        If it cannot be read, or not be kept here.
    """
    state = place.version() if version is None else version
    stem, dot, endings = place.name.partition(".")
    name = f"{stem}-{_digest([state.size, state.tag])}{dot}{endings}"
    path = _folder() / _digest(place.parent.spec()) / name
    if not path.exists():
        write_whole(path, place.fetch())
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whoever else writes it; OSError if it cannot be."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _folder() -> Path:
    root = cache_folder()
    return root / "amatch_widgets" / "files" if root else _of_this_process()


@cache
def _of_this_process() -> Path:
    return Path(tempfile.mkdtemp(prefix="amatch-files-"))


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
