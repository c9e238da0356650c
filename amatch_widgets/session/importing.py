"""The part of a session that takes in scores and models of other programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import SourceError, StateError, WeightsError
from amatch_widgets.events import Event, Message, ProblemFound, ScoringProgress
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.score.elsewhere import ScoreImport, place_scores, read_scores
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session.parts import Parts
from amatch_widgets.session.scoreboard import IMPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from amatch_widgets.score.anomalymatch import ForeignModel

__all__ = ["Importing"]

_CYCLE = 0  # before the first of this session's own
_BLOCK = 100_000


class Importing(Parts):
    """Scores and models that a `Session` takes in."""

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
        self._worker.ask(lambda: self._take_scores(found.origin, scores, None))
        self._tables.add(Path(path).expanduser().resolve())
        return found

    def import_model(self, path: str | Path, *, size: int | None = None) -> None:
        """Score all images with a model that AnomalyMatch 2 has trained, and rank by it; returns at once.

        The images are read as the file says that they were there: size, normalisation, channels. What they
        were before that is not written down: they must be of the same bands and units. The scores count as
        those of `import_scores`: they rank alone or take part in the ranking as the labels say, and the
        first training takes their place. Stopped before its end, it changes nothing. A copy of the model is
        kept in the session folder: while it ranks, `score` gives archives its scores, too.

        Parameters
        ----------
        path : path
            A ``.safetensors`` file of AnomalyMatch 2. It is never unpickled.
        size : int, optional
            Side of the images in pixels, ``image_size`` there, where the file does not say.

        Raises
        ------
        WeightsError
            If it cannot be read, or the network or its images cannot be made as they were there. Nothing is
            changed.
        SourceError
            If the images have another number of channels.
        StateError
            If the session has a model of its own, scores that labels have tested already, is busy or closed.
        """
        from amatch_widgets.score.anomalymatch import read_model  # noqa: PLC0415 (imports torch)

        self._check_no_model()
        model = self._worker.ask(lambda: read_model(Path(path).expanduser(), size=size))
        if not model.image.fits(self.source.channels):
            raise SourceError(
                f"The images of {self.source.name!r} have {self.source.channels} channels, and the model in "
                f"{model.origin} has learnt from {model.image.channels}. Open them with the same bands."
            )
        self._worker.start("score", lambda: self._score_by(model))

    def _score_by(self, model: ForeignModel) -> Iterator[Event]:
        """Score the images with a model of another program; on the worker's thread."""
        from amatch_widgets.learn.inference import Inference  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.trainer import choose_device  # noqa: PLC0415 (imports torch)

        pool = PixelPool(
            self.source,
            model.image,
            budget_bytes=0,  # each image is looked at once
            on_problem=lambda image_id, reason: self.hub.publish(ProblemFound(image_id, reason)),
        )
        inference = Inference(model.classifier.to(choose_device(self.config.device)))
        n, scores = len(pool), np.full(len(pool), np.nan, np.float32)
        started, n_scored = time.perf_counter(), 0
        for images, indices in pool.stream(batch_size=self.config.score_batch):
            scores[indices] = inference.scores(images)
            n_scored += len(indices)
            done = min(n, n_scored + len(pool.problems))
            rate = done / (time.perf_counter() - started)
            yield ScoringProgress(done, n, rate, (n - done) / rate)
        image_id, reason = next(iter(pool.problems.items()), ("", ""))
        if not n_scored:
            raise SourceError(f"None of the {n} images could be read; the first, {image_id!r}: {reason}.")
        if not np.isfinite(scores).any():
            raise WeightsError(
                f"The model in {model.origin} gives no image a score: its weights are no numbers."
            )
        self._take_scores(model.origin, scores, model)
        self._unreadable = dict(pool.problems)
        if pool.problems:
            yield Message(
                "warning",
                f"{len(pool.problems)} of {n} images could not be read as the model needs them and have no "
                f"score; the first, {image_id!r}: {reason}. They are listed as problems.",
            )

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

    def _take_scores(self, origin: str, scores: npt.NDArray[np.float32], model: ForeignModel | None) -> None:
        """Keep scores, and the model if it is here, and rank by them; on the worker's thread."""
        self._check_no_model()  # a training may have begun meanwhile
        if model is None:
            self._imported.drop()
        else:
            self._imported.keep(model)
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
