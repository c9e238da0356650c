"""The instant head: a ranking of all images from a handful of labels, in a fraction of a second.

It works on vectors made once from a pretrained network and whitened over the pool of images, in
which the direction from the normals to the anomalies is a linear discriminant: with whitened
features the covariance is the identity (Hariharan et al. 2012, "Discriminative decorrelation for
clustering and classification", ECCV).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from amatch_widgets.errors import LabelError
from amatch_widgets.learn._threads import one_thread

from ._blocks import in_blocks
from ._evidence import Labelled, choose_spaces, regression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["InstantFit", "InstantHead", "Outside", "logit_of", "score_of"]

_Floats = NDArray[np.float32]

_POOL = 4096  # images that stand for the pool: 8 MB of float32, and a standard deviation to 1 %
_FOLDS = 10
# The fewer anomalies, the more the columns in which the pool varies little are held back: there a few
# anomalies lie alike by chance. Columns are multiplied by their variance to the power of 0.5 up to 5
# anomalies, of 0 from 15 on. With 5 that raised the AUPRC by 0.0071 +- 0.0032 on the cases of the bench
# and nine more (seeds 0-2), by 0.0028 +- 0.0018 on those and 14 others (new seeds), and changed what a
# hunt found by less than its error.
_HELD_BACK, _FEW, _MANY = 0.5, 5, 15
_REPELLING = 3.0  # with normals alone, how much likeness to the nearest of them counts against an image
_FAR = 3.0  # taken for the score of a new anomaly, in standard deviations, when there is one label only
_LOGIT = 2.0  # of what is expected of an anomaly; the pool's mean has the opposite
_KNEE = 0.76 / 0.24  # x / (1 + |x|) is 0.76 there: a score of 0.88


@dataclass(frozen=True, slots=True, eq=False)
class InstantFit:
    """What a fit of the instant head gave.

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
        In [0, 1], the higher the likelier an anomaly; NaN where there is no vector. With
        anomalies labelled it is a score and not a calibrated probability: 0.12 is the mean of
        the pool and 0.88 what a labelled anomaly gets that the head was not shown, on average.
        For "novelty" it is the rank.
    kind : {"novelty", "labels"}
        "novelty" as long as no anomaly is labelled: the distance from the bulk of the images.
    space_weights : tuple of float
        Share of each space in the prototypes, together 1; all equal with fewer than 2 anomalies.
    held_out_log_rank : float
        Mean, over the labelled anomalies left out in turn, of the logarithm of the share of the
        pool that the prototypes of the others rank above it; the lower the better, and -1 for a
        random ranking. NaN with fewer than 2 anomalies.
    n_anomalies : int
        Labelled anomalies that have a vector, those from outside too.
    n_normals : int
        Labelled normals that have a vector.
    weights : ndarray of float32, shape (D,), or None
    bias : float
        ``vectors @ weights + bias`` ranks as the scores do, and serves as the logit of *anomaly*: -2
        is the mean of the pool, 2 what is expected of an anomaly. None and 0 for "novelty".
    """

    scores: _Floats
    kind: Literal["novelty", "labels"]
    space_weights: tuple[float, ...]
    held_out_log_rank: float
    n_anomalies: int
    n_normals: int
    weights: _Floats | None
    bias: float


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """Labelled images that are not of the pool, and are learnt from all the same.

    Parameters
    ----------
    vectors : ndarray of float16, shape (M, D)
        Of the same network and projection as the pool's.
    classes : ndarray of int64, shape (M,)
        1 (anomaly) or 0 (normal).
    """

    vectors: NDArray[np.float16]
    classes: NDArray[np.int64]

    @classmethod
    def nothing(cls) -> Outside:
        """Return none of them."""
        return cls(np.empty((0, 0), np.float16), np.empty(0, np.int64))

    def beside(self, rows: _Floats, label: int) -> _Floats:
        """Return rows of the pool, and behind them those of one class from outside."""
        mine = self.classes == label
        return np.concatenate([rows, self.vectors[mine].astype(np.float32)]) if mine.any() else rows


class InstantHead:
    """Ranks images by their vectors and a few labels.

    Thread safety: nothing changes after the construction; any number of threads may call `fit`.

    Parameters
    ----------
    vectors : ndarray of float16, shape (N, D)
        Embedding of the images, each space whitened over the pool and of unit mean squared
        length; may be memory-mapped. It is read once per fit, in blocks.
    spaces : sequence of slice
        The columns of each space.
    is_usable : ndarray of bool, shape (N,)
        False for images without a vector.
    seed : int, default 0
        Seed of the random images that stand for the pool.
    """

    def __init__(
        self,
        vectors: NDArray[np.float16],
        spaces: Sequence[slice],
        is_usable: NDArray[np.bool_],
        *,
        seed: int = 0,
    ) -> None:
        if vectors.ndim != 2 or is_usable.shape != (len(vectors),):  # noqa: PLR2004 (N, D)
            raise ValueError(
                f"vectors have the shape {vectors.shape} and is_usable {is_usable.shape}; "
                "they must be (N, D) and (N,)."
            )
        if not spaces:
            raise ValueError("spaces is empty; give the columns of at least one space.")
        self._vectors, self._spaces = vectors, tuple(spaces)
        self._is_usable = is_usable.copy()
        usable = np.flatnonzero(self._is_usable)
        rng = np.random.default_rng(seed)
        self._pool_at = rng.choice(usable, min(_POOL, len(usable)), replace=False)
        self._pool = self._rows(self._pool_at)
        self._variances = self._pool.var(0) if len(usable) else np.zeros(vectors.shape[1], np.float32)

    def fit(self, labels: Mapping[int, int], outside: Outside | None = None) -> InstantFit:
        """Rank all images by the labels given so far.

        Parameters
        ----------
        labels : mapping of int to int
            Index of an image to 1 (anomaly) or 0 (normal). Images without a vector are left out.
        outside : Outside, optional
            Labelled images that are not ranked.

        Returns
        -------
        InstantFit
            The same for the same labels, in whatever order they come.

        Raises
        ------
        LabelError
            If an index is outside [0, N), or a label is neither 0 nor 1.
        """
        anomalies, normals = self._sorted(labels)
        is_other = ~np.isin(self._pool_at, np.concatenate([anomalies, normals]))
        more = Outside.nothing() if outside is None else outside
        found, usual = more.beside(self._rows(anomalies), 1), more.beside(self._rows(normals), 0)
        with one_thread():
            if len(found):
                scale = self._scale(len(found))
                pool: _Floats = self._pool * scale
                known = Labelled(found * scale, usual * scale, pool[is_other])
                weights, log_rank = choose_spaces(known, self._spaces)
                direction = self._direction(known, weights, pool)
                low, high = self._expected(known, weights, pool, pool @ direction)
                slope = _LOGIT / max((high - low) / 2, 1e-12)
                logit_weights, bias = np.asarray(direction * scale * slope), -slope * (low + high) / 2
                scores = self._to_unit(self._project(logit_weights), bias)
            else:
                logit_weights, bias = None, 0.0
                weights, log_rank = np.full(len(self._spaces), 1 / len(self._spaces), np.float32), np.nan
                scores = self._by_rank(self._novelty(usual))
        return InstantFit(
            scores=scores,
            kind="labels" if len(found) else "novelty",
            space_weights=tuple(weights.tolist()),
            held_out_log_rank=float(log_rank),
            n_anomalies=len(found),
            n_normals=len(usual),
            weights=logit_weights,
            bias=bias,
        )

    def held_out(self, labels: Mapping[int, int]) -> dict[int, float]:
        """Say of each labelled image how much like an anomaly it is, by fits that were not shown it.

        Parameters
        ----------
        labels : mapping of int to int
            As for `fit`.

        Returns
        -------
        dict of int to float
            In standard deviations of the pool from its mean, by a fit to the nine other tenths of the
            labels. Empty with fewer than 2 anomalies: one cannot be left out.
        """
        anomalies, normals = self._sorted(labels)
        n_folds = min(_FOLDS, len(anomalies))
        if n_folds < 2:  # noqa: PLR2004
            return {}
        indices = np.concatenate([anomalies, normals])
        fold = np.concatenate([np.arange(len(anomalies)), np.arange(len(normals))]) % n_folds
        margins = np.empty(len(indices), np.float32)
        with one_thread():
            scale = self._scale(len(anomalies))
            pool: _Floats = self._pool * scale
            rows: _Floats = self._rows(indices) * scale
            others = pool[~np.isin(self._pool_at, indices)]
            is_anomaly = np.arange(len(indices)) < len(anomalies)
            for k in range(n_folds):
                shown = Labelled(rows[is_anomaly & (fold != k)], rows[~is_anomaly & (fold != k)], others)
                direction = self._direction(shown, choose_spaces(shown, self._spaces)[0], pool)
                along = pool @ direction
                spread = max(float(along.std()), float(np.finfo(np.float32).tiny))
                margins[fold == k] = (rows[fold == k] @ direction - along.mean()) / spread
        return dict(zip(indices.tolist(), margins.tolist(), strict=True))

    # ---- the ranking ------------------------------------------------------------------------

    def _scale(self, n_anomalies: int) -> _Floats:
        """Return the factor of each column; each space keeps its unit mean squared length."""
        power = _HELD_BACK * min(max((_MANY - n_anomalies) / (_MANY - _FEW), 0.0), 1.0)
        scale = self._variances ** np.float32(power)
        for space in self._spaces:
            size = np.sqrt((scale[space] ** 2 * self._variances[space]).sum())
            scale[space] /= size if size > 0 else 1
        return np.asarray(scale, np.float32)

    def _direction(self, known: Labelled, weights: _Floats, pool: _Floats) -> _Floats:
        """Return the direction along which images are ranked: prototypes and regression, evenly."""
        towards = known.anomalies.mean(0) - known.away
        prototypes = np.zeros_like(towards)
        for weight, space in zip(weights, self._spaces, strict=True):
            part = np.zeros_like(towards)
            part[space] = towards[space]
            prototypes += weight * _standard(part, pool)
        return _standard(prototypes, pool) + _standard(regression(known), pool)

    def _novelty(self, normals: _Floats) -> _Floats:
        """Return how far each image is from the bulk, and from all normals labelled so far.

        The squared length in whitened spaces is the squared Mahalanobis distance from the pool's
        mean. It ranked rare objects as high as robust variants and nearest neighbours did (AUROC
        0.60 on average), at a fraction of the cost.
        """
        distance = np.empty(len(self._vectors), np.float32)
        likeness = np.zeros(len(self._vectors), np.float32)
        directions = (normals / _lengths(normals)[:, None]).T
        for rows, block in in_blocks(self._vectors):
            lengths = _lengths(block)
            distance[rows] = lengths**2
            if len(normals):
                likeness[rows] = (block @ directions).max(1) / lengths
        # Looked at page by page, the first rare object came after 0.66 times as many looks as
        # without the second term (geometric mean of 31 classes, 0.58 to 0.75).
        return distance / self._spread(distance) - np.float32(_REPELLING) * likeness / self._spread(likeness)

    def _spread(self, values: _Floats) -> np.float32:
        """Return the standard deviation over the pool; 1 where all are the same."""
        spread = np.float32(values[self._pool_at].std()) if len(self._pool_at) else np.float32(0)
        return spread if spread > 0 else np.float32(1)

    # ---- scores in [0, 1] -------------------------------------------------------------------

    def _expected(
        self, known: Labelled, weights: _Floats, pool: _Floats, along: _Floats
    ) -> tuple[float, float]:
        """Return the mean of the pool along a direction, and of anomalies that it was not fitted to."""
        mean, spread = float(along.mean()), float(along.std())
        n_folds = min(_FOLDS, len(known.anomalies))
        if n_folds < 2:  # noqa: PLR2004 one anomaly cannot be left out
            return mean, mean + _FAR * spread
        fold = np.arange(len(known.anomalies)) % n_folds
        margins = []
        for k in range(n_folds):
            shown = Labelled(known.anomalies[fold != k], known.normals, known.others)
            direction = self._direction(shown, weights, pool)
            margins.append(known.anomalies[fold == k] @ direction - (pool @ direction).mean())
        # At least one standard deviation: anomalies that are not found again must not turn the scale.
        return mean, mean + max(float(np.concatenate(margins).mean()), spread)

    def _to_unit(self, projected: _Floats, bias: float) -> _Floats:
        return self._where_usable(score_of(projected.astype(np.float64) + bias))

    def _by_rank(self, values: _Floats) -> _Floats:
        usable = np.flatnonzero(self._is_usable)
        ranks = np.full(len(values), np.nan)
        order = usable[np.argsort(-values[usable], kind="stable")]  # ties: the first index is the higher
        ranks[order] = 1 - (np.arange(len(order)) + 0.5) / max(len(order), 1)
        return self._where_usable(ranks)

    def _where_usable(self, values: NDArray[np.float64]) -> _Floats:
        return np.where(self._is_usable, values, np.nan).astype(np.float32)

    # ---- vectors ----------------------------------------------------------------------------

    def _project(self, direction: _Floats) -> _Floats:
        """Return each image's place along a direction: the one pass over all vectors of a fit."""
        projected = np.empty(len(self._vectors), np.float32)
        for rows, block in in_blocks(self._vectors):
            np.matmul(block, direction, out=projected[rows])
        return projected

    def _rows(self, indices: NDArray[np.int64]) -> _Floats:
        """Return the vectors of some images, read in rising order: a memory map is read ahead."""
        order = np.argsort(indices)
        rows = np.empty((len(indices), self._vectors.shape[1]), np.float32)
        rows[order] = self._vectors[indices[order]]
        return rows

    def _sorted(self, labels: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the indices of usable anomalies and normals, in rising order."""
        n = len(self._vectors)
        for index, label in labels.items():
            if not 0 <= index < n:
                raise LabelError(f"There is no image {index}: the indices are 0 to {n - 1}.")
            if label not in (0, 1):
                raise LabelError(
                    f"The label of image {index} is {label!r}; it must be 1 (anomaly) or 0 (normal)."
                )
        known = [i for i in sorted(labels) if self._is_usable[i]]
        by_class = [[i for i in known if labels[i] == label] for label in (1, 0)]
        return np.array(by_class[0], np.int64), np.array(by_class[1], np.int64)


def score_of(logits: ArrayLike) -> NDArray[np.float64]:
    """Map the logits -2 to 0.12 and 2 to 0.88, those of the pool's mean and of an anomaly.

    By x / (1 + |x|) and not the logistic function: in float32 the latter is 1 for what lies far out,
    and the images that matter most would be tied.

    Parameters
    ----------
    logits : array of float, any shape

    Returns
    -------
    ndarray of float64, same shape
        In (0, 1).
    """
    x = np.asarray(logits, np.float64) * (_KNEE / _LOGIT)
    return np.asarray(0.5 + 0.5 * x / (1 + np.abs(x)))


def logit_of(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the logits that `score_of` maps to these scores in (0, 1)."""
    y = 2 * np.asarray(scores, np.float64) - 1
    return np.asarray(y / (1 - np.abs(y)) * (_LOGIT / _KNEE))


def _standard(direction: _Floats, pool: _Floats) -> _Floats:
    """Scale a direction such that the pool has a standard deviation of 1 along it."""
    spread = (pool @ direction).std()
    return direction / spread if spread > 0 else direction


def _lengths(rows: _Floats) -> _Floats:
    """Return the length of each row; never 0, so that one can divide by it."""
    return np.asarray(np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), np.finfo(np.float32).tiny))
