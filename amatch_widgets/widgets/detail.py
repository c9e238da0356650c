"""The detail view: one image seen closely, how it is rendered, what is near it and known of it."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any, Self

from traitlets import Bool, Dict, Int, List, Unicode

from amatch_widgets.errors import AmatchError, ImageReadError, LabelError
from amatch_widgets.events import Event, ImagesPrepared, LabelsChanged, ScoresChanged
from amatch_widgets.images.render import Rendering
from amatch_widgets.widgets.closeup import Closeup, known_rows, nearest_labelled, sky_links, standing_rows
from amatch_widgets.widgets.heat import explained
from amatch_widgets.widgets.judging import Judging
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.thumbnails import data_url
from amatch_widgets.widgets.view import Desk, handler, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amatch_widgets.session import Session

__all__ = ["Detail"]

_log = logging.getLogger(__name__)
_PLAIN = Rendering()
_N_NEIGHBOURS = 6
_NEIGHBOUR_PX = 96


class Detail(Judging):
    """One image seen closely; alone (``Detail(session).show(image_id)``) or over a gallery.

    The image is read on a background thread, in full and once; its picture goes to the browser as a
    message and is in no trait, and so does the map of why it scored so. Up to 2048 pixels a side it
    is sent whole and without loss. A larger one is sent reduced, and the part in sight follows at
    full resolution when it is zoomed in.

    Over a gallery, keys that are not the detail's own mean the gallery: it labels and moves its
    cursor, and the detail goes with it; tags and notes that are written here are the gallery's too. A
    neighbour that was clicked is not on the gallery's page: until the way back, what is said of it
    is the detail's own.

    Thread safety: all traits and attributes are guarded by ``desk.lock``, which is not held while
    an image is read or drawn. ``_closeup`` and ``_known`` are set by the background thread alone.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one the detail stands alone.
    use : callable, optional
        Takes a `Rendering` for the gallery below; without it the detail is on its own.
    left : callable, optional
        Called when the user leaves the detail.
    hides : callable, optional
        Takes an id; whether the user is to judge the image without seeing what was said of it.
    rendering : Rendering, optional
        How images are shown at first, here and in the gallery.
    """

    template_file = (__file__, "detail.vue")

    is_open = Bool(False).tag(sync=True)
    closed = Unicode("").tag(sync=True)  # the token of the browser that closed it last
    is_guest = Bool(False).tag(sync=True)  # of a gallery
    number = Int(0).tag(sync=True)  # of the request: what arrives for an older one is not shown
    home = Unicode("").tag(sync=True)  # the image that was opened, where a neighbour is shown
    facts: Any = List().tag(sync=True)
    standing: Any = List().tag(sync=True)
    links: Any = List().tag(sync=True)
    neighbours: Any = List().tag(sync=True)
    neighbours_note = Unicode("").tag(sync=True)
    n_channels = Int(1).tag(sync=True)
    bands: Any = List().tag(sync=True)  # their names, where they have any
    colours = Unicode("").tag(sync=True)  # what all channels together are
    rendering = Dict().tag(sync=True)
    is_used = Bool(True).tag(sync=True)  # whether the gallery is rendered so

    def __init__(
        self,
        session: Session,
        desk: Desk | None = None,
        *,
        use: Callable[[Rendering], None] | None = None,
        left: Callable[[], None] | None = None,
        hides: Callable[[str], bool] = lambda _: False,
        rendering: Rendering = _PLAIN,
    ) -> None:
        self._use, self._left = use, left
        self._numbers = itertools.count(1)
        self._rendering = self._used = rendering
        self._closeup: Closeup | None = None
        # What the source knows of one image, which it may have to look up far away.
        self._known: tuple[str, list[list[str]]] = "", []
        self._work = Newest("amatch-detail")
        self._why = Newest("amatch-why")  # beside it: an answer may have to wait for a step of a training
        super().__init__(session, desk, hides=hides)
        with self.desk.lock:
            self.is_guest = use is not None
            self.rendering = self._rendering.to_dict()

    def show(self, image_id: str) -> Self:
        """Show an image; returns the detail itself, for the last line of a cell.

        Raises
        ------
        LabelError
            If there is no such id.
        """
        with self.desk.lock:
            self._visit(image_id, home=image_id)
        return self

    def leave(self) -> None:
        """Show nothing any more."""
        with self.desk.lock:
            self._work.clear()
            self._why.clear()
            self._work.do("forget", self._forget)
            with self.hold_sync():
                self.is_open, self.kept = False, []
        if self._left is not None:
            self._left()

    def render(self, rendering: Rendering) -> None:
        """Show the image so."""
        with self.desk.lock, self.hold_sync():
            old, self._rendering = self._rendering, rendering
            self.rendering, self.is_used = rendering.to_dict(), rendering == self._used
            if rendering.pixels != old.pixels and self.is_open:
                self._draw()

    def note_used(self, rendering: Rendering) -> None:
        """Take note of how the gallery is rendered now."""
        with self.desk.lock:
            self._used, self.is_used = rendering, rendering == self._rendering

    def apply(self, events: Iterable[Event]) -> None:
        """Show new labels and scores."""
        with self.desk.lock, self.hold_sync():
            if not self.is_open:
                return
            labelled = [i for event in events if isinstance(event, LabelsChanged) for i in event.image_ids]
            told = [i for i in labelled if not self._hides(i)]
            if told:
                kept = self.session.labels.get(told[-1])
                self.kept = [told[-1], "" if kept is None else kept.label or ""]
            if any(isinstance(event, ImagesPrepared) for event in events):
                self._work.do("forget", self._forget)
                self._draw()
            if labelled or any(isinstance(event, ScoresChanged) for event in events):
                self._show_known()
                self._look_around()

    def show_all(self) -> None:
        """Show the labels and scores as they are now."""
        with self.desk.lock, self.hold_sync():
            if self.is_open:
                self._show_known()

    def close(self) -> None:
        """End the background work and take the detail off the screen."""
        for work in (getattr(self, "_work", None), getattr(self, "_why", None)):
            if work is not None:
                work.close()
        super().close()

    # What the browser asks for.

    @handler("Changing the rendering")
    def vue_do_render(self, data: dict[str, Any]) -> None:
        """Render anew, with some options changed."""
        try:
            self.render(Rendering.from_dict({**self._rendering.to_dict(), **data}))
        except AmatchError:
            self.send({"method": "refused", "args": []})  # the fields go back to what holds
            raise

    @handler("Rendering the gallery")
    def vue_do_use(self, _data: dict[str, Any]) -> None:
        """Render the gallery like this image."""
        self._use_for_all(self._rendering)

    @handler("Showing the images as usual")
    def vue_do_reset(self, _data: dict[str, Any]) -> None:
        """Render as by default again, the gallery too."""
        self.render(Rendering())
        self._use_for_all(self._rendering)

    @handler("Opening a neighbour")
    def vue_do_visit(self, data: dict[str, Any]) -> None:
        """Show one of the neighbours."""
        self._visit(str(data.get("id")))

    @handler("Going back")
    def vue_do_home(self, _data: dict[str, Any]) -> None:
        """Show the image again that was opened."""
        self._visit(self.home)

    @handler("Closing the image")
    def vue_do_leave(self, data: dict[str, Any]) -> None:
        """Close the detail."""
        with self.hold_sync():
            self.closed = str(data.get("token", ""))
            self.leave()

    @handler("Loading a part of the image")
    def vue_do_part(self, data: dict[str, Any]) -> None:
        """Send a part of the image at full resolution."""
        number, rendering = self.number, self._rendering.pixels
        x, y, width, height = (max(0, int(data[key])) for key in ("x", "y", "width", "height"))
        if data.get("number") == number:
            self._work.do("part", lambda: self._send_part(number, rendering, (x, y, width, height)))

    @handler("Explaining the score")
    def vue_do_why(self, data: dict[str, Any]) -> None:
        """Send a map of which parts of the image its score rests on."""
        number, image_id = self.number, self.image_id
        if data.get("number") == number and self.is_open:
            self._why.do("why", lambda: self._send_why(number, image_id))

    @handler("Loading the image")
    def vue_want(self, _data: dict[str, Any]) -> None:
        """Send the image to a browser that has just drawn the detail."""
        if self.is_open:
            self._draw()

    # How it is shown; the lock is held.

    def _visit(self, image_id: str, home: str | None = None) -> None:
        session = self.session
        if image_id not in session.pictures:
            raise LabelError(f"Unknown image id {image_id!r}: there is no such image.")
        self._work.clear()
        self._why.clear()
        with self.hold_sync():
            self.is_open, self.number, self.image_id = True, next(self._numbers), image_id
            if home is not None:
                self.home = home
            self._show_known()
        self._draw()

    def _use_for_all(self, rendering: Rendering) -> None:
        if self._use is not None:
            self._use(rendering)

    def _show_known(self) -> None:
        super()._show_known()
        self.standing = [] if self.is_hidden else standing_rows(self.session, self.image_id)

    def _draw(self) -> None:
        number, image_id, rendering = self.number, self.image_id, self._rendering.pixels
        self._work.do("picture", lambda: self._send_picture(number, image_id, rendering))
        self._look_around()

    def _look_around(self) -> None:
        number, image_id, rendering = self.number, self.image_id, self._rendering.pixels
        self._work.do("neighbours", lambda: self._send_neighbours(number, image_id, rendering))

    # On the background thread.

    def _forget(self) -> None:
        self._closeup = None

    def _send_picture(self, number: int, image_id: str, rendering: Rendering) -> None:
        shown: dict[str, Any] = {"url": "", "width": 0, "height": 0, "drawn": 0, "problem": ""}
        try:
            if self._closeup is None or self._closeup.image_id != image_id:
                self._closeup = None  # two large images need not be in memory
                self._closeup = Closeup(self.session.pictures, image_id)
            data, drawn = self._closeup.picture(rendering)
            height, width = self._closeup.shape[:2]
            shown |= {"url": data_url(data), "width": width, "height": height, "drawn": drawn}
        except ImageReadError as error:
            shown["problem"] = error.reason
        except Exception as error:  # noqa: BLE001 (a border: the reason is shown in place of the image)
            _log.exception("No picture of %r", image_id)
            shown["problem"] = in_words(error)
        links = self._links(image_id)
        facts = [] if self._closeup is None else self._closeup.rows(self.session.pictures.n_bytes(image_id))
        with self.desk.lock:
            if number != self.number or not self.is_open:
                return
            self.send({"method": "picture", "args": [number, shown]})
            with self.hold_sync():
                self.links, self.facts = links, facts + self._known[1] * (self._known[0] == image_id)
                if self._closeup is not None:
                    self.n_channels = self._closeup.n_channels
                    self.bands, self.colours = list(self.session.image.bands or ()), self._closeup.colours

        if self._known[0] != image_id:  # after the picture, which does not wait for it
            self._known = image_id, known_rows(self.session.pictures, image_id)
            with self.desk.lock:
                if number == self.number and self.is_open:
                    self.facts = facts + self._known[1]

    def _links(self, image_id: str) -> list[list[str]]:
        try:
            position = self.session.pictures.position(image_id)
        except Exception:  # noqa: BLE001 (a border: the method is the user's)
            _log.exception("No position of %r", image_id)
            return []
        return [] if position is None else sky_links(*position)

    def _send_part(self, number: int, rendering: Rendering, window: tuple[int, int, int, int]) -> None:
        closeup = self._closeup
        if closeup is None:
            return
        x, y, width, height = window
        width, height = min(width, closeup.shape[1] - x), min(height, closeup.shape[0] - y)
        if width < 1 or height < 1:
            return
        url = data_url(closeup.part(rendering, (x, y, width, height)))
        with self.desk.lock:
            if number == self.number and rendering == self._rendering.pixels:
                self.send({"method": "part", "args": [number, [x, y, width, height], url]})

    def _send_why(self, number: int, image_id: str) -> None:
        """Send the map: a coarse one at once, which takes a fourth of the time, then the fine one."""
        if self._send_map(number, image_id, coarse=True):
            self._send_map(number, image_id, coarse=False)

    def _send_map(self, number: int, image_id: str, *, coarse: bool) -> bool:
        """Send a map, or say why there is none; whether a better one is worth making."""
        why: dict[str, Any] = {"url": "", "is_coarse": coarse}  # it is not to be had
        failure: Exception | None = None
        try:
            closeup = self._closeup
            if closeup is None or closeup.image_id != image_id:
                closeup = Closeup(self.session.pictures, image_id)
            why |= explained(self.session, image_id, closeup.shape, coarse=coarse)
        except Exception as error:  # noqa: BLE001 (a border: it is told in words)
            failure = error
        with self.desk.lock:
            if number != self.number or not self.is_open:
                return False  # nobody waits for it any more
            if failure is not None:
                why["problem"] = in_words(failure)
                self.desk.report(failure, "Explaining the score")
            self.send({"method": "why", "args": [number, why]})
        return failure is None

    def _send_neighbours(self, number: int, image_id: str, rendering: Rendering) -> None:
        found, note = nearest_labelled(self.session, image_id, _N_NEIGHBOURS)
        urls = {row["id"]: self._thumbnail(row["id"], rendering) for row in found}
        with self.desk.lock:
            if number != self.number or not self.is_open:
                return
            found = [row | {"label": "hidden"} if self._hides(row["id"]) else row for row in found]
            with self.hold_sync():
                self.neighbours, self.neighbours_note = found, note
            self.send({"method": "thumbnails", "args": [number, urls]})

    def _thumbnail(self, image_id: str, rendering: Rendering) -> str:
        try:
            return data_url(self.session.thumbnail(image_id, _NEIGHBOUR_PX, rendering))
        except ImageReadError:
            return ""  # its tile is empty; the reason is said where it is opened
