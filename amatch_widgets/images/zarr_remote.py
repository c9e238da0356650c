"""A Zarr store on another machine; to be imported late: it needs the library zarr."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from amatch_widgets.images.remote import Remote

__all__ = ["RemoteStore"]


class RemoteStore(Store):
    """A store behind a URL, to be read; its chunks are kept in the cache on disk.

    The server is not asked for the state of each chunk, which would take as long as the chunk itself: chunks
    count as those of before as long as the document of their array (``zarr.json`` or ``.zarray``) does.

    Parameters
    ----------
    place : Remote
    """

    def __init__(self, place: Remote) -> None:
        super().__init__(read_only=True)
        self._place = place
        self._arrays: dict[str, tuple[str, str | None]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other._place == self._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        return f"RemoteStore({self._place!r})"

    def settle(self, path: str, document: str, *, is_sharded: bool) -> None:
        """Take the chunks of an array for those of its document, from now on."""
        # Shards are read in parts or as a whole, as it comes; they are large, and there are few.
        tag = None if is_sharded else (self._place / document).version().tag
        self._arrays[f"{path}/" if path else ""] = (document, tag)

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
        return await asyncio.to_thread((self._place / key).exists)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Give the names in a folder of the store; see `zarr.abc.store.Store.list_dir`."""
        for name, _ in await asyncio.to_thread(self._listing, prefix.rstrip("/")):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Give the keys that begin so; see `zarr.abc.store.Store.list_prefix`."""
        for key, _ in await asyncio.to_thread(lambda: list(self._place.files())):
            if key.startswith(prefix):
                yield key

    def _listing(self, prefix: str) -> list[tuple[str, bool]]:
        try:
            return (self._place / prefix).listing()
        except (FileNotFoundError, NotADirectoryError):
            return []

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
