"""Choices for the deep tier's training that were tried and are not in the package.

`deep.py` trains with them by putting them in the place of the trainer's own functions, in the process
of that one run. What each brings is in RESULTS.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amatch_widgets.learn import trainer  # before torch, whose threads it sets up

# isort: split
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

from amatch_widgets.learn.fixmatch import PseudoLabels
from amatch_widgets.learn.stages import block_groups

if TYPE_CHECKING:
    from collections.abc import Callable

_PER_STAGE = 0.5  # of the learning rate, from one group of blocks to the one before
_MEMORY = 0.9  # of running means over steps
_QUOTA = 1 / 16  # of the unlabelled images of a step, taken for anomalies


def stage_rates() -> None:
    """Slower rates for earlier stages (ULMFiT, Howard & Ruder 2018, arXiv 1801.06146)."""

    def slow_down(usual: torch.optim.SGD, model: Any) -> torch.optim.SGD:
        slower = {}
        groups = block_groups(model.network)
        for k, (_, group) in enumerate(groups):
            slower |= {id(p): _PER_STAGE ** (len(groups) - k) for p in group.parameters()}
        by_rate = []
        for group in usual.param_groups:
            for factor in sorted({slower.get(id(p), 1.0) for p in group["params"]}):
                params = [p for p in group["params"] if slower.get(id(p), 1.0) == factor]
                by_rate.append({**group, "params": params, "lr": group["lr"] * factor})
        usual.param_groups[:] = by_rate
        return usual

    _change_optimiser(slow_down)


def _change_optimiser(change: Callable[[torch.optim.SGD, Any], torch.optim.SGD]) -> None:
    usual = trainer._optimiser  # noqa: SLF001 (what this file is for)
    trainer._optimiser = lambda model, config: change(usual(model, config), model)  # noqa: SLF001


def _pseudo(labels: Callable[[Tensor, float], PseudoLabels]) -> None:
    trainer.pseudo_labels = lambda logits, threshold, **_: labels(logits.softmax(1), threshold)


class _Running:
    """A running mean."""

    value: Tensor | None = None

    def add(self, x: Tensor) -> Tensor:
        self.value = x if self.value is None else _MEMORY * self.value + (1 - _MEMORY) * x
        return self.value


def alignment() -> None:
    """Distribution alignment (ReMixMatch, arXiv 1911.09785): the classes keep the shares of the start."""
    running, first = _Running(), []

    def labels(probability: Tensor, threshold: float) -> PseudoLabels:
        shares = running.add(probability.mean(0))
        first.append(shares)
        aligned = probability * first[0] / shares
        aligned = aligned / aligned.sum(1, keepdim=True)
        confidence = aligned.max(1).values
        return PseudoLabels(aligned, torch.ones_like(confidence), confidence >= threshold)

    _pseudo(labels)


def flex_match() -> None:
    """Thresholds by class that follow how many images are surely of it (FlexMatch, arXiv 2110.08263).

    Hard pseudo-labels. The counts are running means over steps, where the paper counts each image of
    the pool once, by its latest pseudo-label.
    """
    learnt = _Running()

    def labels(probability: Tensor, threshold: float) -> PseudoLabels:
        confidence, likelier = probability.max(1)
        sure = F.one_hot(likelier, 2)[confidence >= threshold].sum(0)
        counts = learnt.add(sure.float())
        beta = counts / torch.maximum(counts.max(), len(probability) - counts.sum()).clamp_min(1e-6)
        is_sure = confidence >= (threshold * beta / (2 - beta))[likelier]  # the paper's convex mapping
        return PseudoLabels(F.one_hot(likelier, 2).float(), is_sure.float(), is_sure)

    _pseudo(labels)


def free_match() -> None:
    """Thresholds by class that follow the training (FreeMatch, arXiv 2205.07246), hard pseudo-labels."""
    overall, by_class = _Running(), _Running()

    def labels(probability: Tensor, _: float) -> PseudoLabels:
        confidence, likelier = probability.max(1)
        shares = by_class.add(probability.mean(0))
        thresholds = overall.add(confidence.mean()) * shares / shares.max()
        is_sure = confidence >= thresholds[likelier]
        return PseudoLabels(F.one_hot(likelier, 2).float(), is_sure.float(), is_sure)

    _pseudo(labels)


def soft_match() -> None:
    """Hard pseudo-labels weighed by a truncated Gaussian of the confidence (SoftMatch, arXiv 2301.10921)."""
    mean, variance = _Running(), _Running()

    def labels(probability: Tensor, threshold: float) -> PseudoLabels:
        confidence, likelier = probability.max(1)
        below = (confidence - mean.add(confidence.mean())).clamp_max(0)
        weight = torch.exp(-(below**2) / (2 * variance.add(confidence.var()).clamp_min(1e-6)))
        return PseudoLabels(F.one_hot(likelier, 2).float(), weight, confidence >= threshold)

    _pseudo(labels)


def quota() -> None:
    """Hard pseudo-labels by rank: a fixed share of each step for the rare class, its lower half normal."""

    def labels(probability: Tensor, _: float) -> PseudoLabels:
        rank = probability[:, 1].argsort(descending=True).argsort()
        n = len(rank)
        is_anomaly, is_normal = rank < max(1, round(n * _QUOTA)), rank >= n // 2
        is_sure = is_anomaly | is_normal
        return PseudoLabels(F.one_hot(is_anomaly.long(), 2).float(), is_sure.float(), is_sure)

    _pseudo(labels)


def no_ema() -> None:
    """Weak views judged by the trained weights, as in FixMatch; their average still scores."""
    usual = trainer.Trainer._judge  # noqa: SLF001 (as above)

    def judge(self: trainer.Trainer, x: Tensor) -> Tensor:
        average = self._ema.module
        self._ema.module = self.model
        try:
            return usual(self, x)
        finally:
            self._ema.module = average

    trainer.Trainer._judge = judge  # type: ignore[method-assign]  # noqa: SLF001


CHOICES: dict[str, Callable[[], None]] = {
    "stage rates": stage_rates,
    "alignment": alignment,
    "FlexMatch": flex_match,
    "FreeMatch": free_match,
    "SoftMatch": soft_match,
    "quota": quota,
    "no EMA": no_ema,
}
