"""The options of a training."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from amatch_widgets.errors import ConfigError

__all__ = ["TrainConfig"]


_RANGES = {  # a square bracket takes the limit in, as in the docstring
    "steps": (1, math.inf, "[)"),
    "batch": (2, math.inf, "[)"),
    "unlabelled_ratio": (0, math.inf, "[)"),
    "learning_rate": (0, math.inf, "()"),
    "gradient_clip": (0, math.inf, "()"),
    "frozen_stages": (0, math.inf, "[)"),
    "momentum": (0, 1, "[)"),
    "weight_decay": (0, math.inf, "[)"),
    "l2_sp": (0, math.inf, "[)"),
    "threshold": (0.5, 1, "(]"),
    "unlabelled_weight": (0, math.inf, "[)"),
    "likely_share": (0, 1, "[]"),
    "background": (0, math.inf, "[)"),
    "ema": (0, 1, "[)"),
    "test_share": (0, 0.5, "[]"),
    "checkpoint_every": (1, math.inf, "[)"),
    "score_batch": (1, math.inf, "[)"),
    "embed_px": (32, 1024, "[]"),
    "memory_mb": (16, math.inf, "[)"),
    "seed": (0, math.inf, "[)"),
}
_WORDS = {"pseudo_labels": ("soft", "hard")}
_TYPES: dict[str, tuple[Any, str]] = {  # of the other options
    "bool": (bool, "True or False"),
    "bool | None": (bool | None, "True, False or None"),
    "str": (str, "a string"),
    "str | None": (str | None, "a string or None"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a session trains. The defaults need no choice by the user.

    Attributes
    ----------
    steps : int, >= 1
        Training steps of a cycle. On 2 cores 80 take about 40 s at 128 px and 70 s at 192 px.
    batch : int, >= 2
        Labelled images a step; both classes get the same share.
    unlabelled_ratio : int, >= 0
        Unlabelled images a step, as a multiple of `batch`. 0 trains on the labels alone.
    learning_rate : float, > 0, or None
        None: 0.001 for images without an up and 0.0002 for those with one. The pretrained networks
        know photographs well: at the higher rate a training forgot more of them than it learnt.
    gradient_clip : float, > 0
        Largest norm of the gradient of a step; longer ones are scaled down to it.
    freeze_norm : bool
        Keep the statistics of BatchNorm as they were pretrained.
    frozen_stages : int, >= 0
        Groups of blocks, from the stem on, that stay as they were pretrained; they cost no gradient.
        0 trains the whole network: a step takes up to twice as long, and the trained model ranked
        better in most of the runs that were compared (benchmarks/RESULTS.md).
    restart : bool
        Begin each cycle from the pretrained weights, with all labels there are by then, instead
        of going on from the last one.
    momentum : float, in [0, 1)
        Of SGD with Nesterov momentum.
    weight_decay : float, >= 0
        Not applied to norms and biases.
    l2_sp : float, >= 0
        Strength of the pull towards the weights that the cycle began with (L2-SP: Li, Grandvalet &
        Davoine 2018, arXiv 1802.01483): a few labels must not make the network forget what it knows.
        0 lets it go.
    pseudo_labels : {"soft", "hard"}
        What the strong views are taught: the probabilities that the averaged model gives, or as in
        FixMatch the likelier class where it is sure.
    threshold : float, in (0.5, 1]
        Confidence threshold above which a pseudo-label is sure.
    likely_share : float, in [0, 1]
        Share of the unlabelled images that is drawn from those the instant tier ranks highest; drawn
        uniformly, hardly one in a step is of the rare class.
    unlabelled_weight : float, >= 0
        Weight of the unlabelled part of the loss (FixMatch's lambda).
    background : float, >= 0
        Weight of the random unlabelled images, taken for normal, beside 1 for the labelled images. They
        show what is normal where few normals are labelled.
    ema : float, in [0, 1)
        Decay of the moving average of the weights; the averaged model scores. In the first steps it
        follows faster, as the mean of about a tenth of them.
    dihedral : bool or None
        The images have no up, as cutouts of the sky: use all 8 flips and quarter turns. None: the
        session measures it on a few images.
    embed_px : int, in [32, 1024], or None
        Side at which the instant tier is fed, in pixels. None: 128 for images without an up, 192
        for those with one.
    backbone : str
        Any name in ``timm.list_models()``.
    weights : str or None
        A file of pretrained weights, "random", or None for the default ones.
    test_share : float, in [0, 0.5]
        Share of the labels that is held out for the metrics.
    checkpoint_every : int, >= 1
        Steps between two checkpoints; one is always made at the end and at a stop.
    score_batch : int, >= 1
        Images scored at once.
    memory_mb : int, >= 16
        Memory for decoded images, so that they are read and decoded once.
    seed : int, >= 0
        Same seed, labels and machine: same scores (on a CPU, up to the rounding of bfloat16).
    device : str
        "auto" (the GPU where there is one), or a name PyTorch knows: "cpu", "cuda:1", "mps".
    """

    steps: int = 80
    batch: int = 16
    unlabelled_ratio: int = 2
    learning_rate: float | None = None
    gradient_clip: float = 5.0
    freeze_norm: bool = True
    frozen_stages: int = 2
    restart: bool = False
    momentum: float = 0.9
    weight_decay: float = 7.5e-4
    l2_sp: float = 2.0
    pseudo_labels: Literal["soft", "hard"] = "soft"
    threshold: float = 0.95
    likely_share: float = 0.5
    background: float = 0.5
    unlabelled_weight: float = 1.0
    ema: float = 0.99
    dihedral: bool | None = None
    embed_px: int | None = None
    backbone: str = "tf_efficientnet_lite0"
    weights: str | None = None
    test_share: float = 0.25
    checkpoint_every: int = 50
    score_batch: int = 256
    memory_mb: int = 512
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in _WORDS:
                self._check_word(field.name, _WORDS[field.name])
            elif field.name in _RANGES:
                if getattr(self, field.name) is not None or "None" not in str(field.type):
                    self._check_range(field.name, wants_int="int" in str(field.type))
            else:
                self._check_type(field.name, *_TYPES[str(field.type)])

    def _check_range(self, name: str, *, wants_int: bool) -> None:
        value = getattr(self, name)
        low, high, brackets = _RANGES[name]
        takes_low, takes_high = brackets[0] == "[", brackets[1] == "]"
        is_number = isinstance(value, int if wants_int else int | float) and not isinstance(value, bool)
        if (
            is_number
            and (value >= low if takes_low else value > low)
            and (value <= high if takes_high else value < high)
        ):
            return
        kind = "a whole number" if wants_int else "a number"
        bound = f"{'at least' if takes_low else 'above'} {low}"
        if high < math.inf:
            bound += f" and {'at most' if takes_high else 'below'} {high}"
        raise ConfigError(f"TrainConfig({name}={value!r}): allowed is {kind} {bound}.")

    def _check_type(self, name: str, kind: Any, allowed: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, kind):
            raise ConfigError(f"TrainConfig({name}={value!r}): allowed is {allowed}.")

    def _check_word(self, name: str, allowed: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in allowed:
            raise ConfigError(f"TrainConfig({name}={value!r}): allowed is {' or '.join(map(repr, allowed))}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as a JSON-able dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> TrainConfig:
        """Rebuild what `to_dict` gave; options of a newer version are an error that names them."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConfigError(f"Unknown training options {unknown}. Allowed are {sorted(known)}.")
        return cls(**options)
