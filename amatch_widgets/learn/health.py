"""What goes wrong in a training without an error, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .metrics import Estimate
    from .records import StepRecord

__all__ = ["Alarm", "HealthMonitor"]

# Share of random images that are sure in a first step: healthy is 0 for a linear probe. The instant tier,
# whose scores are no probabilities, means up to half of them to be; where it means far more it is no trap.
_NEARLY_ALL, _MOST_MEANT = 0.95, 0.7
_PATIENCE = 25  # steps in a row
# Share of the images that one class takes while the other gets none. Where anomalies are rare that is
# usual; it is a collapse if hardly any labelled image of the other class is told from them, either.
_MOST, _HARDLY = 0.5, 0.2
_SAME = 0.02  # spread of the logits of labelled images; a linear probe on poor features starts with 0.2
# The average lies behind the trained weights by at most 5 (the default rate, momentum and clipping allow
# 0.05 a step, and EMA lags by 100 steps); tf_efficientnet_lite0's are 352 long, so that is 0.014 of it.
_APART = 0.05


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something about a training that the user should know.

    Attributes
    ----------
    kind : str
        "head_trap", "one_class", "constant_output", "models_apart" or "overfitting".
    text : str
        What was seen, with the numbers.
    advice : str
        What to do about it.
    """

    kind: str
    text: str
    advice: str


class HealthMonitor:
    """Look at what a training measures, and speak once of each trouble in each cycle.

    A loss that is not finite is an error of the `Trainer` itself.

    Notes
    -----
    Thread safety: none; one thread at a time.
    """

    def __init__(self) -> None:
        self._cycle: int | None = None
        self._said: set[str] = set()
        self._in_a_row: dict[str, int] = {}
        self._losses: list[float] = []
        self._before: tuple[float, Estimate] | None = None  # of the last cycle that was judged

    def step(self, record: StepRecord) -> list[Alarm]:
        """Take what a step measured.

        Parameters
        ----------
        record : StepRecord
            Of the step that follows the last one given.

        Returns
        -------
        list of Alarm
            Mostly empty.
        """
        if record.cycle != self._cycle:
            self._cycle = record.cycle
            self._said, self._in_a_row, self._losses = set(), {}, []
        self._losses.append(record.loss)
        found = [
            self._head_trap(record),
            self._one_class(record, "anomaly", record.n_anomaly),
            self._one_class(record, "normal", record.n_normal),
            self._constant_output(record),
            self._models_apart(record),
        ]
        return self._new(found)

    def cycle(self, held_out: Estimate) -> list[Alarm]:
        """Take how good the ranking is on the held-out labels after the cycle whose steps were given.

        Parameters
        ----------
        held_out : Estimate
            Such as ``metrics.auroc``. Without a value nothing is said.

        Returns
        -------
        list of Alarm
        """
        if held_out.value is None or not self._losses:
            return []
        loss, before = sum(self._losses) / len(self._losses), self._before
        self._before = loss, held_out
        if before is None:
            return []
        old_loss, old = before
        # Beyond the interval: with few held-out labels a fall is mostly chance.
        if old.value is None or old.low is None or not (loss < old_loss and held_out.value < old.low):
            return []
        return self._new(
            [
                Alarm(
                    "overfitting",
                    f"The training loss fell from {old_loss:.2f} to {loss:.2f}, but on the held-out labels "
                    f"the ranking got worse, from {old.value:.2f} to {held_out.value:.2f}: the network "
                    "learns its few labels by heart.",
                    "Label more images, train fewer steps a cycle, or set restart=True.",
                )
            ]
        )

    def _new(self, found: list[Alarm | None]) -> list[Alarm]:
        alarms = [alarm for alarm in found if alarm is not None and alarm.kind not in self._said]
        self._said.update(alarm.kind for alarm in alarms)
        return alarms

    def _lasts(self, name: str, *, is_so: bool) -> bool:
        """Tell whether something has been so for `_PATIENCE` steps in a row."""
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if is_so else 0
        return self._in_a_row[name] >= _PATIENCE

    def _head_trap(self, record: StepRecord) -> Alarm | None:
        share, meant = record.sure_random, record.meant
        if share is None or share <= _NEARLY_ALL or meant is None or meant >= _MOST_MEANT:
            return None
        return Alarm(
            "head_trap",
            f"In the first step the network is already sure of {share:.0%} of the random images; by the "
            f"scores that it starts from it was meant to be sure of {meant:.0%}. Its head is badly scaled, "
            "and it would now teach itself these guesses.",
            "Stop this training, label more images of both classes and train anew with restart=True. If it "
            "happens again, learn from the labels alone with unlabelled_weight=0.",
        )

    def _one_class(self, record: StepRecord, name: str, n: int) -> Alarm | None:
        is_missed = record.right is not None and record.right <= _HARDLY
        if not self._lasts(name, is_so=not n and record.share_above > _MOST and is_missed):
            return None
        other = "normal" if name == "anomaly" else "anomaly"
        return Alarm(
            "one_class",
            f"For {_PATIENCE} steps no image got the pseudo-label {name!r}, while {record.share_above:.0%} "
            f"got {other!r}, and images with the label {name!r} are taken for {other!r}, too: the training "
            "confirms its own majority and forgets the other class.",
            f"Stop this training and label more images of the class {name!r}; raise the threshold if it "
            "happens again.",
        )

    def _constant_output(self, record: StepRecord) -> Alarm | None:
        if not self._lasts("constant", is_so=record.spread is not None and record.spread <= _SAME):
            return None
        return Alarm(
            "constant_output",
            f"For {_PATIENCE} steps the network has given all labelled images, of both classes, the same "
            f"score (their logits are apart by {record.spread:.2g}): its ranking is chance.",
            "Stop this training and begin anew with restart=True and a smaller learning_rate; rank by "
            "the embeddings meanwhile.",
        )

    def _models_apart(self, record: StepRecord) -> Alarm | None:
        if record.distance is None or record.distance <= _APART:
            return None
        return Alarm(
            "models_apart",
            f"The trained network and its moving average, which gives the scores, are {record.distance:.0%} "
            f"of the weights' length apart; usual is below {_APART:.0%}. The weights move too fast.",
            "Train with a smaller learning_rate.",
        )
