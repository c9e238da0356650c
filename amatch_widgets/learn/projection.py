"""From the raw features of images to short vectors that plain linear algebra can rank by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.extmath import randomized_svd

from ._threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Projection"]

_DIMS = 256  # of each space, at most
_ALPHA = 0.3  # of the mean variance, added to each: directions of little variance are mostly noise
_FLOOR = 1e-3  # added to each standard deviation: features that hardly vary shall not be blown up
_LARGEST = 6e4  # float16 ends at 65504
# Of the randomised decomposition: the last directions are then right to a percent of their variance.
_POWER_ITERATIONS, _OVERSAMPLES = 4, 64
_SPACES = ("final", "late")


@dataclass(frozen=True, slots=True)
class _Space:
    """An affine map of some neighbouring columns of the raw features."""

    start: int
    mean: NDArray[np.float32]  # (D,)
    matrix: NDArray[np.float32]  # (D, K)

    def apply(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        columns = raw[:, self.start : self.start + len(self.mean)]
        return np.asarray((columns - self.mean) @ self.matrix, np.float32)


class Projection:
    """Two whitened spaces, fitted on a sample of the images and kept with their vectors.

    Space "final" is made of the mean of the last feature maps, which knows what an image shows; space
    "late" of the means and standard deviations of all tapped maps, which know textures and parts
    too. In each, the features are standardised over the sample, turned to their principal
    directions and divided by the root of their variance (of which a share of the mean is added),
    and scaled so that the sample's mean squared length is 1. Distances are then close to those of
    Mahalanobis, and the difference of two means is a linear discriminant (Hariharan et al. 2012,
    "Discriminative decorrelation for clustering and classification").

    Make one with `fit` or `from_arrays`.

    Attributes
    ----------
    spaces : tuple of slice
        Places of the two spaces, "final" and "late", in a vector.
    dims : int
        Length of a vector: 512 where there are enough images and features.
    """

    def __init__(self, spaces: Sequence[_Space]) -> None:
        self._spaces = tuple(spaces)
        ends = np.cumsum([space.matrix.shape[1] for space in spaces]).tolist()
        self.spaces = tuple(slice(a, b) for a, b in zip([0, *ends], ends, strict=False))
        self.dims: int = ends[-1]

    def __repr__(self) -> str:
        return f"Projection({self.dims} dims in {len(self.spaces)} spaces)"

    @classmethod
    def fit(cls, raw: NDArray[np.float32], blocks: Sequence[tuple[str, slice]], *, seed: int) -> Projection:
        """Fit the projection on a random sample of the images.

        Parameters
        ----------
        raw : ndarray of float32, shape (N, D), N >= 1
            Raw features, from ``Embedder.raw``; a few thousand are enough.
        blocks : sequence of (str, slice)
            ``Embedder.blocks``: the columns of each statistic; "final.mean" is one of them.
        seed : int, >= 0
            Of the randomised singular value decomposition.

        Returns
        -------
        Projection
            Each space has min(256, N - 1, its features) dimensions, but at least 1.

        Raises
        ------
        ValueError
            If there is no row, or a number is not finite.
        """
        if not len(raw) or not np.isfinite(raw).all():
            raise ValueError(
                f"A projection cannot be fitted on {raw.shape} features that are not all finite."
            )
        weights = np.ones(raw.shape[1], np.float32)
        for _, columns in blocks:  # each block weighs the same, however wide it is
            weights[columns] = (columns.stop - columns.start) ** -0.5
        final = dict(blocks)["final.mean"]
        with one_thread():
            return cls(
                [
                    _fit_space(raw[:, final], final.start, np.ones(1, np.float32), seed),
                    _fit_space(raw, 0, weights, seed),
                ]
            )

    def apply(self, raw: NDArray[np.float32]) -> NDArray[np.float16]:
        """Project raw features.

        Parameters
        ----------
        raw : ndarray of float32, shape (N, D)

        Returns
        -------
        ndarray of float16, shape (N, dims)
            The spaces side by side.
        """
        vectors = np.concatenate([space.apply(raw) for space in self._spaces], 1)
        return np.clip(vectors, -_LARGEST, _LARGEST, out=vectors).astype(np.float16)

    def as_affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (matrix, shift) such that the vectors are ``raw @ matrix - shift``, before rounding.

        Returns
        -------
        matrix : ndarray of float32, shape (D, dims)
            D is the number of raw features.
        shift : ndarray of float32, shape (dims,)
        """
        n_features = max(space.start + len(space.mean) for space in self._spaces)
        matrix = np.zeros((n_features, self.dims), np.float32)
        for columns, space in zip(self.spaces, self._spaces, strict=True):
            matrix[space.start : space.start + len(space.mean), columns] = space.matrix
        shifts = [space.mean @ space.matrix for space in self._spaces]
        return matrix, np.concatenate(shifts).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all there is to know, for ``numpy.savez``."""
        return {
            f"{name}_{part}": np.asarray(getattr(space, part))
            for name, space in zip(_SPACES, self._spaces, strict=True)
            for part in _Space.__slots__
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Projection:
        """Rebuild what `to_arrays` gave.

        Raises
        ------
        ValueError
            If an array is missing or the shapes do not fit.
        """
        try:
            spaces = [
                _Space(
                    int(arrays[f"{name}_start"]),
                    np.asarray(arrays[f"{name}_mean"], np.float32),
                    np.asarray(arrays[f"{name}_matrix"], np.float32),
                )
                for name in _SPACES
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"These are no arrays of a projection: {error}. Embed the images again."
            ) from error
        for space in spaces:
            if space.mean.ndim != 1 or space.matrix.ndim != 2 or len(space.mean) != len(space.matrix):  # noqa: PLR2004
                raise ValueError(
                    f"The arrays of a projection do not fit: a mean of {space.mean.shape} and a matrix of "
                    f"{space.matrix.shape}. Embed the images again."
                )
        return cls(spaces)


def _fit_space(raw: NDArray[np.float32], start: int, weights: NDArray[np.float32], seed: int) -> _Space:
    n, n_features = raw.shape
    mean = raw.mean(0, dtype=np.float64).astype(np.float32)
    scale = weights / (raw.std(0, dtype=np.float64).astype(np.float32) + _FLOOR)
    x = (raw - mean) * scale
    dims = max(1, min(_DIMS, n - 1, n_features))
    if 2 * dims < min(n, n_features):
        _, lengths, directions = randomized_svd(
            x,
            dims,
            n_oversamples=_OVERSAMPLES,
            n_iter=_POWER_ITERATIONS,
            power_iteration_normalizer="LU",  # as good as QR here, in a fifth of the time
            random_state=seed,
        )
    else:  # nearly all directions are wanted: the exact way costs no more
        _, lengths, directions = np.linalg.svd(x, full_matrices=False)
        lengths, directions = lengths[:dims], directions[:dims]
    variances = lengths.astype(np.float64) ** 2 / n
    spread = np.sqrt(variances + _ALPHA * variances.mean())
    # With z = x V / spread, the mean of |z|^2 over the sample is the sum of variances / spread^2.
    with np.errstate(invalid="ignore", divide="ignore"):  # of equal images, whose vectors are all 0
        whitening = np.nan_to_num(1 / (spread * np.sqrt((variances / spread**2).sum())), posinf=0.0)
    matrix = scale[:, None] * directions.T * whitening.astype(np.float32)
    return _Space(start, mean, np.ascontiguousarray(matrix, np.float32))
