"""What a session measured, step by step and cycle by cycle, for the curves."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from amatch_widgets.learn.metrics import Metrics
from amatch_widgets.learn.records import StepRecord
from amatch_widgets.session._lines import JsonLines

if TYPE_CHECKING:
    from pathlib import Path

    from amatch_widgets.learn.health import HealthMonitor

__all__ = ["CycleRecord", "History", "utc_now"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRecord:
    """What a cycle of training, scoring and evaluation brought.

    Attributes
    ----------
    cycle, step : int
        Both counted over the whole session.
    metrics : Metrics
        On the labels that are held out.
    n_anomalies, n_normals : int
        Labels there were when it was evaluated.
    train_s, score_s : float
        Wall time, in s.
    time : str
        When it ended, ISO 8601 in UTC.
    deep_weight : float
        The weight in the ranking that the trained model was given beside the instant tier's 1.
    verdict : str
        Why, in plain words.
    alone : Metrics or None
        Of the trained model by itself, on the same labels; None in records of older versions.
    """

    cycle: int
    step: int
    metrics: Metrics
    n_anomalies: int
    n_normals: int
    train_s: float
    score_s: float
    time: str
    deep_weight: float = 0.0
    verdict: str = ""
    alone: Metrics | None = None


class History:
    """The records of a session, in memory and in ``history.jsonl``.

    The file is only for the curves after a restart, so a line that cannot be read is skipped,
    and a disk that is full does not stop a training.

    Thread safety: ``_lock`` guards both lists; ``_file`` is written to by the worker's thread alone.

    Parameters
    ----------
    path : Path
        Read if it exists.
    last_step : int
        The step of the last checkpoint. Later steps, trained and then lost with a killed kernel,
        are left out: they will be done again.
    """

    def __init__(self, path: Path, *, last_step: int) -> None:
        self._lock = threading.Lock()
        self._steps: list[StepRecord] = []
        self._cycles: list[CycleRecord] = []
        self._file = JsonLines(path)
        self._file.replay(self._replay)
        self._forget_from(last_step + 1)

    def __repr__(self) -> str:
        return f"History({len(self._steps)} steps, {len(self._cycles)} cycles)"

    @property
    def steps(self) -> list[StepRecord]:
        """All step records, oldest first."""
        return self.steps_since(0)

    @property
    def cycles(self) -> list[CycleRecord]:
        """All cycle records, oldest first."""
        with self._lock:
            return list(self._cycles)

    def steps_since(self, n: int) -> list[StepRecord]:
        """Return the step records after the first `n`."""
        with self._lock:
            return self._steps[n:]

    def add_step(self, record: StepRecord) -> None:
        """Take a step; one that was done before, and lost with its model, is replaced."""
        with self._lock:
            self._forget_from(record.step)
            self._steps.append(record)
        self._file.append([{"step": asdict(record)}])

    def add_cycle(self, record: CycleRecord) -> None:
        """Take a cycle."""
        with self._lock:
            self._cycles.append(record)
        self._file.append([{"cycle": asdict(record)}])

    def tell(self, monitor: HealthMonitor) -> None:
        """Let a monitor that knows nothing take all records; what it says of them was said then."""
        cycles = {record.step: record for record in self.cycles}
        for record in self.steps:
            monitor.step(record)
            cycle = cycles.get(record.step)
            if cycle is not None and cycle.alone is not None:
                monitor.cycle(cycle.alone.auroc)

    def _replay(self, entry: dict[str, Any]) -> None:
        if "step" in entry:
            record = StepRecord(**entry["step"])
            self._forget_from(record.step)
            self._steps.append(record)
        else:
            fields = entry["cycle"]
            alone = fields.get("alone")
            metrics = {
                "metrics": Metrics.from_dict(fields["metrics"]),
                "alone": None if alone is None else Metrics.from_dict(alone),
            }
            cycle = CycleRecord(**fields | metrics)
            _forget(self._cycles, cycle.step)  # a full disk: it was written twice
            self._cycles.append(cycle)

    def _forget_from(self, step: int) -> None:
        _forget(self._steps, step)
        _forget(self._cycles, step)


def _forget(records: list[StepRecord] | list[CycleRecord], from_step: int) -> None:
    while records and records[-1].step >= from_step:
        records.pop()


def utc_now() -> str:
    """Return the time now, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
