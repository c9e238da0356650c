"""Live plots: what did the looks bring, is the ranking any good, is the training going anywhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from traitlets import Bool, List, Unicode

from amatch_widgets.errors import StateError
from amatch_widgets.events import CycleDone, LabelsChanged, ScoresChanged, StepDone
from amatch_widgets.labels import CLASSES
from amatch_widgets.query.discovery import PAGE
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.charts import HEIGHT, WIDTH
from amatch_widgets.widgets.graphs import (
    discovery_chart,
    loss_chart,
    metrics_chart,
    score_chart,
    share_chart,
)
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.view import handler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from amatch_widgets.events import Event
    from amatch_widgets.learn.metrics import Estimate
    from amatch_widgets.session import Session
    from amatch_widgets.widgets.gallery import Gallery
    from amatch_widgets.widgets.view import Desk

__all__ = ["Plots"]

_PERIOD_S = 0.5
_CHANGES = (StepDone, CycleDone, ScoresChanged, LabelsChanged)


class Plots(Part):
    """Five small charts and the latest AUROC and AUPRC in words.

    Thread safety: all traits are guarded by ``desk.lock``; the charts are computed outside it.
    ``_is_due`` and ``_drawn_at`` belong to the pump's thread.

    Parameters
    ----------
    session : Session
        Whose history is drawn.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one they stand alone.
    gallery : Gallery, optional
        What is said of the next page is of one of its size; it can be made to mix in an audit.
    """

    template_file = (__file__, "plots.vue")

    headline: Any = List().tag(sync=True)
    charts: Any = List().tag(sync=True)
    box = Unicode(f"0 0 {WIDTH} {HEIGHT}").tag(sync=True)
    can_audit = Bool(False).tag(sync=True)  # whether the gallery could, and does not yet

    _room: ClassVar[dict[str, str]] = {"width": "420px", "min_width": "300px", "max_width": "100%"}

    def __init__(self, session: Session, desk: Desk | None = None, *, gallery: Gallery | None = None) -> None:
        self._is_due = False
        self._drawn_at = 0.0
        self._gallery = gallery
        self._background = Newest("amatch-plots")
        super().__init__(session, desk)
        self.show_all()
        if gallery is not None:
            gallery.observe(self._on_gallery, ["per_page", "sort", "only"])

    def apply(self, events: Iterable[Event]) -> float | None:
        """Draw what has changed, at most twice a second, and the last change always."""
        if any(isinstance(event, _CHANGES) for event in events):
            self._is_due = True
        if not self._is_due:
            return None
        wait_s = self._drawn_at + _PERIOD_S - time.monotonic()
        if wait_s > 0:
            return wait_s
        self._is_due = False
        try:
            self.show_all()
        finally:
            self._drawn_at = time.monotonic()
        return None

    def show_all(self) -> None:
        """Draw the session's history, metrics and scores as they are now."""
        session = self.session
        history = session.history
        steps = list(history.steps)
        charts = [
            self._discovery_chart(),
            metrics_chart(list(history.cycles)),
            loss_chart(steps),
            share_chart(steps, session.config.threshold),
            score_chart(session.scores, session.ranked_by, session.scores_cycle, _labelled_scores(session)),
        ]
        metrics = session.metrics
        headline = [
            {"name": "AUROC", **_in_short(metrics.auroc)},
            {"name": "AUPRC", **_in_short(metrics.auprc)},
        ]
        if not headline[0]["value"] and headline[0]["interval"] == headline[1]["interval"]:
            headline = [headline[0] | {"name": "AUROC and AUPRC"}]  # the same reason need not be read twice
        with self.desk.lock, self.hold_sync():
            self.headline = headline
            self.charts = charts
            self._show_can_audit()

    def close(self) -> None:
        """End the background work and take the plots off the screen."""
        background = getattr(self, "_background", None)
        if background is not None:
            background.close()
            if self._gallery is not None:
                self._gallery.unobserve(self._on_gallery, ["per_page", "sort", "only"])
                self._gallery = None
        super().close()

    @handler("Mixing in an audit")
    def vue_do_audit(self, _data: dict[str, Any]) -> None:
        """Let the gallery show pages with an audit, which tell what is left."""
        if self._gallery is None:
            raise StateError("There is no gallery here. Choose the order “Mixed, with audit” in one.")
        # A filter would take images out of reach of the audit.
        self._gallery.choose(sort="mixed", only=Filter())
        self._gallery.show_ranking()

    def _discovery_chart(self) -> dict[str, Any]:
        session, gallery = self.session, self._gallery
        return discovery_chart(
            session.discovery, session.outlook_for(PAGE if gallery is None else gallery.per_page)
        )

    def _on_gallery(self, _change: object) -> None:
        """Say what the next page is likely to bring, which may be of another size now; off the handler."""
        self._background.do("outlook", self._show_outlook)

    def _show_outlook(self) -> None:
        chart = self._discovery_chart()
        with self.desk.lock, self.hold_sync():
            self.charts = [chart, *self.charts[1:]]
            self._show_can_audit()

    def _show_can_audit(self) -> None:
        gallery = self._gallery
        self.can_audit = gallery is not None and (
            gallery.sort != "mixed" or not Filter(**gallery.only).is_open
        )


def _labelled_scores(session: Session) -> dict[str, NDArray[np.float32]]:
    """Return the known scores of the images that have a label now, by class."""
    scores, labels = session.scores, session.labels.current()
    found = {}
    for kind in reversed(CLASSES):
        values = scores[session.places(i for i, line in labels.items() if line.label == kind)]
        found[kind] = values[np.isfinite(values)]
    return found


def _in_short(estimate: Estimate) -> dict[str, str]:
    """Give the number, its interval, what both rest on, and the whole of it to hover over."""
    if estimate.value is None:
        return {"value": "", "interval": repr(estimate), "counts": "", "whole": repr(estimate)}
    anomalies = "anomaly" if estimate.n_anomalies == 1 else "anomalies"
    return {
        "value": f"{estimate.value:.3f}",
        "interval": f"[{estimate.low:.3f}, {estimate.high:.3f}]",
        "counts": f"{estimate.n_anomalies:,} {anomalies} of {estimate.n_total:,}",
        "whole": repr(estimate),
    }
