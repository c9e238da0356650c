"""The training loop, as an iterator of steps; who drives it decides when to pause or stop."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amatch_widgets.errors import ConfigError, StateError

from ._timm import ModelEmaV3
from .augment import strong_view, weak_view
from .backbone import N_CLASSES, Classifier, build_classifier
from .fixmatch import fixmatch_loss, pseudo_labels
from .probe import start_head
from .records import StepRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import TrainConfig
    from .feed import Feed, StepImages

__all__ = ["Trainer", "choose_device"]

_AUGMENT_STREAM = 2_000_003  # a prime apart from the feed's streams


class Trainer:
    """FixMatch with an EMA model.

    Weak views are judged by the EMA model without gradient; one pass with gradient goes over
    the labelled and the strong views together, so that BatchNorm sees both.

    Parameters
    ----------
    config : TrainConfig
    channels : int
        Of the images.
    is_blank : bool
        A checkpoint will be loaded into it: start from random weights, so that neither a file nor
        a hub has to be there.

    Attributes
    ----------
    model, average : Classifier
        The trained weights, and their moving average, which scores.
    step, cycle : int
        Done so far.

    Notes
    -----
    Thread safety: none; all calls belong on the worker's thread.
    """

    def __init__(self, config: TrainConfig, channels: int, *, is_blank: bool = False) -> None:
        self.config, self.channels = config, channels
        self.device = choose_device(config.device)
        self.step = self.cycle = 0
        self._build("random" if is_blank else config.weights)

    def _build(self, weights: str | None) -> None:
        config = self.config
        model = build_classifier(config.backbone, channels=self.channels, weights=weights, seed=config.seed)
        self.model = model.to(self.device)
        self._ema = ModelEmaV3(self.model, decay=config.ema)
        self.optimiser = _optimiser(self.model, config)

    @property
    def average(self) -> Classifier:
        """The EMA model, in evaluation mode."""
        average: Classifier = self._ema.module
        return average

    def steps(self, n: int, feed: Feed) -> Iterator[StepRecord]:
        """Train a cycle of `n` steps, yielding after each.

        Closing the iterator ends the cycle after the present step; the model is kept.

        Parameters
        ----------
        n : int
        feed : Feed

        Yields
        ------
        StepRecord

        Raises
        ------
        TooFewLabelsError
            If a class has no label.
        StateError
            If the loss is not finite.
        """
        labelled = feed.labelled()
        if self.step and self.config.restart:
            self._build(self.config.weights)
        if not self.step or self.config.restart:
            start_head(self.model, labelled)
            self._ema.set(self.model)  # type: ignore[no-untyped-call]
        self.cycle += 1
        images = feed.steps(self.step)
        try:
            for _ in range(n):
                started = time.perf_counter()
                values = self._step(next(images)).tolist()
                if not math.isfinite(values[0]):
                    raise StateError(
                        f"The training diverged: the loss of step {self.step + 1} is {values[0]}. The last "
                        "checkpoint is kept. Train with a learning_rate smaller than "
                        f"{self.config.learning_rate:g}."
                    )
                self.step += 1
                yield StepRecord(
                    step=self.step,
                    cycle=self.cycle,
                    loss=values[0],
                    supervised=values[1],
                    unsupervised=values[2],
                    share_above=values[3],
                    n_anomaly=int(values[4]),
                    n_normal=int(values[5]),
                    seconds=time.perf_counter() - started,
                )
        finally:
            images.close()  # type: ignore[attr-defined]

    def _step(self, images: StepImages) -> Tensor:
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * _AUGMENT_STREAM + self.step)
        labelled, unlabelled = self._to_device(images.labelled), self._to_device(images.unlabelled)
        classes = torch.from_numpy(images.classes).to(self.device)
        views = [weak_view(labelled, generator, dihedral=config.dihedral)]
        weak_logits = torch.empty((0, N_CLASSES), device=self.device)
        if len(unlabelled):  # there are none with unlabelled_ratio=0, or when every image has a label
            with torch.no_grad():
                weak_logits = self.average(weak_view(unlabelled, generator, dihedral=config.dihedral))
            views.append(strong_view(unlabelled, generator, dihedral=config.dihedral))
        pseudo = pseudo_labels(weak_logits, config.threshold)
        self._train_mode()
        logits = self.model(torch.cat(views))
        loss = fixmatch_loss(
            logits[: len(labelled)],
            classes,
            logits[len(labelled) :],
            pseudo,
            unlabelled_weight=config.unlabelled_weight,
        )
        self.optimiser.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.optimiser.step()
        self._ema.update(self.model)
        sure = pseudo.is_sure
        return torch.stack(
            [
                loss.total.detach(),
                loss.supervised.detach(),
                loss.unsupervised.detach(),
                sure.float().mean().nan_to_num(0.0),  # of no image
                (sure & (pseudo.target == 1)).sum().float(),
                (sure & (pseudo.target == 0)).sum().float(),
            ]
        )

    def _train_mode(self) -> None:
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 (the common base)
                    module.eval()

    def _to_device(self, images: object) -> Tensor:
        return torch.from_numpy(images).to(self.device, non_blocking=True).permute(0, 3, 1, 2)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"Device {name!r} cannot be used here: {error}. Try device='auto' or 'cpu'."
        ) from error
    return device


def _optimiser(model: Classifier, config: TrainConfig) -> torch.optim.SGD:
    vectors = [p for p in model.parameters() if p.ndim <= 1]  # norms and biases
    matrices = [p for p in model.parameters() if p.ndim > 1]
    return torch.optim.SGD(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
