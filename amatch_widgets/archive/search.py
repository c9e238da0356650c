"""Which images of an archive have a text in their ids."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amatch_widgets.archive.snapshot import Piece

__all__ = ["Search", "Sought", "digest", "having"]

_BLOCK = 1 << 17  # bytes that are looked at together
_DIGEST_BITS = 13  # of the number of its bits
_TEXTS = 4  # that are remembered: at 10^8 images each takes 12.5 MB


class Sought:
    """Which images of an archive have a text in their ids, as far as was looked, for all its cycles.

    Thread safety: ``_lock`` guards ``_exact``; what is in ``_bits`` of a part is the same whoever finds it.

    Parameters
    ----------
    text : str
        Upper and lower case are alike.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._triples = _triples(_bytes(_lower(pa.array([text]))))
        self._lock = threading.Lock()
        self._bits: dict[int, NDArray[np.uint8]] = {}  # by part, one for each image
        self._exact: set[int] = set()

    def among(self, piece: Piece) -> NDArray[np.bool]:
        """Return which images of a piece have it, shape (M,)."""
        bits = None if piece.part is None else self._bits.get(piece.part)
        if bits is not None:
            return np.unpackbits(bits, count=len(piece.indices)).view(np.bool)
        if piece.digest is not None and not _bits_of(piece.digest)[self._triples].all():
            return np.zeros(len(piece.indices), np.bool)
        ids = piece.ids
        found = having(ids, self._text)
        is_as_long = pc.binary_length(ids).to_numpy(zero_copy_only=False) == len(self._text.encode())
        exact = [k for k in np.flatnonzero(found & is_as_long).tolist() if ids[k].as_py() == self._text]
        with self._lock:
            self._exact.update(piece.indices[exact].tolist())
        if piece.part is not None:
            self._bits[piece.part] = np.packbits(found)
        return found

    @property
    def exact(self) -> list[int]:
        """Positions of images whose id is just the text, upper and lower case told apart."""
        with self._lock:
            return sorted(self._exact)


class Search:
    """The texts that were looked for last in the ids of an archive.

    Thread safety: ``_lock`` guards ``_sought``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sought: OrderedDict[str, Sought] = OrderedDict()

    def of(self, text: str) -> Sought:
        """Return what was found of a text."""
        with self._lock:
            sought = self._sought.setdefault(text, Sought(text))
            self._sought.move_to_end(text)
            if len(self._sought) > _TEXTS:
                self._sought.popitem(last=False)
            return sought


def having(ids: pa.StringArray, text: str) -> NDArray[np.bool]:
    """Return which ids have a text in them.

    Parameters
    ----------
    ids : StringArray, length M
    text : str
        Upper and lower case are alike.

    Returns
    -------
    ndarray of bool, shape (M,)
    """
    if not text:
        return np.ones(len(ids), np.bool)
    # The bytes of all ids are searched at once, as each part of them is in the processor's cache: in half the
    # time that a search in one id after the other takes, and upper case is no dearer than lower.
    sought, lower = _bytes(_lower(pa.array([text]))), _lower(ids)
    places = _places(_bytes(lower), sought)
    if not len(places):
        return np.zeros(len(ids), np.bool)
    starts = _starts(lower)
    following = np.append(places, starts[-1])[np.searchsorted(places, starts[:-1])]
    found: NDArray[np.bool] = following + len(sought) <= starts[1:]  # not one that goes on in the next id
    return found


def digest(ids: pa.StringArray) -> bytes | None:
    """Return a kilobyte that tells of many texts that no id has them; None if the ids are beyond ASCII."""
    # What is lower case of letters beyond ASCII changes with Unicode.
    if not _is_ascii(ids):
        return None
    has, lower = np.zeros(1 << _DIGEST_BITS, np.bool), _bytes(_lower(ids))
    for start in range(0, len(lower), _BLOCK):
        has[_triples(lower[start : start + _BLOCK + 2])] = True
    return np.packbits(has).tobytes()


def _bits_of(digest: bytes) -> NDArray[np.bool]:
    return np.unpackbits(np.frombuffer(digest, np.uint8)).view(np.bool)


def _triples(text: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return where in a digest each three bytes in a row are noted; many of them share a place."""
    wide = text.astype(np.uint32)
    triples = (wide[:-2] << np.uint32(16)) | (wide[1:-1] << np.uint32(8)) | wide[2:]
    # The golden ratio spreads what is alike.
    return (triples * np.uint32(0x9E3779B1)) >> np.uint32(32 - _DIGEST_BITS)


def _places(data: NDArray[np.uint8], sought: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where a few bytes begin in many, rising."""
    n_places = max(0, len(data) - len(sought) + 1)
    is_it, has_next = np.empty((2, _BLOCK), np.bool)
    found = [np.empty(0, np.int64)]
    for start in range(0, n_places, _BLOCK):
        stop = min(start + _BLOCK, n_places)
        here, also = is_it[: stop - start], has_next[: stop - start]
        np.equal(data[start:stop], sought[0], out=here)
        for k, byte in enumerate(sought[1:], start=1):
            np.equal(data[start + k : stop + k], byte, out=also)
            np.logical_and(here, also, out=here)
        found.append(np.flatnonzero(here) + start)
    return np.concatenate(found)


def _starts(ids: pa.StringArray) -> NDArray[np.int32]:
    """Return where each begins in the bytes of all, and where the last one ends, shape (M + 1,)."""
    starts = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    return starts - starts[:1]


def _bytes(ids: pa.StringArray) -> NDArray[np.uint8]:
    """Return the bytes of all, one after the other."""
    starts = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    return data[starts[0] : starts[-1]] if len(ids) else data[:0]


def _lower(ids: pa.StringArray) -> pa.StringArray:
    return pc.ascii_lower(ids) if _is_ascii(ids) else pc.utf8_lower(ids)


def _is_ascii(ids: pa.StringArray) -> bool:
    data = ids.buffers()[2]
    return data is None or not data.size or bool(np.frombuffer(data, np.int8).min() >= 0)
