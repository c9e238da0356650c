"""Ids that lie beside the images: in arrays of text or whole numbers, of which there may be very many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.packed import PackedIds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = [
    "BY_POSITION",
    "ID_NAMES",
    "blocks_of",
    "holds_ids",
    "join_ids",
    "names_to_try",
    "pack_ids",
    "to_arrow",
]

# Tried in this order. The last three are the columns that images_to_zarr and Cutana write.
ID_NAMES = ("filenames", "ids", "id", "names", "object_id", "original_filename", "filename", "source_id")
BY_POSITION = "position"  # as ids_from=: number the images, whatever ids there are

_BLOCK = 2**17  # ids made Python objects at a time


def names_to_try(ids_from: str | None) -> tuple[str, ...]:
    """Return under which names ids may lie, by the option ``ids_from``."""
    if ids_from is None:
        return ID_NAMES
    return () if ids_from == BY_POSITION else (ids_from,)


def holds_ids(shape: tuple[int, ...] | None, kind: str, n: int) -> bool:
    """Say whether an array may hold ids of `n` images, by its shape and the kind of its dtype."""
    return shape == (n,) and kind in "iuSUTO"


def blocks_of(array: Any, n: int, chunk: int = 1) -> Iterator[NDArray[Any]]:
    """Read an array of ids in pieces, each of its chunks once."""
    step = chunk * max(1, _BLOCK // chunk)
    for start in range(0, n, step):
        yield array[start : start + step]


def to_arrow(blocks: Iterable[NDArray[Any] | list[str]], where: str) -> pa.LargeStringArray:
    """Make one Arrow array of text from arrays of text, bytes (UTF-8) or whole numbers.

    Raises
    ------
    SourceError
        They are something else; `where` says where they lie.
    """
    import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick

    # Not of an Arrow array for each block: of ten million ids these take 0.7 GB more until they are joined.
    text, lengths = bytearray(), [np.zeros(1, np.int64)]
    try:
        for block in blocks:
            encoded = _encode(block)
            text += b"".join(encoded)
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        offsets = np.concatenate(lengths).cumsum()
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        binary = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
        return binary.cast(pa.large_string())
    except (pa.ArrowException, TypeError, UnicodeError) as exc:
        raise SourceError(
            f"{where} cannot be used as ids: {exc}. Allowed are text (UTF-8) and whole numbers. {_CURE}"
        ) from exc


def pack_ids(array: pa.Array | pa.ChunkedArray, where: str) -> PackedIds:
    """Pack ids; say where they lie if they are not unique."""
    try:
        return PackedIds(array)
    except SourceError as exc:
        raise SourceError(f"{where} cannot be used as ids: {exc} {_CURE}") from exc


def join_ids(
    parts: Iterable[tuple[str, int, Callable[[], pa.LargeStringArray] | None]], where: str
) -> pa.LargeStringArray:
    """Join the ids of several stores, each after the name of its store: ``"store/id"``.

    Parameters
    ----------
    parts : iterable of (str, int, callable or None)
        Name of the store, how many images it has, and what reads their ids; None numbers them.
    where : str
        Where they lie, for errors.
    """

    def blocks() -> Iterator[list[str]]:
        for name, n, read in parts:
            ids = None if read is None else read()
            for start in range(0, n, _BLOCK):
                block = (
                    NumberedIds(n)[start : start + _BLOCK]
                    if ids is None
                    else ids[start : start + _BLOCK].to_pylist()
                )
                yield [f"{name}/{image_id}" for image_id in block]

    return to_arrow(blocks(), where)


_CURE = f"Choose others with ids_from=, or number the images with ids_from={BY_POSITION!r}."


def _encode(block: NDArray[Any] | list[str]) -> list[bytes]:
    values: list[Any] = block if isinstance(block, list) else block.tolist()
    if values and isinstance(values[0], int):
        return [b"%d" % value for value in values]
    return [value if isinstance(value, bytes) else str.encode(value) for value in values]
