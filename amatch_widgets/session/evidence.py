"""What labels said of the trained models, kept from one kernel to the next."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from amatch_widgets.session._lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.query.judge import Judgement

    _Scores = npt.NDArray[np.float32]

__all__ = ["Evidence"]

_FADING = 0.5  # what a record counts in the next cycle, whose model is another one
_MAX_Z = 40.0  # beyond any normal score: such a line is damaged, and would outweigh all others


class _Record(NamedTuple):
    """The normal scores of both tiers for an image that neither had learnt from."""

    cycle: int
    instant: float
    deep: float


@dataclass(frozen=True, slots=True, eq=False)
class _Test:
    """The two fits that labels test, and their finite scores in rising order."""

    cycle: int
    learnt: frozenset[int]
    instant: _Scores
    deep: _Scores
    ordered_instant: _Scores
    ordered_deep: _Scores


class Evidence:
    """The labels that tested a trained model, in memory and in ``evidence.jsonl``.

    A label tests the model of the current cycle, and an instant fit of the same labels, if
    neither has learnt from it. The scores of both are kept, and the label is looked up when it is
    judged, so that labels that are changed or taken back count as they are. A line that cannot be
    read is skipped, and a disk that is full stops nothing: what could not be written is written
    with the next lines.

    Parameters
    ----------
    path : Path
        Read if it exists.
    ids : sequence of str
        Ids of all images of the source, each once. What the file says of others is left out.

    Notes
    -----
    Thread safety: ``_lock`` guards all attributes and the file; all may be called from any thread.
    """

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self._ids = ids
        self._lock = threading.Lock()
        self._learnt: dict[int, frozenset[int]] = {}
        self._records: dict[int, _Record] = {}
        self._test: _Test | None = None
        self._file = JsonLines(path)
        index = {image_id: i for i, image_id in enumerate(ids)} if path.exists() else {}
        self._file.replay(lambda entry: self._replay(entry, index))

    def __repr__(self) -> str:
        with self._lock:
            return f"Evidence({len(self._records)} records)"

    def learnt_of(self, cycle: int) -> frozenset[int] | None:
        """Return the positions that the model of `cycle` has learnt from; None where that is not known."""
        with self._lock:
            return self._learnt.get(cycle)

    def begin(self, cycle: int, learnt: Iterable[int] | None, instant: _Scores, deep: _Scores) -> None:
        """From now on, let labels test the model of `cycle`.

        Parameters
        ----------
        cycle : int
        learnt : iterable of int, or None
            Positions that the model and the instant fit have learnt from. None: those on file for
            this cycle; where there are none, nothing is tested until the next time.
        instant, deep : ndarray of float32, shape (N,)
            Scores of both; NaN where there is none. They are kept, and must not be changed later.
        """
        ordered = [np.sort(scores[np.isfinite(scores)]) for scores in (instant, deep)]
        with self._lock:
            known = self._learnt.get(cycle)
            positions = known if learnt is None else frozenset(map(int, learnt))
            if positions is None:
                self._test = None
                return
            self._test = _Test(cycle, positions, instant, deep, *ordered)
            if positions != known:
                self._learnt[cycle] = positions
                self._file.append([{"cycle": cycle, "learnt": [self._ids[i] for i in sorted(positions)]}])

    def judgement(self, labels: Mapping[int, int]) -> Judgement:
        """Take the labels that are new, and judge by all there are.

        Parameters
        ----------
        labels : mapping of int to int
            The labels to learn from as they are now: position to 1 (anomaly) or 0 (normal).

        Returns
        -------
        Judgement
            By all records whose image has a label now; those of the cycle before count half,
            those of the one before that a quarter, and so on.
        """
        from amatch_widgets.query.judge import judge  # noqa: PLC0415 (SciPy takes its time)

        with self._lock:
            if self._test is not None:
                self._take(self._test, labels)
                now = self._test.cycle
            else:
                now = max([*self._learnt, *(record.cycle for record in self._records.values())], default=0)
            found = [(*record, labels[i]) for i, record in self._records.items() if i in labels]
        cycle, instant, deep, label = np.array(found, np.float64).reshape(-1, 4).T
        # a later cycle than now's was lost with its checkpoint
        return judge(instant, deep, label == 1, _FADING ** np.maximum(now - cycle, 0))

    def _take(self, test: _Test, labels: Mapping[int, int]) -> None:
        """Record the labels that are new to the fits and have not tested any before."""
        from amatch_widgets.query.judge import normal_among  # noqa: PLC0415 (as above)

        new = [i for i in labels if i not in self._records and i not in test.learnt]
        instant = normal_among(test.instant[new], test.ordered_instant)
        deep = normal_among(test.deep[new], test.ordered_deep)
        lines: list[dict[str, object]] = []
        for i, *scores in zip(new, instant.tolist(), deep.tolist(), strict=True):
            if np.isfinite(scores).all():
                self._records[i] = record = _Record(test.cycle, *scores)
                lines.append({"id": self._ids[i], **record._asdict()})
        self._file.append(lines)

    def _replay(self, entry: dict[str, Any], index: Mapping[str, int]) -> None:
        cycle = int(np.int64(entry["cycle"]))
        if "learnt" in entry:
            self._learnt[cycle] = frozenset(index[i] for i in entry["learnt"] if i in index)
            return
        record = _Record(cycle, _z(entry["instant"]), _z(entry["deep"]))
        if entry["id"] in index:
            self._records[index[entry["id"]]] = record


def _z(value: str | float) -> float:
    """Check a normal score from the file."""
    z = float(value)
    if not abs(z) <= _MAX_Z:  # NaN included
        raise ValueError(value)
    return z
