"""A seeded synthetic sky with known rare objects, to learn on and to test with."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets._sky import NORMAL_KINDS, RARE_KINDS, draw
from amatch_widgets.errors import ConfigError
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids
from amatch_widgets.labels import ANOMALY, NORMAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DemoSource", "sky"]

_KINDS = (*NORMAL_KINDS, *RARE_KINDS)
_KIND_STREAM, _RARE_STREAM = 2**40, 2**40 + 1  # of random numbers, beyond the index of any image


def sky(n: int = 20_000, seed: int = 0, *, size: int = 64, prevalence: float = 0.01) -> DemoSource:
    """Make a synthetic sky: ellipticals, discs and spirals, and few mergers, rings and lensed arcs.

    Parameters
    ----------
    n : int, >= 1
        Number of images.
    seed : int, >= 0
        Another seed is another sky.
    size : int, in [16, 1024]
        Side of the images, in pixels; the field of view stays the same.
    prevalence : float, in [0, 1]
        Share of rare objects. Exactly the nearest whole number of images is rare, and at least one unless
        the share is 0.

    Returns
    -------
    DemoSource
        An `ImageSource` that draws each image when it is read.

    Raises
    ------
    ConfigError
        An option is out of its range.
    """
    return DemoSource(n, seed, size=size, prevalence=prevalence)


class DemoSource:
    """The synthetic sky; made by `sky`, whose parameters it takes.

    An image depends on the seed, its index and its kind alone. Common kinds do not depend on `n`; which
    images are rare does.
    """

    channels = 3

    def __init__(self, n: int = 20_000, seed: int = 0, *, size: int = 64, prevalence: float = 0.01) -> None:
        _check_whole("n", n, 1, 10**9)
        _check_whole("seed", seed, 0, 2**63)
        _check_whole("size", size, 16, 1024)
        if not isinstance(prevalence, (int, float)) or not 0 <= prevalence <= 1:
            raise ConfigError(f"sky(prevalence={prevalence!r}): allowed is a share from 0 to 1, e.g. 0.01.")
        self.name = f"sky-{seed}"
        self.ids: Sequence[str] = NumberedIds(n)
        self._n, self._seed, self._size, self._prevalence = int(n), int(seed), int(size), float(prevalence)
        kinds = np.random.default_rng([seed, _KIND_STREAM]).integers(0, len(NORMAL_KINDS), n, dtype=np.uint8)
        n_rare = max(int(prevalence > 0), int(n * prevalence + 0.5))
        rare = np.random.default_rng([seed, _RARE_STREAM]).permutation(n)[:n_rare]
        kinds[rare] = len(NORMAL_KINDS) + np.arange(n_rare) % len(RARE_KINDS)
        self._kinds = kinds

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        n_rare = int((self._kinds >= len(NORMAL_KINDS)).sum())
        return f"DemoSource({self._n} images of {self._size} px, {n_rare} rare, seed={self._seed})"

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[np.uint8]:
        """Draw one image, shape (size, size, 3), uint8; see `ImageSource.read`. `min_side` is not used."""
        del min_side
        index = check_index(index, self._n)
        return draw(_KINDS[self._kinds[index]], np.random.default_rng([self._seed, index]), self._size)

    def fingerprint(self) -> str:
        """Return a hash of the parameters."""
        return hash_ids(f"{key}={value}" for key, value in self.spec().items())

    def spec(self) -> dict[str, Any]:
        """Return the parameters of `sky`, and ``"kind": "demo"``."""
        return {
            "kind": "demo",
            "n": self._n,
            "seed": self._seed,
            "size": self._size,
            "prevalence": self._prevalence,
        }

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """What each image shows, by id: elliptical, disc, spiral, merger, ring or lens."""
        return MappingProxyType({i: _KINDS[k] for i, k in zip(self.ids, self._kinds, strict=True)})

    @cached_property
    def truth(self) -> Mapping[str, str]:
        """The right label of each image, by id: ``"anomaly"`` or ``"normal"``."""
        labels = np.array([NORMAL, ANOMALY])[(self._kinds >= len(NORMAL_KINDS)).astype(int)]
        return MappingProxyType(dict(zip(self.ids, labels.tolist(), strict=True)))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the mappings, which cannot be pickled and are quickly made again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("kinds", "truth")}

    def first_labels(self, n_anomalies: int = 5, n_normals: int = 45, seed: int = 0) -> dict[str, str]:
        """Draw a handful of known examples to begin a hunt with.

        Parameters
        ----------
        n_anomalies, n_normals : int, >= 0
            How many of each.
        seed : int, >= 0
            Which ones.

        Returns
        -------
        dict of str to str
            Label by id, anomalies first.

        Raises
        ------
        ConfigError
            There are not so many.
        """
        rng = np.random.default_rng(seed)
        is_rare = self._kinds >= len(NORMAL_KINDS)
        labels: dict[str, str] = {}
        for label, wanted, there in ((ANOMALY, n_anomalies, is_rare), (NORMAL, n_normals, ~is_rare)):
            candidates = np.flatnonzero(there)
            if not 0 <= wanted <= len(candidates):
                raise ConfigError(
                    f"{wanted} images of class {label!r} were asked for; this sky has {len(candidates)}. "
                    "Ask for fewer, or make a larger sky."
                )
            labels |= {self.ids[int(i)]: label for i in rng.choice(candidates, wanted, replace=False)}
        return labels


def _check_whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"sky({name}={value!r}): allowed is a whole number from {low} to {high}.")
