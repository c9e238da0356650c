"""Score all images of a source, streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from amatch_widgets.learn.embed import Embedder
from amatch_widgets.learn.inference import Inference
from amatch_widgets.learn.start import VectorClassifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from amatch_widgets.images.pixels import PixelPool
    from amatch_widgets.learn.backbone import Classifier

__all__ = ["score_batches"]


def score_batches(
    model: Classifier,
    pool: PixelPool,
    *,
    batch_size: int = 256,
    indices: npt.NDArray[np.int64] | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Score every readable image.

    Reading and decoding run ahead on the pool's threads while the model works. The precision is the
    one that `Inference` finds faster; the same image and weights give the same score up to its
    rounding.

    Parameters
    ----------
    model : Classifier
        Copied at the first batch, on the device where it is; not changed.
    pool : PixelPool
    batch_size : int, >= 1
        Images read at once; the device may take them in smaller chunks.
    indices : ndarray of int64, shape (N,), optional
        The images in the order wanted; by default all of them in that of the source.

    Yields
    ------
    indices : ndarray of int64, shape (n,)
        Positions in the source; images that cannot be read are left out (see ``pool.problems``).
    scores : ndarray of float32, shape (n,)
        The softmax probability of the class *anomaly*, in [0, 1].
    """
    score = _score_vectors(model) if isinstance(model, VectorClassifier) else Inference(model).scores
    for images, found in pool.stream(indices, batch_size=batch_size):
        yield found, score(images)


def _score_vectors(
    model: VectorClassifier,
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Score by the mean of the raw features over the views, as the instant tier does."""
    embedder = Embedder(model, side=model.side, n_views=model.shape.n_views)
    weights, bias = model.on_features()

    def score(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.asarray(expit(embedder.raw(images) @ weights + bias), np.float32)

    return score
