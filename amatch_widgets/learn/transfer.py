"""Images on their way to the device, and those that stay there for a cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amatch_widgets.images.pixels import PixelPool

__all__ = ["Resident", "room_for_images", "to_device"]

_SHARE = 4  # images may take a fourth of the free memory of a GPU


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device, on a GPU without waiting for what it does now."""
    x = torch.from_numpy(array)
    if device.type == "cuda":
        x = x.pin_memory()  # else the copy waits for the work before it
    return x.to(device, non_blocking=True)


def room_for_images(device: torch.device) -> int:
    """Return how many bytes of images are to stay on a device; 0 for a CPU, where the pool has them."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free // _SHARE


class Resident:
    """A copy on the device of the images that a pool holds in memory, taken once.

    A step copies only those images to the device that are not here.

    Parameters
    ----------
    pool : PixelPool
    device : torch.device
    room : int, >= 0
        Bytes that the images may take on the device; those beyond it are not here.

    Notes
    -----
    Thread safety: `rows` may be called from any thread, the rest from the worker's alone.
    """

    def __init__(self, pool: PixelPool, device: torch.device, room: int) -> None:
        images, indices = pool.kept()
        n = min(len(images), room // images[0].nbytes) if len(images) else 0
        self._images = torch.from_numpy(images[:n]).to(device)
        self._rows = np.full(len(pool), -1, np.int64)
        self._rows[indices[:n]] = np.arange(n)

    def __len__(self) -> int:
        return len(self._images)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows in which images of the pool are here, shape (N,); -1 for those that are not."""
        return self._rows[indices]

    def complete(self, streamed: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Put images from here among those that were copied for a step.

        Parameters
        ----------
        streamed : Tensor of uint8, shape (M, S, S, C)
            On the device; in the order of the M rows that are -1.
        rows : ndarray of int64, shape (N,)
            As from `rows`.

        Returns
        -------
        Tensor of uint8, shape (N, S, S, C)
            On the device, in the order of `rows`.
        """
        is_streamed = rows < 0
        if is_streamed.all():
            return streamed
        device = self._images.device
        found = self._images.index_select(0, to_device(rows.clip(0), device))
        return found.index_copy_(0, to_device(np.flatnonzero(is_streamed), device), streamed)
