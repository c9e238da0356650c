"""A map of the images: which are on it, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.session.selection import Filter

if TYPE_CHECKING:
    import numpy.typing as npt

    from amatch_widgets.session.scoreboard import Scoreboard

__all__ = ["ImageMap", "of_note"]

_N_TOP = 500


@dataclass(frozen=True, slots=True, eq=False)
class ImageMap:
    """Images in two dimensions: what is alike lies close together, as far as that is possible.

    Attributes
    ----------
    image_ids : tuple of str, length M
    indices : ndarray of int64, shape (M,)
        Their positions in the source, rising.
    xy : ndarray of float32, shape (M, 2)
        Their places on the map, in [0, 1]. Read-only. The axes have no meaning of their own.
    """

    image_ids: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    xy: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        return f"ImageMap({len(self):,} images)"

    def __len__(self) -> int:
        return len(self.image_ids)


def of_note(board: Scoreboard) -> npt.NDArray[np.int64]:
    """Return the positions of the images no map shall lack: labelled, starred, and the highest 500."""
    top = board.ranking("highest", "all", Filter(), 0)[:_N_TOP]
    top = top[np.isfinite(board.scores[top])]
    said = [board.ranking("highest", show, Filter(), 0) for show in ("labelled", "starred")]
    return np.unique(np.concatenate([top, *said]))
