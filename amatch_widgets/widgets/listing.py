"""The list behind the gallery: pages that stay as they were seen, and what comes after them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Listing"]

_Indices = NDArray[np.int64]
_Values = NDArray[np.float32]


class Listing:
    """An order of images of which a beginning was seen and is kept, whatever the ranking does.

    Thread safety: none; the gallery's lock guards it.

    Parameters
    ----------
    order : ndarray of int64, shape (M,)
        Indices of the listed images, each once, in order.
    values : ndarray of float32, shape (N,)
        What is written beside each image of the source, by index; NaN for nothing.
    is_live : bool
        Whether newer rankings may replace what was not seen yet.
    """

    def __init__(self, order: _Indices, values: _Values, *, is_live: bool) -> None:
        self.is_live = is_live
        self._order = order
        self._values = values[order]  # as they were when the list was made: a page seen stays as it is
        self._n_seen = 0

    @property
    def n_seen(self) -> int:
        """How many images from the beginning were on the screen."""
        return self._n_seen

    def __len__(self) -> int:
        return len(self._order)

    def n_pages(self, per_page: int) -> int:
        """Return the number of pages, at least 1."""
        return max(1, -(-len(self) // per_page))

    def page(self, number: int, per_page: int) -> tuple[_Indices, _Values]:
        """Return the images of a page, counted from 0, and the values beside them."""
        place = slice(number * per_page, (number + 1) * per_page)
        return self._order[place], self._values[place]

    def positions(self, images: _Indices) -> _Indices:
        """Return where in the list these images are, rising; those that are not listed are left out."""
        return np.flatnonzero(np.isin(self._order, images))

    def is_unseen(self, number: int, per_page: int) -> bool:
        """Whether a part of this page was never on the screen."""
        return (number + 1) * per_page > self._n_seen

    def see(self, number: int, per_page: int) -> None:
        """Keep this page, and all before it, as they are from now on."""
        self._n_seen = max(self._n_seen, min((number + 1) * per_page, len(self)))

    def splice(self, ranking: _Indices, values: _Values) -> None:
        """Replace all that was not seen by the images of a newer ranking that were not seen.

        Parameters
        ----------
        ranking : ndarray of int64, shape (K,)
            The newer order, each image once.
        values : ndarray of float32, shape (N,)
            As for the constructor.
        """
        seen = self._order[: self._n_seen]
        behind = self.rest_of(ranking, len(values))
        self._order = np.concatenate([seen, behind])
        self._values = np.concatenate([self._values[: self._n_seen], values[behind]])

    def rest_of(self, ranking: _Indices, n: int) -> _Indices:
        """Return what of a ranking of a source of `n` images was not seen yet, in its order."""
        is_seen = np.zeros(n, np.bool_)  # a mask instead of a sort: 1 ms instead of 100 for a million
        is_seen[self._order[: self._n_seen]] = True
        return ranking[~is_seen[ranking]]
