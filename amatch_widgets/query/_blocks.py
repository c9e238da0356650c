"""Going through vectors that may not fit in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["in_blocks"]

_ROWS = 4096  # 8 MB of float32 at 512 columns; from 256 to 16,384 rows the time is the same


def in_blocks(vectors: NDArray[np.float16]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Go through vectors a block at a time, as float32.

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        In memory or memory-mapped.

    Yields
    ------
    slice
        The rows of the block.
    ndarray of float32, shape (rows, D)
        Their values. The memory is used again for the next block: keep nothing of it.
    """
    # One buffer: a new one for each block would cost its page faults every time.
    buffer = np.empty((min(_ROWS, len(vectors)), vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, min(start + _ROWS, len(vectors)))
        block = buffer[: rows.stop - rows.start]
        np.copyto(block, vectors[rows])
        yield rows, block
