"""A small memory of what was read last, for sources that can only read many images together."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["KEPT_BYTES", "Kept"]

KEPT_BYTES = 128 * 2**20  # some row groups of thumbnails, or the last images of a cube; Binder has 2 GB


class Kept:
    """The blocks of images that were used last, as many as fit into a number of bytes.

    Thread safety: ``get`` may be called from any thread. One lock guards the blocks and is held while one
    is loaded: threads that want the same block wait for it, and at most one is in the making. A forked
    process begins with none, and with a lock of its own: that of its parent may never be released there.

    Parameters
    ----------
    limit : int
        Bytes; the block used last is kept, whatever its size.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._state = _State()

    def get(self, key: Hashable, load: Callable[[], tuple[Any, int]]) -> Any:
        """Return a block, loading it if it is not here.

        Parameters
        ----------
        key : hashable
            Which block.
        load : callable
            Returns the block and its size in bytes. What it raises is raised here, and nothing is kept.
        """
        state = self._state
        if state.pid != os.getpid():
            state = self._state = _State()
        with state.lock:
            if key not in state.blocks:
                state.blocks[key] = load()
            state.blocks.move_to_end(key)
            while len(state.blocks) > 1 and sum(size for _, size in state.blocks.values()) > self._limit:
                state.blocks.popitem(last=False)
            return state.blocks[key][0]


class _State:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.blocks: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
