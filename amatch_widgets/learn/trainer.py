"""The training loop, as an iterator of steps; who drives it decides when to pause or stop."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amatch_widgets.errors import ConfigError, StateError

from ._timm import ModelEmaV3
from .anchor import Anchor
from .augment import strong_view, to_float, weak_view
from .backbone import N_CLASSES, Classifier, build_classifier
from .chunks import backward_in_chunks, chunk_size, compute_in_chunks, rows_to_learn
from .fixmatch import Lessons, PseudoLabels, fixmatch_loss, lessons, pseudo_labels
from .inference import has_bfloat16
from .measure import OnItsWay, measure
from .probe import start_head
from .records import StepRecord
from .stages import freeze_stages, in_bfloat16
from .start import VectorClassifier
from .transfer import Resident, room_for_images, to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from .config import TrainConfig
    from .feed import Feed, LabelledImages, StepImages
    from .start import Start, VectorShape

__all__ = ["Trainer", "choose_device"]

_AUGMENT_STREAM = 2_000_003  # a prime apart from the feed's streams
_RATE_WITHOUT_UP, _RATE_WITH_UP = 1e-3, 2e-4  # of galaxies and of photographs; see TrainConfig
_WARM_UP = 9  # steps; the average starts as that of the last tenth of the steps done
_COMPARE_EVERY = 25  # steps between two looks at how far the trained model and its average are apart


@dataclass(frozen=True, slots=True)
class _Views:
    """What a step learns from: the views, what is believed of the unlabelled images, what is taught.

    The first `n_likely` unlabelled images are likely anomalies. The strong views of `rows` follow the
    labelled images in `x`. `size` images may go through the model at once; None if only all.
    """

    x: Tensor
    labels: Tensor
    pseudo: PseudoLabels
    n_likely: int
    lessons: Lessons
    rows: Tensor
    size: int | None


class Trainer:
    """FixMatch with an EMA model.

    Weak views are judged by the EMA model without gradient. The labelled and the strong views get
    theirs in one pass where BatchNorm has to see both; else in chunks, and on a CPU without most of
    the strong views that are not learnt from: they have no gradient.

    Parameters
    ----------
    config : TrainConfig
    channels : int
        Of the images.
    is_blank : bool
        A checkpoint will be loaded into it: start from random weights, so that neither a file nor
        a hub has to be there.
    shape : VectorShape, optional
        The head sees the instant tier's vectors; set `start` before the first cycle, or load a
        checkpoint. Without it the head sees the pooled last maps, and starts as a linear probe.

    Attributes
    ----------
    model, average : Classifier
        The trained weights, and their moving average, which scores.
    step, cycle : int
        Done so far.
    end : int
        Step at which the cycle under way ends; `step` where none is.
    begun : int
        Step at which the weights were the pretrained ones.
    start : Start or None
        Where a cycle begins that does not go on from the last one.
    anchor : Anchor or None
        What the trained weights are pulled towards.

    Notes
    -----
    Thread safety: none; all calls belong on the worker's thread.
    """

    def __init__(
        self,
        config: TrainConfig,
        channels: int,
        *,
        is_blank: bool = False,
        shape: VectorShape | None = None,
    ) -> None:
        self.config, self.channels, self.shape = config, channels, shape
        self.start: Start | None = None
        self.device = choose_device(config.device)
        # Whether what has no gradient is computed in bfloat16: a fact about the CPU and no timing, so that a
        # training is repeatable. 80 weak views of 128 px take 0.10 s instead of 0.17 s on 2 cores.
        self._is_low = self.device.type == "cpu" and has_bfloat16(self.device)
        self.step = self.cycle = self.end = 0
        self.anchor: Anchor | None = None
        self.begun = 0
        self._meant: float | None = None  # of the step that begins from the pretrained weights
        self._example: Tensor | None = None  # two images, to see what the weights make of them
        self._resident: Resident | None = None
        self._build("random" if is_blank else config.weights)

    def _build(self, weights: str | None) -> None:
        config = self.config
        model = build_classifier(config.backbone, channels=self.channels, weights=weights, seed=config.seed)
        if self.shape is not None:
            model = VectorClassifier(model, self.shape)
        self._frozen = freeze_stages(model, config.frozen_stages)
        self.model = model.to(self.device)
        self._ema = ModelEmaV3(
            self.model, decay=config.ema, use_warmup=True, warmup_gamma=_WARM_UP, warmup_power=1
        )
        self.optimiser = _optimiser(self.model, config)
        # Images that the memory is known to hold at once, with gradient and without.
        self._fits = self._looks = sys.maxsize

    @property
    def average(self) -> Classifier:
        """The EMA model, in evaluation mode."""
        average: Classifier = self._ema.module
        return average

    def steps(self, n: int, feed: Feed) -> Iterator[StepRecord]:
        """Train a cycle of `n` steps, or `n` more of the cycle that is under way, yielding after each.

        Closing the iterator breaks the cycle off after the present step; the model is kept, and the
        next call goes on with it unless `end` is set to `step`.

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
            If the loss, or the gradient that the weights have followed, is not finite.
        """
        labelled = feed.labelled()
        self._example = to_float(self._to_device(labelled.images[:2]))
        if self.end <= self.step:
            self._begin_cycle(labelled)
        self.end = self.step + n
        self._train_mode()
        if room := room_for_images(self.device):
            self._resident = Resident(feed.pool, self.device, room)
        images = feed.steps(self.step, self._resident)
        views: _Views | None = None
        try:
            for i in range(n):
                started = time.perf_counter()
                measured = OnItsWay(self._learn(views or self._look(next(images))))
                self.step += 1
                # A GPU makes the next views while the host waits for the numbers of this step.
                is_ahead = self.device.type == "cuda" and i + 1 < n
                views = self._look(next(images)) if is_ahead else None
                yield self._record(measured.get(), started)
        finally:
            images.close()  # type: ignore[attr-defined]
            self._resident = None  # gives its memory back

    def _begin_cycle(self, labelled: LabelledImages) -> None:
        if self.step and self.config.restart:
            self.shape = self.start.shape if self.start else None
            self._build(self.config.weights)
        if not self.step or self.config.restart:
            self.begun = self.step
            self._meant = self._start_head(labelled)
            self._ema.set(self.model)  # type: ignore[no-untyped-call]
        self.cycle += 1
        self.anchor = None
        if self.config.l2_sp:
            self.anchor = Anchor.at(self.model, self.cycle)

    @torch.no_grad()
    def check(self) -> None:
        """See whether the model is fit to be kept; this waits for a GPU.

        Raises
        ------
        StateError
            If its weights, or the scores that they give, are not finite.
        """
        found = [*self.model.state_dict().values(), *self.average.state_dict().values()]
        if self._example is not None:
            found.append(self._judge(self._example))
        if not torch.stack([value.isfinite().all() for value in found]).all():
            raise self._diverged(f"the weights after step {self.step}, or their scores, are not finite")

    def _diverged(self, what: str) -> StateError:
        return StateError(
            f"The training diverged: {what}. The last checkpoint is kept. Train with a learning_rate smaller "
            f"than {_learning_rate(self.config):g}."
        )

    def _start_head(self, labelled: LabelledImages) -> float:
        """Set the head; return how many images it is meant to be sure of, see ``StepRecord.meant``."""
        if self.start is not None and isinstance(self.model, VectorClassifier):
            self.model.begin(self.start)
            return self.start.share_sure(self.config.threshold)
        start_head(self.model, labelled)
        return 0.0

    def _look(self, images: StepImages) -> _Views:
        """Make the views of the next step, and its pseudo-labels."""
        generator = torch.Generator().manual_seed(self.config.seed * _AUGMENT_STREAM + self.step)
        labelled, unlabelled = self._to_device(images.labelled), self._unlabelled(images)
        n = len(labelled) + len(unlabelled)
        most = min(chunk_size(n, self._side(labelled), self.device), self._fits)
        size = None if self._mixes_images else most
        x = [self._view(weak_view, labelled, generator)]
        weak_logits = torch.empty((0, N_CLASSES), device=self.device)
        if len(unlabelled):  # there are none with unlabelled_ratio=0, or when every image has a label
            weak_logits = self._judge(self._view(weak_view, unlabelled, generator))
        pseudo = pseudo_labels(weak_logits, self.config.threshold, kind=self.config.pseudo_labels)
        labels = torch.from_numpy(images.classes).to(self.device)
        taught = lessons(labels, pseudo, images.n_likely, **self._weights)
        rows = rows_to_learn(taught.weight[len(labels) :], len(labels), size)
        if len(rows):
            x.append(self._view(strong_view, unlabelled, generator, rows))
        return _Views(torch.cat(x), labels, pseudo, images.n_likely, taught, rows.to(self.device), size)

    def _view(
        self,
        make: Callable[..., Tensor],
        images: Tensor,
        generator: torch.Generator,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Make views of some images; the same, however many at a time the memory lets it make."""
        n, drawn = len(images if rows is None else rows), generator.get_state()

        def some(part: slice) -> Tensor:
            generator.set_state(drawn)
            is_all = part.start == 0 and part.stop >= n
            chosen = rows if is_all else (torch.arange(n) if rows is None else rows)[part]
            return make(images, generator, dihedral=self.config.dihedral is not False, rows=chosen)

        return self._in_chunks(some, n, n)

    @torch.no_grad()
    def _judge(self, x: Tensor) -> Tensor:
        """Return the logits of the EMA model; its head works in float32 in any case."""
        size = chunk_size(len(x), self._side(x), self.device)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._is_low):
            features = self._in_chunks(lambda part: self.average.features(x[part]), len(x), size)
        logits: Tensor = self.average.head(features.float())
        return logits

    def _in_chunks(self, compute: Callable[[slice], Tensor], n: int, size: int) -> Tensor:
        """Compute something of `n` images, `size` at once; less where the memory ran out once."""
        size = min(size, self._looks)
        found, fitted = compute_in_chunks(compute, n, size=size)
        if fitted != size:
            self._looks = fitted
        return found

    @property
    def _weights(self) -> dict[str, float]:
        config = self.config
        return {"unlabelled_weight": config.unlabelled_weight, "background": config.background}

    def _side(self, x: Tensor) -> int:
        """Return the side, in pixels, at which images reach the network."""
        return self.shape.side if self.shape else x.shape[3]

    def _learn(self, views: _Views) -> Tensor:
        """Follow the gradient of the objective; return what was measured, on the device."""
        pseudo, taught, n_labelled = views.pseudo, views.lessons, len(views.labels)
        kept = torch.cat([torch.arange(n_labelled, device=self.device), n_labelled + views.rows])
        with in_bfloat16(self._frozen) if self._is_low else contextlib.nullcontext():
            found, size = backward_in_chunks(
                self.model, views.x, taught.target[kept], taught.weight[kept], size=views.size
            )
        clip = self.config.gradient_clip
        length = nn.utils.clip_grad_norm_(self.model.parameters(), clip, foreach=True)
        if self.anchor is not None:
            self.anchor.pull(self.model, self.config.l2_sp)
        self.optimiser.step()
        self._ema.update(self.model, step=self.step - self.begun + 2)  # at its step 1 timm copies
        if size != views.size and size is not None:
            self._fits = size
        predictions = torch.zeros_like(taught.target).index_copy(0, kept, found)
        loss = fixmatch_loss(predictions, views.labels, pseudo, views.n_likely, **self._weights)
        known = predictions[:n_labelled]
        return measure(loss, known, views.labels, pseudo, n_likely=views.n_likely, gradient=length)

    def _record(self, measured: dict[str, Any], started: float) -> StepRecord:
        for name, value in (("loss", measured["loss"]), ("gradient", measured.pop("gradient"))):
            if not math.isfinite(value):
                raise self._diverged(f"the {name} of step {self.step} is {value}")
        return StepRecord(
            step=self.step,
            cycle=self.cycle,
            meant=self._meant if self.step == self.begun + 1 else None,
            distance=None if self.step % _COMPARE_EVERY else self._distance(),
            seconds=time.perf_counter() - started,
            **measured,
        )

    def _distance(self) -> float:
        """Return |model - average| / |average|, of the weights that are trained."""
        pairs = zip(self.model.parameters(), self.average.parameters(), strict=True)
        trained, average = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
        with torch.no_grad():
            apart = torch.stack([(a - b).norm() for a, b in zip(trained, average, strict=True)]).norm()
            return float(apart / torch.stack([b.norm() for b in average]).norm().clamp_min(1e-12))

    def _train_mode(self) -> None:
        self.model.train()
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001 (the common base)
        for module in [*self._frozen, *(norms if self.config.freeze_norm else ())]:
            module.eval()
        self._mixes_images = any(norm.training for norm in norms)

    def _unlabelled(self, images: StepImages) -> Tensor:
        streamed = to_device(images.unlabelled, self.device)
        if self._resident is not None:
            streamed = self._resident.complete(streamed, images.rows)
        return streamed.permute(0, 3, 1, 2)

    def _to_device(self, images: NDArray[np.uint8]) -> Tensor:
        return to_device(images, self.device).permute(0, 3, 1, 2)


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


def _learning_rate(config: TrainConfig) -> float:
    if config.learning_rate is not None:
        return config.learning_rate
    return _RATE_WITH_UP if config.dihedral is False else _RATE_WITHOUT_UP


def _optimiser(model: Classifier, config: TrainConfig) -> torch.optim.SGD:
    trained = [p for p in model.parameters() if p.requires_grad]
    vectors = [p for p in trained if p.ndim <= 1]  # norms and biases
    matrices = [p for p in trained if p.ndim > 1]
    return torch.optim.SGD(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=_learning_rate(config),
        momentum=config.momentum,
        nesterov=config.momentum > 0,  # PyTorch refuses the one without the other
        foreach=True,
    )
