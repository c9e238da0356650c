"""Scores that another program gave the images, read from its file and put beside the images."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ScoreError
from amatch_widgets.labels.astronomaly import is_of_astronomaly
from amatch_widgets.labels.match import NUMBERED, WIDTHS, Matcher, misfits
from amatch_widgets.score.predictions_db import MAGIC, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["ScoreFile", "ScoreImport", "place_scores", "read_scores"]

_ID_COLUMNS = ("id", "filename")
_SCORE_COLUMNS = ("trained_score", "score")  # the first is Astronomaly's, once it has learnt from labels
_SEPARATORS = ",;\t"
_HEAD = 2**16  # bytes in which the first row ends
_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class ScoreFile:
    """The scores of a file, by the names that it has for the images.

    Parameters
    ----------
    names : pyarrow.LargeStringArray, length M
    scores : ndarray of float64, shape (M,)
        In any range; NaN where there is none.
    origin : str
        Which file, for people, e.g. "'ml_scores.csv' (Astronomaly)".
    without_endings : bool
        The names may be those of files without their endings.
    """

    names: pa.LargeStringArray
    scores: NDArray[np.float64]
    origin: str
    without_endings: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ScoreImport:
    """What a file of scores holds, as far as it fits the images.

    Parameters
    ----------
    origin : str
        Which file, for people.
    n_images : int
    n_scored : int
        Images that have a score now.
    unknown_ids : tuple of str
        Names in the file that no image has.
    ambiguous : tuple of str
        Names that fit several images.
    n_repeated : int
        Rows about an image that a later row is about too; the last row counts.
    is_by_rank : bool
        The numbers were not all in [0, 1], so that their order alone is kept: a score is the share of the
        images that have a lower number.
    """

    origin: str
    n_images: int
    n_scored: int
    unknown_ids: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    n_repeated: int = 0
    is_by_rank: bool = False

    @property
    def notice(self) -> str:
        """What does not fit the images, in plain words; "" if all does."""
        return misfits(self.unknown_ids, self.ambiguous)

    def __repr__(self) -> str:
        parts = [f"{self.n_scored:,} of {self.n_images:,} images", *(["by rank"] if self.is_by_rank else [])]
        counts = (len(self.unknown_ids), len(self.ambiguous), self.n_repeated)
        for n, what in zip(counts, ("unknown", "ambiguous", "given more than once"), strict=True):
            if n:
                parts.append(f"{n:,} {what}")
        return f"ScoreImport({', '.join(parts)})"


def read_scores(path: str | os.PathLike[str], *, column: str | None = None) -> ScoreFile:
    """Read the scores of a file: CSV with a row for each image, or the ``predictions.db`` of AnomalyMatch 2.

    Such tables are the scores that AnomalyMatch writes for an iteration, the ``ml_scores.csv`` of
    Astronomaly, and the shortlists of this program.

    Parameters
    ----------
    path : str or path
        A CSV is UTF-8. The first row names the columns: `id` or `filename`, or a first one without a name as
        pandas writes it; and `score` or `trained_score`.
    column : str, optional
        Name of the column of scores; by default `trained_score` if it is there, else `score`.

    Raises
    ------
    ScoreError
        If it cannot be read as such a table.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ScoreError(f"The scores {str(name)!r} cannot be read: {reason}.") from error
    if head.startswith(MAGIC):
        if column is not None:
            raise ScoreError(f"column= is for tables of text, and {Path(path).name!r} is none. Leave it out.")
        names, scores = read_predictions(Path(path))
        return ScoreFile(names, scores, f"{Path(path).name!r} (AnomalyMatch 2)")
    return _read_table(Path(path), head, column)


