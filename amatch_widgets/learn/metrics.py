"""How good a ranking is, measured on held-out labels, with its uncertainty.

The numbers describe the held-out labels. A person labels mostly what is shown, so the share
of anomalies among them is not that of the whole source: AUPRC and precision carry that share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "Metrics", "evaluate"]

_AT_LEAST = 2  # of each class: a resample of one image is always the same
_NAMES = ("auroc", "auprc", "precision_at_k")
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_CHUNK = 200_000  # elements of a (resamples, distinct scores) array: 1.6 MB fits the cache, twice as fast


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval and the counts behind it, or the reason why there is none.

    Parameters
    ----------
    value : float or None
        The estimate, in [0, 1]; None if there are too few labels.
    low : float or None
        Lower end of the 95 % interval.
    high : float or None
        Upper end of the 95 % interval.
    n_anomalies : int
        Held-out anomalies.
    n_total : int
        Held-out labels.
    reason : str
        Why there is no value; "" if there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    n_anomalies: int
    n_total: int
    reason: str = ""

    def __repr__(self) -> str:
        if self.value is None:
            return self.reason
        counts = f"{_count(self.n_anomalies)} of {self.n_total}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], {counts}"


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality of a ranking on the held-out labels.

    Parameters
    ----------
    auroc : Estimate
        Probability that an anomaly scores higher than a normal image, ties counted half.
    auprc : Estimate
        Average precision: the mean, over the anomalies, of the precision at their rank.
    precision_at_k : Estimate
        Share of anomalies among the `k` highest scores.
    k : int
        How many that are.
    """

    auroc: Estimate
    auprc: Estimate
    precision_at_k: Estimate
    k: int

    def __repr__(self) -> str:
        return f"Metrics(auroc={self.auroc}; auprc={self.auprc}; precision@{self.k}={self.precision_at_k})"

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per metric: value, low, high, n_anomalies, n_total, reason."""
        import pandas as pd  # noqa: PLC0415 (half a second that the training does not need)

        frame = pd.DataFrame([asdict(getattr(self, name)) for name in _NAMES])
        frame.index = pd.Index(["auroc", "auprc", f"precision_at_{self.k}"], name="metric")
        return frame.astype({"value": float, "low": float, "high": float})

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Metrics:
        """Read what `to_dict` returned; fields that this version does not know are left aside.

        Parameters
        ----------
        record : mapping
            As from `to_dict`.

        Returns
        -------
        Metrics
            The same metrics.
        """
        fields = Estimate.__slots__
        parts = {n: Estimate(**{f: record[n][f] for f in fields if f in record[n]}) for n in _NAMES}
        return cls(**parts, k=int(record["k"]))


def evaluate(
    truth: ArrayLike,
    scores: ArrayLike,
    *,
    k: int | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Measure a ranking on labelled images.

    Parameters
    ----------
    truth : array_like of bool, shape (n,)
        True for an anomaly.
    scores : array_like of float, shape (n,)
        Scores of the same images, higher for more anomalous; finite.
    k : int, in [1, n], optional
        Precision is measured among the `k` highest scores. Default: the number of anomalies, so
        that a perfect ranking reaches 1 (R-precision).
    n_bootstrap : int, >= 100
        Resamples behind the intervals.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Metrics
        Estimates with 95 % intervals; where there are fewer than 2 of a class, without values
        but with the reason.

    Raises
    ------
    ValueError
        If the lengths differ, a score is NaN or infinite, or an option is out of its range.

    Notes
    -----
    AUROC is the Mann-Whitney statistic with average ranks for ties. AUPRC is the average
    precision, with tied scores as one threshold, as scikit-learn has it. Where a tie crosses
    rank k, its images count by the share that fits, i.e. precision is the mean over all orders
    of the tied images; no random order is drawn.

    Intervals are percentiles of a stratified bootstrap (Efron & Tibshirani 1993, ch. 13): anomalies
    and normal images are resampled apart, so each resample has as many of both. Where all
    resamples agree, as they must for a perfect ranking, percentiles would claim certainty;
    there the interval is Wilson's (1927) for as many trials as the rarer class has images.
    """
    is_anomaly, values = _checked(truth, scores)
    n, n_anomalies = len(values), int(is_anomaly.sum())
    k = max(1, n_anomalies) if k is None else int(k)
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1.")
    if n_bootstrap < 100:  # noqa: PLR2004 (a 2.5 % percentile of fewer means nothing)
        raise ValueError(f"n_bootstrap is {n_bootstrap}; it must be at least 100.")
    reason = _too_few(n_anomalies, n)
    if reason:
        nothing = Estimate(None, None, None, n_anomalies, n, reason)
        return Metrics(nothing, nothing, nothing, k)

    _, group = np.unique(values, return_inverse=True)  # rising; tied scores are one group
    n_groups = int(group.max()) + 1
    anomalies, normals = group[is_anomaly], group[~is_anomaly]
    point = _measure(_counts(anomalies[None], n_groups), _counts(normals[None], n_groups), k)
    resampled = [
        np.concatenate(parts)
        for parts in zip(*_resamples(anomalies, normals, n_groups, k, n=n_bootstrap, seed=seed), strict=True)
    ]
    estimates = []
    for value, sample in zip(point, resampled, strict=True):
        low, high = _interval(float(value[0]), sample, min(n_anomalies, n - n_anomalies))
        estimates.append(Estimate(float(value[0]), low, high, n_anomalies, n))
    if k > n:
        beyond = f"k = {k} is more than the {n} labels held out"
        estimates[2] = Estimate(None, None, None, n_anomalies, n, beyond)
    auroc, auprc, precision = estimates
    return Metrics(auroc, auprc, precision, k)


