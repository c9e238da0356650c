"""Many images in one array that lies in chunks on a disk: its axes, and how to read each chunk once."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.array import plain_pixels
from amatch_widgets.images.decode import MAX_PIXELS, UnreadableError, decode
from amatch_widgets.images.ids import check_index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["AXES", "Stack", "bands_of", "check_axes", "encoded_stack", "pixel_stack", "read_rows", "runs"]

Axes = Literal["NHW", "NHWC", "NCHW", "N"]
AXES = ("NHW", "NHWC", "NCHW")

_MOST_CHANNELS = 16  # an axis that is longer is no channel axis, as far as can be told by its length
_BATCH_BYTES = 2**25  # read at once where chunks are small: a call for each would cost more than its pixels
_SLAB_BYTES = 2**30  # read at once where chunks cut the images up: all chunks across them lie in memory
_ENCODED_ROWS = 256  # of variable length: about 25 MB of JPEG files of 100 kB
_BAND_NAMES = ("bands", "filters", "channel_names", "channels")


@dataclass(frozen=True, slots=True)
class Stack:
    """How the images lie in an array.

    Attributes
    ----------
    n : int
        How many images there are, along the first axis.
    axes : {"NHW", "NHWC", "NCHW", "N"}
        "N" is an encoded file (JPEG, PNG, TIFF) for each image.
    channels : int
        3 for encoded files.
    chunk : int
        How many images are decompressed together.
    shard : int
        How many images lie together, as far as `_BATCH_BYTES` allow: a multiple of `chunk`.
    batch : int
        How many images may be read at once: a multiple of both.
    """

    n: int
    axes: Axes
    channels: int
    chunk: int
    shard: int
    batch: int

    def image(self, row: Any, *, min_side: int | None = None) -> NDArray[Any]:
        """Make an image of what the array holds for it.

        Parameters
        ----------
        row : ndarray of shape (H, W), (H, W, C) or (C, H, W); or bytes, void or ndarray of uint8
        min_side : int, optional
            As for `ImageSource.read`; for encoded images.

        Returns
        -------
        ndarray of uint8, uint16 or float32, shape (H, W, C)
            A copy, so that it does not keep the whole chunk in memory.

        Raises
        ------
        UnreadableError
            It is an encoded file that cannot be decoded.
        """
        if self.axes == "N":
            return decode(io.BytesIO(row if isinstance(row, bytes) else row.tobytes()), min_side=min_side)
        if self.axes == "NHW":
            row = row[..., None]
        elif self.axes == "NCHW":
            row = np.moveaxis(row, 0, -1)
        return plain_pixels(np.array(row, order="C"))


def pixel_stack(
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    what: str,
    axes: str | None = None,
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
) -> Stack:
    """Say how images lie in an array of pixels.

    Parameters
    ----------
    shape, dtype
        Of the array.
    what : str
        What it is, for the errors, e.g. ``"The dataset 'images' of 'a.h5'"``.
    axes : {"NHW", "NHWC", "NCHW"}, optional
        Default what the shape says: a last axis (or a second) of at most 16 that is shorter than the two
        others holds the channels.
    chunks : sequence of int, optional
        What is decompressed at once; default is one image.
    shards : sequence of int, optional
        What lies together in one file; default `chunks`.

    Returns
    -------
    Stack

    Raises
    ------
    SourceError
        The array holds no images, or its axes cannot be told.
    """
    found = f"{what} has shape {tuple(shape)} and dtype {dtype}"
    if dtype.kind not in "biuf":
        raise SourceError(
            f"{found}: that is no real number per pixel. Convert it to uint8, uint16 or float32."
        )
    known = check_axes(axes) or _find_axes(shape, found)
    if len(shape) != len(known):
        raise SourceError(f"{found}, but axes={axes!r} was given. Give as many axes as there are.")
    if 0 in shape:
        raise SourceError(f"{found}: there is no image in it. At least one image of one pixel is needed.")
    sizes = dict(zip(known, shape, strict=True))
    if sizes["H"] * sizes["W"] > MAX_PIXELS:
        raise SourceError(
            f"{found}: more than {MAX_PIXELS // 10**6} million pixels for one image are not read. "
            "Cut the images into smaller ones."
        )
    image_bytes = math.prod(shape[1:]) * dtype.itemsize
    chunk, shard = 1, 1
    if chunks is not None:
        # Of chunks that cut the images up, all those across the images are needed at once.
        most = max(_SLAB_BYTES, math.prod(chunks) * dtype.itemsize) // image_bytes
        chunk = max(1, min(chunks[0], shape[0], most))
        shard = shards[0] if shards and shards[0] * image_bytes <= _BATCH_BYTES else chunk
    batch = shard * max(1, _BATCH_BYTES // (shard * image_bytes))
    return Stack(shape[0], known, sizes.get("C", 1), chunk, shard, batch)


def encoded_stack(n: int, *, chunk: int | None = None, row_bytes: int = 0) -> Stack:
    """Say how encoded images lie in an array of bytes.

    Parameters
    ----------
    n : int
        How many there are.
    chunk : int, optional
        How many are decompressed at once; default 1, for bytes of variable length too: they lie elsewhere.
    row_bytes : int
        Bytes of one row, where all are of one length.
    """
    together = max(1, min(chunk or 1, n))
    most = _BATCH_BYTES // row_bytes if row_bytes else _ENCODED_ROWS
    return Stack(n, "N", 3, together, together, together * max(1, most // together))


def check_axes(axes: str | None) -> Axes | None:
    """Return the option `axes` if it is allowed; raise SourceError if not."""
    if axes is None or axes in AXES:
        return axes  # type: ignore[return-value]
    raise SourceError(f"axes={axes!r} is unknown. Allowed are {', '.join(map(repr, AXES))}.")


def _find_axes(shape: Sequence[int], found: str) -> Axes:
    if len(shape) == 3:  # noqa: PLR2004 - (N, H, W)
        if shape[2] in (3, 4) and shape[1] > 4:  # noqa: PLR2004 - (H, W, 3 or 4)
            raise SourceError(
                f"{found}, which looks like one single image. Allowed is (N, H, W), (N, H, W, C) or "
                "(N, C, H, W); if it is (N, H, W) indeed, say so by axes='NHW'."
            )
        return "NHW"
    if len(shape) != 4:  # noqa: PLR2004 - with channels
        raise SourceError(
            f"{found}. Allowed is (N, H, W), (N, H, W, C) or (N, C, H, W): many images of equal size."
        )
    _, first, middle, last = shape
    if last <= _MOST_CHANNELS and last < min(first, middle):
        return "NHWC"
    if first <= _MOST_CHANNELS and first < min(middle, last):
        return "NCHW"
    raise SourceError(
        f"{found}: it is ambiguous which axis holds the channels. Expected is the last or the second, at "
        f"most {_MOST_CHANNELS} long and shorter than the two others. Say it by axes='NHWC' or axes='NCHW'."
    )


def bands_of(attributes: Mapping[str, Any], channels: int) -> tuple[str, ...] | None:
    """Return the names of the channels if the attributes of an array give them."""
    for name in _BAND_NAMES:
        values = attributes.get(name)
        if isinstance(values, list | tuple | np.ndarray) and len(values) == channels:
            texts = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values]
            if all(isinstance(text, str) for text in texts):
                return tuple(str(text) for text in texts)
    return None


def runs(indices: Sequence[int] | NDArray[np.int64], chunk: int, batch: int) -> Iterator[NDArray[np.int64]]:
    """Cut indices into pieces that are best read at once.

    Parameters
    ----------
    indices : sequence of int, >= 0
    chunk : int
        How many images are decompressed together; chunks between two pieces are not read.
    batch : int
        No piece goes over a multiple of it.

    Yields
    ------
    ndarray of int64
        Sorted; no chunk is in two pieces if `batch` is a multiple of `chunk`.
    """
    ordered = np.sort(np.asarray(indices, np.int64))
    if not len(ordered):
        return
    cut = (np.diff(ordered // chunk) > 1) | (np.diff(ordered // batch) > 0)
    ends = np.append(np.flatnonzero(cut) + 1, len(ordered))
    start = 0
    for end in ends:
        yield ordered[start:end]
        start = end


def read_rows(
    stack: Stack,
    rows: Callable[[int, int], Any],
    indices: Sequence[int] | NDArray[np.int64],
    *,
    min_side: int | None = None,
) -> Iterator[tuple[int, NDArray[Any] | UnreadableError]]:
    """Read many images, each chunk once, in memory for one batch.

    Parameters
    ----------
    stack : Stack
    rows : callable
        ``rows(start, stop)`` reads a part of the array, or raises UnreadableError.
    indices : sequence of int
        Different from each other, in any order.
    min_side : int, optional
        As for `ImageSource.read`.

    Yields
    ------
    int
        Each of the indices, once.
    ndarray of uint8, uint16 or float32, shape (H, W, C), or UnreadableError

    Raises
    ------
    IndexError
        There is no such index.
    """
    if len(indices):
        check_index(int(np.min(indices)), stack.n)
        check_index(int(np.max(indices)), stack.n)
    for run in runs(indices, stack.chunk, stack.batch):
        todo = [run]
        while todo:
            part = todo.pop()
            first = int(part[0])
            try:
                slab = rows(first, int(part[-1]) + 1)
            except UnreadableError as error:
                alone = list(runs(part, stack.chunk, stack.chunk))
                if len(alone) > 1:  # perhaps not all of its chunks are bad: each by itself
                    todo += reversed(alone)
                else:
                    yield from ((i, error) for i in part.tolist())
                continue
            for i in part.tolist():
                try:
                    image: NDArray[Any] | UnreadableError = stack.image(slab[i - first], min_side=min_side)
                except UnreadableError as error:
                    image = error
                yield i, image
            del slab  # not two of them at a time
