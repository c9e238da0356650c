"""The session: a source of images, its labels, the model, the scores; what a user holds."""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from amatch_widgets import demo
from amatch_widgets.engine import Engine
from amatch_widgets.errors import (
    ConfigError,
    ImageReadError,
    LabelError,
    NotTrainedError,
    TooFewLabelsError,
    WorkspaceError,
)
from amatch_widgets.events import EventHub, LabelsChanged, ProblemFound
from amatch_widgets.export import shortlist, write_shortlist
from amatch_widgets.history import History
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess, encode_thumbnail
from amatch_widgets.images.source import ImageSource, index_of, open_source, source_from_spec
from amatch_widgets.label_csv import LabelImport, read_label_csv
from amatch_widgets.labels import CLASSES, LabelStore
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.learn.metrics import Metrics, evaluate
from amatch_widgets.manifest import Manifest
from amatch_widgets.query.strategies import Candidate, order, pick
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.worker import State, Worker
from amatch_widgets.workspace import Workspace

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

__all__ = ["Session"]

_log = logging.getLogger(__name__)

Show = Literal["all", "unlabelled", "labelled"]
_THUMBNAIL_PX = 128


class Session:
    """A hunt for rare images: label, train, score, look, and again.

    All calls return at once; training and scoring run on a background thread. Labels are on disk
    when `label` returns.

    Parameters
    ----------
    source : ImageSource, path or ndarray
        What `open_source` takes.
    labels : path or mapping, optional
        A label table (CSV, see `import_labels`) or {id: "anomaly" | "normal"}. Images that have a
        label in this session already keep it.
    path : path, optional
        The session folder, by default ``runs/<name of the source>``. One that exists is
        continued.
    train : TrainConfig, optional
    image : Preprocess, optional
        How images are cropped and resized for the model; its `channels` follow the source.
    annotator : str
        Name written beside each label.

    Raises
    ------
    SourceError
        If the images cannot be opened, or the folder's session is of other images.
    SessionInUseError
        If another session holds the folder.
    WorkspaceError, JournalError, LabelError, ConfigError
        If the folder cannot be used, the labels cannot be read, or an option is out of range.

    Notes
    -----
    Thread safety: `label` and the queries may be called from any thread. ``_scored``, which is
    (cycle, step, scores), and the caches are single tuples, replaced as a whole; the worker alone
    replaces ``_scored``.
    """

    def __init__(
        self,
        source: object,
        *,
        labels: str | Path | Mapping[str, str] | None = None,
        path: str | Path | None = None,
        train: TrainConfig | None = None,
        image: Preprocess | None = None,
        annotator: str = "",
    ) -> None:
        self.source: ImageSource = open_source(source)
        folder = Path("runs", _slug(self.source.name)) if path is None else Path(path).expanduser()
        self.path = folder.absolute()  # the working directory may change
        self.hub = EventHub()
        self.annotator = annotator
        self._workspace = Workspace(self.path)
        try:
            self._manifest = Manifest.of(self._workspace, self.source, train=train, image=image)
            self._set_up(labels)
        except BaseException:
            self._workspace.close()
            raise

    def _set_up(self, labels: str | Path | Mapping[str, str] | None) -> None:
        config = self._manifest.train
        self.labels = LabelStore(self._workspace.labels, test_share=config.test_share)
        self._index = index_of(self.source)
        self._pool = PixelPool(
            self.source,
            self._manifest.image,
            budget_bytes=config.memory_mb * 2**20,
            on_problem=lambda image_id, reason: self.hub.publish(ProblemFound(image_id, reason)),
        )
        self._store = ScoreStore(self.path)
        self.history = History(self._workspace.history, last_step=self._workspace.last_step()[1])
        self._scored = self._last_scores()
        self._caching = threading.Lock()
        self._cache: dict[str, tuple[object, Any]] = {}
        self._engine = Engine(
            source=self.source,
            pool=self._pool,
            config=config,
            workspace=self._workspace,
            scores=self._store,
            history=self.history,
            training_labels=self._training_labels,
            counts=self.labels.counts,
            use_scores=self._use_scores,
        )
        self._worker = Worker(self.hub)
        self._tables: set[Path] = set()
        if labels is not None:
            self._take_first_labels(labels)

    @classmethod
    def open(cls, path: str | Path, *, source: object = None, annotator: str = "") -> Self:
        """Open a session folder exactly where it was, after a crash too.

        Parameters
        ----------
        path : path
        source : optional
            Only where the images have moved, or were an array in memory.
        annotator : str
            Name written beside each label.

        Returns
        -------
        Session

        Raises
        ------
        WorkspaceError
            If `path` is no session folder.
        SourceError
            If the images are gone or are others.
        SessionInUseError
            If another session holds the folder.
        """
        spec = Manifest.source_spec(Path(path))
        if source is None:
            source = _open_demo(spec) if spec.get("kind") == "demo" else source_from_spec(spec)
        return cls(source, path=path, annotator=annotator)

    # ---- state ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        counts = self.labels.counts()
        return (
            f"Session({self.source.name!r}, {len(self.source):,} images, {counts['anomaly']} anomalies and "
            f"{counts['normal']} normals labelled, step {self.step}, {self.state.value}, {str(self.path)!r})"
        )

    @property
    def config(self) -> TrainConfig:
        """The training options."""
        return self._manifest.train

    @property
    def image(self) -> Preprocess:
        """How images are prepared for the model."""
        return self._manifest.image

    @property
    def state(self) -> State:
        """The worker's state: idle, running, paused, failed or closed."""
        return self._worker.state

    @property
    def is_busy(self) -> bool:
        """Whether a job runs or is paused."""
        return self._worker.is_busy

    @property
    def is_stopping(self) -> bool:
        """Whether the job has been told to stop and has not ended yet."""
        return self._worker.is_stopping

    @property
    def job(self) -> str | None:
        """The job that runs or is paused ("train" or "score"), or None."""
        return self._worker.job

    @property
    def step(self) -> int:
        """Training steps done in all."""
        return self._engine.step

    @property
    def cycle(self) -> int:
        """Training cycles begun."""
        return self._engine.cycle

    @property
    def problems(self) -> dict[str, str]:
        """Ids of the images that could not be read, with the reason."""
        return dict(self._pool.problems)

    # ---- labels -----------------------------------------------------------------------------

    def label(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str | None = None,
        tags: Sequence[str] = (),
        note: str = "",
        reason: str = "",
    ) -> None:
        """Label images; on return the labels are on disk. A running training takes them in.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to "anomaly", "normal", or None to take the label back. All or none.
        by : str, optional
            Who says so; by default the session's annotator.
        tags : sequence of str
            Free words for all of these images.
        note : str
            Free text.
        reason : str
            Why the images were shown.

        Raises
        ------
        LabelError
            If an id or a label is unknown. Nothing is changed.
        JournalError
            If the labels cannot be written; they are then not kept.
        """
        unknown = [i for i in labels if i not in self._index]
        if unknown:
            raise LabelError(
                f"Unknown image id {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + f". The ids of {self.source.name!r} look like {self.source.ids[0]!r}. No label was changed."
            )
        if not labels:
            return
        _, step, scores = self._scored
        self.labels.set(
            labels,
            by=self.annotator if by is None else by,
            tags=tags,
            note=note,
            scores={i: float(scores[self._index[i]]) for i in labels},
            step=step,
            reason=reason,
        )
        self.hub.publish(LabelsChanged(tuple(labels)))

    def import_labels(self, path: str | Path) -> LabelImport:
        """Take in a label table (CSV with the columns id or filename, and label).

        Labels are "anomaly", "normal" or "removed" (takes a label back). Rows that say what the
        session holds already change nothing.

        Parameters
        ----------
        path : path

        Returns
        -------
        LabelImport
            What was found, unknown and ambiguous ids listed.

        Raises
        ------
        LabelError
            If the table makes no sense, or no row fits an image. Nothing is changed.
        """
        table = read_label_csv(path, self._index.keys())
        now = self.labels.current()
        self.label(
            {i: label for i, label in table.labels.items() if (now[i].label if i in now else None) != label},
            reason=f"from {Path(path).name}",
        )
        self._tables.add(Path(path).resolve())
        return table

    def _take_first_labels(self, labels: str | Path | Mapping[str, str]) -> None:
        reason = "given at the start"
        if not isinstance(labels, Mapping):
            table = read_label_csv(labels, self._index.keys())
            self._tables.add(Path(labels).resolve())
            reason = f"from {Path(labels).name}"
            labels = {i: label for i, label in table.labels.items() if label is not None}
        seen = {line.image_id for line in self.labels.history()}
        self.label({i: label for i, label in labels.items() if i not in seen}, reason=reason)

    def _training_labels(self) -> tuple[int, Mapping[int, int]]:
        version = self.labels.version
        return version, self._cached("training", version, self._make_training_labels)

    def _make_training_labels(self) -> dict[int, int]:
        known = self.labels.for_split("train")
        return {self._index[i]: CLASSES.index(label) for i, label in known.items() if i in self._index}

    # ---- work -------------------------------------------------------------------------------

    def train(self, steps: int | None = None) -> None:
        """Train, then score all images and evaluate; returns at once.

        Parameters
        ----------
        steps : int, >= 1, optional
            By default ``config.steps``.

        Raises
        ------
        TooFewLabelsError
            If a class has no label to learn from; the message says what is needed.
        StateError
            If the session is busy or closed.
        """
        steps = self.config.steps if steps is None else TrainConfig(steps=steps).steps
        self._check_labels()
        self._worker.start("train", lambda: self._engine.train(steps))

    def score(self) -> None:
        """Score all images with the model that is there; returns at once.

        Raises
        ------
        NotTrainedError
            If there is no model yet.
        StateError
            If the session is busy or closed.
        """
        if not self.step:
            raise NotTrainedError("There is no model yet. Train first: session.train().")
        self._worker.start("score", self._engine.score)

    def pause(self) -> None:
        """Hold the job before its next step; the model and the place are kept."""
        self._worker.pause()

    def resume(self) -> None:
        """Go on with a paused job."""
        self._worker.resume()

    def stop(self) -> None:
        """End the job after its present step and keep the model; returns at once."""
        self._worker.stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the job has ended, and raise what it raised; for scripts."""
        self._worker.wait(timeout_s)

    def close(self) -> None:
        """Stop what runs, keep everything, and give the folder free; closing twice does no harm."""
        try:
            self._worker.close()
        finally:
            self.labels.close()
            self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_labels(self) -> None:
        counts = dict.fromkeys(CLASSES, 0)
        for number in self._training_labels()[1].values():
            counts[CLASSES[number]] += 1
        missing = [name for name, count in counts.items() if not count]
        if missing:
            found = " and ".join(f"{count} {name}" for name, count in counts.items())
            raise TooFewLabelsError(
                f"Training needs at least 1 image of each class to learn from; found {found}. "
                f"Label at least one image as {' and one as '.join(missing)} "
                "(5 anomalies and 20 normals are a good start)."
            )

    # ---- scores -----------------------------------------------------------------------------

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores of all images, float32 in [0, 1], shape (N,); NaN where there is none. Read-only."""
        return self._scored[2]

    @property
    def scores_cycle(self) -> int | None:
        """The cycle whose model gave the scores, or None."""
        return self._scored[0]

    @property
    def metrics(self) -> Metrics:
        """How well the scores rank the held-out labels, now."""
        key = (self.labels.version, self.scores_cycle, id(self.scores))
        metrics: Metrics = self._cached("metrics", key, lambda: self._evaluate(self.scores))
        return metrics

    def _evaluate(self, scores: npt.NDArray[np.float32]) -> Metrics:
        held_out = self.labels.for_split("test")
        known = [(self._index[i], label == "anomaly") for i, label in held_out.items() if i in self._index]
        rated = [(index, truth) for index, truth in known if np.isfinite(scores[index])]
        indices = np.array([index for index, _ in rated], np.int64)
        return evaluate(np.array([t for _, t in rated], bool), scores[indices], seed=self.config.seed)

    def _use_scores(self, cycle: int, scores: npt.NDArray[np.float32]) -> Metrics:
        scores.setflags(write=False)
        self._scored = (cycle, self.step, scores)
        return self.metrics

    def _last_scores(self) -> tuple[int | None, int | None, npt.NDArray[np.float32]]:
        n = len(self.source)
        for cycle in reversed(self._store.cycles()):
            try:
                scores, step = self._store.load(cycle, n), self._store.info(cycle).model.removeprefix("step=")
            except WorkspaceError as error:  # they can be made again; the labels must stay within reach
                _log.warning("%s Until then the scores before them are used.", error)
                continue
            scores.setflags(write=False)
            return cycle, int(step) if step.isdecimal() else None, scores
        scores = np.full(n, np.nan, np.float32)
        scores.setflags(write=False)
        return None, None, scores

    # ---- queries ----------------------------------------------------------------------------

    def query(
        self, n: int = 24, *, strategy: Literal["top", "uncertain", "random", "mixed"] = "top"
    ) -> list[Candidate]:
        """Return images without a label that are worth a look.

        Parameters
        ----------
        n : int, >= 0
        strategy : {"top", "uncertain", "random", "mixed"}

        Returns
        -------
        list of Candidate
            Id, score and reason. Images that could not be read are left out.
        """
        unlabelled = self.ranking("random", show="unlabelled")
        problems = self._pool.problems
        ids, scores = self.source.ids, self.scores
        if problems:
            unreadable = np.array([self._index[i] for i in list(problems)], np.int64)
            unlabelled = np.setdiff1d(unlabelled, unreadable)
        chosen = pick(scores, unlabelled, n, strategy, seed=self.config.seed + len(self.labels))
        return [
            Candidate(ids[i], float(scores[i]) if np.isfinite(scores[i]) else None, reason)
            for i, reason in chosen
        ]

    def ranking(self, how: str = "highest", *, show: Show = "all", seed: int = 0) -> npt.NDArray[np.int64]:
        """Return the positions of images in the source, in an order to look at.

        Parameters
        ----------
        how : {"highest", "lowest", "uncertain", "random", "recent"}
            "recent" shows labelled images only, the latest label first.
        show : {"all", "unlabelled", "labelled"}
        seed : int
            Of the random order.

        Returns
        -------
        ndarray of int64, shape (M,)
            Images without a score come last. Read-only.
        """
        key = (how, show, seed, self.labels.version, self.scores_cycle, id(self.scores))
        ranking: npt.NDArray[np.int64] = self._cached("ranking", key, lambda: self._rank(how, show, seed))
        return ranking

    def _rank(self, how: str, show: Show, seed: int) -> npt.NDArray[np.int64]:
        if show not in get_args(Show):
            raise ConfigError(f"Unknown show={show!r}. Allowed are 'all', 'unlabelled' and 'labelled'.")
        labelled = [self._index[i] for i in reversed(self.labels.current()) if i in self._index]
        subset: npt.NDArray[np.int64] | None = None
        if show == "labelled" or how == "recent":
            subset = np.array([] if show == "unlabelled" else labelled, np.int64)
        elif show == "unlabelled":
            is_free = np.ones(len(self.source), bool)
            is_free[labelled] = False
            subset = np.flatnonzero(is_free)
        ranking = order(self.scores, how, subset=subset, seed=seed)
        ranking.setflags(write=False)
        return ranking

    def thumbnail(self, image_id: str, side: int = _THUMBNAIL_PX) -> bytes:
        """Return a small JPEG of an image, its longer side at most `side` pixels.

        Raises
        ------
        ImageReadError
            If the image cannot be read.
        LabelError
            If there is no such id.
        """
        if image_id not in self._index:
            raise LabelError(f"Unknown image id {image_id!r} in {self.source.name!r}.")
        hint = side if self.image.crop is None else None
        image = self.source.read(self._index[image_id], min_side=hint)
        try:
            return encode_thumbnail(self.image.thumbnail(image, side))
        except ValueError as error:  # of Preprocess, in plain words
            raise ImageReadError(image_id, str(error)) from error

    def top(self, n: int = 100) -> pd.DataFrame:
        """Return the `n` highest scores as a table: id, score, rank, label, tags."""
        return self._shortlist(self.ranking("highest")[:n])

    def export(self, path: str | Path, n: int | None = None) -> Path:
        """Write a shortlist as CSV: the `n` highest scores, or all labelled images by score.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        WorkspaceError
            If it cannot be written, or is the label table that was imported: that is never
            changed.
        """
        ranking = self.ranking("highest", show="labelled") if n is None else self.ranking("highest")[:n]
        return write_shortlist(self._shortlist(ranking), Path(path), protected=self._tables)

    def _shortlist(self, chosen: npt.NDArray[np.int64]) -> pd.DataFrame:
        scores = self.scores
        ranks = np.zeros(len(scores), np.int64)
        ranks[self.ranking("highest")] = np.arange(1, len(scores) + 1)
        ranks[np.isnan(scores)] = 0
        return shortlist(self.source, scores, ranks, self.labels.current(), chosen)

    # ---- display ----------------------------------------------------------------------------

    def show(self) -> Any:
        """Return a new dashboard of this session, for the last line of a cell."""
        # By name and at the call: the engine must not pull widgets in (see the import contracts).
        return importlib.import_module("amatch_widgets.widgets").Dashboard(self)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.show()._repr_mimebundle_(**options)

    def _cached(self, name: str, key: object, make: Any) -> Any:
        with self._caching:
            found = self._cache.get(name)
        if found is None or found[0] != key:
            found = (key, make())
            with self._caching:
                self._cache[name] = found
        return found[1]


def _open_demo(spec: Mapping[str, Any]) -> ImageSource:
    return demo.DemoSource(**{key: value for key, value in spec.items() if key != "kind"})


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "session"
