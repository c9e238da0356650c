"""Ids of very many images: in one piece of memory, with the way from each id back to its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from amatch_widgets.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["IdIndex", "PackedIds"]

_BLOCK = 2**18  # ids at a time: what is computed for them takes some tens of MB
_WORD = 8  # bytes of a 64-bit word
# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GAMMA, _MIX = np.uint64(0x9E3779B97F4A7C15), (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class PackedIds(Sequence[str]):
    """Unique ids in one piece of memory, a few bytes each beside their text.

    A tuple of ten million strings takes a gigabyte, and a dict of them another; this takes 20 bytes
    for each id beside its text, with the way back to its position. Pickled by its text alone.

    Parameters
    ----------
    ids : iterable of str, or pyarrow Array or ChunkedArray of strings
        Unique. Ids in an array are never made Python objects.

    Raises
    ------
    SourceError
        If an id is missing, no valid text, or given more than once.
    """

    def __init__(self, ids: Iterable[str] | pa.Array | pa.ChunkedArray) -> None:
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

        self._array = _as_strings(ids)
        pa.default_memory_pool().release_unused()  # else Arrow keeps 0.2 GB that it read ten million with
        hashes = _hashes(self._array)
        order = np.argsort(hashes, kind="stable")
        self._order = order.astype(np.uint32 if len(order) < 2**32 else np.int64)
        del order
        hashes.sort()  # in its place: a sorted copy of ten million would take 80 MB more
        self._hashes = hashes
        self._check_unique()

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self._text(i) for i in range(start, stop, step)]
            found: list[str] = self._array.slice(start, max(0, stop - start)).to_pylist()
            return found
        return self._text(range(len(self))[index])

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self.position(value) is not None

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedIds, (self._array,)

    def __repr__(self) -> str:
        return f"PackedIds({len(self):,})"

    def position(self, image_id: str) -> int | None:
        """Return the position of an id; None if it is not there."""
        try:
            wanted = _hashes(_as_strings([image_id]))[0]
        except SourceError:  # no valid text
            return None
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        return next((int(i) for i in self._order[first:last] if self._text(int(i)) == image_id), None)

    def positions(self, ids: Any) -> NDArray[np.int64]:
        """Return the positions of many ids, a list or an Arrow array of N texts; -1 for those not there."""
        import pyarrow.compute as pc  # noqa: PLC0415 - import amatch_widgets must be quick

        wanted = _as_strings(ids)
        found = np.full(len(wanted), -1, np.int64)
        if not len(self):
            return found
        for start in range(0, len(wanted), _BLOCK):
            part = wanted.slice(start, _BLOCK)
            hashes = _hashes(part)
            at = np.minimum(np.searchsorted(self._hashes, hashes), len(self) - 1)
            here = self._order[at].astype(np.int64)
            is_it = np.asarray(pc.equal(self._array.take(here), part).to_numpy(zero_copy_only=False), bool)
            found[start : start + len(part)] = np.where(is_it, here, -1)
            for k in np.flatnonzero(~is_it & (self._hashes[at] == hashes)):  # another of the same hash
                position = self.position(part[int(k)].as_py())
                found[start + k] = -1 if position is None else position
        return found

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of an id; ValueError if it is not there."""
        found = self.position(value) if isinstance(value, str) else None
        if found is None or not start <= found < (len(self) if stop is None else stop):
            raise ValueError(f"{value!r} is no id here")
        return found

    def take(self, indices: NDArray[np.int64]) -> PackedIds:
        """Return some of the ids, by their positions, which differ from each other."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

        return PackedIds(self._array.take(pa.array(indices)))

    def contain(self, text: str) -> NDArray[np.bool_]:
        """Say of each id whether it contains a text, upper and lower case alike; bool, shape (N,)."""
        import pyarrow.compute as pc  # noqa: PLC0415 - import amatch_widgets must be quick

        found = pc.match_substring(self._array, text, ignore_case=True)
        return np.asarray(found.to_numpy(zero_copy_only=False), bool)

    def encoded(self, end: bytes) -> Iterator[memoryview]:
        """Give the UTF-8 of all ids, `end` after each, in large pieces."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        for first in range(0, len(self), _BLOCK):
            part = self._array.slice(first, _BLOCK).cast(pa.large_binary())
            joined = pc.binary_join_element_wise(part, pa.scalar(end, part.type), pa.scalar(b"", part.type))
            _, offsets, text = joined.buffers()
            n_bytes = np.frombuffer(offsets, np.int64)[joined.offset + len(joined)]
            yield memoryview(text or b"")[:n_bytes]

    def _text(self, i: int) -> str:
        text: str = self._array[i].as_py()
        return text

    def _check_unique(self) -> None:
        """Compare the ids that share a hash; as a rule these are those given twice."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        for k in same[:_BLOCK].tolist():
            text = self._text(int(self._order[k]))
            end = int(np.searchsorted(self._hashes, self._hashes[k], "right"))
            if any(self._text(int(i)) == text for i in self._order[k + 1 : end]):
                raise SourceError(
                    f"The id {text!r} is given more than once. Each image needs an id of its own."
                )


class IdIndex(Mapping[str, int]):
    """The way from an id to its position, for ids that know it themselves.

    Parameters
    ----------
    ids : sequence of str with ``position(id)``, which returns an int or None
    """

    def __init__(self, ids: Any) -> None:
        self._ids = ids

    def __getitem__(self, image_id: str) -> int:
        found = self._ids.position(image_id) if isinstance(image_id, str) else None
        if found is None:
            raise KeyError(image_id)
        return int(found)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and self._ids.position(image_id) is not None

    def positions(self, ids: Any) -> NDArray[np.int64]:
        """Return the positions of many ids, an Arrow array of N texts; -1 for those not there."""
        if hasattr(self._ids, "positions"):
            found: NDArray[np.int64] = self._ids.positions(ids)
            return found
        places = map(self._ids.position, ids.to_pylist())
        return np.array([-1 if place is None else place for place in places], np.int64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def _as_strings(ids: Any) -> pa.LargeStringArray:
    """Bring ids into one Arrow array, or say what is wrong with them."""
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    if not isinstance(ids, pa.Array | pa.ChunkedArray):
        given = ids if isinstance(ids, list | tuple) else list(ids)
        try:
            array = pa.array(given, pa.large_string())
        except (pa.ArrowException, TypeError, UnicodeError):
            raise SourceError(_what_is_wrong(given)) from None
    else:
        array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        if isinstance(array, pa.ChunkedArray):  # what was empty stays chunked
            array = pa.array([], pa.large_string())
        kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            array = array.cast(pa.large_string())
        else:
            raise SourceError(
                f"The ids are of type {array.type}. Allowed are text and whole numbers: convert them, e.g. "
                "with str(id)."
            )
    if array.null_count:
        missing = next(i for i, is_there in enumerate(array.is_valid()) if not is_there.as_py())
        raise SourceError(f"Image {missing} has no id. Each image needs an id of its own.")
    return array


def _what_is_wrong(ids: Iterable[object]) -> str:
    for image_id in ids:
        if not isinstance(image_id, str):
            return f"The id {image_id!r} is no string. Make strings of the ids, e.g. str(id)."
        try:
            image_id.encode()
        except UnicodeEncodeError:
            return f"The id {image_id!r} is no valid text. Take the surrogates out."
    return "The ids are no strings."


def _hashes(array: pa.LargeStringArray) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each id: of its length and its bytes, a word at a time, mixed after each."""
    hashes = np.empty(len(array), np.uint64)
    for first in range(0, len(array), _BLOCK):
        part = array.slice(first, _BLOCK)
        _, offsets_buffer, text_buffer = part.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64)[part.offset : part.offset + len(part) + 1]
        text = np.frombuffer(text_buffer or b"", np.uint8)
        lengths = np.diff(offsets)
        for length in np.unique(lengths):
            those = np.flatnonzero(lengths == length)
            hashes[first + those] = _hash_rows(text, offsets[those], int(length))
    return hashes


def _hash_rows(text: NDArray[np.uint8], starts: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """Hash pieces of one length that begin at `starts`."""
    n_words = -(-length // _WORD)
    padded = np.zeros((len(starts), n_words * _WORD), np.uint8)
    padded[:, :length] = text[starts[:, None] + np.arange(length)]
    words = padded.view("<u8")
    state = np.full(len(starts), np.uint64(length), np.uint64)
    with np.errstate(over="ignore"):
        for k in range(n_words):
            state = (state ^ words[:, k]) + _GAMMA
            for shift, factor in ((np.uint64(30), _MIX[0]), (np.uint64(27), _MIX[1])):
                state = (state ^ (state >> shift)) * factor
            state ^= state >> np.uint64(31)
    return state
