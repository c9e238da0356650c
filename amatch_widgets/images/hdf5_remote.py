"""HDF5 files on servers: h5py is given what is in memory, and never waits for a server."""

from __future__ import annotations

import errno
import io
import itertools
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amatch_widgets.images.remote import Remote

__all__ = ["HeldFile", "ranges_of"]

T = TypeVar("T")

_PIECE = 2**20  # bytes
_HELD = 64  # pieces, all that one reading takes and some more
_AHEAD = 8  # pieces that are read at once, at most, where it is not known before which ones are wanted


class HeldFile(io.RawIOBase):
    """A file on a server, of which HDF5 reads what is in memory; the rest is fetched between its tries.

    h5py has one lock for all, which it holds while it reads, and which any thread takes that happens to
    collect one of its objects as garbage. So a reading that waits for another thread, such as fsspec's, may
    wait for ever: here it fails instead, what was missing is fetched without that lock, and it is repeated.

    Thread safety: ``_lock`` guards what is held. It is taken for each try, and not to fetch.

    Parameters
    ----------
    place : Remote
    """

    def __init__(self, place: Remote) -> None:
        super().__init__()
        self._place, self._version = place, place.version()
        self._lock = threading.Lock()
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._missing: set[int] = set()
        self._at = 0

    def __repr__(self) -> str:
        return str(self._place)  # by which h5py calls the file

    def answer(self, question: Callable[[], T]) -> T:
        """Return what a question to h5py returns, asked again until nothing was missing.

        Raises
        ------
        OSError
            The server cannot be read. All that the question raises while nothing is missing is raised, too.
        """
        for n_tries in itertools.count():
            with self._lock:
                self._missing.clear()
                try:
                    found = question()
                except Exception:
                    if not self._missing:
                        raise
                else:
                    if not self._missing:  # or something was taken for damaged
                        while len(self._held) > _HELD:
                            self._held.popitem(last=False)
                        return found
                ahead = min(2**n_tries, _AHEAD)
                wanted = {number + i for number in self._missing for i in range(ahead)}
            self._fetch(wanted)
        raise AssertionError

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Read parts of the file that will be wanted, from one byte to before another; as OSError tells."""
        self._fetch(
            {n for start, stop in ranges for n in range(start // _PIECE, -(-stop // _PIECE)) if stop > start}
        )

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
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._version.size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from what is in memory; called by h5py, which holds its lock."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._version.size)
        if stop <= self._at:
            return 0
        numbers = range(self._at // _PIECE, (stop - 1) // _PIECE + 1)
        missing = [number for number in numbers if number not in self._held]
        if missing:
            self._missing.update(missing)
            raise OSError(errno.EBUSY, "it is not here yet")
        done = 0
        for number in numbers:
            self._held.move_to_end(number)
            start = number * _PIECE
            part = self._held[number][max(self._at - start, 0) : stop - start]
            view[done : done + len(part)] = part
            done += len(part)
        self._at = stop
        return done

    def _fetch(self, numbers: set[int]) -> None:
        with self._lock:
            wanted = sorted(n for n in numbers if n not in self._held and n * _PIECE < self._version.size)
        runs: list[list[int]] = []
        for number in wanted:
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        for run in runs:
            data = self._place.read(self._version, run[0] * _PIECE, (run[-1] + 1) * _PIECE)
            with self._lock:
                for i, number in enumerate(run):
                    self._held[number] = data[i * _PIECE : (i + 1) * _PIECE]


def ranges_of(dataset: Any, start: int, stop: int) -> list[tuple[int, int]]:
    """Return where in its file the rows of a dataset lie: from one byte to before another.

    Parameters
    ----------
    dataset : h5py.Dataset
    start, stop : int
        The first row, and the one after the last.
    """
    if dataset.chunks is None:
        offset, row = dataset.id.get_offset(), dataset.id.get_storage_size() // max(len(dataset), 1)
        return [] if offset is None else [(offset + start * row, offset + stop * row)]
    first, *others = dataset.chunks
    axes = [range(start // first * first, stop, first)]
    axes += [range(0, side, step) for side, step in zip(dataset.shape[1:], others, strict=True)]
    found = [dataset.id.get_chunk_info_by_coord(corner) for corner in itertools.product(*axes)]
    return [(c.byte_offset, c.byte_offset + c.size) for c in found if c.byte_offset is not None]
