"""The shortlist: what leaves a session."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ConfigError, WorkspaceError
from amatch_widgets.session.pictures import position_of
from amatch_widgets.session.provenance import SOFTWARE, Provenance
from amatch_widgets.session.regions import to_regions
from amatch_widgets.session.tables import to_csv, to_fits, to_parquet, to_votable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas as pd

    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import Label

__all__ = ["check_ending", "shortlist", "sky_of", "table_of", "write_shortlist", "write_whole"]

_WRITERS: dict[str, Callable[[pd.DataFrame, Provenance], bytes]] = {
    ".csv": to_csv,
    ".parquet": to_parquet,
    ".vot": to_votable,
    ".xml": to_votable,
    ".fits": to_fits,
    ".reg": to_regions,
}
_COLUMNS = ("id", "score", "rank", "label", "tags", "note", "starred")
_WHERE_AND_WHO = ("ra", "dec", "labelled_by", "labelled_at")
_TIERS = ("rank_instant", "rank_deep")
_OWN_TABLES = {
    (*_COLUMNS, *_WHERE_AND_WHO, *_TIERS, "model"),
    (*_COLUMNS, *_WHERE_AND_WHO),  # of older versions
    _COLUMNS,
    _COLUMNS[:-1],
}
_LOOKED_AT = 65_536  # bytes at each end of a file, in which it says who made it


def shortlist(
    source: ImageSource,
    scores: npt.NDArray[np.float32],
    ranks: npt.NDArray[np.int64],
    history: Iterable[Label],
    chosen: npt.NDArray[np.int64],
    *,
    instant: npt.NDArray[np.float32] | None = None,
    deep: npt.NDArray[np.float32] | None = None,
) -> pd.DataFrame:
    """Put images into a table.

    There is no interval of a score: each tier scores an image once, by one fit. Fits without some of the
    labels say how far its score would move with other labels, for the instant tier alone; how often such a
    range holds the score of a fit to many more labels is not known, so that it would promise what nobody has
    checked. What both tiers say of an image by themselves is there instead: where their ranks are far apart,
    its place rests on one of them.

    Parameters
    ----------
    source : ImageSource
    scores : ndarray of float32, shape (N,)
        Of all images; NaN where there is none.
    ranks : ndarray of int64, shape (N,)
        Of all images, 1 = highest score; 0 where there is no score.
    history : iterable of Label
        All that was said of images, oldest first.
    chosen : ndarray of int64, shape (M,)
        Positions of the images wanted, in the order wanted.
    instant, deep : ndarray of float32, shape (N,), optional
        Scores of all images by each tier alone; NaN where there is none.

    Returns
    -------
    DataFrame
        A row per image: id, score, rank, label, tags (joined by ";"), note, starred; ra and dec, ICRS,
        degrees, NaN where no position is known; labelled_by and labelled_at (ISO 8601, UTC), who gave the
        label that it has, and when; rank_instant and rank_deep, the ranks by each tier alone, which equal
        scores share, 0 where it has no score.
    """
    ids = [source.ids[int(i)] for i in chosen]
    tiers = _ranks(instant, chosen), _ranks(deep, chosen)
    return table_of(ids, scores[chosen], ranks[chosen], history, sky=sky_of(source, chosen), tiers=tiers)


def sky_of(source: ImageSource, chosen: Iterable[int]) -> npt.NDArray[np.float64]:
    """Return right ascension and declination of images, ICRS, degrees, shape (M, 2); NaN where unknown."""
    wanted = list(map(int, chosen))
    sky = np.full((len(wanted), 2), np.nan)
    if hasattr(source, "position"):
        for k, index in enumerate(wanted):
            sky[k] = position_of(source, index) or np.nan
    return sky


def table_of(
    ids: Sequence[str],
    scores: npt.NDArray[np.float32],
    ranks: npt.NDArray[np.int64],
    history: Iterable[Label],
    *,
    sky: npt.NDArray[np.float64],
    tiers: tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None] = (None, None),
    named: Callable[[str], str] = str,
) -> pd.DataFrame:
    """Put images into a table; see `shortlist`.

    Parameters
    ----------
    ids : sequence of str, length M
        In the source.
    scores, ranks : ndarray of float32 and int64, shape (M,)
    history : iterable of Label
    sky : ndarray of float64, shape (M, 2)
    tiers : tuple of ndarray of int64, shape (M,), optional
        The ranks by the instant tier and by the trained model alone; 0 where they are not known.
    named : callable
        Takes an id, and returns what the image is called in the session.
    """
    import pandas as pd  # noqa: PLC0415 (a third of a second that only tables need)

    said: dict[str, Label] = {}
    given: dict[str, Label] = {}
    for line in history:
        before = said.get(line.image_id)
        if before is None or _reason(before) != _reason(line):  # else a star, a tag or a note
            given[line.image_id] = line
        said[line.image_id] = line
    image_ids = list(map(named, ids))
    lines = [said.get(i) for i in image_ids]
    origins = [
        given[i] if line is not None and line.label else None
        for i, line in zip(image_ids, lines, strict=True)
    ]
    return pd.DataFrame(
        {
            "id": [_valid(i) for i in ids],
            "score": scores,
            "rank": pd.array(np.where(ranks > 0, ranks, 0), dtype="Int64"),
            "label": ["" if line is None else line.label or "" for line in lines],
            "tags": ["" if line is None else _valid(";".join(line.tags)) for line in lines],
            "note": ["" if line is None else _valid(line.note) for line in lines],
            "starred": [line is not None and line.star for line in lines],
            "ra": sky[:, 0],
            "dec": sky[:, 1],
            "labelled_by": ["" if line is None else _valid(line.by) for line in origins],
            "labelled_at": ["" if line is None else line.time for line in origins],
            **{
                name: pd.array(np.zeros(len(ids), np.int64) if tier is None else tier, dtype="Int64")
                for name, tier in zip(_TIERS, tiers, strict=True)
            },
        }
    )


def _ranks(scores: npt.NDArray[np.float32] | None, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the ranks of some images among all, 1 = highest; 0 where there is no score."""
    if scores is None:
        return np.zeros(len(chosen), np.int64)
    rising = np.sort(scores)  # NaN come last
    rising = rising[: np.count_nonzero(np.isfinite(scores))]
    ranks = 1 + len(rising) - np.searchsorted(rising, scores[chosen], side="right")
    return np.where(np.isfinite(scores[chosen]), ranks, 0)


