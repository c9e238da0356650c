"""Files on other machines, read in blocks through a cache on disk."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from amatch_widgets.images.disk_cache import DiskCache
    from amatch_widgets.images.server import Server

__all__ = ["Blocks", "RemoteFile", "Version"]

_BLOCK = 2**20  # bytes: asking for less takes hardly less time
_TOGETHER = 16  # blocks that are asked for at once
_IN_MEMORY = 32 * _BLOCK  # bytes of what was read last: an image may be a small part of a block


class Version(NamedTuple):
    """One state of a file on a server."""

    path: str
    """As the file system calls it."""
    size: int
    """Bytes."""
    tag: str
    """Changes with the content, as far as the server tells."""


class Blocks:
    """What is read of the files of a server; each block from the network once, and from then on from disk.

    Thread safety: ``_state`` has a lock for what is on its way; a thread that wants one of
    these waits for it. A forked process begins with a state of its own.

    Parameters
    ----------
    server : Server
    cache : DiskCache, optional
        Without, nothing is kept.
    place : str
        Tells servers apart that have files of the same name.
    """

    def __init__(self, server: Server, cache: DiskCache | None, place: str) -> None:
        self._server, self._cache, self._place = server, cache, place
        self._state = _State()

    def read(self, file: Version, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop` of a file; OSError if they cannot be read."""
        stop = min(stop, file.size)
        if start >= stop:
            return b""
        first = start // _BLOCK
        found = self._blocks(file, range(first, (stop - 1) // _BLOCK + 1))
        # Cut before they are joined: a piece of a block is not worth a copy of it.
        found[-1] = found[-1][: stop - (first + len(found) - 1) * _BLOCK]
        found[0] = found[0][start - first * _BLOCK :]
        return b"".join(found)

    def read_whole(self, path: str, tag: str) -> bytes:
        """Return a file of unknown size; `tag` says of which state of all files it is."""
        key = self._key(path, tag)
        (found,) = self._load([key], lambda _: [self._server.read(path)])
        return found

    def _blocks(self, file: Version, numbers: Sequence[int]) -> list[bytes]:
        keys = [self._key(file.path, file.tag, str(file.size), str(number)) for number in numbers]
        return self._load(keys, lambda wanted: self._fetch(file, [numbers[i] for i in wanted]))

    def _load(self, keys: list[str], fetch: Callable[[list[int]], list[bytes]]) -> list[bytes]:
        """Return what is under some keys: from disk, from a thread that fetches it already, or fetched."""
        state = self._state
        if state.pid != os.getpid():
            state = self._state = _State()
        found = self._kept(state, keys, range(len(keys)))
        mine, others = state.claim({i: key for i, key in enumerate(keys) if i not in found})
        if mine:
            try:
                found |= self._fill(state, keys, mine, fetch)
            finally:
                state.release(keys[i] for i in mine)
        for i, future in others.items():
            try:
                found[i] = future.result()
            except CancelledError:
                (found[i],) = self._load([keys[i]], lambda _, i=i: fetch([i]))  # type: ignore[misc]
        return [found[i] for i in range(len(keys))]

    def _fill(
        self,
        state: _State,
        keys: list[str],
        mine: dict[int, Future[bytes]],
        fetch: Callable[[list[int]], list[bytes]],
    ) -> dict[int, bytes]:
        """Fetch what other threads may wait for."""
        try:
            found = self._kept(state, keys, mine)  # another thread may have come in between
            wanted = [i for i in mine if i not in found]
            for i, data in zip(wanted, fetch(wanted) if wanted else [], strict=True):
                found[i] = data
                if self._cache is not None:
                    self._cache.put(keys[i], data)
                state.remember(keys[i], data)
            for i, future in mine.items():
                future.set_result(found[i])
        except Exception as exc:
            for future in mine.values():
                future.set_exception(exc)
            raise
        except BaseException:  # it is this thread that shall stop, and no other
            for future in mine.values():
                future.cancel()
            raise
        return found

    def _kept(self, state: _State, keys: list[str], which: Iterable[int]) -> dict[int, bytes]:
        """Return what is in memory or on disk."""
        found: dict[int, bytes] = {}
        for i in which:
            data = state.recall(keys[i])
            if data is None and self._cache is not None:
                data = self._cache.get(keys[i])
                if data is not None:
                    state.remember(keys[i], data)
            if data is not None:
                found[i] = data
        return found

    def _fetch(self, file: Version, numbers: list[int]) -> list[bytes]:
        """Ask the server for blocks, those that follow each other together."""
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1 and len(runs[-1]) < _TOGETHER:
                runs[-1].append(number)
            else:
                runs.append([number])
        found: list[bytes] = []
        for run in runs:
            start, stop = run[0] * _BLOCK, min((run[-1] + 1) * _BLOCK, file.size)
            data = self._server.read(file.path, start, stop)
            if len(data) == file.size > stop - start:  # a web server that sends whole files alone
                data = data[start:stop]
            if len(data) != stop - start:
                raise OSError(errno.EIO, "the file has changed on the server: open the source again")
            found += [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)]
        return found

    def _key(self, *parts: str) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in (self._place, *parts):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\xff")
        return digest.hexdigest()


class _State:
    """What is on its way in this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes = 0
        self.coming: dict[str, Future[bytes]] = {}

    def recall(self, key: str) -> bytes | None:
        """Return what was read a short while ago; None if it is not in memory."""
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
            return self._recent.get(key)

    def remember(self, key: str, data: bytes) -> None:
        """Hold what was read in memory for a short while, if it is no longer than a block."""
        if len(data) > _BLOCK:
            return
        with self._lock:
            self._n_bytes += len(data) - len(self._recent.pop(key, b""))
            self._recent[key] = data
            while self._n_bytes > _IN_MEMORY:
                _, oldest = self._recent.popitem(last=False)
                self._n_bytes -= len(oldest)

    def claim(self, keys: dict[int, str]) -> tuple[dict[int, Future[bytes]], dict[int, Future[bytes]]]:
        """Return what the caller has to fetch now, and what another thread does."""
        if not keys:
            return {}, {}
        with self._lock:
            others = {i: self.coming[key] for i, key in keys.items() if key in self.coming}
            mine: dict[int, Future[bytes]] = {i: Future() for i in keys if i not in others}
            self.coming |= {keys[i]: future for i, future in mine.items()}
        return mine, others

    def release(self, keys: Iterable[str]) -> None:
        """Take back what was claimed."""
        with self._lock:
            for key in keys:
                del self.coming[key]


class RemoteFile(io.RawIOBase):
    """A file on a server, to be read at any place.

    Thread safety: of one thread at a time, as all files.

    Parameters
    ----------
    blocks : Blocks
    file : Version
    """

    def __init__(self, blocks: Blocks, file: Version) -> None:
        super().__init__()
        self._blocks, self._file = blocks, file
        self._at = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read at any place."""
        return True

    def tell(self) -> int:
        """Return where it is, in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; return where that is."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "there is nothing before the beginning of the file")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from where the file is; return how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self._blocks.read(self._file, self._at, self._at + len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return the rest of the file."""
        data = self._blocks.read(self._file, self._at, self.size)
        self._at += len(data)
        return data
