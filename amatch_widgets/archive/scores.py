"""Look at the scores of an archive where they lie: top, filters, histogram, what has risen."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.archive.order import Row
from amatch_widgets.archive.scan import Scan
from amatch_widgets.archive.search import Search
from amatch_widgets.archive.snapshot import Snapshot, connect
from amatch_widgets.errors import ConfigError, NotTrainedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from amatch_widgets.archive.key import Found
    from amatch_widgets.archive.parts import Cycle, Parts
    from amatch_widgets.archive.snapshot import Piece

__all__ = ["ArchiveScores"]

_COUNT = "SELECT count(*) {rows}WHERE score >= $least AND score <= $most"
_HISTOGRAM = (
    "SELECT least(floor(score::DOUBLE * $bins), $bins - 1)::INTEGER AS bin, count(*) AS n "
    "{rows}WHERE score IS NOT NULL GROUP BY bin"
)
_ROWS = 'SELECT "index", id, score, problem {rows}WHERE "index" IN (SELECT unnest($wanted))'
_NAMED = 'SELECT "index", id {rows}WHERE id IN (SELECT unnest($names))'
_PROBLEMS = 'SELECT "index", id, problem {rows}WHERE problem IS NOT NULL ORDER BY "index" LIMIT $n'
_N_PROBLEMS = "SELECT count(*) {rows}WHERE problem IS NOT NULL"


class ArchiveScores:
    """The scores of one cycle of an archive, as far as they are there; more may come while one looks.

    Each question is answered from the Parquet parts, by DuckDB or in a pass through their scores; what is
    held in memory is which ids have the texts that were asked for last, one bit for each image.

    Parameters
    ----------
    parts : Parts
    cycle : Cycle, optional
        By default the last that has a score.
    search : Search, optional
        What remembers which ids have a text, for all cycles.

    Raises
    ------
    NotTrainedError
        If there are no scores yet.
    MissingExtraError
        If duckdb is not installed.

    Notes
    -----
    Thread safety: any thread may ask; DuckDB gives each question a cursor of its own.
    """

    def __init__(self, parts: Parts, cycle: Cycle | None = None, *, search: Search | None = None) -> None:
        self._duckdb = connect()
        self._parts = parts
        self._search = Search() if search is None else search
        begun = [c for c in parts.cycles() if parts.done(c) or parts.first(c)] if cycle is None else [cycle]
        if not begun:
            raise NotTrainedError(f"There are no scores in {str(parts.root)!r} yet. Score the images first.")
        self.cycle = begun[-1]

    def __repr__(self) -> str:
        n, n_parts = self._parts.n_images, self._parts.n_parts
        done = len(self._parts.done(self.cycle))
        whole = "" if done == n_parts else f", {done} of {n_parts} parts so far"
        return f"ArchiveScores({n:,} images, cycle {self.cycle.number}{whole})"

    @property
    def is_complete(self) -> bool:
        """Whether all parts are there."""
        return not self._parts.missing(self.cycle)

    def top(
        self, n: int = 100, *, offset: int = 0, least: float = 0.0, most: float = 1.0, contains: str = ""
    ) -> pd.DataFrame:
        """Return the images with the highest scores among those that pass a filter.

        Parameters
        ----------
        n, offset : int, >= 0
            How many, after how many others.
        least, most : float, in [0, 1]
            Range of the score, both ends included.
        contains : str
            Part of the id, upper and lower case alike.

        Returns
        -------
        DataFrame
            Columns index (position in the source), id, score; of equal scores the smaller index first.
        """
        _check(n, offset, least, most)
        return self._table(self.scan(least=least, most=most, contains=contains).found(offset, n))

    def count(self, *, least: float = 0.0, most: float = 1.0, contains: str = "") -> int:
        """Count the images with a score that pass a filter; see `top`."""
        _check(0, 0, least, most)
        if contains:
            return len(self.scan(least=least, most=most, contains=contains))
        return int(self.now().ask(_COUNT, least=least, most=most).fetchone()[0])

    def histogram(self, bins: int = 50) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Count the scores in equal steps from 0 to 1.

        Parameters
        ----------
        bins : int, >= 1

        Returns
        -------
        ndarray of int64, shape (bins,)
        ndarray of float64, shape (bins + 1,)
            The edges.
        """
        if bins < 1:
            raise ConfigError(f"histogram(bins={bins!r}): at least 1 is needed.")
        found = self.now().ask(_HISTOGRAM, bins=bins).fetchnumpy()
        counts = np.zeros(bins, np.int64)
        counts[np.asarray(found["bin"], np.int64)] = found["n"]
        return counts, np.linspace(0, 1, bins + 1)

    def of(self, indices: Iterable[int]) -> dict[int, float]:
        """Return the scores of some images by their positions in the source; those without are left out."""
        wanted = np.unique(np.fromiter(map(int, indices), np.int64))
        scores = self.now().scores_of(wanted)
        has = np.isfinite(scores)
        return dict(zip(wanted[has].tolist(), scores[has].tolist(), strict=True))

    def rows(self, indices: Iterable[int]) -> dict[int, Row]:
        """Return id, score and problem of some images by their positions; what is not there is left out."""
        wanted = sorted({int(i) for i in indices})
        found = self.now().ask(_ROWS, of=wanted, wanted=wanted)
        rows = [] if found is None else found.fetchall()
        return {index: Row(index, name, score, problem or "") for index, name, score, problem in rows}

    def positions(self, ids: Iterable[str]) -> dict[str, int]:
        """Return the positions in the source of some images; what is not scored yet is left out."""
        found = self.now().ask(_NAMED, names=list(ids)).fetchnumpy()
        return dict(zip(found["id"].tolist(), found["index"].tolist(), strict=True))

    def now(self) -> Snapshot:
        """Return what is there now, to be asked more than once."""
        return Snapshot(self._duckdb, self._parts, self.cycle)

    def scan(
        self,
        how: str = "highest",
        *,
        least: float = 0.0,
        most: float = 1.0,
        contains: str = "",
        left_out: Sequence[int] = (),
        seed: int = 0,
    ) -> Scan:
        """List what is there now in an order; see `Scan`."""
        return Scan(
            self.now(),
            how,
            least=least,
            most=most,
            contains=contains,
            left_out=left_out,
            seed=seed,
            search=self._search,
        )

    def rising(self, n: int = 100, *, since: Cycle | None = None) -> pd.DataFrame:
        """Return the highest scores, and which rank each had in an earlier cycle.

        Parameters
        ----------
        n : int, >= 0
        since : Cycle, optional
            By default the one before.

        Returns
        -------
        DataFrame
            Columns index, id, score, rank, rank_before (from 1; missing where it had no score), the
            highest score first.

        Raises
        ------
        NotTrainedError
            If there is no earlier cycle.
        """
        found, before = self.risen(n, since=since)
        table = self._table(found)
        table["rank"] = np.arange(1, len(table) + 1)
        table["rank_before"] = before
        return table.astype({"rank_before": "Int64"})

    def risen(self, n: int, *, since: Cycle | None = None) -> tuple[Found, NDArray[np.float64]]:
        """Return the highest scores without their ids, and the rank before of each, or NaN; see `rising`."""
        if since is None:
            earlier = [
                c for c in self._parts.cycles() if c.number < self.cycle.number and self._parts.done(c)
            ]
            if not earlier:
                raise NotTrainedError(
                    "There is no earlier cycle to compare with: score once more after a training."
                )
            since = earlier[-1]
        before = ArchiveScores(self._parts, since, search=self._search)
        found = self.scan().found(0, n)
        then = before.now().scores_of(found.indices)
        ranks = np.full(len(found), np.nan)
        has = np.isfinite(then)
        if has.any():
            ranks[has] = 1 + before.n_above(then[has])
        return found, ranks

    def n_above(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Count for each of these scores, shape (M,), how many images have a higher one."""
        scores = scores.astype(np.float32)
        above, lock = np.zeros(len(scores), np.int64), threading.Lock()

        def look(piece: Piece) -> None:
            # To sort all takes a twentieth of the time of looking each up among the few.
            found = np.sort(piece.scores)
            n_found = np.searchsorted(found, np.float32(np.inf))  # what has none comes last
            n_above = n_found - np.searchsorted(found[:n_found], scores, side="right")
            with lock:
                np.add(above, n_above, out=above)

        self.now().each(look)
        return above

    def problems(self, n: int = 100) -> pd.DataFrame:
        """Return the first `n` images that cannot be read: index, id, problem."""
        table: pd.DataFrame = self.now().ask(_PROBLEMS, n=n).df()
        return table

    @property
    def n_problems(self) -> int:
        """How many images cannot be read."""
        return int(self.now().ask(_N_PROBLEMS).fetchone()[0])

    def _table(self, found: Found) -> pd.DataFrame:
        import pandas as pd  # noqa: PLC0415 (a third of a second that only who asks for a table pays)

        ids = self.now().ids_of(found.indices)
        return pd.DataFrame({"index": found.indices, "id": ids, "score": found.scores})


def _check(n: int, offset: int, least: float, most: float) -> None:
    if n < 0 or offset < 0:
        raise ConfigError(f"n={n!r}, offset={offset!r}: both must be 0 or more.")
    if not 0 <= least <= most <= 1:
        raise ConfigError(f"least={least!r}, most={most!r}: allowed are scores from 0 to 1, the least first.")
