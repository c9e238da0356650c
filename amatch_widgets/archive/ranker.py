"""What ranks in a session now, as one thing that can be sent to another process."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from amatch_widgets.images.pair import Pair
from amatch_widgets.query.head import logit_of, score_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from amatch_widgets.images.stream import ModelInput
    from amatch_widgets.learn.backbone import Classifier
    from amatch_widgets.learn.inference import Precision

    Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

__all__ = ["Ladder", "Model", "Ranker"]

_N_STEPS = 512
_CLOSEST = 2.0**-25  # to 1: half of the last step of float32 below it
_TAIL = 0.02  # of the sample, from which the ladder's ends are drawn on


@dataclass(frozen=True, eq=False)
class Ladder:
    """A rising map between two quantities, known at some places and straight between and beyond them.

    Attributes
    ----------
    x, y : ndarray of float64, shape (K,), K >= 1
        Rising; `x` strictly.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    @classmethod
    def between(cls, x: NDArray[Any], y: NDArray[Any]) -> Ladder:
        """Map the quantiles of one sample to the same ones of another.

        Parameters
        ----------
        x, y : ndarray of float, shape (N,), N >= 1
            In any order.
        """
        at = np.linspace(0, 1, min(_N_STEPS, len(x)))
        kept_x, first = np.unique(np.quantile(x.astype(np.float64), at), return_index=True)
        return cls(kept_x, np.quantile(y.astype(np.float64), at)[first])

    def __call__(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Map numbers; beyond both ends on along the slope of the last fiftieth of the steps."""
        x = np.asarray(x, np.float64)
        found = np.asarray(np.interp(x, self.x, self.y), np.float64)
        n = max(1, int(_TAIL * len(self.x)))
        if len(self.x) > n:
            low = (self.y[n] - self.y[0]) / (self.x[n] - self.x[0])
            high = (self.y[-1] - self.y[-1 - n]) / (self.x[-1] - self.x[-1 - n])
            found += np.minimum(x - self.x[0], 0) * low + np.maximum(x - self.x[-1], 0) * high
        return found


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its head, as bytes.

    Attributes
    ----------
    tensors : bytes
        Its state dict, as a safetensors file.
    backbone : str
    channels : int
    shape : dict or None
        What `VectorShape` takes; None where the head is the network's own.
    is_normalised : bool
        Whether it sees images less the mean of its pretraining, and not as they are in [0, 1].
    """

    tensors: bytes
    backbone: str
    channels: int
    shape: dict[str, int] | None
    is_normalised: bool = True

    @classmethod
    def of(cls, model: Classifier, backbone: str) -> Model:
        """Take a copy of a model as it is now."""
        from safetensors.torch import save  # noqa: PLC0415 (imports torch)

        from amatch_widgets.learn.start import VectorClassifier  # noqa: PLC0415 (imports torch)

        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        shape = asdict(model.shape) if isinstance(model, VectorClassifier) else None
        is_normalised = bool(model.mean.any() or (model.std != 1).any())
        return cls(save(tensors), backbone, int(model.mean.shape[1]), shape, is_normalised)

    def logits(self, device: str, precision: Precision) -> Score:
        """Return what gives the logit of *anomaly* of images, each the same whatever is beside it."""
        network, weights, bias = self._loaded(device, precision)
        if weights is None:
            return lambda images: np.diff(network.logits(images))[:, 0]
        # No matrix product: how that rounds depends on how many images there are.
        return lambda images: np.asarray((network.raw(images) * weights).sum(1) + bias, np.float32)

    def precision_on(self, device: str, side: int) -> Precision:
        """Measure which precision is faster, for images of a side.

        Returns
        -------
        {"float32", "bfloat16"}
        """
        network, weights, _ = self._loaded(device, "auto")
        if weights is None:
            network.logits(np.zeros((1, side, side, self.channels), np.uint8))
        found: Precision = network.precision
        return found

    def _loaded(self, device: str, precision: Precision) -> tuple[Any, NDArray[np.float32] | None, float]:
        """Return an `Inference`; or an `Embedder`, and the weights and the bias of its features."""
        from safetensors.torch import load  # noqa: PLC0415 (imports torch)

        from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.inference import Inference  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.start import VectorClassifier, VectorShape  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.trainer import choose_device  # noqa: PLC0415 (imports torch)

        base = build_classifier(self.backbone, channels=self.channels, weights="random")
        if not self.is_normalised:
            base.mean.zero_()
            base.std.fill_(1)
        if self.shape is None:
            base.load_state_dict(load(self.tensors))
            return Inference(base.to(choose_device(device)), precision=precision), None, 0.0
        model = VectorClassifier(base, VectorShape(**self.shape))
        model.load_state_dict(load(self.tensors))
        model = model.to(choose_device(device))
        embedder = Embedder(model, side=model.side, n_views=model.shape.n_views, precision=precision)
        return embedder, *model.on_features()


@dataclass(frozen=True, eq=False, kw_only=True)
class Ranker:
    """Gives images the scores that they would have in the session.

    A blend orders a session's images by the sum of their normal scores among all of them, see
    `amatch_widgets.query.blend`; another image takes its place between them, by the `Ladder` of each step.

    Attributes
    ----------
    ranked_by : {"instant", "deep", "both"}
    image : ModelInput
        What is done to each image first; in "both" a `Pair`, where the models see it otherwise.
    note : str
        What ranks, in plain words.
    instant, deep : Model or None
    weight : float
        Of `deep` in "both".
    ladders : tuple of Ladder
        In "both": from the logits of `instant` and of `deep` to normal scores, and from the sum of those to
        the logit of the score.
    precision : {"auto", "float32", "bfloat16"}
        Of the networks. Where several processes score, or one after the other, "auto" would let each
        choose by its own clock: see `choose_precision`.
    imported : str
        File and SHA-256 of `deep`, where it was trained elsewhere.
    """

    ranked_by: Literal["instant", "deep", "both"]
    image: ModelInput
    note: str
    instant: Model | None = None
    deep: Model | None = None
    weight: float = 0.0
    ladders: tuple[Ladder, ...] = ()
    precision: Precision = "auto"
    imported: str = ""

    @classmethod
    def blended(
        cls,
        instant: tuple[Model, NDArray[np.float32]],
        deep: tuple[Model, NDArray[np.float32]],
        weight: float,
        **options: Any,
    ) -> Ranker:
        """Rank by both tiers.

        Parameters
        ----------
        instant, deep : (Model, ndarray of float32, shape (N,))
            What ranks, and the scores it gave the session's images; NaN where there is none.
        weight : float, > 0
            Of `deep`, beside 1.
        options
            `image`, `note` and `imported`.
        """
        both = np.isfinite(instant[1]) & np.isfinite(deep[1])
        ours, theirs = logit_of(instant[1][both]), _logistic_logit(deep[1][both])
        z = [ndtri(rankdata(logits) / (len(logits) + 1)) for logits in (ours, theirs)]
        ladders = (
            Ladder.between(ours, z[0]),
            Ladder.between(theirs, z[1]),
            Ladder.between(z[0] + weight * z[1], ours),
        )
        return cls(
            ranked_by="both", instant=instant[0], deep=deep[0], weight=weight, ladders=ladders, **options
        )

    @functools.cached_property
    def key(self) -> str:
        """32 hex digits that say which scores it gives, but for the rounding of its precision."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.ranked_by, self.image.to_dict(), self.weight]).encode())
        for model in (self.instant, self.deep):
            digest.update(b"-" if model is None else model.tensors + json.dumps(model.shape).encode())
            if model is not None and not model.is_normalised:
                digest.update(b"as they are")
        for ladder in self.ladders:
            digest.update(ladder.x.tobytes() + ladder.y.tobytes())
        return digest.hexdigest()

    def choose_precision(self, device: str = "auto") -> Precision:
        """Measure which precision is faster; of two models the trained one is asked.

        Parameters
        ----------
        device : str
            As for `ready`.

        Returns
        -------
        {"float32", "bfloat16"}
        """
        model = self.instant if self.ranked_by == "instant" else self.deep
        assert model is not None  # it ranks
        image = self.image.second if isinstance(self.image, Pair) else self.image
        return model.precision_on(device, image.shape[0])

    def ready(self, device: str = "auto") -> Score:
        """Return what scores images: uint8 (N, S, S, C), or what `image` makes, to float32 (N,) in [0, 1].

        Parameters
        ----------
        device : str
            "auto", "cpu", "cuda" or "cuda:1"; see `TrainConfig`.
        """
        how = device, self.precision
        instant = self.instant.logits(*how) if self.instant and self.ranked_by != "deep" else None
        deep = self.deep.logits(*how) if self.deep and self.ranked_by != "instant" else None
        if instant is not None and deep is not None:
            ours, theirs, back = self.ladders
            split = self.image.split if isinstance(self.image, Pair) else lambda images: (images, images)

            def both(images: NDArray[np.uint8]) -> NDArray[np.float32]:
                for_instant, for_deep = split(images)
                total = ours(instant(for_instant)) + self.weight * theirs(deep(for_deep))
                return score_of(back(total)).astype(np.float32)

            return both
        if instant is not None:
            return lambda images: score_of(instant(images)).astype(np.float32)
        assert deep is not None  # one of them ranks
        return lambda images: _softmax(deep(images))


def _logistic_logit(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return logits of scores of the trained model, which float32 rounds to 1 and 0 far out."""
    inside = np.clip(scores.astype(np.float64), np.finfo(np.float32).tiny, 1 - _CLOSEST)
    return np.asarray(np.log(inside / (1 - inside)))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float32)