def _checked(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    is_anomaly = np.asarray(truth)
    values = np.asarray(scores, np.float64)
    if is_anomaly.ndim != 1 or is_anomaly.shape != values.shape:
        raise ValueError(
            f"truth has the shape {is_anomaly.shape} and scores {values.shape}; both must be (n,)."
        )
    if is_anomaly.size and is_anomaly.dtype != np.bool_:
        raise ValueError(f"truth has the dtype {is_anomaly.dtype}; it must be bool, True for an anomaly.")
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(values)} scores are NaN or infinite. Leave images without a score out."
        )
    return is_anomaly.astype(np.bool_), values


def _too_few(n_anomalies: int, n: int) -> str:
    if min(n_anomalies, n - n_anomalies) >= _AT_LEAST:
        return ""
    counts = f"{_count(n_anomalies)} of {n} held out"
    return f"too few to say: {counts}, at least {_AT_LEAST} of each class are needed"


def _count(n_anomalies: int) -> str:
    return f"{n_anomalies} {'anomaly' if n_anomalies == 1 else 'anomalies'}"


def _resamples(
    anomalies: NDArray[np.int64],
    normals: NDArray[np.int64],
    n_groups: int,
    k: int,
    *,
    n: int,
    seed: int,
) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Yield the three metrics of some resamples at a time, so that many labels need little memory."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(n_groups, len(anomalies), len(normals)))
    for start in range(0, n, size):
        b = min(size, n - start)
        drawn = [g[rng.integers(len(g), size=(b, len(g)))] for g in (anomalies, normals)]
        yield _measure(_counts(drawn[0], n_groups), _counts(drawn[1], n_groups), k)


def _counts(groups: NDArray[np.int64], n_groups: int) -> NDArray[np.float64]:
    """Count the images per score: (b, m) group numbers to (b, n_groups)."""
    b = len(groups)
    flat = (groups + n_groups * np.arange(b)[:, None]).ravel()
    return np.bincount(flat, minlength=b * n_groups).reshape(b, n_groups).astype(np.float64)


def _measure(
    anomalies: NDArray[np.float64], normals: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Compute AUROC, AUPRC and precision at k from counts per rising score, (b, n_groups), each row."""
    anomalies, normals = anomalies[:, ::-1], normals[:, ::-1]  # the highest score first
    n_anomalies, n_normals = anomalies.sum(1), normals.sum(1)
    found = anomalies.cumsum(1)  # anomalies down to and with this score
    wrong = normals.cumsum(1)
    # a pair counts if the anomaly comes before the normal image, half if they are tied
    auroc = ((found - anomalies / 2) * normals).sum(1) / (n_anomalies * n_normals)
    seen = found + wrong
    auprc = (anomalies * found / np.maximum(seen, 1)).sum(1) / n_anomalies
    here = anomalies + normals
    taken = np.clip(k - (seen - here), 0, here)
    precision = (taken * anomalies / np.maximum(here, 1)).sum(1) / k
    return auroc, auprc, precision


def _interval(value: float, sample: NDArray[np.float64], n_trials: int) -> tuple[float, float]:
    low, high = (float(x) for x in np.percentile(sample, (2.5, 97.5)))
    if high - low > 1e-12:  # noqa: PLR2004 (rounding, far below any real spread)
        return low, high
    middle = (value + _Z**2 / (2 * n_trials)) / (1 + _Z**2 / n_trials)
    spread = value * (1 - value) / n_trials + _Z**2 / (4 * n_trials**2)
    half = _Z * float(np.sqrt(spread)) / (1 + _Z**2 / n_trials)
    return max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value))