def check_ending(path: Path) -> str:
    """Return the ending of a file that says how a shortlist is written.

    Raises
    ------
    ConfigError
        If there is no such format.
    """
    ending = path.suffix.lower()
    if ending not in _WRITERS:
        raise ConfigError(
            f"{path.name!r} ends in {ending!r}; a shortlist is written as {', '.join(_WRITERS)}. Choose a "
            "name that ends so."
        )
    return ending


def write_shortlist(
    table: pd.DataFrame, path: Path, provenance: Provenance, *, protected: Collection[Path]
) -> Path:
    """Write a table in the format that the file's ending says, all or nothing.

    Parameters
    ----------
    table : DataFrame
        As from `shortlist`.
    path : Path
        Ends in .csv, .parquet, .vot or .xml (VOTable), .fits, or .reg (regions for DS9). One that exists is
        replaced; but for CSV only if it was written here, as it may be somebody's catalogue.
    provenance : Provenance
        What the table is of; every format but CSV holds it.
    protected : collection of Path
        Files of the user that are never written to; nor is any other table of labels.

    Raises
    ------
    ConfigError
        If there is no such format, or no image has a position and the file is to hold nothing else.
    WorkspaceError
        If it is protected or cannot be written.
    MissingExtraError
        If astropy is needed and not installed.
    """
    ending = check_ending(path)
    if path.resolve() in protected or _is_label_table(path):
        raise WorkspaceError(
            f"{str(path)!r} is a table of labels that is not of this session's making; it is never written "
            "to. Choose another name."
        )
    if ending != ".csv" and _is_of_others(path):
        raise WorkspaceError(
            f"{str(path)!r} exists and was not written by {SOFTWARE}, so it is not replaced. Choose another "
            "name."
        )
    return write_whole(path, _WRITERS[ending](table, provenance), what="The shortlist")


def write_whole(path: Path, content: bytes, *, what: str) -> Path:
    """Write a file, all or nothing; its folder is made where it is missing.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    content : bytes
    what : str
        What it is, to begin the message with, e.g. "The shortlist".

    Raises
    ------
    WorkspaceError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise WorkspaceError(
            f"{what} cannot be written to {str(path)!r}: {getattr(error, 'strerror', None) or error}. "
            "Choose a file in a folder that you can write to."
        ) from error
    return path


def _reason(line: Label) -> tuple[object, ...]:
    """Return what only a line that labels changes: stars, tags and notes leave it as it was."""
    return line.label, line.score, line.step, line.reason


def _valid(text: str) -> str:
    """Return `text` as valid Unicode: half a character, as browsers may send, must not lose the table."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_label_table(path: Path) -> bool:
    """Tell whether a file is a table with labels, but no shortlist, so that it may be the user's only one."""
    try:
        with path.open("rb") as file:
            first = file.readline(10_000).decode("utf-8-sig", "replace")
    except (OSError, ValueError):  # not there, or no name for a file
        return False
    columns = [name.strip().strip('"').casefold() for name in re.split("[,;\t]", first)]
    has_labels = "label" in columns and not {"id", "filename"}.isdisjoint(columns)
    return has_labels and tuple(columns) not in _OWN_TABLES


def _is_of_others(path: Path) -> bool:
    """Tell whether a file is there that does not say that it was written here."""
    try:
        with path.open("rb") as file:
            first = file.read(_LOOKED_AT)
            file.seek(-min(_LOOKED_AT, file.seek(0, 2)), 2)
            last = file.read()  # Parquet keeps what it says of itself there
    except (OSError, ValueError):  # not there, or writing it will say what is wrong
        return False
    return SOFTWARE.encode() not in first + last
