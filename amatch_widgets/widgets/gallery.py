"""The gallery: a page of images, and what the user says about each."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
from traitlets import Bool, Dict, Int, Unicode

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.events import Event, LabelsChanged, ProblemFound, ScoresChanged
from amatch_widgets.images.render import Rendering
from amatch_widgets.widgets.shelf import Shelf
from amatch_widgets.widgets.thumbnails import Look, Thumbnail, ThumbnailLoader
from amatch_widgets.widgets.view import Desk, View, handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amatch_widgets.session import Session

__all__ = ["Gallery"]

SORTS = ("highest", "lowest", "uncertain", "random", "recent")
SHOWS = ("unlabelled", "labelled", "all")
PAGE_SIZES = (24, 48, 96)
# Width of a tile in the browser, px, and the longer side of the thumbnails it gets.
TILE_SIZES = {"small": (80, 128), "medium": (108, 128), "large": (180, 192)}
_RANDOM = "Random order: there are no scores yet."
_WAS_RANDOM = "This page is in random order, from before there were scores."
_LABELS = {"anomaly": "anomaly", "normal": "normal", "clear": None}
_PAGES_REMEMBERED = 16  # a click may still be on its way when the page has turned


class Gallery(View):
    """A page of images with their scores and labels, to be judged by keys or buttons.

    Neither a label nor new scores move a tile under the user's cursor, and paging back shows what
    was just labelled: a page that was seen stays as it is. Where unlabelled images are listed by
    their score, each page that was not seen yet is the newest ranking's; elsewhere the whole list
    stays. `refresh`, another order or another filter makes a new list.

    Images go to the browser as messages and are in no trait, so that a saved notebook holds none.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard.
    """

    template_file = (__file__, "gallery.vue")

    page = Dict().tag(sync=True)
    labels = Dict().tag(sync=True)
    sort = Unicode("highest").tag(sync=True)
    show = Unicode("unlabelled").tag(sync=True)
    per_page = Int(48).tag(sync=True)
    tile_size = Unicode("medium").tag(sync=True)
    tile_px = Int(TILE_SIZES["medium"][0]).tag(sync=True)
    stale = Unicode("").tag(sync=True)
    note = Unicode("").tag(sync=True)
    ranking_note = Unicode("").tag(sync=True)
    similar_to = Unicode("").tag(sync=True)
    can_similar = Bool(False).tag(sync=True)
    css_filter = Unicode("").tag(sync=True)
    rendering_note = Unicode("").tag(sync=True)
    # The tile that is seen closely, {serial, index}, and the browser's view that asked for it; {} when none.
    looking = Dict().tag(sync=True)

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._shelf = Shelf(session)
        self._serials = itertools.count(1)
        self._pages: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._seed = 0
        self._problems_told: set[str] = set()
        self._rendering = Rendering()
        self._look_at: Callable[[str], object] = lambda _: None
        self._rendered: Callable[[Rendering], None] = lambda _: None
        self._loader = ThumbnailLoader(self._thumbnail, self._deliver)
        super().__init__(session, desk)
        with self.desk.lock:
            self._query()

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images of the page on screen, in order."""
        return self._pages[self.page["serial"]]

    def refresh(self) -> None:
        """Make the list anew, from the present scores and labels, and show its first page."""
        with self.desk.lock:
            self._seed += 1
            self._query()

    def show_similar(self, image_id: str) -> None:
        """List the images most like one, itself first; `show_ranking` leads back.

        Raises
        ------
        NotTrainedError
            If there is no embedding of it yet.
        """
        with self.desk.lock:
            self._shelf.list_similar(image_id, self.per_page)
            self._show_page()

    def show_ranking(self) -> None:
        """Go back from similar images to the list, at the page that was left."""
        with self.desk.lock:
            if self._shelf.uncover(self.per_page):
                self._show_page()

    def turn(self, number: int) -> None:
        """Show page `number`, counted from 0; numbers beyond either end show the page there."""
        with self.desk.lock:
            self._show_page(number)

    def choose(
        self,
        *,
        sort: str | None = None,
        show: str | None = None,
        per_page: int | None = None,
        tile_size: str | None = None,
    ) -> None:
        """Choose what is listed and how it looks; what is None stays.

        Parameters
        ----------
        sort : str, optional
            One of "highest", "lowest", "uncertain", "random" and "recent".
        show : str, optional
            One of "unlabelled", "labelled" and "all".
        per_page : int, optional
            Tiles a page: 24, 48 or 96.
        tile_size : str, optional
            One of "small", "medium" and "large".

        Raises
        ------
        StateError
            When a value is none of those.
        """
        with self.desk.lock:
            sort = _one_of("order", sort, SORTS, self.sort)
            show = _one_of("filter", show, SHOWS, self.show)
            tile_size = _one_of("tile size", tile_size, tuple(TILE_SIZES), self.tile_size)
            per_page = _one_of("number of tiles", per_page, PAGE_SIZES, self.per_page)
            if sort == "recent" != self.sort and show == "unlabelled":
                show = "labelled"  # what is unlabelled was never labelled recently
            elif show == "unlabelled" != self.show and sort == "recent":
                sort = "highest"
            is_new_list = (sort, show) != (self.sort, self.show)
            first = self._shelf.number * self.per_page
            with self.hold_sync():
                self.sort, self.show, self.per_page, self.tile_size = sort, show, per_page, tile_size
                self.tile_px = TILE_SIZES[tile_size][0]
                if is_new_list:
                    self._query()
                else:
                    self._show_page(first // per_page)

    def label(self, image_id: str, label: str | None) -> None:
        """Keep a label of an image on disk, then show it."""
        with self.desk.lock:
            listed = "similar" if self.similar_to else self.sort
            self.session.label({image_id: label}, reason=f"gallery, {listed}")
            self._show_labels()

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
            if rendering.pixels != old.pixels:
                self._send_images()

    def on_look(self, look_at: Callable[[str], object]) -> None:
        """Call `look_at` with the id of an image that the user wants to see closely."""
        self._look_at = look_at

    def on_render(self, rendered: Callable[[Rendering], None]) -> None:
        """Call `rendered` whenever the images are rendered in another way."""
        self._rendered = rendered

    def stop_looking(self) -> None:
        """Take note that no image is seen closely any more."""
        with self.desk.lock:
            self.looking = {}

    def apply(self, events: Iterable[Event]) -> None:
        """Note new scores and show new labels, without moving a tile."""
        kinds = {type(event) for event in events}
        is_new = ScoresChanged in kinds
        if is_new:
            self._shelf.warm_up()  # a million images take 0.1 s: not under the lock
        with self.desk.lock, self.hold_sync():
            self._show_standing()
            if LabelsChanged in kinds and self.page:
                self._show_labels()
            if is_new and self.page:
                self._fetch_ahead()

    def show_all(self) -> None:
        """Show the labels as they are now, and say so if there are new scores."""
        with self.desk.lock, self.hold_sync():
            self._show_labels()
            self._show_standing()

    def forget_images(self) -> None:
        """Free the thumbnails; they are made again when they are looked at."""
        self._loader.forget()

    def close(self) -> None:
        """End the loader's threads and take the gallery off the screen."""
        loader = getattr(self, "_loader", None)
        if loader is not None:
            loader.close()
        super().close()

    # What the browser asks for.

    @handler("Labelling")
    def vue_do_label(self, data: dict[str, Any]) -> None:
        """Label one tile; the browser gets word whether the label is on disk."""
        is_kept = False
        try:
            image_id = self._image_of(data)
            if data.get("label") not in _LABELS:
                raise LabelError(f"Unknown label {data.get('label')!r}; allowed are {', '.join(_LABELS)}.")
            self.label(image_id, _LABELS[data["label"]])
            is_kept = True
        finally:
            self.send({"method": "settled", "args": [data.get("token"), is_kept]})

    @handler("Turning the page")
    def vue_do_turn(self, data: dict[str, Any]) -> None:
        """Show another page."""
        self.turn(int(data["number"]))

    @handler("Changing the list")
    def vue_do_choose(self, data: dict[str, Any]) -> None:
        """Choose the order, the filter or the size."""
        self.choose(**{k: data[k] for k in ("sort", "show", "per_page", "tile_size") if k in data})

    @handler("Refreshing the list")
    def vue_do_refresh(self, _data: dict[str, Any]) -> None:
        """Make the list anew."""
        self.refresh()

    @handler("Looking for similar images")
    def vue_do_similar(self, data: dict[str, Any]) -> None:
        """List images like that of a tile."""
        self.show_similar(self._image_of(data))

    @handler("Going back to the ranking")
    def vue_do_back(self, _data: dict[str, Any]) -> None:
        """Leave the similar images."""
        self.show_ranking()

    @handler("Opening an image")
    def vue_do_look(self, data: dict[str, Any]) -> None:
        """Let an image be seen closely, and go with the cursor from then on."""
        image_id = self._image_of(data)
        self.looking = {key: data.get(key) for key in ("serial", "index", "view")}
        self._look_at(image_id)

    @handler("Showing the images as usual")
    def vue_do_plain(self, _data: dict[str, Any]) -> None:
        """Take back how the images are rendered."""
        self.render(Rendering())

    @handler("Loading the images")
    def vue_want_images(self, _data: dict[str, Any]) -> None:
        """Send the images of the page to a browser that has just drawn the gallery."""
        self._send_images()

    # How a page is made; the lock is held.

    def _image_of(self, data: dict[str, Any]) -> str:
        """Find which image a click meant, also when the page has turned since."""
        image_ids = self._pages.get(data.get("serial", -1))
        if image_ids is None:
            raise StateError("The page was left too long ago: turn back to it and try again.")
        index = data.get("index")
        if not isinstance(index, int) or not 0 <= index < len(image_ids):
            raise LabelError(f"There is no tile {index!r} on the page.")
        return image_ids[index]

    def _query(self) -> None:
        with self.hold_sync():
            self._shelf.rank(self.sort, self.show, seed=self._seed)
            self._show_page()

    def _show_standing(self) -> None:
        """Say what ranks, and whether the list could be made anew from something better."""
        session, shelf = self.session, self._shelf
        self.ranking_note, self.can_similar = session.ranking_note, session.is_embedded
        self.stale, self.similar_to = shelf.news(), shelf.similar_to
        is_random = shelf.is_random(self.per_page)
        self.note = "" if not is_random else _RANDOM if session.ranked_by is None else _WAS_RANDOM

    def _show_page(self, number: int | None = None) -> None:
        shelf, per_page, ids = self._shelf, self.per_page, self.session.source.ids
        indices, values = shelf.page(shelf.number if number is None else number, per_page)
        image_ids = tuple(ids[int(i)] for i in indices)
        serial = next(self._serials)
        self._pages[serial] = image_ids
        while len(self._pages) > _PAGES_REMEMBERED:
            self._pages.popitem(last=False)
        problems = self.session.problems
        is_rank = self.session.ranked_by == "novelty"  # and no score, which it would be taken for
        tiles = [
            {
                "id": image_id,
                "score": "" if is_rank else _score_text(value),
                "problem": problems.get(image_id, ""),
            }
            for image_id, value in zip(image_ids, values, strict=True)
        ]
        with self.hold_sync():
            self.page = {
                "serial": serial,
                "number": shelf.number,
                "n_pages": shelf.n_pages(per_page),
                "first": shelf.number * per_page,
                "total": len(shelf),
                "tiles": tiles,
            }
            self._show_labels()
            self._show_standing()
        self._send_images()

    def _show_labels(self) -> None:
        store = self.session.labels
        kept = [store.get(image_id) for image_id in self.image_ids]
        marks = ["" if label is None or label.label is None else label.label for label in kept]
        self.labels = {"serial": self.page["serial"], "marks": marks}

    def _look(self) -> Look:
        return Look(TILE_SIZES[self.tile_size][1], self._rendering.pixels)

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
        """Make the thumbnails of the next page, as it would be now."""
        ids = self.session.source.ids
        ahead = [ids[int(i)] for i in self._shelf.ahead(self.per_page)]
        self._loader.fetch_ahead(ahead, self._look())

    def _deliver(self, serial: int, look: Look, thumbnails: list[tuple[int, Thumbnail]]) -> None:
        with self.desk.lock:
            if look != self._look():  # it came late
                return
            images = [[position, t.url, t.problem] for position, t in thumbnails]
            self.send({"method": "images", "args": [serial, images]})
            image_ids = self._pages.get(serial, ())
            found = {image_ids[k]: t.problem for k, t in thumbnails if t.problem and k < len(image_ids)}
            new = {i: reason for i, reason in found.items() if i not in self._problems_told}
            self._problems_told.update(new)
        for image_id, reason in new.items():  # so that all dashboards list it
            self.session.hub.publish(ProblemFound(image_id, reason))


def _score_text(score: float) -> str:
    """Three digits, and never 1.000 for what is not 1."""
    if np.isnan(score):
        return ""
    return f"{min(float(score), 0.999) if score < 1 else 1.0:.3f}"


def _one_of(what: str, value: Any, allowed: tuple[Any, ...], default: Any) -> Any:
    if value is None:
        return default
    if value not in allowed:
        raise StateError(f"Unknown {what} {value!r}; allowed are {', '.join(map(str, allowed))}.")
    return value
