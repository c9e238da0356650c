"""A seeded synthetic sky with known rare objects, and a survey of it, to learn on and to test with."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets import _survey
from amatch_widgets._sky import NORMAL_KINDS, RARE_KINDS, draw
from amatch_widgets.errors import ConfigError, WorkspaceError
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids
from amatch_widgets.labels import ANOMALY, NORMAL

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DemoSource", "Survey", "sky", "survey"]

_KINDS = (*NORMAL_KINDS, *RARE_KINDS)
_KIND_STREAM, _RARE_STREAM = 2**40, 2**40 + 1  # of random numbers, beyond the index of any image
_FILES = {
    "VIS": "VIS_{tile}.fits",
    "Y": "NIR_Y_{tile}.fits",
    "J": "NIR_J_{tile}.fits",
    "H": "NIR_H_{tile}.fits",
}
_CATALOGUE, _OPTIONS = "catalogue.parquet", "survey.json"


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


def survey(
    folder: str | os.PathLike[str], n: int = 2000, seed: int = 0, *, prevalence: float = 0.03
) -> Survey:
    """Write a small made-up survey: FITS tiles in four bands, and a catalogue of the objects on them.

    VIS has pixels of 0.1 arcsec, the near infrared bands Y, J and H have 0.3 arcsec. The files hold float32,
    nJy in each pixel with the noise of the sky, and a WCS each. Each has some dead columns (NaN), and the
    first object of each tile has no data in the near infrared: it cannot be read, and is never rare. The
    positions are made up too: what other surveys show there is something else.

    Parameters
    ----------
    folder : path
        Made if it does not exist; otherwise nothing may be in it but this survey, which is then used as it
        is, and finished where it was left unfinished.
    n : int, in [1, 1,000,000]
        Number of objects, 144 on a tile; a tile takes 5.5 MB, and a second to make.
    seed : int, >= 0
        Another seed is another survey.
    prevalence : float, in [0, 1]
        Share of rare objects, as of `sky`.

    Returns
    -------
    Survey
        Where the files are, and what is true of the objects.

    Raises
    ------
    ConfigError
        An option is out of its range.
    WorkspaceError
        Something else is in the folder, or it cannot be written.
    MissingExtraError
        astropy is not installed.
    """
    _check_whole("survey", "n", n, 1, 10**6)
    _check_whole("survey", "seed", seed, 0, 2**63)
    _check_share("survey", prevalence)
    options: dict[str, Any] = {"n": int(n), "seed": int(seed), "prevalence": float(prevalence)}
    made = Survey(Path(folder).expanduser().absolute(), **options)
    try:
        _claim(made.folder, json.dumps(options))
        if not made.catalogue.is_file():
            made.write()
    except WorkspaceError:
        raise
    except OSError as error:
        raise WorkspaceError(
            f"The survey cannot be written to {str(made.folder)!r}: {error.strerror or error}. Choose a "
            "folder that you can write to."
        ) from error
    return made


def _claim(folder: Path, options: str) -> None:
    """Make a folder and note whose it is; raise WorkspaceError if it is of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _OPTIONS
    if next(folder.iterdir(), None) is None:
        note.write_text(options, encoding="utf-8")
    found = note.read_text(encoding="utf-8") if note.is_file() else "something else"
    if found != options:
        raise WorkspaceError(
            f"{str(folder)!r} holds {found}, and nothing is written over; wanted is the survey {options}. "
            "Choose a new folder."
        )


class _Known:
    """What is known of made-up objects: `ids`, and for each of them one of the kinds."""

    ids: Sequence[str]
    _kinds: NDArray[np.uint8]

    @property
    def _is_whole(self) -> NDArray[np.bool_]:
        """Which of the objects can be read, shape (N,)."""
        return np.ones(len(self._kinds), bool)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """What each object is, by id: elliptical, disc, spiral, merger, ring or lens."""
        return MappingProxyType({i: _KINDS[k] for i, k in zip(self.ids, self._kinds, strict=True)})

    @cached_property
    def truth(self) -> Mapping[str, str]:
        """The right label of each image, by id: ``"anomaly"`` or ``"normal"``."""
        labels = np.array([NORMAL, ANOMALY])[(self._kinds >= len(NORMAL_KINDS)).astype(int)]
        return MappingProxyType(dict(zip(self.ids, labels.tolist(), strict=True)))

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
            candidates = np.flatnonzero(there & self._is_whole)
            if not 0 <= wanted <= len(candidates):
                raise ConfigError(
                    f"{wanted} images of class {label!r} were asked for; this sky has {len(candidates)}. "
                    "Ask for fewer, or make a larger sky."
                )
            labels |= {self.ids[int(i)]: label for i in rng.choice(candidates, wanted, replace=False)}
        return labels


