"""The instant tier: a linear head on the embeddings, refitted on a small thread after each label."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from amatch_widgets.query.head import InstantFit, InstantHead, Outside

__all__ = ["InstantTier"]

_log = logging.getLogger(__name__)


class InstantTier:
    """Keep the head up to date with the labels.

    Parameters
    ----------
    labels : callable
        Returns (version, {index: class}) of the labels to learn from.
    outside : callable
        Returns (version, Outside), labelled images that are not ranked.
    use : callable
        Takes each new fit and the labels it was made of, on this tier's thread.
    fail : callable
        Takes the error of a fit that failed, on this tier's thread.
    seed : int

    Notes
    -----
    Thread safety: ``_changed`` guards ``_head``, ``_fitted`` and ``_is_closed``. Fits are made
    outside the lock, on this tier's thread; the engine may call `fit` on its own.
    """

    def __init__(
        self,
        labels: Callable[[], tuple[int, Mapping[int, int]]],
        outside: Callable[[], tuple[int, Outside]],
        use: Callable[[InstantFit, Mapping[int, int]], None],
        fail: Callable[[Exception], None],
        *,
        seed: int,
    ) -> None:
        self._labels, self._outside = labels, outside
        self._use, self._fail, self._seed = use, fail, seed
        self._changed = threading.Condition()
        self._head: InstantHead | None = None
        self._fitted: tuple[int, int, int] | None = None  # (head's number, versions of the labels)
        self._number = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def start(
        self,
        vectors: npt.NDArray[np.float16],
        spaces: Sequence[slice],
        is_usable: npt.NDArray[np.bool_],
    ) -> None:
        """Rank by these embeddings from now on; returns at once.

        Parameters
        ----------
        vectors : ndarray of float16, shape (N, D)
        spaces : sequence of slice
        is_usable : ndarray of bool, shape (N,)
            False for images that have no embedding.
        """
        from amatch_widgets.query.head import InstantHead  # noqa: PLC0415 (imports scikit-learn)

        head = InstantHead(vectors, spaces, is_usable, seed=self._seed)
        with self._changed:
            if self._is_closed:
                return
            self._head = head
            self._number += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="amatch-instant", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def refit(self) -> None:
        """Tell that the labels have changed; returns at once."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the labels given so far are in the ranking; False when it takes too long."""
        with self._changed:
            if self._head is None:
                return True
            return self._changed.wait_for(lambda: self._is_closed or not self._is_behind(), timeout_s)

    def fit(self, labels: Mapping[int, int]) -> InstantFit | None:
        """Fit to these labels, for the caller alone; nothing is kept. None without embeddings."""
        head = self._head
        return None if head is None else head.fit(labels, self._outside()[1])

    def held_out(self, labels: Mapping[int, int]) -> dict[int, float]:
        """Judge each of these labels by fits that were not shown it; empty without embeddings."""
        head = self._head
        return {} if head is None else head.held_out(labels)

    def close(self) -> None:
        """End the thread; closing twice does no harm."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _is_behind(self) -> bool:
        return self._fitted != (self._number, self._labels()[0], self._outside()[0])

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._is_behind())
                if self._is_closed:
                    return
                head, number = self._head, self._number
                version, labels = self._labels()
                outer, outside = self._outside()
            assert head is not None  # the thread starts with one
            try:
                self._use(head.fit(labels, outside), labels)
            except Exception as error:  # noqa: BLE001 (the thread's border: the ranking before stays)
                _log.exception("The instant tier could not be fitted to %d labels", len(labels))
                self._fail(error)
            with self._changed:
                self._fitted = (number, version, outer)
                self._changed.notify_all()
