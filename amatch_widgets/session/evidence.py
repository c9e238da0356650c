"""What labels said of the trained models, kept from one kernel to the next."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from amatch_widgets.images.source import positions_of
from amatch_widgets.session._lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.query.judge import Judgement

    _Scores = npt.NDArray[np.float32]
    _Lines = list[dict[str, object]]

__all__ = ["Evidence"]

_FADING = 0.5  # what a test counts in the next cycle, whose model is another one
_MAX_Z = 40.0  # beyond any normal score: such a line is damaged, and would outweigh all others


class _Test(NamedTuple):
    """The normal score that the model of `cycle` gave an image."""

    cycle: int
    deep: float


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """The model that labels test: what it has learnt from, its scores, and the finite ones rising."""

    cycle: int
    learnt: frozenset[int]
    deep: _Scores
    ordered: _Scores


class Evidence:
    """The labels that tested a trained model, in memory and in ``evidence.jsonl``.

    A label is asked of the instant fit that ranked when it was given, and tests the trained model
    of that time, or the first one after it that has not learnt from it. So both scores are those
    of a model that did not know the answer, and those that the image was chosen by. The label
    itself is looked up when it is judged: labels that are changed or taken back count as they are.

    A line of the file that cannot be read is skipped, and a disk that is full stops nothing.

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
        self._asked: dict[int, float] = {}  # normal score of the instant tier
        self._tests: dict[int, _Test] = {}
        self._model: _Model | None = None
        self._file = JsonLines(path)
        index = positions_of(ids) if path.exists() else {}
        self._file.replay(lambda entry: self._replay(entry, index))

    def __repr__(self) -> str:
        with self._lock:
            return f"Evidence({len(self._asked)} asked, {len(self._tests)} tests)"

    def learnt_of(self, cycle: int) -> frozenset[int] | None:
        """Return the positions that the model of `cycle` has learnt from; None where that is not known."""
        with self._lock:
            return self._learnt.get(cycle)

    def has_tested(self, cycle: int) -> bool:
        """Whether labels have tested the model of a cycle."""
        with self._lock:
            return any(test.cycle == cycle for test in self._tests.values())

    def ask(self, labels: Mapping[int, int], scores: _Scores, known: Collection[int]) -> None:
        """Take the labels that were given while an instant fit ranked.

        An image is asked once: the first answer is the test. One without a score is not asked.

        Parameters
        ----------
        labels : mapping of int to int
            The labels to learn from as they are now: position to 1 (anomaly) or 0 (normal).
        scores : ndarray of float32, shape (N,)
            Of that fit; NaN where there is none.
        known : collection of int
            Positions whose labels it had learnt from, or which were labelled before it ranked.
        """
        from amatch_widgets.query.judge import normal_scores  # noqa: PLC0415 (SciPy takes its time)

        with self._lock:
            new = [i for i in labels if i not in known and i not in self._asked]
            if not new:
                return
            lines: _Lines = []
            for i, z in zip(new, normal_scores(scores, np.array(new, np.int64)).tolist(), strict=True):
                if np.isfinite(z):
                    self._asked[i] = z
                    lines.append({"id": self._ids[i], "instant": z})
            self._file.append(lines + self._test())

    def begin(self, cycle: int, learnt: Iterable[int] | None, deep: _Scores) -> None:
        """Let labels test the model of `cycle`: those asked already, and from now on those to come.

        Parameters
        ----------
        cycle : int
        learnt : iterable of int, or None
            Positions that the model has learnt from in this cycle. Those of all cycles on file are
            added: it may have gone on from their models, and remember labels taken back since.
            None: those on file for this cycle; without them, nothing is tested until the next time.
        deep : ndarray of float32, shape (N,)
            Its scores; NaN where there is none. They are kept, and must not be changed later.
        """
        ordered = np.sort(deep[np.isfinite(deep)])
        with self._lock:
            positions = on_file = self._learnt.get(cycle)
            if learnt is not None:
                positions = frozenset(map(int, learnt)).union(*self._learnt.values())
            if positions is None:
                self._model = None
                return
            lines: _Lines = []
            if positions != on_file:
                self._learnt[cycle] = positions
                lines.append({"cycle": cycle, "learnt": [self._ids[i] for i in sorted(positions)]})
            self._model = _Model(cycle, positions, deep, ordered)
            self._file.append(lines + self._test())

    def judgement(self, labels: Mapping[int, int]) -> Judgement:
        """Judge by all tests whose image has a label now.

        Parameters
        ----------
        labels : mapping of int to int
            The labels to learn from as they are now: position to 1 (anomaly) or 0 (normal).

        Returns
        -------
        Judgement
            Tests of the cycle before count half, those of the one before that a quarter, and so on.
        """
        from amatch_widgets.query.judge import judge  # noqa: PLC0415 (SciPy takes its time)

        with self._lock:
            if self._model is not None:
                now = self._model.cycle
            else:
                now = max([*self._learnt, *(test.cycle for test in self._tests.values())], default=0)
            found = [
                (cycle, self._asked[i], deep, labels[i])
                for i, (cycle, deep) in self._tests.items()
                if i in labels and i in self._asked  # a damaged line may have held what it was asked
            ]
        cycle, instant, deep, label = np.array(found, np.float64).reshape(-1, 4).T
        # a later cycle than now's was lost with its checkpoint
        return judge(instant, deep, label == 1, _FADING ** np.maximum(now - cycle, 0))

    def _test(self) -> _Lines:
        """Test the model by the asked images that are new to it and have tested none; return the lines."""
        from amatch_widgets.query.judge import normal_among  # noqa: PLC0415 (SciPy takes its time)

        model = self._model
        if model is None:
            return []
        lines: _Lines = []
        new = [i for i in self._asked if i not in self._tests and i not in model.learnt]
        for i, z in zip(new, normal_among(model.deep[new], model.ordered).tolist(), strict=True):
            if np.isfinite(z):
                self._tests[i] = _Test(model.cycle, z)
                lines.append({"cycle": model.cycle, "id": self._ids[i], "deep": z})
        return lines

    def _replay(self, entry: dict[str, Any], index: Mapping[str, int]) -> None:
        if "instant" in entry:
            z = _z(entry["instant"])
            if entry["id"] in index:
                self._asked[index[entry["id"]]] = z
            return
        cycle = int(np.int64(entry["cycle"]))
        if "learnt" in entry:
            self._learnt[cycle] = frozenset(index[i] for i in entry["learnt"] if i in index)
            return
        test = _Test(cycle, _z(entry["deep"]))
        if entry["id"] in index:
            self._tests[index[entry["id"]]] = test


def _z(value: str | float) -> float:
    """Check a normal score from the file."""
    z = float(value)
    if not abs(z) <= _MAX_Z:  # NaN included
        raise ValueError(value)
    return z
