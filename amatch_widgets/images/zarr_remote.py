"""Zarr stores on another machine, in folders or zip files; to be imported late: it needs the library zarr."""

from __future__ import annotations

import asyncio
import threading
import zipfile
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from amatch_widgets.images.remote import Remote

__all__ = ["RemoteStore", "RemoteZip"]


class _Readable(Store):
    """A store behind a URL, to be read.

    Parameters
    ----------
    place : Remote
    """

    def __init__(self, place: Remote) -> None:
        super().__init__(read_only=True)
        self._place = place

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._place == self._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    @abstractmethod
    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        """Return what is stored under a key, or a part of it; None if there is nothing."""

    @abstractmethod
    def _has(self, key: str) -> bool: ...

    @abstractmethod
    def _names(self, folder: str) -> list[str]: ...

    @abstractmethod
    def _keys(self) -> list[str]: ...

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what is stored under a key; see `zarr.abc.store.Store.get`."""
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of what is stored; see `zarr.abc.store.Store.get_partial_values`."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is something under a key."""
        return await asyncio.to_thread(self._has, key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Give the names in a folder of the store; see `zarr.abc.store.Store.list_dir`."""
        for name in await asyncio.to_thread(self._names, prefix.rstrip("/")):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Give the keys that begin so; see `zarr.abc.store.Store.list_prefix`."""
        for key in await asyncio.to_thread(self._keys):
            if key.startswith(prefix):
                yield key

    @property
    def supports_writes(self) -> bool:
        """It can only be read."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """It can only be read."""
        return False

    @property
    def supports_listing(self) -> bool:
        """As the server does."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse to write."""
        del key, value
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse to delete."""
        del key
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Give all keys; see `zarr.abc.store.Store.list`."""
        async for key in self.list_prefix(""):
            yield key


class RemoteStore(_Readable):
    """A folder behind a URL; its chunks are kept in the cache on disk.

    The server is not asked for the state of each chunk, which would take as long as the chunk itself: chunks
    count as those of before as long as the document of their array (``zarr.json`` or ``.zarray``) does.

    Parameters
    ----------
    place : Remote
    """

    def __init__(self, place: Remote) -> None:
        super().__init__(place)
        self._arrays: dict[str, tuple[str, str | None]] = {}

    def settle(self, path: str, document: str, *, is_sharded: bool) -> None:
        """Take the chunks of an array for those of its document, from now on."""
        # Shards are read in parts or as a whole, as it comes; they are large, and there are few.
        tag = None if is_sharded else (self._place / document).version().tag
        self._arrays[f"{path}/" if path else ""] = (document, tag)

    def _has(self, key: str) -> bool:
        return (self._place / key).exists()

    def _names(self, folder: str) -> list[str]:
        try:
            return [name for name, _ in (self._place / folder).listing()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _keys(self) -> list[str]:
        return [key for key, _ in self._place.files()]

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        place = self._place / key
        at = next((at for at in self._arrays if key.startswith(at)), None)
        document, tag = (None, None) if at is None else self._arrays[at]
        try:
            if part is None and tag is not None:
                return place.read_whole(tag)
            version = place.version()
            with place.open(version) as file:
                start, stop = _bounds(part, version.size)
                file.seek(start)
                return file.read(stop - start)
        except (FileNotFoundError, IsADirectoryError):
            if document is not None:
                # Meant to be so, as long as its array is there: FileNotFoundError if not.
                (self._place / document).check()
            return None


class RemoteZip(_Readable):
    """A zip file behind a URL, of which what is wanted is read, block by block, through the cache on disk.

    Thread safety: ``_lock`` guards ``_zip``, which is opened once and then read by one thread at a time.

    Parameters
    ----------
    place : Remote
    """

    def __init__(self, place: Remote) -> None:
        super().__init__(place)
        self._lock = threading.Lock()
        self._zip: zipfile.ZipFile | None = None

    def _file(self) -> zipfile.ZipFile:
        """Return the file; the lock is held."""
        if self._zip is None:
            self._zip = zipfile.ZipFile(self._place.open())
        return self._zip

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        with self._lock:
            try:
                entry = self._file().getinfo(key)
            except KeyError:
                self._place.check()  # meant to be so, as long as the file is there: FileNotFoundError if not
                return None
            with self._file().open(entry) as file:
                start, stop = _bounds(part, entry.file_size)
                file.seek(start)
                return file.read(stop - start)

    def _has(self, key: str) -> bool:
        with self._lock:
            return key in self._file().NameToInfo

    def _names(self, folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        inner = (key.removeprefix(start) for key in self._keys() if key.startswith(start))
        return list(dict.fromkeys(name.partition("/")[0] for name in inner))

    def _keys(self) -> list[str]:
        with self._lock:
            return [name for name in self._file().namelist() if not name.endswith("/")]


def _bounds(part: ByteRequest | None, size: int) -> tuple[int, int]:
    if part is None:
        return 0, size
    if isinstance(part, RangeByteRequest):
        return part.start, min(part.end, size)
    if isinstance(part, OffsetByteRequest):
        return min(part.offset, size), size
    known: Any = part
    assert isinstance(known, SuffixByteRequest)
    return max(0, size - known.suffix), size
