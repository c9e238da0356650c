"""The jobs of a session: train a cycle, score the source. All of it runs on the worker's thread."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import NotTrainedError, SourceError, StateError, TooFewLabelsError, WorkspaceError
from amatch_widgets.events import CycleDone, Event, HealthAlarm, Message, ScoringProgress, StepDone, TopScored
from amatch_widgets.learn.feed import Feed, LabelledImages
from amatch_widgets.learn.health import HealthMonitor
from amatch_widgets.session.history import CycleRecord, History, utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    import numpy.typing as npt

    from amatch_widgets.images.pixels import PixelPool
    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.learn.backbone import Classifier
    from amatch_widgets.learn.config import TrainConfig
    from amatch_widgets.learn.records import StepRecord
    from amatch_widgets.learn.start import Start
    from amatch_widgets.learn.trainer import Trainer
    from amatch_widgets.score.store import ScoreStore
    from amatch_widgets.session.tiers import Outcome
    from amatch_widgets.session.workspace import Workspace

__all__ = ["Engine"]

_SMOOTHING = 0.9  # of the rate shown while training
_FIRST, _SHARE = 1_000, 10  # images scored before all others; at most a tenth of what is read is read twice


class Engine:
    """What the worker runs for a session.

    The model is built, or read from the last checkpoint, by the first job: making or opening a
    session stays quick and needs no torch.

    Parameters
    ----------
    source : ImageSource
    pool : PixelPool
    config : TrainConfig
    workspace : Workspace
        Keeps the checkpoints.
    scores : ScoreStore
    history : History
    training_labels : callable
        Returns (version, {index: class}) of the labels to learn from.
    elsewhere : callable
        Returns (version, LabelledImages) of those of images that are not in the source.
    counts : callable
        Returns the number of labels of each class.
    use_scores : callable
        Takes (cycle, scores, labels learnt from) when all images are scored; returns what follows
        from them. The labels are None where nothing was trained just now.
    embed : callable
        Returns the iterator that makes the embeddings which are missing.
    begin : callable
        Returns where a training starts, or None without embeddings.
    has_up : callable
        Returns whether the images have an up; asked once there are embeddings.
    image : callable
        Returns how the images are prepared.
    highest : callable
        Takes a number; returns the positions of as many images that rank highest now, or of fewer.

    Attributes
    ----------
    cycle, step : int
        Begun and done so far, over the whole session.

    Notes
    -----
    Thread safety: the generators run on the worker's thread and alone change the attributes.
    """

    def __init__(
        self,
        *,
        source: ImageSource,
        pool: PixelPool,
        config: TrainConfig,
        workspace: Workspace,
        scores: ScoreStore,
        history: History,
        training_labels: Callable[[], tuple[int, Mapping[int, int]]],
        elsewhere: Callable[[], tuple[int, LabelledImages | None]],
        counts: Callable[[], Mapping[str, int]],
        use_scores: Callable[[int, npt.NDArray[np.float32], Mapping[int, int] | None], Outcome],
        embed: Callable[[], Generator[Event]],
        begin: Callable[[], Start | None],
        has_up: Callable[[], bool | None],
        image: Callable[[], Preprocess],
        highest: Callable[[int], npt.NDArray[np.int64]],
    ) -> None:
        self._config = config
        self._source, self._pool, self._workspace = source, pool, workspace
        self._scores, self._history = scores, history
        self._training_labels, self._counts, self._use_scores = training_labels, counts, use_scores
        self._elsewhere = elsewhere
        self.embed, self._begin, self._has_up, self._image = embed, begin, has_up, image
        self._highest = highest
        self._trainer: Trainer | None = None
        self._health = HealthMonitor()
        history.tell(self._health)
        self.cycle, self.step = workspace.last_step()
        self._saved_step = self.step

    def train(self, steps: int | None, is_over: Callable[[], bool]) -> Iterator[Event]:
        """Embed, train a cycle, score and evaluate; closed before its end, it keeps what there is.

        A cycle that was broken off goes on, for `steps` steps or those that are left of it; else a
        new one of `steps` steps or as many as usual begins. Closed while `is_over` says so, the
        cycle has ended, and the next one will be new.
        """
        try:
            yield from self.embed()
        except WorkspaceError as error:  # no room for the embeddings is no reason not to train
            yield Message("warning", f"{error} Until then the trained model ranks alone.")
        start = self._begin()
        trainer = self._ready_trainer(start)
        feed = Feed(
            self._pool,
            len(self._source),
            self._training_labels,
            batch=self._config.batch,
            n_unlabelled=self._config.batch * self._config.unlabelled_ratio,
            seed=self._config.seed,
            likely=start.likely if start else None,
            likely_share=self._config.likely_share,
            elsewhere=self._elsewhere,
        )
        left = trainer.end - trainer.step
        steps = steps or left or self._config.steps
        if left:
            yield Message(
                "info",
                f"{_broken_off(trainer.cycle, trainer.step, left)} It goes on for {steps} steps, with the "
                "labels there are now.",
            )
        started, seconds = time.perf_counter(), 0.0
        with contextlib.closing(self._steps(trainer, steps, feed)) as records:
            for done, record in enumerate(records, start=1):
                self.cycle, self.step = record.cycle, record.step
                self._history.add_step(record)
                seconds = (
                    seconds * _SMOOTHING + record.seconds * (1 - _SMOOTHING) if done > 1 else record.seconds
                )
                try:
                    yield StepDone(record.step, done, steps, 1 / seconds, (steps - done) * seconds)
                    for alarm in self._health.step(record):
                        yield HealthAlarm(alarm.kind, alarm.text, alarm.advice)
                except GeneratorExit:  # stop() or close()
                    if is_over():
                        trainer.end = trainer.step
                    self._save(trainer)
                    raise
                if record.step % self._config.checkpoint_every == 0:
                    self._save(trainer)
        self._save(trainer)
        train_s, started = time.perf_counter() - started, time.perf_counter()
        outcome = yield from self._score(trainer, feed.learnt)
        counts = self._counts()
        self._history.add_cycle(
            CycleRecord(
                cycle=trainer.cycle,
                step=trainer.step,
                metrics=outcome.metrics,
                alone=outcome.alone,
                n_anomalies=counts["anomaly"],
                n_normals=counts["normal"],
                train_s=train_s,
                score_s=time.perf_counter() - started,
                time=utc_now(),
                deep_weight=outcome.judgement.weight if outcome.judgement else 0.0,
                verdict=str(outcome.judgement or ""),
            )
        )
        for alarm in self._health.cycle(outcome.alone.auroc):
            yield HealthAlarm(alarm.kind, alarm.text, alarm.advice)
        yield CycleDone(trainer.cycle)

    def broken_off(self) -> list[str]:
        """Say which cycle the next training goes on with, by the last checkpoint; none if it begins one."""
        from amatch_widgets.learn.details import read_details  # noqa: PLC0415 (safetensors)

        checkpoints = self._workspace.checkpoints()
        try:
            details = read_details(checkpoints[-1]) if checkpoints else {}
        except WorkspaceError:
            return []  # the next job says so
        end = details.get("end")
        left = end - self.step if isinstance(end, int) else 0  # older files do not say
        if left <= 0 or details.get("train") != self._config.to_dict():
            return []
        return [f"{_broken_off(self.cycle, self.step, left)} The next training goes on with it."]

    def _steps(self, trainer: Trainer, steps: int, feed: Feed) -> Generator[StepRecord]:
        """Yield the steps; when one fails, its model is dropped."""
        try:
            yield from trainer.steps(steps, feed)
        except TooFewLabelsError:  # labels were taken back meanwhile; the model is whole
            self._save(trainer)
            raise
        except Exception:
            self._drop_model()
            raise
        finally:
            _give_memory_back()

    def score(self) -> Iterator[Event]:
        """Score all images with the model that is there.

        Raises
        ------
        NotTrainedError
            If there is none.
        """
        self.trained()
        yield from self._score(self._ready_trainer(), None)

    def trained(self) -> Classifier:
        """Return the model as it ranks: the average of the weights.

        Raises
        ------
        NotTrainedError
            If there is none.
        """
        if self._trainer is None and not self._workspace.checkpoints():
            raise NotTrainedError("There is no model yet. Train first: session.train().")
        return self._ready_trainer().average

    def _score(self, trainer: Trainer, learnt: Mapping[int, int] | None) -> Generator[Event, None, Outcome]:
        from amatch_widgets.score.scorer import score_batches  # noqa: PLC0415 (imports torch)

        n, cycle, ids = len(self._source), trainer.cycle, self._source.ids
        writer = self._scores.writer(cycle, n_images=n, model=f"step={trainer.step:08d}")
        scores = np.full(n, np.nan, np.float32)
        started, n_scored, is_whole = time.perf_counter(), 0, False
        # Rising, as are those after them: sources are read from the front to the back.
        chunk = getattr(self._source, "chunk", 1)  # images that are unpacked together, for each of these anew
        first = np.sort(self._highest(min(_FIRST, n // (_SHARE * chunk))))
        is_last = np.ones(n, bool)
        is_last[first] = False
        order = np.concatenate([first, np.flatnonzero(is_last)])
        is_told = not len(first)
        try:
            for indices, values in score_batches(
                trainer.average, self._pool, batch_size=self._config.score_batch, indices=order
            ):
                writer.add(indices, [ids[i] for i in indices], values)
                scores[indices] = values
                n_scored += len(indices)
                done = n_scored + len(self._pool.problems)
                rate = done / (time.perf_counter() - started)
                yield ScoringProgress(min(done, n), n, rate, max(n - done, 0) / rate)
                if not is_told and is_last[indices[-1]]:
                    is_told = True
                    best = first[np.argsort(-scores[first], kind="stable")]  # NaN, the unreadable, last
                    yield TopScored(cycle, tuple(ids[i] for i in best[: np.isfinite(scores[first]).sum()]))
            if not n_scored:
                image_id, reason = next(iter(self._pool.problems.items()))
                raise SourceError(
                    f"None of the {n} images could be read; the first, {image_id!r}: {reason}. "
                    "session.problems lists them all."
                )
            writer.finish()
            is_whole = True
        finally:
            if not is_whole:
                writer.abandon()
        found = self._use_scores(cycle, scores, learnt)
        if n_scored < n:
            yield Message(
                "warning",
                f"{n - n_scored} of {n} images could not be read and have no score; "
                "they are listed as problems.",
            )
        return found

    def _ready_trainer(self, start: Start | None = None) -> Trainer:
        from amatch_widgets.learn.checkpoint import load_checkpoint  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.details import read_details  # noqa: PLC0415 (safetensors)
        from amatch_widgets.learn.start import VectorShape  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.trainer import Trainer  # noqa: PLC0415 (imports torch)

        if self._trainer is None:
            checkpoints = self._workspace.checkpoints()
            dihedral = self._config.dihedral
            if dihedral is None:  # measured while embedding; unknown where a model is only scored again
                dihedral = not self._has_up()
            config = dataclasses.replace(self._config, dihedral=dihedral)
            shape = start.shape if start else None
            image = self._image()
            if checkpoints:
                details = read_details(checkpoints[-1])
                if details.get("image", image.to_dict()) != image.to_dict():
                    raise WorkspaceError(
                        f"The model in {str(checkpoints[-1])!r} was trained on images prepared otherwise: "
                        f"{details['image']}; now it is {image}. Take the image= of then, or move the file "
                        "away to train anew; the labels are safe."
                    )
                kept = details.get("vectors")
                shape = VectorShape(**kept) if kept else None
            trainer = Trainer(config, image.channels, is_blank=bool(checkpoints), shape=shape)
            if checkpoints:
                load_checkpoint(checkpoints[-1], trainer)
                if details.get("train") != self._config.to_dict():
                    trainer.end = trainer.step  # a cycle does not go on with other options
            self._trainer, self._saved_step = trainer, trainer.step
        self._trainer.start = start
        return self._trainer

    def _drop_model(self) -> None:
        """Let the next job go on from the last checkpoint."""
        self._trainer = None
        self.cycle, self.step = self._workspace.last_step()

    def _save(self, trainer: Trainer) -> None:
        from amatch_widgets.learn.checkpoint import save_checkpoint  # noqa: PLC0415 (imports torch)

        if trainer.step == self._saved_step:
            return
        try:
            trainer.check()
        except StateError:
            self._drop_model()
            raise
        version, labels = self._training_labels()
        details = {
            "labels": {"version": version, "n": len(labels)},
            "image": self._image().to_dict(),
            "train": self._config.to_dict(),
            "time": utc_now(),
        }
        save_checkpoint(self._workspace.checkpoint(trainer.cycle, trainer.step), trainer, details)
        self._saved_step = trainer.step
        self._workspace.prune_checkpoints()


def _broken_off(cycle: int, step: int, left: int) -> str:
    return f"Cycle {cycle} was broken off at step {step}, {left} before its end."


def _give_memory_back() -> None:
    """Return to the system what a training has freed; glibc would keep 400 MB until the next one."""
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