def place_scores(
    file: ScoreFile, index: Mapping[str, int], *, lowest_first: bool = False, store: str = ""
) -> tuple[ScoreImport, NDArray[np.float32]]:
    """Bring the scores of a file in the order of the images, and into [0, 1].

    Parameters
    ----------
    file : ScoreFile
    index : mapping of str to int
        Id to position of each of the N images.
    lowest_first : bool
        The lowest number is the likeliest anomaly.
    store : str
        Name of the Zarr store that the images are in, or "".

    Returns
    -------
    ScoreImport
    ndarray of float32, shape (N,)
        In [0, 1]; NaN where there is none.

    Raises
    ------
    ScoreError
        If not one row fits an image and has a score.
    """
    at, unknown, ambiguous = _places(file, index, store)
    placed = np.full(len(index), np.nan)
    here = at >= 0
    placed[at[here]] = file.scores[here]  # of several rows the last one counts
    n_repeated = int(here.sum()) - len(np.unique(at[here]))
    has_score = np.isfinite(placed)
    if not has_score.any():
        raise _nothing_fits(file, [*unknown, *ambiguous], index)
    values = placed[has_score]
    is_by_rank = bool(values.min() < 0 or values.max() > 1)
    if is_by_rank:
        from scipy.stats import rankdata  # noqa: PLC0415 (SciPy takes its time)

        values = (rankdata(-values if lowest_first else values) - 0.5) / len(values)
    elif lowest_first:
        values = 1 - values
    scores = np.full(len(index), np.nan, np.float32)
    scores[has_score] = values
    found = ScoreImport(
        origin=file.origin,
        n_images=len(index),
        n_scored=len(values),
        unknown_ids=tuple(unknown),
        ambiguous=tuple(ambiguous),
        n_repeated=n_repeated,
        is_by_rank=is_by_rank,
    )
    return found, scores


def _places(
    file: ScoreFile, index: Mapping[str, int], store: str
) -> tuple[NDArray[np.int64], dict[str, None], dict[str, None]]:
    """Find the position of each name, -1 for none; the names that fit no image, and those that fit more."""
    at = _in_bulk(file, index)
    matcher = Matcher(index.keys(), store=store, without_endings=file.without_endings)
    unknown: dict[str, None] = {}  # dicts as ordered sets
    ambiguous: dict[str, None] = {}
    for k in np.flatnonzero(at < 0).tolist():
        name = file.names[k].as_py()
        fits = matcher.find(name)
        if len(fits) == 1:
            at[k] = index[fits[0]]
        else:
            (ambiguous if fits else unknown)[name] = None
    return at, unknown, ambiguous


def _in_bulk(file: ScoreFile, index: Mapping[str, int]) -> NDArray[np.int64]:
    """Find what `Matcher` finds, as far as it takes seconds for ten million names: -1 for the others."""
    import pyarrow.compute as pc  # noqa: PLC0415 (only an import of scores needs it)

    at = _positions(file.names, index)
    if file.without_endings:
        return at
    names, left = file.names, np.arange(len(at))
    is_flat = not any("/" in image_id for image_id in index)

    def keep(is_kept: NDArray[np.bool_]) -> None:
        nonlocal names, left
        names, left = names.filter(is_kept), left[is_kept]

    keep(at < 0)
    _number_in_bulk(names, left, at, index)
    keep(at[left] < 0)
    while len(left):
        at[left] = _positions(names, index)
        keep(at[left] < 0)
        keep(_contain(names, "/"))
        names = pc.replace_substring_regex(names, r"^[^/]*/", "")  # a folder that the ids do not have
        if not is_flat:  # a bare file name may fit several
            keep(_contain(names, "/"))
    return at


def _number_in_bulk(
    names: pa.LargeStringArray, left: NDArray[np.int64], at: NDArray[np.int64], index: Mapping[str, int]
) -> None:
    """Find the images that AnomalyMatch numbers in a folder of stores, and note their places in `at`."""
    import pyarrow as pa  # noqa: PLC0415 (only an import of scores needs it)
    import pyarrow.compute as pc  # noqa: PLC0415 (only an import of scores needs it)

    numbered = np.asarray(pc.match_substring_regex(names, NUMBERED).to_numpy(zero_copy_only=False), bool)
    names, left = names.filter(numbered), left[numbered]
    stores = pc.replace_substring_regex(names, NUMBERED, r"\1")
    numbers = pc.replace_substring_regex(names, NUMBERED, r"\2")
    numbers = pc.replace_substring_regex(numbers, "^0+([0-9])", r"\1")
    for width in WIDTHS:
        if not len(left):
            return
        padded = pc.utf8_lpad(numbers, width, "0")
        at[left] = _positions(pc.binary_join_element_wise(stores, padded, pa.scalar("/", padded.type)), index)
        is_left = at[left] < 0
        stores, numbers, left = stores.filter(is_left), numbers.filter(is_left), left[is_left]


def _contain(names: pa.LargeStringArray, text: str) -> NDArray[np.bool_]:
    import pyarrow.compute as pc  # noqa: PLC0415 (only an import of scores needs it)

    return np.asarray(pc.match_substring(names, text).to_numpy(zero_copy_only=False), bool)


