"""The session: a source of images, its labels, the model, the scores; what a user holds."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from amatch_widgets.errors import AmatchError, ConfigError, NotTrainedError, StateError
from amatch_widgets.events import Event, EventHub, ImagesPrepared, ProblemFound
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.source import ImageSource, index_of, open_source
from amatch_widgets.labels import LabelStore, OwnLabels
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.learn.feed import check_both_classes
from amatch_widgets.score.embeddings import default_roots
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session.archive import OwnIds
from amatch_widgets.session.archives import Archives
from amatch_widgets.session.audits import Audits
from amatch_widgets.session.comparing import N_HIGHEST, Comparing
from amatch_widgets.session.elsewhere import LabelledElsewhere
from amatch_widgets.session.embedder import ReadyEmbedder
from amatch_widgets.session.engine import Engine
from amatch_widgets.session.explain import Explainer
from amatch_widgets.session.exporting import Exporting
from amatch_widgets.session.history import History
from amatch_widgets.session.imported import ImportedModel
from amatch_widgets.session.importing import Importing
from amatch_widgets.session.labelling import Labelling
from amatch_widgets.session.learnable import Learnable
from amatch_widgets.session.likeness import Likeness
from amatch_widgets.session.looking import Looking
from amatch_widgets.session.manifest import Manifest
from amatch_widgets.session.own import notice_of_part, own_ids_in, own_images
from amatch_widgets.session.pictures import Pictures
from amatch_widgets.session.reopen import reopen
from amatch_widgets.session.scoreboard import Scoreboard
from amatch_widgets.session.scoring import Scoring
from amatch_widgets.session.selection import Filter, Show
from amatch_widgets.session.teaching import Teaching
from amatch_widgets.session.tiers import Tiers
from amatch_widgets.session.workspace import Workspace
from amatch_widgets.worker import State, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amatch_widgets.archive.scores import ArchiveScores
    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.session.archive import Archive

__all__ = ["Filter", "Session", "Show"]

_PATIENCE_S = 30.0  # for the instant tier to learn from the last labels, on a machine that is busy


class Session(Labelling, Looking, Likeness, Exporting, Importing):
    """A hunt for rare images: label, train, score, look, and again.

    All calls return at once; training and scoring run on a background thread. Labels are on disk
    when `label` returns.

    Parameters
    ----------
    source : ImageSource, path or ndarray
        What `open_source` takes. Of more than a million images the session has a random sample as its
        own, see `sample`.
    labels : path or mapping, optional
        A label table (CSV, see `import_labels`) or {id: "anomaly" | "normal"}. Images that have a
        label in this session already keep it.
    path : path, optional
        The session folder, by default ``runs/<name of the source>``. One that exists is
        continued.
    train : TrainConfig, optional
    image : Preprocess, optional
        How images are cropped, mixed, stretched and resized for the model.
    annotator : str
        Name written beside each label.
    sample : int, >= 1, optional
        How many images the session embeds, shows and learns from: drawn at random (see
        `amatch_widgets.sample`), and those with a label in `labels` among them. By default all up to a
        million; of more, 100,000. ``session.score(source)`` goes through all of them. A session that is
        continued keeps those that it has.

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
    as a whole, by the worker's thread, ``_stopped`` by whoever begins a training; all else that
    changes is in the label store, the scoreboard, the pool, the tiers and the worker, which guard
    themselves.
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
        sample: int | None = None,
    ) -> None:
        images = open_source(source)
        folder = Path("runs", _slug(images.name)) if path is None else Path(path).expanduser()
        self.path = folder.absolute()  # the working directory may change
        self.hub = EventHub()
        self.annotator = annotator
        self._workspace = Workspace(self.path)
        try:
            found, seed = self._workspace.manifest(), (train or TrainConfig()).seed
            self.source: ImageSource = own_images(images, found, n=sample, labels=labels, seed=seed)
            self._manifest = Manifest.of(self._workspace, self.source, train=train, image=image)
            self._set_up(labels)
        except BaseException:
            if hasattr(self, "labels"):
                self.labels.close()
            self._workspace.close()
            raise

    def _set_up(self, labels: str | Path | Mapping[str, str] | None) -> None:
        config = self._manifest.train
        self._index = index_of(self.source)
        own = OwnIds(self._index)
        self.labels = LabelStore(self._workspace.labels, test_share=config.test_share, own=own)
        self.own_labels = OwnLabels(self.labels, own)
        self._notices = notice_of_part(self.source)
        if self.labels.notice:
            self._notices.append(self.labels.notice)
        skipped: Mapping[str, str] = getattr(self.source, "skipped", {})
        if skipped:
            name, reason = next(iter(skipped.items()))
            self._notices.append(
                f"{len(skipped)} folders or files in {self.source.name!r} cannot be looked at; the first, "
                f"{name!r}: {reason}."
            )
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
        self._archives = Archives(
            self.path / "archives",
            self.labels,
            lambda text: bool(len(self._board.find(text))),
            mine=own_ids_in(self.source, self._index),
        )
        self._notices += self._archives.notices
        self.pictures = Pictures(self.source, self._index, lambda: self._manifest.image, self._archives.of)
        self._audits = Audits(self.path / "audits.jsonl", self.labels, seed=config.seed, own=own)
        self._learnable = Learnable(self.labels, self._index)
        self._tiers = Tiers(
            self.source,
            self._pool,
            self.path,
            manifest=lambda: self._manifest,
            keep=self._keep_measured,
            learnable=self._learnable,
            outside=lambda: self._teaching.outside(),  # noqa: PLW0108 (it is made below)
            board=self._board,
            hub=self.hub,
        )
        self._elsewhere = LabelledElsewhere(self.labels, self._archives.lines, self.pictures, self.hub)
        self._engine = Engine(
            source=self.source,
            pool=self._pool,
            config=config,
            workspace=self._workspace,
            scores=store,
            history=self.history,
            training_labels=self._learnable,
            elsewhere=self._elsewhere,
            counts=self.own_labels.counts,
            use_scores=lambda cycle, scores, learnt: self._tiers.use_deep(cycle, self.step, scores, learnt),
            embed=self._tiers.embed,
            begin=self._tiers.begin,
            has_up=lambda: self._manifest.has_up,
            image=lambda: self._manifest.image,
            highest=self._board.highest,
        )
        self._worker = Worker(self.hub)
        embedder = ReadyEmbedder(lambda: self._manifest)
        self._teaching = Teaching(
            self.path / "vectors.jsonl",
            lines=self._archives.lines,
            pictures=self.pictures,
            space=lambda: self._tiers.space,
            embedder=embedder,
            run=self._worker.ask,
            changed=self._tiers.refit,
            hub=self.hub,
        )
        self._comparing = Comparing(
            default_roots(self.path),
            manifest=lambda: self._manifest,
            space=lambda: self._tiers.space,
            embedder=embedder,
            vectors=self._vectors,
        )
        self._imported = ImportedModel(self.path / "imported.safetensors")
        self._scoring = Scoring(
            self._archives,
            manifest=lambda: self._manifest,
            board=self._board,
            begin=self._tiers.begin,
            trained=self._engine.trained,
            imported=self._imported,
            catch_up=self._teaching.catch_up,
        )
        self._stopped = threading.Event()  # of the last training: by stop() and not by close()
        self._explain = Explainer(
            self.pictures.prepared,
            # In bfloat16 the maps of galaxies were up to a fifth of their range off: differences are small.
            embedder=ReadyEmbedder(lambda: self._manifest, "float32"),
            ranking=lambda: self._tiers.ranking,
            run=self._worker.ask,
        )
        self._tables: set[Path] = set()
        self._unreadable: dict[str, str] = {}  # for a model that was imported, with the reason
        self._notices += [*self._tiers.open(), *self._engine.broken_off()]
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
            source = reopen(spec)
        return cls(source, path=path, annotator=annotator)

    # ---- state ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        counts = self.own_labels.counts()
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
    def is_pausing(self) -> bool:
        """Whether the job has been told to pause and its present step has not ended yet."""
        return self._worker.is_pausing

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
        return {**self._unreadable, **self._pool.problems}

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of how the session was opened, in plain words."""
        return tuple(self._notices)

    # ---- work -------------------------------------------------------------------------------

    def embed(self, archive: str = "", *, n: int = N_HIGHEST) -> None:
        """Make the embeddings of all images, so that the instant tier ranks them; returns at once.

        Made once: other sessions on the same images use them too, and one that was stopped goes
        on where it was. No label is needed: without one, the images are ordered by novelty.

        Of an archive the `n` images with the highest scores are embedded, the highest first, so that images
        like others can be looked for among them: `similar`, `twins`. They are kept beside the others, 1 kB
        each; those that are there already, also from an earlier cycle of scores, are not made again.

        Parameters
        ----------
        archive : str, optional
            Name or title of an archive, see `archives`; by default the session's own images are embedded.
        n : int, >= 1
            Of an archive; all of the session's own images are embedded.

        Raises
        ------
        LabelError
            If there is no such archive.
        ConfigError
            If `n` is less than 1.
        NotTrainedError
            If nothing of the archive is scored, or the session's own images have no embeddings.
        StateError
            If the session is busy or closed.
        """
        if not archive:
            self._worker.start("embed", self._engine.embed)
            return
        found = self.archive(archive)
        if n < 1:
            raise ConfigError(f"embed({archive!r}, n={n!r}): allowed is a whole number, 1 or more.")
        self._comparing.check(found)
        self._worker.start("embed", lambda: self._comparing.job(found, n))

    def prepare(self, image: Preprocess) -> None:
        """Let the model see the images in another way, and embed them anew; returns at once.

        A running `embed` is given up for it. The ranking stays as it is until the new embeddings are there.

        Parameters
        ----------
        image : Preprocess
            Size, crop, bands and stretch.

        Raises
        ------
        ConfigError
            If a model has been trained: it rests on how the images were prepared.
        SourceError
            If the images have other bands.
        StateError
            If the session is busy or closed.
        """
        image = image.fitted(self.source)
        if self.step:
            raise ConfigError(
                "A model has been trained on the images as they are prepared now. To see them otherwise, "
                "begin another session with these labels: Session(source, labels=..., image=..., path=...)."
            )
        self._give_up_embedding()
        self._worker.start("embed", lambda: self._prepared(image))

    def train(self, steps: int | None = None) -> None:
        """Embed what is not yet, train, then score all images and evaluate; returns at once.

        A running `embed` goes over into the training, after the batch it is at; one of an archive ends,
        and goes on when it is called again.

        A cycle that was broken off, because the session was closed, the kernel died or the job failed,
        goes on first, from its last checkpoint and with the labels there are now: with the labels
        of then, it ends as if it had never been broken off, on a CPU to the bit. After `stop`, or with
        other training options, a new cycle begins.

        Parameters
        ----------
        steps : int, >= 1, optional
            By default those that are left of a cycle that was broken off, or ``config.steps``.

        Raises
        ------
        TooFewLabelsError
            If a class has no label to learn from; the message says what is needed.
        StateError
            If the session is busy or closed.
        """
        steps = None if steps is None else TrainConfig(steps=steps).steps
        check_both_classes([*self._learnable()[1].values(), *self._elsewhere.classes().values()])
        self._give_up_embedding()  # what is left of it is the first part of the training
        before, self._stopped = self._stopped, threading.Event()
        is_over = self._stopped.is_set
        try:
            self._worker.start("train", lambda: self._engine.train(steps, is_over))
        except StateError:
            self._stopped = before  # of the job that goes on
            raise

    def score(
        self,
        archive: object = None,
        *,
        path: str | Path | None = None,
        storage_options: Mapping[str, Any] | None = None,
        client: object = None,
    ) -> None:
        """Score all images with the model that is there, or others with what ranks now; returns at once.

        Of other images, however many, the scores lie in Parquet parts and are looked at by
        `archive_scores`, while they are made, too. Called again, after a stop or a crash, it goes on
        where it was; after new labels or a training it begins another cycle, and those before are kept.

        Parameters
        ----------
        archive : path, ndarray or ImageSource, optional
            Images other than the session's, of the same bands; whatever `open_source` opens.
        path : path or URL, optional
            Folder for their scores, also one in an object store, "s3://bucket/scores"; by default where they
            are already, else one in the session folder. The session remembers it.
        storage_options : mapping of str to object, optional
            Options of fsspec for `path`, if that is a URL. Credentials are not written down.
        client : distributed.Client, optional
            Of a Dask cluster whose workers see the archive and the folder under the same paths or URLs;
            by default this machine scores.

        Raises
        ------
        NotTrainedError
            If there is no model yet, or nothing ranks that could score other images: imported scores
            cannot, where an imported model can.
        SourceError
            If the archive cannot be opened, or has other bands.
        WorkspaceError
            If `path` holds the scores of other images.
        ConfigError
            If there are options for a path that is no URL.
        StateError
            If the session is busy or closed.
        """
        if archive is not None:
            source = open_source(archive)
            self._scoring.check(source)
            folder = self._archives.place_of(source, path, storage_options)
            self._worker.start("score", lambda: self._scoring.job(source, folder, client))
            return
        if not self.step:
            raise NotTrainedError("There is no model yet. Train first: session.train().")
        self._worker.start("score", self._engine.score)

    @property
    def archive_scores(self) -> dict[str, ArchiveScores]:
        """The scores of all archives of this session, by name; each looked at where it lies."""
        return self._archives.scores()

    @property
    def archives(self) -> dict[str, Archive]:
        """The images other than its own that the session has scored, or begun to, by name."""
        return self._archives.known()

    def archive(self, name: str) -> Archive:
        """Return one of the archives, by its name or by its title where no other has it.

        Raises
        ------
        LabelError
            If there is none.
        """
        return self._archives.named(name)

    def archive_of(self, image_id: str) -> Archive | None:
        """Return the archive that an image is of, by its name; None for the session's own."""
        return None if image_id in self._index else self._archives.of(image_id)

    def pause(self) -> None:
        """Hold the job before its next step; the model and the place are kept."""
        self._worker.pause()

    def resume(self) -> None:
        """Go on with a paused job."""
        self._worker.resume()

    def stop(self) -> None:
        """End the job after its present step and keep the model; returns at once.

        The next `train` begins a new cycle. To go on later with this one, `pause` it, or `close` the session.
        """
        self._stopped.set()
        self._worker.stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the job has ended, and raise what it raised; for scripts."""
        self._worker.wait(timeout_s)

    def close(self) -> None:
        """Stop what runs, keep everything, and give the folder free; closing twice does no harm.

        A training goes on when the session is opened again, see `train`.
        """
        try:
            self._worker.close()
        finally:
            self._teaching.close()
            self._tiers.close()
            self.labels.close()
            self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_up_embedding(self) -> None:
        if self.job == "embed":
            self._worker.stop()
            with contextlib.suppress(AmatchError, TimeoutError):  # the next job meets it again
                self._worker.wait(_PATIENCE_S)

    def _prepared(self, image: Preprocess) -> Iterator[Event]:
        """Prepare images otherwise, then embed them; on the worker's thread."""
        if image != self.image:
            manifest = dataclasses.replace(self._manifest, image=image)
            manifest.write(self._workspace, self.source)
            self._manifest = manifest
            self._pool.prepare(image)
            self._tiers.prepare()
            yield ImagesPrepared()
        yield from self._engine.embed()

    def _keep_measured(self, has_up: bool, embeddings: dict[str, Any]) -> None:  # noqa: FBT001
        """Note in the manifest what was measured of the images; on the worker's thread."""
        manifest = dataclasses.replace(self._manifest, has_up=has_up, embeddings=embeddings)
        if manifest != self._manifest:
            self._manifest = manifest
            manifest.write(self._workspace, self.source)

    # ---- what leaves the session ------------------------------------------------------------

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

    # ---- display ----------------------------------------------------------------------------

    def show(self, archive: str = "") -> Any:
        """Return a new dashboard of this session, for the last line of a cell.

        Parameters
        ----------
        archive : str, optional
            Name of the archive to look at first; see `archives`.

        Raises
        ------
        LabelError
            If there is no such archive.
        """
        if archive:
            self.archive(archive)
        # By name and at the call: the engine must not pull widgets in (see the import contracts).
        dashboard = importlib.import_module("amatch_widgets.widgets").Dashboard(self)
        if archive:
            dashboard.gallery.browse(archive)
        return dashboard

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.show()._repr_mimebundle_(**options)
        # What a notebook shows where its kernel is gone.
        return {**bundle, "text/plain": repr(self)} if isinstance(bundle, dict) else bundle


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "session"
