"""Pages of thumbnails: how the tiles look, how they reach the browser, and what looks the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from traitlets import Dict, Int, Unicode

from amatch_widgets.events import ProblemFound
from amatch_widgets.images.render import Rendering
from amatch_widgets.widgets.habits import LONGEST_NAME, TILE_SIZES, Habits
from amatch_widgets.widgets.labelling import Labelling
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.thumbnails import Look, Thumbnail, ThumbnailLoader
from amatch_widgets.widgets.view import Desk, handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.session import Session

__all__ = ["Pages"]

_HABITS = "view.json"  # in the session folder
_TWINS_SHOWN = 20


class Pages(Labelling):
    """A view that shows the images of a page; see `Gallery`, which says which these are.

    Tile and page size, the rendering and the annotator's name are kept in the session folder for the
    next time; a name that the session was given comes before that.

    Images go to the browser as messages and are in no trait, so that a saved notebook holds none.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.
    """

    per_page = Int().tag(sync=True)
    tile_size = Unicode().tag(sync=True)
    tile_px = Int().tag(sync=True)
    css_filter = Unicode("").tag(sync=True)
    rendering_note = Unicode("").tag(sync=True)
    twins = Dict().tag(sync=True)

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._habits = Habits.read(session.path / _HABITS)
        self._rendering = self._habits.rendering
        self._rendered: Callable[[Rendering], None] = lambda _: None
        self._problems_told: set[str] = set()
        self._sought = 0  # the page whose twins were looked for last
        self._loader = ThumbnailLoader(self._thumbnail, self._deliver)
        self._background = Newest("amatch-gallery")
        super().__init__(session, desk)
        self._use_habits()

    @property
    def rendering(self) -> Rendering:
        """How the images are shown."""
        return self._rendering

    def render(self, rendering: Rendering) -> None:
        """Show all images so; no tile moves."""
        with self.desk.lock, self.hold_sync():
            old, self._rendering = self._rendering, rendering
            self.css_filter, self.rendering_note = rendering.css_filter, rendering.summary
            self._rendered(rendering)
            self._keep_habits()
            if rendering.pixels != old.pixels:
                self._send_images()

    def on_render(self, rendered: Callable[[Rendering], None]) -> None:
        """Call `rendered` whenever the images are rendered in another way."""
        self._rendered = rendered

    def forget_images(self) -> None:
        """Free the thumbnails; they are made again when they are looked at."""
        self._loader.forget()

    def close(self) -> None:
        """End the loader's threads and take the pages off the screen."""
        for worker in (getattr(self, "_loader", None), getattr(self, "_background", None)):
            if worker is not None:
                worker.close()
        super().close()

    # What the browser asks for.

    @handler("Showing the images as usual")
    def vue_do_plain(self, _data: dict[str, Any]) -> None:
        """Take back how the images are rendered."""
        self.render(Rendering())

    @handler("Loading the images")
    def vue_want_images(self, _data: dict[str, Any]) -> None:
        """Send the images of the page to a browser that has just drawn the gallery."""
        self._send_images()

    # The lock is held.

    def _ahead(self) -> list[str]:
        """Return the ids of the images of the next page, as it would be now."""
        raise NotImplementedError

    def _use_habits(self) -> None:
        habits = self._habits
        self.session.annotator = self.session.annotator or habits.annotator
        with self.desk.lock, self.hold_sync():
            self.per_page, self.tile_size = habits.per_page, habits.tile_size
            self.tile_px = TILE_SIZES[habits.tile_size][0]
            self.css_filter, self.rendering_note = habits.rendering.css_filter, habits.rendering.summary

    def _keep_habits(self) -> None:
        """Keep how the images are shown, and to whom, in the background: the folder may be far away."""
        path, name = self.session.path / _HABITS, self.session.annotator[:LONGEST_NAME]
        habits = Habits(self.per_page, self.tile_size, self._rendering, name)
        if habits != self._habits:
            self._habits = habits
            self._background.do("habits", lambda: habits.write(path))

    def _look(self) -> Look:
        return Look(TILE_SIZES[self.tile_size][1], self._rendering.pixels, self.session.image)

    def _thumbnail(self, image_id: str, look: Look) -> bytes:
        """Make a thumbnail; on the loader's threads."""
        return self.session.thumbnail(image_id, look.side, look.rendering)

    def _send_images(self) -> None:
        look, serial = self._look(), self.page["serial"]
        found = self._loader.show(serial, self.image_ids, look)
        if found:
            self._deliver(serial, look, found)
        self._fetch_ahead()

    def _fetch_ahead(self) -> None:
        """Make the thumbnails of the next page."""
        self._loader.fetch_ahead(self._ahead(), self._look())

    def _deliver(self, serial: int, look: Look, thumbnails: list[tuple[int, Thumbnail]]) -> None:
        with self.desk.lock:
            if look != self._look():  # it came late
                return
            images = [[position, t.url, t.problem] for position, t in thumbnails]
            self.send({"method": "images", "args": [serial, images]})
            image_ids = list(self._pages.get(serial, ()))
            found = {image_ids[k]: t.problem for k, t in thumbnails if t.problem and k < len(image_ids)}
            new = {i: reason for i, reason in found.items() if i not in self._problems_told}
            self._problems_told.update(new)
        for image_id, reason in new.items():  # so that all dashboards list it
            self.session.hub.publish(ProblemFound(image_id, reason))

    def _look_for_twins(self) -> None:
        """Find in the background which images look the same as those of the page; a million take seconds."""
        serial, image_ids = self.page["serial"], self.image_ids
        self._alike = {}
        if self.session.is_embedded:
            self._sought = serial
            self._background.do("twins", lambda: self._use_twins(serial, self.session.twins(image_ids)))

    def _use_twins(self, serial: int, twins: dict[str, list[str]]) -> None:
        with self.desk.lock, self.hold_sync():
            if serial == self.page["serial"]:  # else the page has turned
                self._alike = {i: twins.get(i, []) for i in self.image_ids}
                self._label_awaited(self._alike)
                self.twins = {
                    "serial": serial,
                    "ids": [twins.get(i, [])[:_TWINS_SHOWN] for i in self.image_ids],
                }

    def _look_for_awaited(self) -> None:
        # Behind the search for the page, which may have found them.
        self._background.do("awaited", self._use_awaited)

    def _use_awaited(self) -> None:
        with self.desk.lock:
            image_ids = list(self._awaited)
        if image_ids and self.session.is_embedded:  # else they wait on
            twins = self.session.twins(image_ids)
            with self.desk.lock, self.hold_sync():
                self._label_awaited({i: twins.get(i, []) for i in image_ids})
