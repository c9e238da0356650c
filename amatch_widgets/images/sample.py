"""A part of a very large source, drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.joined import Subset
from amatch_widgets.images.source import index_of, open_source

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["sample"]


def sample(source: object, n: int, *, seed: int = 0, ids: Iterable[str] = ()) -> Subset:
    """Draw images of a source at random, without replacement.

    Where images lie together and can only be read together, as in the chunks of a Zarr array or the row
    groups of a Parquet file, whole chunks are drawn: to read one image of each would be to read them all.

    Parameters
    ----------
    source : source
        Open, or what `open_source` opens.
    n : int, >= 1
        How many, those of `ids` included, which are there in any case. Where there are fewer images, all.
    seed : int, >= 0
        The same seed draws the same images.
    ids : iterable of str, optional
        Images that are to be among them, such as known examples.

    Returns
    -------
    Subset
        Under the ids that the images have in the source; in the order of the source, but for those of
        `ids` that were not drawn, which come last.

    Raises
    ------
    SourceError
        If `n` is not a whole number from 1 on, the source is empty, or it has no image of one of the ids.
    """
    opened = open_source(source)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise SourceError(f"sample(n={n!r}): how many images to draw is a whole number from 1 on.")
    wanted = _positions(opened, ids)
    n = min(int(n), len(opened))
    chunk = max(1, int(getattr(opened, "chunk", 1)))
    n_chunks = -(-len(opened) // chunk)
    # Enough even if all that are wanted are in them, and the last chunk, which may be short.
    n_runs = min(-(-(n + len(wanted)) // chunk) + 1, n_chunks)
    runs = np.sort(np.random.default_rng(seed).choice(n_chunks, n_runs, replace=False))
    drawn = (runs[:, None] * chunk + np.arange(chunk)).ravel()
    drawn = drawn[drawn < len(opened)]
    others = np.flatnonzero(~np.isin(drawn, wanted))
    drawn = np.delete(drawn, others[max(0, n - len(wanted)) :])  # the chunks before stay whole
    return Subset(opened, np.concatenate([drawn, wanted[~np.isin(wanted, drawn)]]))


def _positions(source: object, ids: Iterable[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    index = index_of(source)  # type: ignore[arg-type]  # it is open
    wanted = list(dict.fromkeys(ids))
    missing = [image_id for image_id in wanted if image_id not in index]
    if missing:
        raise SourceError(
            f"{len(missing)} of the {len(wanted)} ids are of no image in {source!r}; the first is "
            f"{missing[0]!r}. Ids are those in source.ids."
        )
    return np.array([index[image_id] for image_id in wanted], np.int64)
