"""A bounded cache on disk for what was read from elsewhere, shared by all processes of a user."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DiskCache", "cache_folder"]

_HEAD = 4  # bytes: the CRC of what follows
_PAGE = 4096  # bytes: no file takes less of a disk
_KEEP = 0.9  # of the limit is left when room is made, so that it is not made for each item anew
_PATIENCE_S = 5.0  # for the lock; then the item is not kept
_LOOK_S = 0.002  # how often it is tried: it is held for less
_STALE_S = 3600.0  # an unfinished file that is older was left by a process that died


def cache_folder() -> Path | None:
    """Return the user's cache folder, or the one that the environment variable AMATCH_CACHE names.

    Returns
    -------
    Path or None
        It need not exist. None for a user without a home.
    """
    try:
        if named := os.environ.get("AMATCH_CACHE"):
            return Path(named).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local) if local else Path.home() / "AppData" / "Local"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches"
        named = os.environ.get("XDG_CACHE_HOME", "")
        # A relative one is to be ignored: XDG Base Directory Specification 0.8.
        return Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None


class DiskCache:
    """Items under keys; what was used longest ago goes when there is no more room.

    Each item is a file with a checksum, written beside its place and moved there. A folder that cannot be
    written or locked keeps nothing, and is no error: what is not here is read from where it came from.

    Thread safety: nothing changes but the folder. A lock file is held while an item is put, also against
    other processes.

    Parameters
    ----------
    folder : Path
        Is made when the first item is put.
    limit : int
        Bytes of all items, whole pages of 4096 each. Processes with different limits keep to their own when
        they put something, so that the smallest one counts.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def get(self, key: str) -> bytes | None:
        """Return an item, and note that it was used; None if it is not here, or damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        data = content[_HEAD:]
        if _checksum(data) != content[:_HEAD]:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # a folder that can only be read, or another process took it away
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep an item if it has room.

        Parameters
        ----------
        key : str
            Hex digits, at least three.
        data : bytes
        """
        size = _taken(_HEAD + len(data))
        if size > self._limit:
            return
        with contextlib.suppress(OSError, Timeout, NotImplementedError):  # the last: a system without locks
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(self._folder / "lock")
            with lock.acquire(timeout=_PATIENCE_S, poll_interval=_LOOK_S):
                if not self._path(key).exists():
                    self._add(self._path(key), data, size)

    def _add(self, path: Path, data: bytes, size: int) -> None:
        total = self._total()
        if total is None or total + size > self._limit:
            total = self._make_room(min(int(_KEEP * self._limit), self._limit - size))
        # Before the item: a process that dies between the two leaves a sum that is too large, not too small.
        self._note(total + size)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(_checksum(data) + data)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _total(self) -> int | None:
        try:
            return int((self._folder / "total").read_text("ascii"))
        except (OSError, ValueError):  # a new folder, or a process that died while it wrote
            return None

    def _note(self, total: int) -> None:
        # In its place: a file that is cut to nothing and written anew is flushed to the disk, in 5 ms.
        number = os.open(self._folder / "total", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(number, f"{total:020d}".encode("ascii"))
            os.ftruncate(number, 20)
        finally:
            os.close(number)

    def _make_room(self, most: int) -> int:
        """Take away what was used longest ago until no more than `most` bytes are left; return what is."""
        found = sorted(self._items())
        total = sum(size for _, size, _ in found)
        for _, size, path in found:
            if total <= most:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - there may be a million, and a Path costs more
            total -= size
        return total

    def _items(self) -> Iterator[tuple[float, int, str]]:
        """Give time of last use, size and path of each item."""
        now = time.time()
        with os.scandir(self._folder) as parts:
            folders = [part.path for part in parts if part.is_dir()]
        for folder in folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):  # another process found it damaged
                        info = entry.stat()
                        is_left = entry.name.endswith(".tmp") and now - info.st_mtime > _STALE_S
                        yield (0.0 if is_left else info.st_mtime), _taken(info.st_size), entry.path

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_HEAD, "little")


def _taken(n_bytes: int) -> int:
    """Return how much of a disk a file takes."""
    return -(-n_bytes // _PAGE) * _PAGE