class DemoSource(_Known):
    """The synthetic sky; made by `sky`, whose parameters it takes.

    An image depends on the seed, its index and its kind alone. Common kinds do not depend on `n`; which
    images are rare does.
    """

    channels = 3

    def __init__(self, n: int = 20_000, seed: int = 0, *, size: int = 64, prevalence: float = 0.01) -> None:
        _check_whole("sky", "n", n, 1, 10**9)
        _check_whole("sky", "seed", seed, 0, 2**63)
        _check_whole("sky", "size", size, 16, 1024)
        _check_share("sky", prevalence)
        self.name = f"sky-{seed}"
        self.ids: Sequence[str] = NumberedIds(n)
        self._n, self._seed, self._size, self._prevalence = int(n), int(seed), int(size), float(prevalence)
        self._kinds = _draw_kinds(n, seed, prevalence)

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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the mappings, which cannot be pickled and are quickly made again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("kinds", "truth")}


class Survey(_Known):
    """A made-up survey on disk; made by `survey`.

    Attributes
    ----------
    folder : Path
        Where it lies.
    catalogue : Path
        Parquet, a row for each object: object_id, ra and dec (ICRS, degrees), tile, mag_vis (AB).
    bands : dict of str to str
        For `CatalogueSource`: the name of each band, and of its files.
    ids : sequence of str
        In the order of the catalogue: the tile and a number.
    """

    def __init__(self, folder: Path, *, n: int, seed: int, prevalence: float) -> None:
        self.folder, self._seed = folder, seed
        self.catalogue = folder / _CATALOGUE
        self.bands = dict(_FILES)
        self.ids = [f"{_survey.tile_of(i // _survey.PER_TILE)}-{i % _survey.PER_TILE:03d}" for i in range(n)]
        self._kinds = _draw_kinds(n, seed, prevalence, can_be_rare=_has_data(n))

    def __repr__(self) -> str:
        n_rare = int((self._kinds >= len(NORMAL_KINDS)).sum())
        bands = ", ".join(self.bands)
        return f"Survey({str(self.folder)!r}, {len(self.ids)} objects in {bands}, {n_rare} rare)"

    @property
    def _is_whole(self) -> NDArray[np.bool_]:
        return _has_data(len(self.ids))

    def write(self) -> None:
        """Write all files, the catalogue last: where it is, the survey is whole."""
        import pandas as pd  # noqa: PLC0415 - import amatch_widgets must be quick

        kinds, parts = list(self.kinds.values()), []
        for number, start in enumerate(range(0, len(kinds), _survey.PER_TILE)):
            those = slice(start, start + _survey.PER_TILE)
            columns = _survey.write_tile(self.folder, self.bands, number, kinds[those], self._seed)
            parts.append(
                pd.DataFrame({"object_id": self.ids[those], "tile": _survey.tile_of(number), **columns})
            )
        table = pd.concat(parts)[["object_id", "ra", "dec", "tile", "mag_vis"]]
        unfinished = self.catalogue.with_suffix(".part")
        table.to_parquet(unfinished, index=False)
        unfinished.replace(self.catalogue)


def _draw_kinds(
    n: int, seed: int, prevalence: float, *, can_be_rare: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Draw what each object is, shape (n,), by its place in `_KINDS`."""
    kinds = np.random.default_rng([seed, _KIND_STREAM]).integers(0, len(NORMAL_KINDS), n, dtype=np.uint8)
    n_rare = max(int(prevalence > 0), int(n * prevalence + 0.5))
    order = np.random.default_rng([seed, _RARE_STREAM]).permutation(n)
    rare = (order if can_be_rare is None else order[can_be_rare[order]])[:n_rare]
    kinds[rare] = len(NORMAL_KINDS) + np.arange(len(rare)) % len(RARE_KINDS)
    return kinds


def _has_data(n: int) -> NDArray[np.bool_]:
    """Say which objects of a survey have data in all bands, shape (n,)."""
    has_data: NDArray[np.bool_] = np.arange(n) % _survey.PER_TILE > 0
    return has_data


def _check_whole(what: str, name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"{what}({name}={value!r}): allowed is a whole number from {low} to {high}.")


def _check_share(what: str, value: object) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{what}(prevalence={value!r}): allowed is a share from 0 to 1, e.g. 0.01.")
