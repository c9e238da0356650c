"""The map: a sample of the images in two dimensions, hand in hand with the gallery."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from traitlets import Bool, Dict, Unicode

from amatch_widgets.errors import ConfigError, ImageReadError, NotTrainedError, StateError
from amatch_widgets.events import Event, LabelsChanged, ScoresChanged
from amatch_widgets.widgets.closeup import standing_rows
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.thumbnails import data_url
from amatch_widgets.widgets.view import Desk, handler, in_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from amatch_widgets.query.layout import Method
    from amatch_widgets.session import Session
    from amatch_widgets.session.atlas import ImageMap
    from amatch_widgets.widgets.blind import Blind
    from amatch_widgets.widgets.gallery import Gallery

__all__ = ["Map"]

_log = logging.getLogger(__name__)
_THUMBNAIL_PX = 128
METHODS: tuple[Method, ...] = ("pca", "umap")
_MARKS = {"anomaly": 1, "normal": 2}


class Map(Part):
    """Images as points, alike ones close together; alone, or beside a gallery.

    Beside a gallery, a click on a point leads to that image, a rectangle lists the images in it, or
    selects those of the gallery's page; these are outlined, and what is selected is marked. Alone,
    what was clicked is in `chosen`.

    The map is made on a background thread when a browser first shows it, and by `refresh`; once more
    where images were missing then for want of their embeddings. Labels and scores change the points'
    looks, and never their places. The points go to the browser as bytes in messages and are in no
    trait, so that a saved notebook holds none.

    Thread safety: all traits and attributes are guarded by ``desk.lock``, which is not held while the
    map is made or a thumbnail is read.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard, by default the gallery's; without either,
        the map stands alone.
    gallery : Gallery, optional
        Of the same dashboard.
    method : {"pca", "umap"}
        How the map is made; see `Session.map`.
    """

    template_file = (__file__, "map.vue")

    method = Unicode("pca").tag(sync=True)
    is_linked = Bool(False).tag(sync=True)  # to a gallery
    is_busy = Bool(False).tag(sync=True)
    counts = Dict({"drawn": 0, "images": 0, "anomalies": 0, "normals": 0}).tag(sync=True)
    note = Unicode("").tag(sync=True)
    # The points of the tiles of the gallery's page, -1 for those not on the map.
    page = Dict({"serial": -1, "number": 0, "points": []}).tag(sync=True)

    def __init__(
        self,
        session: Session,
        desk: Desk | None = None,
        *,
        gallery: Gallery | None = None,
        method: Method = "pca",
    ) -> None:
        desk = gallery.desk if desk is None and gallery is not None else desk
        self._gallery = gallery
        self._numbers = itertools.count(1)
        self.number = 0  # of the map: on another, the points are counted anew
        self._drawn: ImageMap | None = None
        self._points: dict[str, int] = {}
        self._blind: Blind | None = None  # of the gallery when the points were last drawn
        self._is_wanted = False  # some browser has shown it
        self._is_whole = False  # every image had its embedding when it was made
        self._work = Newest("amatch-map")
        self.chosen: tuple[str, ...] = ()
        super().__init__(session, desk)
        with self.desk.lock:
            self.is_linked, self.method = gallery is not None, method
        if gallery is not None:
            gallery.observe(self._show_page, "page")

    def refresh(self) -> None:
        """Make the map anew, in the background."""
        with self.desk.lock:
            self._is_wanted = self.is_busy = True
            self._work.do("make", self._make)

    def choose(self, method: Method) -> None:
        """Make the map by another method; the one there is stays until then, or if it cannot be made.

        Raises
        ------
        ConfigError
            If there is no such method.
        """
        if method not in METHODS:
            raise ConfigError(f"Unknown method {method!r} of a map; allowed are {', '.join(METHODS)}.")
        with self.desk.lock:
            if method != self.method:
                self.method = method
                self.refresh()

    def apply(self, events: Iterable[Event]) -> None:
        """Show new labels and scores; make the map where embeddings have come that it lacks."""
        kinds = {type(event) for event in events}
        with self.desk.lock:
            if not self._is_wanted:
                return
            is_new = self.session.is_embedded or (self._drawn is None and ScoresChanged in kinds)
            if is_new and not self._is_whole and not self.is_busy:
                self.refresh()
            elif kinds & {LabelsChanged, ScoresChanged}:
                self._send_states()

    def show_all(self) -> None:
        """Show the labels and scores as they are now."""
        with self.desk.lock:
            self._send_states()

    def close(self) -> None:
        """End the background work and take the map off the screen."""
        if getattr(self, "_work", None) is not None:
            self._work.close()
        gallery, self._gallery = getattr(self, "_gallery", None), None
        if gallery is not None:
            gallery.unobserve(self._show_page, "page")
        super().close()

    # What the browser asks for.

    @handler("Drawing the map")
    def vue_want(self, _data: dict[str, Any]) -> None:
        """Send the points to a browser that has just drawn the map; the first one has it made."""
        if self._drawn is not None:
            self._send_points()
        elif not self.is_busy:
            self.refresh()

    @handler("Making the map")
    def vue_do_refresh(self, _data: dict[str, Any]) -> None:
        """Make the map anew."""
        self.refresh()

    @handler("Changing the map")
    def vue_do_choose(self, data: dict[str, Any]) -> None:
        """Make the map by another method."""
        self.choose(data.get("method"))  # type: ignore[arg-type]  # it is checked there

    @handler("Showing a point")
    def vue_do_peek(self, data: dict[str, Any]) -> None:
        """Say what image a point is, and send its thumbnail."""
        if data.get("number") != self.number:
            return  # the points are others by now
        point, image_id = self._point(data)
        rows = [["Hidden", "until it is labelled again"]]
        if image_id not in self._hidden():
            rows = standing_rows(self.session, image_id)
        facts = {"id": image_id, "rows": rows, "url": "", "problem": ""}
        self.send({"method": "peek", "args": [self.number, point, facts]})
        number = self.number
        self._work.do("peek", lambda: self._send_thumbnail(number, point, facts))

    @handler("Going to an image")
    def vue_do_pick(self, data: dict[str, Any]) -> None:
        """Bring the gallery to the image of a point."""
        _, image_id = self._point(data)
        self.chosen = (image_id,)
        if self._gallery is not None:
            self._gallery.show_image(image_id)

    @handler("Listing a part of the map")
    def vue_do_select(self, data: dict[str, Any]) -> None:
        """List the images of a rectangle, [left, top, right, bottom] in [0, 1], in the gallery."""
        drawn = self._check(data)
        left, top, right, bottom = (float(edge) for edge in data["box"])
        x, y = drawn.xy.T
        inside = np.flatnonzero((x >= left) & (x <= right) & (y >= top) & (y <= bottom))
        if not len(inside):
            self.desk.say("info", "There is no image in this part of the map.")
            return
        self.chosen = tuple(drawn.image_ids[k] for k in inside)
        if self._gallery is not None:
            n = len(inside)
            self._gallery.show_images(self.chosen, f"{n:,} {'image' if n == 1 else 'images'} of the map")

    # How it is shown; the lock is held.

    def _check(self, data: dict[str, Any]) -> ImageMap:
        """Return the map, if it is the one that the browser means."""
        if self._drawn is None or data.get("number") != self.number:
            raise StateError("The map was made anew meanwhile: please point again.")
        return self._drawn

    def _point(self, data: dict[str, Any]) -> tuple[int, str]:
        image_ids, point = self._check(data).image_ids, data.get("point")
        if not isinstance(point, int) or not 0 <= point < len(image_ids):
            raise StateError(f"There is no point {point!r} on the map.")
        return point, image_ids[point]

    def _hidden(self) -> Collection[str]:
        """Return the images of which nothing may be seen while the gallery takes a second look."""
        blind = None if self._gallery is None else self._gallery.blind
        return () if blind is None else blind.hidden

    def _send_points(self) -> None:
        """Send where all points are, two 16-bit numbers each, and their states."""
        if self._drawn is not None:
            places = np.round(self._drawn.xy * 65535).astype("<u2")
            self.send({"method": "points", "args": [self.number]}, buffers=[places.tobytes()])
            self._send_states()
            self._show_page()

    def _send_states(self) -> None:
        """Send how each point looks: a byte of its score, from 1, or 0, and a byte of its label."""
        if self._drawn is None:
            return
        scores = self.session.scores[self._drawn.indices]
        shades = np.where(np.isfinite(scores), 1 + np.round(254 * np.nan_to_num(scores)), 0).astype(np.uint8)
        marks = np.zeros(len(shades), np.uint8)
        for image_id, line in self.session.labels.current().items():
            if image_id in self._points:
                marks[self._points[image_id]] = _MARKS.get(line.label or "", 0)
        hidden = [self._points[image_id] for image_id in self._hidden() if image_id in self._points]
        shown = marks.copy()
        shades[hidden] = shown[hidden] = 0
        self.send({"method": "states", "args": [self.number]}, buffers=[shades.tobytes(), shown.tobytes()])
        self.counts = {
            "drawn": len(shades),
            "images": len(self.session.source),
            "anomalies": int((marks == _MARKS["anomaly"]).sum()),
            "normals": int((marks == _MARKS["normal"]).sum()),
        }

    def _show_page(self, _change: object = None) -> None:
        """Outline the images of the gallery's page; the gallery calls it with the lock held."""
        if self._gallery is not None and self._drawn is not None:
            if self._gallery.blind is not self._blind:
                self._blind = self._gallery.blind
                self._send_states()
            points = [self._points.get(i, -1) for i in self._gallery.image_ids]
            self.page = {"serial": self._gallery.page["serial"], "number": self.number, "points": points}

    # On the background thread.

    def _make(self) -> None:
        found, note, method = None, "", cast("Method", self.method)
        is_whole = self.session.is_embedded  # before: what comes meanwhile may be missing
        try:
            found = self.session.map(method=method)
        except NotTrainedError:
            note = "The map needs the embeddings of the images. It comes as soon as they are there."
        except Exception as error:  # noqa: BLE001 (a border: the reason is shown in place of the map)
            _log.exception("No map")
            if self._keep(error, method):
                return
            note = in_words(error)
        if found is not None and not is_whole:
            note = "Not all images are embedded yet. The map is made anew when they are."
        self._take(found, note, is_whole=is_whole)

    def _keep(self, error: Exception, method: Method) -> bool:
        """Stay with PCA, which needs nothing more, where another method fails; whether it stays."""
        with self.desk.lock, self.hold_sync():
            if method == METHODS[0] or self.method != method:
                return False
            self.desk.report(error, "Making the map")
            self.method, self.is_busy = METHODS[0], False
            if self._drawn is None:
                self.refresh()
            return True

    def _take(self, found: ImageMap | None, note: str, *, is_whole: bool) -> None:
        with self.desk.lock, self.hold_sync():
            self.is_busy, self.note, self._is_whole = False, note, is_whole
            if found is None:
                return
            self._drawn = found
            self._points = {image_id: k for k, image_id in enumerate(found.image_ids)}
            self.number = next(self._numbers)
            self._send_points()

    def _send_thumbnail(self, number: int, point: int, facts: dict[str, Any]) -> None:
        try:
            shown = {"url": data_url(self.session.thumbnail(facts["id"], _THUMBNAIL_PX))}
        except ImageReadError as error:
            shown = {"problem": error.reason}
        with self.desk.lock:
            if number == self.number:
                self.send({"method": "peek", "args": [number, point, facts | shown]})
