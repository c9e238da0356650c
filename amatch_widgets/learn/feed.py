"""What each training step sees: a class-balanced labelled batch and unlabelled images.

Every draw is a function of (seed, step), so that a training resumed from a checkpoint goes on
as if it had never stopped, with no random state to keep.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from amatch_widgets.errors import TooFewLabelsError
from amatch_widgets.labels import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from amatch_widgets.images.pixels import PixelPool

    from .transfer import Resident

__all__ = ["Feed", "LabelledImages", "StepImages", "check_both_classes"]

_LABELLED_STREAM, _UNLABELLED_STREAM = 0, 1


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """All training labels at one moment.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, S, S, C)
    classes : ndarray of int64, shape (N,)
        1 = anomaly, 0 = normal.
    """

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepImages:
    """What one step sees.

    Attributes
    ----------
    labelled : ndarray of uint8, shape (B, S, S, C)
    classes : ndarray of int64, shape (B,)
        Of the labelled images.
    unlabelled : ndarray of uint8, shape (M, S, S, C)
        Those of the N unlabelled images that are not on the device yet, in the order of `rows`.
    rows : ndarray of int64, shape (N,)
        Where unlabelled images are on the device; -1 for the M others.
    n_likely : int, in [0, N]
        So many unlabelled images, the first, are likely anomalies; the others are random ones.
    """

    labelled: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    unlabelled: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    n_likely: int


class Feed:
    """Draw the images of each step.

    Parameters
    ----------
    pool : PixelPool
        Kept as the attribute `pool`.
    n_images : int
        Images in the source.
    labels : callable
        Returns (version, {index: class}) of the training labels now. It is asked at every step,
        so that new labels enter a running training.
    batch, n_unlabelled : int
        Images a step.
    seed : int
    likely : ndarray of int64, shape (M,), optional
        Positions of images that are likely anomalies.
    likely_share : float, in [0, 1]
        Share of the unlabelled images of a step that is drawn from `likely`, as far as they last;
        the others come from all images.
    elsewhere : callable, optional
        Returns (version, LabelledImages), labelled images that are not in the source. It is asked as
        `labels` is.
    """

    def __init__(
        self,
        pool: PixelPool,
        n_images: int,
        labels: Callable[[], tuple[int, Mapping[int, int]]],
        *,
        batch: int,
        n_unlabelled: int,
        seed: int,
        likely: npt.NDArray[np.int64] | None = None,
        likely_share: float = 0.0,
        elsewhere: Callable[[], tuple[int, LabelledImages | None]] = lambda: (0, None),
    ) -> None:
        self.pool, self._n_images, self._labels = pool, n_images, labels
        self._likely = np.empty(0, np.int64) if likely is None else likely
        self._n_likely = round(likely_share * n_unlabelled)
        self._batch, self._n_unlabelled, self._seed = batch, n_unlabelled, seed
        self._elsewhere = elsewhere
        self._versions: tuple[int, int] | None = None
        self._known: Mapping[int, int] = {}
        self._current: LabelledImages | None = None

    @property
    def learnt(self) -> Mapping[int, int]:
        """The labels, {index: class}, that the last step learnt from; those from elsewhere left out."""
        return self._known

    def labelled(self) -> LabelledImages:
        """Return the training labels with their images, read again only if they changed.

        Raises
        ------
        TooFewLabelsError
            If a class has no readable image; the message says what is still needed.
        """
        (version, known), (version_elsewhere, others) = self._labels(), self._elsewhere()
        versions = version, version_elsewhere
        if self._current is None or versions != self._versions:
            images, indices = self.pool.batch(np.fromiter(sorted(known), np.int64, len(known)))
            classes = np.array([known[int(i)] for i in indices], np.int64)
            n_unreadable = len(known) - len(indices)
            if others is not None and len(others.classes):
                images = np.concatenate([images, others.images])
                classes = np.concatenate([classes, others.classes])
            check_both_classes(classes, n_unreadable)
            self._current = LabelledImages(images, classes)
            self._versions, self._known = versions, known
        return self._current

    def steps(self, first: int, resident: Resident | None = None) -> Iterator[StepImages]:
        """Yield the images of step `first`, `first` + 1 and so on, the next ones read ahead.

        Parameters
        ----------
        first : int
        resident : Resident, optional
            Images that are on the device and need not be read.

        Yields
        ------
        StepImages
        """
        with ThreadPoolExecutor(1, thread_name_prefix="amatch-feed") as reader:
            step = first
            self.labelled()
            ahead = reader.submit(self._unlabelled, step, resident)
            while True:
                unlabelled = ahead.result()
                step += 1
                ahead = reader.submit(self._unlabelled, step, resident)
                yield self._with_labelled(step - 1, *unlabelled)

    def _with_labelled(
        self,
        step: int,
        unlabelled: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64],
        n_likely: int,
    ) -> StepImages:
        labelled = self.labelled()
        rng = np.random.default_rng([self._seed, step, _LABELLED_STREAM])
        n_anomalies = self._batch // 2
        chosen = np.concatenate(
            [
                _spread(np.flatnonzero(labelled.classes == index), n, rng)
                for index, n in ((1, n_anomalies), (0, self._batch - n_anomalies))
            ]
        )
        return StepImages(labelled.images[chosen], labelled.classes[chosen], unlabelled, rows, n_likely)

    def _unlabelled(
        self, step: int, resident: Resident | None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], int]:
        """Read images that are not in the training labels, drawn with replacement over the steps.

        Returned as `StepImages` has them: images, rows, and the number of likely anomalies.
        """
        wanted, n_likely = self._drawn(step)
        rows = np.full(len(wanted), -1, np.int64) if resident is None else resident.rows(wanted)
        images, read = self.pool.batch(wanted[rows < 0])
        is_there = (rows >= 0) | np.isin(wanted, read)  # each is drawn once in a step
        return images, rows[is_there], int(is_there[:n_likely].sum())

    def _drawn(self, step: int) -> tuple[npt.NDArray[np.int64], int]:
        """Draw the unlabelled images of a step, the likely anomalies first; return how many those are.

        As many images in every step: for each new shape of a batch the CPU's kernels are compiled anew
        and kept, which costs seconds and hundreds of MB.
        """
        if not self._n_unlabelled:
            return np.empty(0, np.int64), 0
        rng = np.random.default_rng([self._seed, step, _UNLABELLED_STREAM])
        known = np.fromiter(self._known, np.int64, len(self._known))
        likely = rng.permutation(self._likely[~np.isin(self._likely, known)])[: self._n_likely]
        taken = np.concatenate([known, likely])
        drawn = rng.choice(
            self._n_images, min(self._n_unlabelled + len(taken), self._n_images), replace=False
        )
        others = drawn[~np.isin(drawn, taken)][: self._n_unlabelled - len(likely)]
        return np.concatenate([likely, others]), len(likely)


def _spread(positions: npt.NDArray[np.int64], n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `n` of `positions`, each as often as any other (to within one)."""
    rounds = -(-n // len(positions))
    return np.concatenate([rng.permutation(positions) for _ in range(rounds)])[:n]


def check_both_classes(classes: Iterable[int], n_unreadable: int = 0) -> None:
    """Refuse labels to learn from that lack a class.

    Parameters
    ----------
    classes : iterable of int
        1 = anomaly, 0 = normal; of the images that are to be learnt from.
    n_unreadable : int
        Labelled images that are not among them because they cannot be read.

    Raises
    ------
    TooFewLabelsError
        The message says what was found and what is still needed.
    """
    number = Counter(int(index) for index in classes)
    missing = [name for index, name in enumerate(CLASSES) if not number[index]]
    if missing:
        found = " and ".join(f"{number[index]} {name}" for index, name in enumerate(CLASSES))
        unreadable = f" ({n_unreadable} more cannot be read, see session.problems)" if n_unreadable else ""
        raise TooFewLabelsError(
            f"Training needs at least 1 readable image of each class to learn from; found {found}"
            f"{unreadable}. Label at least one image as {' and one as '.join(missing)} "
            "(5 anomalies and 20 normals are a good start), then train again."
        )
