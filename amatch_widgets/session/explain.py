"""Why an image scored as it did: which parts of it the instant tier's score rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from amatch_widgets.errors import NotTrainedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from amatch_widgets.session.embedder import ReadyEmbedder
    from amatch_widgets.session.tiers import Ranking

__all__ = ["Explainer", "Explanation"]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Which parts of an image its score rests on.

    Attributes
    ----------
    image_id : str
    losses : ndarray of float32, shape (S, S)
        How much of the logit is lost when this part of the image, as the model sees it, is covered.
        Positive: it speaks for an anomaly. Negative: against it. About 0: it does not matter.
    logit : float
        Of the whole image: -2 is the mean of all images, 2 what is expected of an anomaly.
    score : float, in [0, 1]
        What the logit is as a score.
    patch_px : tuple of int
        How wide the covering patches were, px of the map: it cannot be finer than the last.
    tier : {"instant"}
        What was asked. The trained model is not, also where it takes part in the ranking.
    """

    image_id: str
    losses: npt.NDArray[np.float32]
    logit: float
    score: float
    patch_px: tuple[int, ...]
    tier: Literal["instant"] = "instant"

    def __repr__(self) -> str:
        return (
            f"Explanation({self.image_id!r}, score {self.score:.3f}, logit {self.logit:.2f}, parts from "
            f"{self.losses.min():+.2f} to {self.losses.max():+.2f}, {self.tier} tier)"
        )

    @property
    def score_without(self) -> float:
        """The score, in [0, 1], without the part that speaks most for an anomaly."""
        from amatch_widgets.query.head import score_of  # noqa: PLC0415 (imports scikit-learn)

        return float(score_of(self.logit - max(float(self.losses.max()), 0.0)))


class Explainer:
    """Explain scores of the instant tier by covering parts of the images.

    Parameters
    ----------
    read : callable
        Takes an id, and returns the image as the model sees it; ImageReadError where it cannot be read.
    embedder : ReadyEmbedder
    ranking : callable
        Returns what the instant tier ranks by now; None without embeddings.
    run : callable
        Runs a function on the worker's thread and returns what it returns.

    Notes
    -----
    Thread safety: any thread may ask but the worker's, on which the embedder is asked.
    """

    def __init__(
        self,
        read: Callable[[str], npt.NDArray[np.uint8]],
        *,
        embedder: ReadyEmbedder,
        ranking: Callable[[], Ranking | None],
        run: Callable[[Callable[[], Explanation]], Explanation],
    ) -> None:
        self._read, self._run = read, run
        self._embedder, self._ranking = embedder, ranking

    def __call__(self, image_id: str, *, coarse: bool = False) -> Explanation:
        """Explain the score of one image; see `Session.explain`."""
        ranking = self._ranking()
        if ranking is None:
            raise NotTrainedError(
                "There are no embeddings yet, so there is no score to explain. Wait until they are made, or "
                "make them: session.embed()."
            )
        if ranking.fit.weights is None:
            raise NotTrainedError(
                "No anomaly is labelled yet, so there is no score to explain: the images are ordered by "
                "novelty. Label an anomaly first."
            )
        image = self._read(image_id)  # here: the worker need not wait for the disk
        return self._run(lambda: self._explain(image_id, image, ranking, coarse=coarse))

    def _explain(
        self, image_id: str, image: npt.NDArray[np.uint8], ranking: Ranking, *, coarse: bool
    ) -> Explanation:
        """Explain; on the worker's thread."""
        from amatch_widgets.learn.occlusion import (  # noqa: PLC0415 (used here alone)
            PARTS,
            occlusion_map,
            patch_sides,
        )
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)
        from amatch_widgets.query.head import score_of  # noqa: PLC0415 (imports scikit-learn)

        embedder, fit = self._embedder(ranking.key), ranking.fit
        assert fit.weights is not None  # as was asked before
        # Both maps in one, and without the rounding to float16 in between.
        matrix, shift = Projection.from_arrays(ranking.projection).as_affine()
        weights, bias = matrix @ fit.weights, np.float32(fit.bias - shift @ fit.weights)
        parts = PARTS[:1] if coarse else PARTS
        losses, logit = occlusion_map(
            image, lambda copies: embedder.raw(copies) @ weights + bias, parts=parts
        )
        losses.flags.writeable = False
        return Explanation(
            image_id=image_id,
            losses=losses,
            logit=logit,
            score=float(score_of(logit)),
            patch_px=patch_sides(len(image), parts),
        )
