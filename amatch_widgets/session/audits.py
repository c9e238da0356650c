"""The images that were drawn at random, kept from one kernel to the next, and what they tell."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.query.audit import AuditDraw, draw_audit
from amatch_widgets.session._lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.labels import LabelStore
    from amatch_widgets.query.estimate import Remaining

__all__ = ["Audits"]


@dataclass(frozen=True, slots=True)
class _Call:
    """The images of one call, in the order in which they were drawn, and what there was then."""

    version: int  # lines of the journal
    n_free: int
    image_ids: tuple[str, ...]
    chances: tuple[float, ...]

    def to_record(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "n_free": self.n_free,
            "ids": self.image_ids,
            "chances": self.chances,
        }


class Audits:
    """Draw images at random for a look, and estimate by their labels what is left to find.

    What was drawn is written to ``audits.jsonl`` when it is drawn: an image that nobody labelled
    then is known to be missing from the estimate.

    Parameters
    ----------
    path : Path
        Read if it exists.
    labels : LabelStore
    seed : int
    own : container of str, optional
        The ids of the images that are drawn from, where the labels are of others too.

    Notes
    -----
    Thread safety: ``_lock`` guards the calls and the file; all may be called from any thread.
    """

    def __init__(
        self, path: Path, labels: LabelStore, *, seed: int, own: Container[str] | None = None
    ) -> None:
        self._labels, self._seed, self._own = labels, seed, own
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._file = JsonLines(path)
        self._file.replay(self._replay)

    def __repr__(self) -> str:
        with self._lock:
            return f"Audits({sum(len(call.image_ids) for call in self._calls)} drawn)"

    def draw(
        self, ids: Sequence[str], scores: npt.NDArray[np.float32], free: npt.NDArray[np.int64], n: int
    ) -> list[tuple[int, float]]:
        """Draw images; see `draw_audit`.

        Parameters
        ----------
        ids : sequence of str
            Of all images.
        scores : ndarray of float32, shape (N,)
        free : ndarray of int64, shape (M,)
            Positions of the images that can be read and have no label.
        n : int, >= 0

        Returns
        -------
        list of (int, float)
            Position and chance of each.
        """
        with self._lock:
            seed = int(np.random.SeedSequence([self._seed, len(self._calls)]).generate_state(1)[0])
            found, chances = draw_audit(scores, free, n, seed=seed)
            if len(found):
                call = _Call(
                    self._labels.version,
                    len(free),
                    tuple(ids[int(i)] for i in found),
                    tuple(map(float, chances)),
                )
                self._calls.append(call)
                self._file.append(
                    [
                        {
                            "version": call.version,
                            "n_free": call.n_free,
                            "ids": call.image_ids,
                            "chances": call.chances,
                        }
                    ]
                )
            return list(zip(map(int, found), map(float, chances), strict=True))

    def remaining(self, n_free: int) -> tuple[Remaining, int]:
        """Estimate what is left to find.

        Parameters
        ----------
        n_free : int
            Images that can be read and have no label now.

        Returns
        -------
        Remaining
        int
            Drawn images that have no label: what they are is missing.
        """
        from amatch_widgets.query.estimate import estimate  # noqa: PLC0415 (SciPy takes its time)

        with self._lock:
            calls = list(self._calls)
        now = {
            i: line.label == "anomaly"
            for i, line in self._labels.current().items()
            if self._own is None or i in self._own
        }
        first: dict[str, int] = {}  # the line that labelled an image first
        for number, line in enumerate(self._labels.history()):
            if line.label is not None:
                first.setdefault(line.image_id, number)
        at = np.sort(np.array([first[i] for i, is_anomaly in now.items() if is_anomaly], np.int64))
        draws: list[AuditDraw] = []
        n_open = 0
        for call in calls:
            labels = [now.get(i) for i in call.image_ids]
            n_open += labels.count(None)
            # An image whose label had been taken back was free, and must not count twice.
            again = sum(bool(now.get(i)) and first[i] < call.version for i in call.image_ids)
            n_found = int(np.searchsorted(at, call.version)) - again
            draws += AuditDraw.of_page(call.chances, labels, n_free=call.n_free, n_found=n_found)
        return estimate(draws, n_found=len(at), n_free=n_free), n_open

    def _replay(self, entry: dict[str, Any]) -> None:
        call = _Call(
            int(entry["version"]),
            int(entry["n_free"]),
            tuple(map(str, entry["ids"])),
            tuple(map(float, entry["chances"])),
        )
        for place, chance in enumerate(call.chances):
            AuditDraw(chance, call.n_free - place, 0, is_anomaly=False)  # says what makes no sense
        if len(call.image_ids) == len(call.chances) and call.version >= 0:
            self._calls.append(call)
