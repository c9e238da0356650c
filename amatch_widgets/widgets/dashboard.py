"""The dashboard: gallery, controls, plots, map, counts and messages of one session."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
from traitlets import Dict, Instance, Int, List, Unicode

from amatch_widgets.errors import ConfigError, StateError
from amatch_widgets.events import (
    CycleDone,
    Event,
    LabelsChanged,
    ProblemFound,
    ScoresChanged,
)
from amatch_widgets.widgets.controls import Controls
from amatch_widgets.widgets.detail import Detail
from amatch_widgets.widgets.frame import Frame
from amatch_widgets.widgets.gallery import Gallery
from amatch_widgets.widgets.live import SILENCE_S
from amatch_widgets.widgets.logfile import keep_log
from amatch_widgets.widgets.map import Map
from amatch_widgets.widgets.messages import Messages
from amatch_widgets.widgets.past import Past
from amatch_widgets.widgets.plots import Plots
from amatch_widgets.widgets.preview import Preview
from amatch_widgets.widgets.pump import Pump
from amatch_widgets.widgets.view import Desk, View, handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.session import Session

__all__ = ["Dashboard"]

_PROBLEMS_SHOWN = 200
_COUNT_CHANGES = (LabelsChanged, ProblemFound, ScoresChanged, CycleDone)


class Dashboard(View):
    """All that a hunt needs on one screen: look, label, train, judge, export.

    One that is opened while the session has nothing to do begins to make the embeddings, where
    there are none: with them the images are ranked after the first labels.

    Several dashboards of one session agree with each other. `close` ends a dashboard; one that
    is no longer on any screen goes to sleep by itself.

    Thread safety: all traits and attributes are guarded by ``desk.lock``; engine events come in
    on the pump's thread.

    Parameters
    ----------
    session : Session
        What is shown; it stays open when the dashboard is closed.
    """

    template_file = (__file__, "dashboard.vue")

    frame = Instance(Frame).tag(sync=True, **ipywidgets.widget_serialization)
    log = Instance(Messages).tag(sync=True, **ipywidgets.widget_serialization)
    gallery = Instance(Gallery).tag(sync=True, **ipywidgets.widget_serialization)
    preview = Instance(Preview).tag(sync=True, **ipywidgets.widget_serialization)
    detail = Instance(Detail).tag(sync=True, **ipywidgets.widget_serialization)
    controls = Instance(Controls).tag(sync=True, **ipywidgets.widget_serialization)
    plots = Instance(Plots).tag(sync=True, **ipywidgets.widget_serialization)
    map = Instance(Map).tag(sync=True, **ipywidgets.widget_serialization)
    past = Instance(Past).tag(sync=True, **ipywidgets.widget_serialization)
    name = Unicode("").tag(sync=True)
    folder = Unicode("").tag(sync=True)
    counts = Dict().tag(sync=True)
    problems: Any = List().tag(sync=True)
    n_problems = Int(0).tag(sync=True)
    export_path = Unicode("").tag(sync=True)

    def __init__(self, session: Session) -> None:
        self._problems: dict[str, str] = {}  # met while looking: the session lists those met at work
        self._pump: Pump | None = None
        self._heard = time.monotonic()
        self._is_asleep = False
        self._base = Path.cwd()  # what a relative path typed here means, also after an os.chdir
        self._end_log = keep_log(session.path / "dashboard.log")
        desk = Desk()
        self.frame = Frame(session, desk, self._hear)
        self.log = Messages(session, desk)
        self.gallery = Gallery(session, desk)
        self.detail = Detail(
            session,
            desk,
            use=self.gallery.render,
            left=self.gallery.stop_looking,
            hides=self.gallery.hides,
            rendering=self.gallery.rendering,
        )
        self.gallery.on_look(self.detail.show)
        self.gallery.on_render(self.detail.note_used)
        self.controls = Controls(session, desk)
        self.plots = Plots(session, desk, gallery=self.gallery)
        self.map = Map(session, desk, gallery=self.gallery)
        self.past = Past(session, desk, self.gallery)
        self.preview = Preview(session, desk)
        super().__init__(session, desk)
        with desk.lock:
            self.name = session.source.name
            self.folder = str(session.path)
            self.export_path = self._in_short(session.path.resolve() / "shortlist.csv")
            self._show_counts()
        for notice in session.notices:
            desk.say("warning", notice)
        self._pump = Pump(session.hub, self)
        self._embed_if_idle()

    def apply(self, events: list[Event]) -> float | None:  # type: ignore[override]
        """Bring all parts up to date; called on the pump's thread.

        Parameters
        ----------
        events : list of Event
            What has happened since the last call.

        Returns
        -------
        float or None
            Seconds after which the plots want another call; None when they show all there is.
        """
        with self.desk.lock:
            if time.monotonic() - self._heard > SILENCE_S and not self._is_asleep:
                self._is_asleep = True
                self.gallery.forget_images()
            for event in events:  # kept while asleep too: what went wrong must be read
                self.desk.tell(event)
                if isinstance(event, ProblemFound):
                    self._problems[event.image_id] = event.reason
            if self._is_asleep:
                return None
        self._shielded(self.controls.apply, events)
        self._shielded(self.gallery.apply, events)
        self._shielded(self.detail.apply, events)
        self._shielded(self.past.apply, events)
        self._shielded(self.map.apply, events)
        self._shielded(self.preview.apply, events)
        if any(isinstance(event, _COUNT_CHANGES) for event in events):
            self._shielded(self._show_counts)
        return self._shielded(self.plots.apply, events)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages on screen, the oldest first."""
        return list(self.log.messages)

    def show_all(self) -> None:
        """Bring all parts up to date with what the session knows."""
        for part in (self.controls, self.gallery, self.detail, self.plots, self.map, self.past, self.preview):
            self._shielded(part.show_all)
        self._shielded(self._show_counts)

    def close(self) -> None:
        """End the dashboard: its thread, its subscription and its place on the screen."""
        pump = getattr(self, "_pump", None)
        if pump is not None:
            self._pump = None
            pump.close()
        parts = (
            self.map,
            self.frame,
            self.log,
            self.gallery,
            self.detail,
            self.controls,
            self.plots,
            self.past,
            self.preview,
        )
        for part in parts:
            if part is not None:
                part.close()
        getattr(self, "_end_log", bool)()
        super().close()

    # What the browser asks for.

    @handler("Exporting")
    def vue_do_export(self, data: dict[str, Any]) -> None:
        """Write the shortlist on a thread of its own; it may be long."""
        path = str(data.get("path") or "").strip()
        if not path:
            raise ConfigError("Type the name of the CSV file to write, e.g. shortlist.csv.")
        self.export_path = path
        n = data.get("n")
        number = None if n in (None, "") else int(n)
        self._write("Exporting", "The shortlist is", lambda: self.session.export(self._base / path, number))

    @handler("Writing the report")
    def vue_do_report(self, _data: dict[str, Any]) -> None:
        """Write the report into the session folder, on a thread of its own."""
        self._write("Writing the report", "The report is", self.session.report)

    @handler("Drawing the figures")
    def vue_do_figures(self, _data: dict[str, Any]) -> None:
        """Write the figures for a paper into the session folder, on a thread of its own."""
        self._write("Drawing the figures", "The figures are", lambda: self.session.figures()[0].parent)

    def _embed_if_idle(self) -> None:
        session = self.session
        if session.is_embedded or session.is_busy:
            return
        try:
            session.embed()
        except StateError:  # closed, or busy since: another dashboard was quicker
            pass
        except Exception as error:  # noqa: BLE001 (a border: the dashboard opens all the same)
            self.desk.report(error, "Making the embeddings")

    def _write(self, doing: str, what: str, write: Callable[[], Path]) -> None:
        """Write something on a thread of its own, and say where it is or why it is not."""

        def work() -> None:
            try:
                written = write()
            except Exception as error:  # noqa: BLE001 (one of the three borders)
                self.desk.report(error, doing)
            else:
                self.desk.say("info", f"{what} in {self._in_short(written)}")

        threading.Thread(target=work, name="amatch-write", daemon=True).start()

    def _in_short(self, path: Path) -> str:
        return str(path.relative_to(self._base) if path.is_relative_to(self._base) else path)

    def _shielded(self, show: Callable[..., float | None], *args: object) -> float | None:
        try:
            return show(*args)
        except Exception as error:  # noqa: BLE001 (one of the three borders)
            self.desk.report(error, "Showing what is new")
            return None

    def _hear(self) -> None:
        """Take note that a browser shows the dashboard, and wake up."""
        self._heard = time.monotonic()
        if self._is_asleep:
            self._is_asleep = False
            self.show_all()

    def _show_counts(self) -> None:
        session = self.session
        kept = session.own_labels.counts()
        held_out = len(session.labels.for_split("test"))
        problems = self._problems | session.problems
        shown = [[image_id, problems[image_id]] for image_id in itertools.islice(problems, _PROBLEMS_SHOWN)]
        with self.desk.lock, self.hold_sync():
            self.counts = {
                "images": len(session.source),
                "anomalies": kept.get("anomaly", 0),
                "normals": kept.get("normal", 0),
                "held_out": held_out,
            }
            self.n_problems = len(problems)
            self.problems = shown
