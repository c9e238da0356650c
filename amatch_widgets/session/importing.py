"""The part of a session that takes in the scores of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import StateError
from amatch_widgets.score.elsewhere import ScoreImport, place_scores, read_scores
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session.parts import Parts
from amatch_widgets.session.scoreboard import IMPORTED

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Importing"]

_CYCLE = 0  # before the first of this session's own
_BLOCK = 100_000


class Importing(Parts):
    """Scores that a `Session` takes in."""

    def import_scores(
        self, path: str | Path, *, column: str | None = None, lowest_first: bool = False
    ) -> ScoreImport:
        """Rank by scores that another program gave the images, until something here ranks better.

        They stand in for those of a trained model: they rank alone where no anomaly is labelled or there
        are no embeddings; else they take part in the ranking once the labels given from now on say that
        they add to it. The first training takes their place. They are kept in the session folder.

        Parameters
        ----------
        path : path
            A CSV with the columns id or filename, and score: of AnomalyMatch, of this program, or the
            ``ml_scores.csv`` of Astronomaly; or the ``predictions.db`` of AnomalyMatch 2.
        column : str, optional
            The column of scores; by default ``trained_score`` if there is one, else ``score``.
        lowest_first : bool
            The lowest number is the likeliest anomaly.

        Returns
        -------
        ScoreImport
            How many images have a score now, unknown and ambiguous names listed. Of numbers that are not
            all in [0, 1] the order is kept alone.

        Raises
        ------
        ScoreError
            If the file makes no sense, or no row fits an image. Nothing is changed.
        StateError
            If the session has a model of its own, scores that labels have tested already, or is closed.
        WorkspaceError
            If the scores cannot be kept.
        """
        self._check_no_model()
        file = read_scores(Path(path).expanduser(), column=column)
        found, scores = place_scores(file, self._index, lowest_first=lowest_first, store=self.source.name)
        self._worker.ask(lambda: self._take_scores(found.origin, scores))
        self._tables.add(Path(path).expanduser().resolve())
        return found

    def _check_no_model(self) -> None:
        if self._engine.cycle:
            raise StateError(
                "This session has trained a model of its own, whose scores count. Import scores into a new "
                "session."
            )
        if self._tiers.has_tested(_CYCLE):
            raise StateError(
                f"Labels have tested the scores of {self._board.origin} already. Import others into a new "
                "session."
            )

    def _take_scores(self, origin: str, scores: npt.NDArray[np.float32]) -> None:
        """Keep scores and rank by them; on the worker's thread."""
        self._check_no_model()  # a training may have begun meanwhile
        ids = self.source.ids
        writer = ScoreStore(self.path).writer(_CYCLE, n_images=len(scores), model=f"{IMPORTED}{origin}")
        there = np.flatnonzero(np.isfinite(scores))
        try:
            for start in range(0, len(there), _BLOCK):
                block = there[start : start + _BLOCK]
                writer.add(block, [ids[int(i)] for i in block], scores[block])
            writer.finish()
        finally:
            writer.abandon()
        self._tiers.use_deep(_CYCLE, None, scores, self._learnable()[1], origin)