def _positions(names: pa.LargeStringArray, index: Mapping[str, int]) -> NDArray[np.int64]:
    if hasattr(index, "positions"):
        found: NDArray[np.int64] = index.positions(names)
        return found
    return np.array([index.get(name, -1) for name in names.to_pylist()], np.int64)


def _read_table(path: Path, head: bytes, column: str | None) -> ScoreFile:
    import pyarrow as pa  # noqa: PLC0415 (only an import of scores needs it)
    import pyarrow.csv as pc  # noqa: PLC0415

    header, separator = _header(path.name, head)
    names, values = _columns(path.name, header, column)
    options: dict[str, Any] = {
        "read_options": pc.ReadOptions(column_names=[str(k) for k in range(len(header))], skip_rows=1),
        "parse_options": pc.ParseOptions(delimiter=separator, newlines_in_values=True),
        "convert_options": pc.ConvertOptions(
            include_columns=[str(names), str(values)],
            column_types={str(names): pa.large_string(), str(values): pa.large_string()},
            strings_can_be_null=False,
        ),
    }
    try:
        table = pc.read_csv(path, **options)
    except (OSError, pa.ArrowException) as error:
        raise ScoreError(f"{path.name!r} cannot be read as a table: {error}.") from error
    of_astronomaly = is_of_astronomaly(header)
    return ScoreFile(
        names=pa.concat_arrays(table.column(0).chunks) if len(table) else pa.array([], pa.large_string()),
        scores=_numbers(path.name, header[values], table.column(1).to_pylist()),
        origin=f"{path.name!r}" + (" (Astronomaly)" if of_astronomaly else ""),
        without_endings=of_astronomaly,
    )


def _header(name: str, head: bytes) -> tuple[list[str], str]:
    """Return the column names and what separates them."""
    try:
        first = head.decode("utf-8-sig", "ignore" if len(head) == _HEAD else "strict").split("\n")[0]
        separator = max(_SEPARATORS, key=first.count)  # of equals the comma, which comes first
        header = next(csv.reader(io.StringIO(first.rstrip("\r")), delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{name!r} is no table of text: {error}. Save the scores as CSV (UTF-8).") from error
    return [column.strip() for column in header], separator


def _columns(name: str, header: list[str], column: str | None) -> tuple[int, int]:
    """Return the positions of the names and of the scores."""
    plain = [text.casefold() for text in header]
    ids = next((c for c in _ID_COLUMNS if c in plain), "" if plain[:1] == [""] else None)
    wanted = _SCORE_COLUMNS if column is None else (column.casefold(),)
    scores = next((c for c in wanted if c in plain), None)
    if ids is None or scores is None:
        missing = [] if ids is not None else ["'id' (or 'filename')"]
        missing += [] if scores is not None else [repr(column or "score")]
        there = ", ".join(map(repr, header[:20])) or "nothing"
        raise ScoreError(
            f"{name!r} has no column {' and no column '.join(missing)}. Its first row names the columns "
            f"{there}. Name the column of scores with column=."
        )
    return plain.index(ids), plain.index(scores)


def _numbers(name: str, column: str, texts: list[str]) -> NDArray[np.float64]:
    """Read numbers; an empty one is none."""
    try:
        values = np.array([text.strip() or "nan" for text in texts], dtype=object).astype(np.float64)
    except ValueError:
        row, text = next((k, text) for k, text in enumerate(texts) if not _is_number(text))
        raise ScoreError(
            f"Row {row + 2} of {name!r} has {text!r} in the column {column!r}, which is no number. The first "
            "row of the file is row 1. Name another column with column=."
        ) from None
    return np.where(np.isfinite(values), values, np.nan)


def _is_number(text: str) -> bool:
    try:
        float(text.strip() or "nan")
    except ValueError:
        return False
    return True


def _nothing_fits(file: ScoreFile, misfit: list[str], index: Mapping[str, int]) -> ScoreError:
    if not misfit:
        return ScoreError(f"{file.origin} holds no score.")
    here = ", ".join(repr(i) for i, _ in zip(index, range(_SHOWN), strict=False))
    there = ", ".join(map(repr, misfit[:_SHOWN]))
    return ScoreError(
        f"No score of {file.origin} is of an image here. It names {there}; the {len(index):,} images are "
        f"named {here}{', ...' if len(index) > _SHOWN else ''}. Is it of another set of images?"
    )
