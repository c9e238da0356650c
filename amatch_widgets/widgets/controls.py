"""The controls: train, pause, resume, stop, score, and how far the work has got."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from traitlets import Bool, Dict, Float, Int, Unicode

from amatch_widgets.errors import ConfigError
from amatch_widgets.events import (
    ArchiveBegun,
    EmbeddingProgress,
    Event,
    ScoringProgress,
    StateChanged,
    StepDone,
)
from amatch_widgets.images.host import is_url
from amatch_widgets.images.joined import Subset
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.view import Desk, handler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amatch_widgets.session import Session

__all__ = ["Controls", "duration"]

_ALLOWED: dict[str, tuple[str, ...]] = {
    "idle": ("train", "score", "embed"),
    "failed": ("train", "score", "embed"),
    "running": ("pause", "stop"),
    "paused": ("resume", "stop"),
    "closed": (),
}
_JOBS = {"embed": "Making embeddings", "train": "Training", "score": "Scoring"}
_WORDS = {
    "idle": "Ready",
    "paused": "Paused",
    "failed": "Failed: see the message",
    "closed": "Closed",
}
_MAX_STEPS = 100_000


class Controls(Part):
    """The buttons that run the engine, its state, and a progress bar.

    Thread safety: all traits are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        What the buttons act on.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one they stand alone.
    """

    template_file = (__file__, "controls.vue")

    state = Unicode("idle").tag(sync=True)
    state_text = Unicode("").tag(sync=True)
    can = Dict().tag(sync=True)
    is_embedded = Bool(False).tag(sync=True)
    steps = Int(100).tag(sync=True)
    progress = Float(-1.0).tag(sync=True)  # 0 to 1; -1: nothing is being done
    progress_text = Unicode("").tag(sync=True)
    opening = Unicode("").tag(sync=True)  # the images that are being opened, to be scored
    n_whole = Int(0).tag(
        sync=True
    )  # images that the session's own are a sample of; 0 where they are no sample

    _room: ClassVar[dict[str, str]] = {"width": "420px", "min_width": "300px", "max_width": "100%"}

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._base = Path.cwd()  # what a relative path typed here means, also after an os.chdir
        self._archive = ""  # what is being scored, where it is not the session's own images
        self._work = Newest("amatch-controls")
        super().__init__(session, desk)
        with self.desk.lock:
            self.steps = session.config.steps
            self.n_whole = len(session.source.whole) if isinstance(session.source, Subset) else 0
            self.show_all()

    def apply(self, events: Iterable[Event]) -> None:
        """Show the latest state and progress."""
        with self.desk.lock, self.hold_sync():
            for event in events:
                if isinstance(event, StateChanged):
                    self.show_all()
                elif isinstance(event, ArchiveBegun):
                    self._archive = f" {self.session.archives[event.name].title}"
                elif isinstance(event, StepDone):
                    self._show_progress(
                        event,
                        "Training",
                        f"step {event.done:,} of {event.total:,} · {event.steps_per_s:.2g} steps/s",
                    )
                elif isinstance(event, (ScoringProgress, EmbeddingProgress)):
                    doing = f"Scoring{self._archive}"
                    if isinstance(event, EmbeddingProgress):
                        doing = f"Embedding {event.archive}".rstrip()
                    rate = f" · {event.images_per_s:,.0f} images/s" if event.images_per_s else ""
                    self._show_progress(event, doing, f"{event.done:,} of {event.total:,}{rate}")

    def show_all(self) -> None:
        """Show the session's state as it is now."""
        with self.desk.lock, self.hold_sync():
            state = str(self.session.state)
            self.state = state
            job = self.session.job
            running = _JOBS.get(job or "", "Working")
            self.state_text = running if state == "running" else _WORDS.get(state, state)
            self.is_embedded = self.session.is_embedded
            allowed = _ALLOWED.get(state, ())
            if state == "running" and self.session.is_stopping:
                self.state_text, allowed = "Stopping after this step", ()
            elif self.session.is_pausing:
                self.state_text = "Pausing after this step"
            self.can = {what: what in allowed for what in _COMMANDS}
            if state not in {"running", "paused"}:
                self.progress, self.progress_text, self._archive = -1.0, "", ""
            elif self.progress < 0:
                self.progress, self.progress_text = 0.0, "Starting"

    def run(self, command: str, steps: int | None = None) -> None:
        """Hand a command to the session; it returns at once.

        Parameters
        ----------
        command : str
            One of "embed", "train", "pause", "resume", "stop" and "score".
        steps : int, optional
            Steps of this training; by default those of the session's configuration.

        Raises
        ------
        StateError
            When the present state does not allow it.
        ConfigError
            When `command` is unknown or `steps` is out of range.
        """
        if command not in _COMMANDS:
            raise ConfigError(f"Unknown command {command!r}; allowed are {', '.join(_COMMANDS)}.")
        with self.desk.lock:
            if command == "train":
                if steps is not None and not 1 <= steps <= _MAX_STEPS:
                    raise ConfigError(f"{steps} steps cannot be trained; allowed are 1 to {_MAX_STEPS:,}.")
                if steps is not None:
                    self.steps = steps
                self.session.train(steps)
            else:
                getattr(self.session, command)()
            self.show_all()

    def score_archive(self, path: str) -> None:
        """Begin to score other images than the session's own; they are opened in the background.

        Parameters
        ----------
        path : str
            Path or URL of whatever `open_source` opens.

        Raises
        ------
        ConfigError
            When no path is given.
        """
        path = path.strip()
        if not path:
            raise ConfigError("Type where the images are: a folder, or a file such as survey.zarr.")
        self._open(path, path if is_url(path) else self._base / Path(path).expanduser())

    def score_whole(self) -> None:
        """Begin to score all images, of which the session's own are a sample.

        Raises
        ------
        ConfigError
            When they are no sample.
        """
        source = self.session.source
        if not isinstance(source, Subset):
            raise ConfigError("The images of this session are no sample: Score goes through all of them.")
        self._open(f"all of {source.name}", source.whole)

    def close(self) -> None:
        """End the background work and take the controls off the screen."""
        if getattr(self, "_work", None) is not None:
            self._work.close()
        super().close()

    @handler("Scoring other images")
    def vue_do_score_archive(self, data: dict[str, Any]) -> None:
        """Score what a path leads to."""
        self.score_archive(str(data.get("path") or ""))

    @handler("Scoring all images")
    def vue_do_score_whole(self, _: object) -> None:
        """Score all images, of which the session's own are a sample."""
        self.score_whole()

    @handler("The command")
    def vue_do_run(self, data: dict[str, Any]) -> None:
        """Run what a button says."""
        steps = data.get("steps")
        try:
            number = None if steps in (None, "") else int(steps)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{steps!r} is no number of steps; type a whole number, e.g. 100.") from error
        self.run(str(data.get("command")), number)

    def _open(self, name: str, images: object) -> None:
        with self.desk.lock:
            self.opening = name
            self._work.do("open", lambda: self._begin(images))

    def _begin(self, images: object) -> None:
        """Open images and score them; on the background thread, as ten million ids take seconds."""
        failure: Exception | None = None
        try:
            self.session.score(images)
        except Exception as error:  # noqa: BLE001 (one of the three borders)
            failure = error
        with self.desk.lock, self.hold_sync():
            self.opening = ""
            if failure is not None:
                self.desk.report(failure, "Scoring other images")
            self.show_all()

    def _show_progress(
        self, event: StepDone | ScoringProgress | EmbeddingProgress, doing: str, so_far: str
    ) -> None:
        if self.progress < 0:
            return  # a late event of work that has ended
        if self.can["stop"] and self.state == "running":
            self.state_text = doing
        self.progress = event.done / event.total if event.total else 0.0
        is_known = 0 <= event.seconds_left < float("inf")
        self.progress_text = f"{so_far} · {duration(event.seconds_left)} left" if is_known else so_far


_COMMANDS = ("embed", "train", "pause", "resume", "stop", "score")


def duration(seconds: float) -> str:
    """Write a time span as one reads it: "42 s", "3 min 20 s", "1 h 5 min".

    Parameters
    ----------
    seconds : float
        Seconds; what is not finite or negative is unknown and gives "some time".

    Returns
    -------
    str
        Rounded to seconds below an hour, else to minutes.
    """
    if not 0 <= seconds < float("inf"):
        return "some time"
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 (seconds in a minute)
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 (minutes in an hour)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
