"""The session: a source of images, its labels, the model, the scores; what a user holds."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from amatch_widgets import demo
from amatch_widgets.errors import AmatchError, ConfigError, LabelError, NotTrainedError
from amatch_widgets.events import EventHub, LabelsChanged, ProblemFound
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.render import Rendering
from amatch_widgets.images.source import ImageSource, index_of, open_source, source_from_spec
from amatch_widgets.labels import ANOMALY, Label, LabelStore
from amatch_widgets.labels.reason import AT_THE_START, from_table
from amatch_widgets.labels.table import LabelImport, read_label_csv
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.learn.feed import check_both_classes
from amatch_widgets.query.discovery import Discovery, discovery
from amatch_widgets.query.strategies import Candidate
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session.audits import Audits
from amatch_widgets.session.engine import Engine
from amatch_widgets.session.explain import Explainer, Explanation
from amatch_widgets.session.export import write_shortlist
from amatch_widgets.session.history import History
from amatch_widgets.session.learnable import Learnable
from amatch_widgets.session.manifest import Manifest
from amatch_widgets.session.mixture import mixed_page
from amatch_widgets.session.pictures import Pictures
from amatch_widgets.session.scoreboard import Scoreboard
from amatch_widgets.session.selection import Filter, Show
from amatch_widgets.session.tiers import Tiers
from amatch_widgets.session.workspace import Workspace
from amatch_widgets.worker import State, Worker

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.learn.metrics import Metrics
    from amatch_widgets.query.estimate import Remaining

__all__ = ["Filter", "Session", "Show"]

_THUMBNAIL_PX = 128
_NO_AUDIT = "What is left to find is estimated from pages in the order “Mixed, with audit”."
_AS_IT_IS = Rendering()
_PATIENCE_S = 30.0  # for the instant tier to learn from the last labels, on a machine that is busy


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
    Thread safety: all calls may come from any thread but the worker's. ``_manifest`` is replaced
    as a whole, by the worker's thread; all else that changes is in the label store, the scoreboard,
    the pool, the tiers and the worker, which guard themselves.
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
            if hasattr(self, "labels"):
                self.labels.close()
            self._workspace.close()
            raise

    def _set_up(self, labels: str | Path | Mapping[str, str] | None) -> None:
        config = self._manifest.train
        self.labels = LabelStore(self._workspace.labels, test_share=config.test_share)
        self._notices = [self.labels.notice] if self.labels.notice else []
        skipped: Mapping[str, str] = getattr(self.source, "skipped", {})
        if skipped:
            name, reason = next(iter(skipped.items()))
            self._notices.append(
                f"{len(skipped)} folders or files in {self.source.name!r} cannot be looked at; the first, "
                f"{name!r}: {reason}."
            )
        self._index = index_of(self.source)
        self.pictures = Pictures(self.source, self._index, self._manifest.image)
        self._pool = PixelPool(
            self.source,
            self._manifest.image,
            budget_bytes=config.memory_mb * 2**20,
            on_problem=lambda image_id, reason: self.hub.publish(ProblemFound(image_id, reason)),
        )
        store = ScoreStore(self.path)
        self.history = History(self._workspace.history, last_step=self._workspace.last_step()[1])
        self._board = Scoreboard(
            self.source,
            self._index,
            self.labels,
            store=store,
            problems=lambda: list(self._pool.problems),
            seed=config.seed,
        )
        self._audits = Audits(self.path / "audits.jsonl", self.labels, seed=config.seed)
        self._learnable = Learnable(self.labels, self._index)
        self._tiers = Tiers(
            self.source,
            self._pool,
            self.path,
            manifest=lambda: self._manifest,
            keep=self._keep_measured,
            learnable=self._learnable,
            board=self._board,
            hub=self.hub,
        )
        self._engine = Engine(
            source=self.source,
            pool=self._pool,
            config=config,
            workspace=self._workspace,
            scores=store,
            history=self.history,
            training_labels=self._learnable,
            counts=self.labels.counts,
            use_scores=lambda cycle, scores, learnt: self._tiers.use_deep(cycle, self.step, scores, learnt),
            embed=self._tiers.embed,
            begin=self._tiers.begin,
            has_up=lambda: self._manifest.has_up,
        )
        self._worker = Worker(self.hub)
        self._explain = Explainer(
            self.source,
            self._pool,
            manifest=lambda: self._manifest,
            ranking=lambda: self._tiers.ranking,
            run=self._worker.ask,
        )
        self._tables: set[Path] = set()
        self._notices += self._tiers.open()
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
        """The job that runs or is paused ("embed", "train" or "score"), or None."""
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
    def is_embedded(self) -> bool:
        """Whether every image that can be read has its embedding: the instant tier ranks them all."""
        return self._tiers.is_embedded

    @property
    def problems(self) -> dict[str, str]:
        """Ids of the images that could not be read, with the reason."""
        return dict(self._pool.problems)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of how the session was opened, in plain words."""
        return tuple(self._notices)

    # ---- labels -----------------------------------------------------------------------------

    def label(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
        reason: str | Mapping[str, str] = "",
    ) -> None:
        """Label images; on return the labels are on disk. A running training takes them in.

        One call is one action of `undo`.

        Parameters
        ----------
        labels : mapping of str to str or None
            Image id to "anomaly", "normal", or None to take the label back. All or none.
        by : str, optional
            Who says so; by default the session's annotator.
        tags : sequence of str, optional
            Free words for all of these images, in place of those they have; None leaves them.
        note : str, optional
            Free text, in place of what there is; None leaves it.
        reason : str or mapping of str to str
            Why the images were shown; the same for all, or by image id.

        Raises
        ------
        LabelError
            If an id or a label is unknown. Nothing is changed.
        JournalError
            If the labels cannot be written; they are then not kept.
        """
        self._label(labels, by=by, tags=tags, note=note, reason=reason)

    def annotate(
        self,
        image_ids: str | Sequence[str],
        *,
        by: str | None = None,
        star: bool | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        """Star, tag or note images, labelled or not; on return it is on disk. Their labels stay.

        Parameters
        ----------
        image_ids : str or sequence of str
        by : str, optional
            Who says so; by default the session's annotator.
        star : bool, optional
            Whether they are starred; None leaves it.
        add, remove : sequence of str
            Tags.
        note : str, optional
            Free text, in place of what there is; None leaves it.

        Raises
        ------
        LabelError, JournalError
            As for `label`.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        self._check_ids(wanted, " Nothing was changed.")
        by = self.annotator if by is None else by
        self._tell(self.labels.annotate(wanted, by=by, star=star, add=add, remove=remove, note=note))

    def undo(self) -> tuple[str, ...]:
        """Take back the last call of `label` or `annotate`, here or in the gallery; again, the one before.

        It works over restarts, and never on what was read from a table.

        Returns
        -------
        tuple of str
            The images that were changed; none if there is nothing to undo.

        Raises
        ------
        JournalError
            If it cannot be written; nothing is changed then.
        """
        return self._tell(self.labels.undo(by=self.annotator))

    def redo(self) -> tuple[str, ...]:
        """Do again what was undone last; see `undo`."""
        return self._tell(self.labels.redo(by=self.annotator))

    def _label(
        self,
        labels: Mapping[str, str | None],
        *,
        by: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
        reason: str | Mapping[str, str] = "",
        can_undo: bool = True,
    ) -> None:
        self._check_ids(labels, " No label was changed.")
        scores, step = self._board.of(labels)
        lines = self.labels.set(
            labels,
            by=self.annotator if by is None else by,
            tags=tags,
            note=note,
            scores=scores,
            step=step,
            reason=reason,
            can_undo=can_undo,
        )
        self._tell(lines)

    def _tell(self, lines: Sequence[Label]) -> tuple[str, ...]:
        """Let everybody know of new lines of the journal; return the images they are about."""
        image_ids = tuple(line.image_id for line in lines)
        if image_ids:
            self._tiers.refit()
            self.hub.publish(LabelsChanged(image_ids))
        return image_ids

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
        self._label(
            {i: label for i, label in table.labels.items() if (now[i].label if i in now else None) != label},
            reason=from_table(Path(path).name),
            can_undo=False,
        )
        self._tables.add(Path(path).resolve())
        return table

    def _take_first_labels(self, labels: str | Path | Mapping[str, str]) -> None:
        reason = AT_THE_START
        if not isinstance(labels, Mapping):
            table = read_label_csv(labels, self._index.keys())
            self._tables.add(Path(labels).resolve())
            reason = from_table(Path(labels).name)
            if table.notice:
                self._notices.append(f"{Path(labels).name}: {table.notice}.")
            labels = {i: label for i, label in table.labels.items() if label is not None}
        seen = {line.image_id for line in self.labels.history()}
        new = {i: label for i, label in labels.items() if i not in seen}
        self._label(new, reason=reason, can_undo=False)

    # ---- work -------------------------------------------------------------------------------

    def embed(self) -> None:
        """Make the embeddings of all images, so that the instant tier ranks them; returns at once.

        Made once: other sessions on the same images use them too, and one that was stopped goes
        on where it was. No label is needed: without one, the images are ordered by novelty.

        Raises
        ------
        StateError
            If the session is busy or closed.
        """
        self._worker.start("embed", self._engine.embed)

    def train(self, steps: int | None = None) -> None:
        """Embed what is not yet, train, then score all images and evaluate; returns at once.

        A running `embed` goes over into the training, after the batch it is at.

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
        check_both_classes(self._learnable()[1].values())
        if self.job == "embed":  # what is left of it is the first part of the training
            self._worker.stop()
            with contextlib.suppress(AmatchError, TimeoutError):  # it would come again from the training
                self._worker.wait(_PATIENCE_S)
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
            self._tiers.close()
            self.labels.close()
            self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- scores -----------------------------------------------------------------------------

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores of all images, float32 in [0, 1], shape (N,); NaN where there is none. Read-only."""
        return self._board.scores

    @property
    def scores_version(self) -> int:
        """A number that grows whenever the scores change."""
        return self._board.version

    @property
    def scores_cycle(self) -> int | None:
        """The last cycle whose trained model has scored the images, or None."""
        return self._board.cycle

    @property
    def ranked_by(self) -> str | None:
        """What ranks: "novelty", "instant", "deep", "both" (tiers), or None before there are scores."""
        return self._board.ranked_by

    @property
    def ranking_note(self) -> str:
        """What ranks, and why, in plain words."""
        return self._tiers.note

    def standing(self, image_id: str) -> tuple[float | None, int | None]:
        """Return the score of an image and its rank, counted from 1; None where it has no score."""
        self._check_ids([image_id])
        scores = self.scores
        score = float(scores[self._index[image_id]])
        return (None, None) if np.isnan(score) else (score, 1 + int(np.count_nonzero(scores > score)))

    @property
    def metrics(self) -> Metrics:
        """How well the scores rank the held-out labels, now."""
        return self._board.metrics

    @property
    def discovery(self) -> Discovery:
        """How many anomalies each look has brought, and what the next page is likely to bring."""
        return discovery(self.labels.history())

    # ---- queries ----------------------------------------------------------------------------

    def query(
        self,
        n: int = 24,
        *,
        strategy: Literal["top", "uncertain", "random", "mixed"] = "top",
        leave_out: Iterable[str] = (),
        wait: bool = True,
    ) -> list[Candidate]:
        """Return images without a label that are worth a look.

        Parameters
        ----------
        n : int, >= 0
        strategy : {"top", "uncertain", "random", "mixed"}
            "mixed": 5 in 8 from the top, 1 in 8 uncertain, 1 in 8 unlike the anomalies so far, and 1
            in 8 an audit: drawn at random, with a chance that is noted, so that `remaining` can tell
            what is left to find. Label all images of an audit.
        leave_out : iterable of str
            Ids of images that are not wanted, such as those shown already.
        wait : bool
            Wait until the instant tier has learnt from all labels given so far: less than a second
            for 100,000 images.

        Returns
        -------
        list of Candidate
            Id, score and reason. Images that could not be read are left out.
        """
        if wait:
            self._tiers.wait(_PATIENCE_S)
        if strategy != "mixed":
            return self._board.query(n, strategy, leave_out)
        if n < 0:
            raise ConfigError(f"n is {n}; it must be 0 or more.")
        labels = self.labels.current()
        chosen = mixed_page(
            n,
            ids=self.source.ids,
            scores=self.scores,
            free=self._board.free(leave_out),
            anomalies=[self._index[i] for i, line in labels.items() if line.label == ANOMALY],
            embeddings=lambda: self._tiers.embeddings,
            audits=self._audits,
            seed=self.config.seed + len(labels),
        )
        return self._board.candidates(chosen)

    @property
    def remaining(self) -> Remaining:
        """How many anomalies are left to find, and what share was found, from the audits.

        Audits are the part of a "mixed" query or gallery page that is drawn at random. Images
        that were drawn and have no label are left out; ``n_audits_open`` counts them.
        """
        return self._audits.remaining(len(self._board.free()))[0]

    @property
    def outlook(self) -> str:
        """What another page is likely to bring, and what is left to find, in plain words."""
        left, n_open = self._audits.remaining(len(self._board.free()))
        said = str(left) if left.n_draws or not left.n_free else _NO_AUDIT
        if n_open:
            said += f" {n_open:,} audited image{'s have' if n_open > 1 else ' has'} no label yet."
        return f"{self.discovery.outlook} {said}"

    @property
    def n_audits_open(self) -> int:
        """How many images were drawn for an audit and have no label yet."""
        return self._audits.remaining(0)[1]

    def similar(
        self, image_ids: str | Sequence[str], k: int = 24, *, among: Iterable[str] | None = None
    ) -> list[Candidate]:
        """Return the images most like one, or like several taken together; labelled ones too.

        Parameters
        ----------
        image_ids : str or sequence of str
        k : int, >= 0
        among : iterable of str, optional
            Ids of the images to choose from; by default all.

        Returns
        -------
        list of Candidate
            By cosine similarity of the embeddings, the most similar first.

        Raises
        ------
        LabelError
            If an id is unknown, none is given, or `k` is negative.
        NotTrainedError
            If there are no embeddings yet, or none of these images.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        self._check_ids(wanted)
        if not wanted or k < 0:
            raise LabelError(
                f"similar() of {len(wanted)} images with k={k}: name at least one image, and k of 0 or more."
            )
        among = None if among is None else list(among)
        self._check_ids(among or ())
        found, cosines = self._tiers.similar(
            np.array([self._index[i] for i in wanted], np.int64),
            k,
            among=None if among is None else np.array([self._index[i] for i in among], np.int64),
        )
        ids, scores = self.source.ids, self.scores
        return [
            Candidate(
                ids[i], float(scores[i]) if np.isfinite(scores[i]) else None, f"similar: cosine {cosine:.2f}"
            )
            for i, cosine in zip(found, cosines, strict=True)
        ]

    def explain(self, image_id: str) -> Explanation:
        """Show which parts of an image the instant tier's score rests on, by covering one after another.

        It takes 171 copies of the image: seconds on a CPU. A running job waits for it between
        two of its steps, and goes on as if nothing had been; one that is paused stays so.

        Parameters
        ----------
        image_id : str

        Returns
        -------
        Explanation
            A map of what the logit loses without each part. The trained model is not asked, also
            where it takes part in the ranking.

        Raises
        ------
        LabelError
            If there is no such id.
        NotTrainedError
            If there are no embeddings yet, or no anomaly is labelled.
        ImageReadError
            If the image cannot be read.
        StateError
            If the session is closed, or the weights of the network have changed meanwhile.
        """
        self._check_ids([image_id])
        self._tiers.wait(_PATIENCE_S)
        return self._explain(self._index[image_id])

    def ranking(
        self, how: str = "highest", *, show: Show = "all", only: Filter | None = None, seed: int = 0
    ) -> npt.NDArray[np.int64]:
        """Return the positions of images in the source, in an order to look at.

        Parameters
        ----------
        how : {"highest", "lowest", "uncertain", "rising", "random", "recent"}
            "rising": what has gained most ranks, on a logarithmic scale, in the last 24 changes of labels
            or since the last cycle. "recent" shows labelled images only, the latest label first.
        show : {"all", "unlabelled", "labelled", "anomaly", "normal", "starred", "problem"}
            "problem" are the images that cannot be read.
        only : Filter, optional
            What they must have besides.
        seed : int
            Of the random order.

        Returns
        -------
        ndarray of int64, shape (M,)
            Images without a score come last. Read-only.
        """
        return self._board.ranking(how, show, Filter() if only is None else only, seed)

    def find(self, contains: str) -> npt.NDArray[np.int64]:
        """Return the positions of all images whose id contains a text, upper and lower case alike."""
        return self._board.find(contains)

    def thumbnail(self, image_id: str, side: int = _THUMBNAIL_PX, rendering: Rendering = _AS_IT_IS) -> bytes:
        """Return a small JPEG of what the model sees of an image, its longer side at most `side` pixels.

        Raises
        ------
        ImageReadError
            If the image cannot be read, or not rendered so.
        LabelError
            If there is no such id.
        """
        self._check_ids([image_id])
        return self.pictures.thumbnail(image_id, side, rendering)

    def cutout(self, image_id: str, *, rendering: Rendering = _AS_IT_IS, side: int | None = None) -> bytes:
        """Return a picture of the whole image: PNG up to a million pixels, fine JPEG above.

        Parameters
        ----------
        image_id : str
        rendering : Rendering, optional
            How it is to look.
        side : int, >= 1, optional
            Most pixels of the longer side; by default none are left out.

        Raises
        ------
        ImageReadError
            If the image cannot be read, or not rendered so.
        LabelError
            If there is no such id.
        """
        self._check_ids([image_id])
        return self.pictures.cutout(image_id, rendering, side)

    def top(self, n: int = 100) -> pd.DataFrame:
        """Return the `n` highest scores as a table: id, score, rank, label, tags, note, starred.

        Raises
        ------
        NotTrainedError
            If there are no scores yet.
        """
        return self._board.shortlist(n)

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
        return write_shortlist(self._board.shortlist(n), Path(path), protected=self._tables)

    def figures(
        self, folder: str | Path | None = None, formats: Sequence[str] = ("png", "svg", "pdf")
    ) -> list[Path]:
        """Write figures for a paper or a talk: metrics, discovery, scores, and a sheet of the best 50.

        The same session gives the same bytes.

        Parameters
        ----------
        folder : path, optional
            By default ``figures`` in the session folder.
        formats : sequence of {"png", "svg", "pdf"}

        Returns
        -------
        list of Path
            The files.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        ConfigError
            If there is no such format.
        WorkspaceError
            If a file cannot be written.
        """
        # By name and at the call: the report is made of sessions, and needs an extra.
        report = importlib.import_module("amatch_widgets.report.figures")
        files: list[Path] = report.save_figures(
            self, self.path / "figures" if folder is None else folder, formats
        )
        return files

    def report(self, path: str | Path | None = None, n: int = 50) -> Path:
        """Write one HTML file with all that was found and what it rests on, to keep or to send.

        Labels, counts, metrics, figures, the `n` highest scores, options, versions and problems; it
        asks for nothing outside itself and holds no script.

        Parameters
        ----------
        path : path, optional
            By default ``report.html`` in the session folder.
        n : int, >= 0

        Returns
        -------
        Path
            The file.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        ConfigError
            If the name does not end in ``.html``.
        WorkspaceError
            If it cannot be written.
        """
        report = importlib.import_module("amatch_widgets.report.html")
        file: Path = report.write_report(self, self.path / "report.html" if path is None else path, n)
        return file

    def _check_ids(self, image_ids: Iterable[str], consequence: str = "") -> None:
        unknown = [i for i in image_ids if i not in self._index]
        if unknown:
            raise LabelError(
                f"Unknown image id {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + f". The ids of {self.source.name!r} look like {self.source.ids[0]!r}."
                + consequence
            )

    def _keep_measured(self, has_up: bool, embeddings: dict[str, Any]) -> None:  # noqa: FBT001
        """Note in the manifest what was measured of the images; on the worker's thread."""
        manifest = dataclasses.replace(self._manifest, has_up=has_up, embeddings=embeddings)
        if manifest != self._manifest:
            self._manifest = manifest
            manifest.write(self._workspace, self.source)

    # ---- display ----------------------------------------------------------------------------

    def show(self) -> Any:
        """Return a new dashboard of this session, for the last line of a cell."""
        # By name and at the call: the engine must not pull widgets in (see the import contracts).
        return importlib.import_module("amatch_widgets.widgets").Dashboard(self)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.show()._repr_mimebundle_(**options)
        # What a notebook shows where its kernel is gone.
        return {**bundle, "text/plain": repr(self)} if isinstance(bundle, dict) else bundle


def _open_demo(spec: Mapping[str, Any]) -> ImageSource:
    return demo.DemoSource(**{key: value for key, value in spec.items() if key != "kind"})


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "session"
