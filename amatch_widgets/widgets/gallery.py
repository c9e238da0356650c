"""The gallery: a page of images, and what the user says about each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import ipywidgets
from traitlets import Bool, Dict, Instance, Unicode

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.events import Event, ImagesPrepared, LabelsChanged, ScoresChanged
from amatch_widgets.session.archive_order import ORDERS
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.browsing import Browsing
from amatch_widgets.widgets.detail import Detail
from amatch_widgets.widgets.habits import PAGE_SIZES, TILE_SIZES
from amatch_widgets.widgets.view import Desk, handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from amatch_widgets.session import Session
    from amatch_widgets.widgets.blind import Blind
    from amatch_widgets.widgets.tiles import Page

__all__ = ["Gallery"]

SORTS = ("highest", "mixed", "lowest", "uncertain", "rising", "random", "recent", "second look")
SHOWS = ("unlabelled", "labelled", "anomaly", "normal", "starred", "problem", "all")
_SHOWN_BY = {"mixed": "unlabelled", "second look": "labelled"}  # orders of one kind of images only
_OF_LABELLED = ("recent", "second look")
_RANDOM = "Random order: there are no scores yet."
_BLIND = (
    "Labels that the ranking contradicts, the most suspicious first; all that was said of an image is hidden "
    "until you label it again."
)
_WAS_RANDOM = "This page is in random order, from before there were scores."


class Gallery(Browsing):
    """A page of images with their scores and labels, to be judged by keys or buttons.

    Neither a label nor new scores move a tile under the user's cursor, and paging back shows what
    was just labelled: a page that was seen stays as it is. Where unlabelled images are listed by
    their score, each page that was not seen yet is the newest ranking's; elsewhere the whole list
    stays. `refresh`, another order or another filter makes a new list.

    The images of an archive (`Session.score`) are looked at and labelled in the same way, while they are
    scored, too: see `browse`.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one the gallery stands alone, with a
        detail of its own over it.
    """

    template_file = (__file__, "gallery.vue")

    stale = Unicode("").tag(sync=True)
    note = Unicode("").tag(sync=True)
    ranking_note = Unicode("").tag(sync=True)
    similar_to = Unicode("").tag(sync=True)
    title = Unicode("").tag(sync=True)  # of a list of chosen images
    among = Unicode("").tag(sync=True)  # which images of an archive similar ones were looked for
    offer = Unicode("").tag(sync=True)  # what of it could be embedded besides
    can_similar = Bool(False).tag(sync=True)
    # The tile that is seen closely, {serial, index}, and the browser's view that asked for it; {} when none.
    looking = Dict().tag(sync=True)
    closeup = Instance(Detail, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._look_at: Callable[[str], object] = lambda _: None
        self._shown_before = ""  # which images an order of labelled ones has put aside
        super().__init__(session, desk)
        if self.is_alone:
            self.closeup = Detail(
                session,
                self.desk,
                use=self.render,
                left=self.stop_looking,
                hides=self.hides,
                rendering=self.rendering,
            )
            self._look_at = self.closeup.show
            self.on_render(self.closeup.note_used)
        with self.desk.lock:
            self._show_places()
            self._query()

    def refresh(self) -> None:
        """Make the list anew, from the present scores and labels, and show its first page."""
        with self.desk.lock:
            self._seed += 1
            self._query_again()

    def show_similar(self, image_ids: str | Sequence[str]) -> None:
        """List the images most like one, or like several together; `show_ranking` leads back.

        While an archive is looked at, those of the archive are listed, as far as they are embedded; else the
        session's own.

        Raises
        ------
        NotTrainedError
            If there is no embedding of one of them yet.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        with self.desk.lock:
            if self._shelf.place:
                self._list_like(wanted)
                return
            self._go_home()
            self._own.list_similar(wanted, self.per_page)
            self._show_page()

    def show_images(self, image_ids: Sequence[str], title: str) -> None:
        """List some images under a title, the highest scores first; `show_ranking` leads back."""
        with self.desk.lock:
            self._go_home()
            self._own.list_images(image_ids, title, self.per_page)
            self._show_page()

    def show_image(self, image_id: str) -> None:
        """Go to an image in this list; if it is not there, in the ranking, or else among all images.

        Raises
        ------
        LabelError
            If there is no such id.
        """
        if image_id not in self.session.pictures:
            raise LabelError(f"Unknown image id {image_id!r}: there is no such image.")
        archive = self.session.archive_of(image_id)
        with self.desk.lock, self.hold_sync():
            if archive is not None:
                self._show_of_archive(archive.name, image_id)
                return
            self._go_home()
            position = self._find([image_id])
            if position is None and self._shelf.uncover(self.per_page):
                position = self._find([image_id])
            if position is None:
                by_score = self.sort if self.sort in {"highest", "lowest", "uncertain"} else "highest"
                self.choose(sort=by_score, show="all", only=Filter())
                position = self._find([image_id])
            if position is not None:
                self._point_at(position)

    def show_ranking(self) -> None:
        """Go back from similar or chosen images to the list, at the page that was left."""
        with self.desk.lock:
            if not self._go_behind() and self._shelf.uncover(self.per_page):
                self._show_page()

    def turn(self, number: int) -> None:
        """Show page `number`, counted from 0; numbers beyond either end show the page there."""
        with self.desk.lock:
            self._show_page(number)

    def jump(self, to: str, *, after: int = -1) -> None:
        """Show a page by its number, counted from 1, or the page of an image by a part of its id.

        Parameters
        ----------
        to : str
            The id of an image, else the number of a page, else a part of an id.
        after : int
            Position in the list from which on the image is looked for; after the end it goes on at
            the beginning.

        Raises
        ------
        StateError
            When the list has no such page and no such image.
        """
        to, per_page = to.strip(), self.per_page
        with self.desk.lock:
            if not self._is_settled:
                return  # another list is on its way
            is_id = not self.place and to in self.session.source.ids
            if not is_id and to.isdecimal() and 1 <= int(to) <= self.page["n_pages"]:
                self._show_page(int(to) - 1)
                return
            shelf = self._shelf

            def seek() -> tuple[Page, int]:
                position = shelf.seek(to, after) if to else None
                if position is None:
                    raise StateError(
                        f"No page {to!r} and no image with this in its id is in this list. Type a page's "
                        "number or a part of an id; with “All images” and no filter every image is listed."
                    )
                return shelf.take(position // per_page, per_page), position % per_page

            self._ask(shelf, seek, lambda found: self._put_and_point(shelf, *found))

    def choose(
        self,
        *,
        sort: str | None = None,
        show: str | None = None,
        only: Filter | None = None,
        per_page: int | None = None,
        tile_size: str | None = None,
    ) -> None:
        """Choose what is listed and how it looks; what is None stays.

        Parameters
        ----------
        sort : str, optional
            One of "highest", "mixed", "lowest", "uncertain", "rising", "random", "recent" and "second
            look". A "mixed" page has the best images and a few others, see `Session.query`; it is of
            unlabelled images. A "second look" is at labelled images, see `Session.suspicious`: a tile
            shows no label, score, star, tag or note before the image is labelled again.
        show : str, optional
            One of "unlabelled", "labelled", "anomaly", "normal", "starred", "problem" and "all".
        only : Filter, optional
            What the images must have besides; ``Filter()`` lets all through.
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
            if show is not None:
                self._shown_before = ""
            show = _one_of("filter", show, SHOWS, self.show)
            if self.place and sort not in ORDERS:
                raise StateError(f"The order {sort!r} is of the session's own images only.")
            tile_size = _one_of("tile size", tile_size, tuple(TILE_SIZES), self.tile_size)
            per_page = _one_of("number of tiles", per_page, PAGE_SIZES, self.per_page)
            if sort not in _OF_LABELLED and self._shown_before:
                show, self._shown_before = self._shown_before, ""
            if sort == "recent" != self.sort and show == "unlabelled":
                show = "labelled"  # what is unlabelled was never labelled recently
            elif show == "unlabelled" != self.show and sort == "recent":
                sort = "highest"
            elif sort != self.sort and sort in _SHOWN_BY:
                show = _SHOWN_BY[sort]
            elif sort in _SHOWN_BY and show != _SHOWN_BY[sort]:
                sort = "highest"
            if sort in _OF_LABELLED and self.show != show == "labelled":
                self._shown_before = self.show
            only = self._only if only is None else only
            is_new_list = (sort, show, only) != (self.sort, self.show, self._only)
            first = self._shelf.number * self.per_page
            with self.hold_sync():
                self._only, self.only = only, dataclasses.asdict(only)
                self.sort, self.show, self.per_page, self.tile_size = sort, show, per_page, tile_size
                self.tile_px = TILE_SIZES[tile_size][0]
                self._keep_habits()
                if is_new_list:
                    self._query()
                else:
                    self._show_page(first // per_page)

    def on_look(self, look_at: Callable[[str], object]) -> None:
        """Call `look_at` with the id of an image that the user wants to see closely."""
        self._look_at = look_at

    @property
    def blind(self) -> Blind | None:
        """What must not be seen while the user takes a second look at labels; None else."""
        with self.desk.lock:
            return self._shelf.blind

    def hides(self, image_id: str) -> bool:
        """Whether the user takes a second look at the image, without seeing what was said of it."""
        with self.desk.lock:
            return self._shelf.blind is not None and self._shelf.blind.hides(image_id)

    def stop_looking(self) -> None:
        """Take note that no image is seen closely any more."""
        with self.desk.lock:
            self.looking = {}

    def apply(self, events: Iterable[Event]) -> None:
        """Note new scores and show new labels, without moving a tile."""
        events = list(events)
        kinds = {type(event) for event in events}
        is_new = ScoresChanged in kinds
        if is_new:
            self._shelf.warm_up()  # a million images take 0.1 s: not under the lock
        with self.desk.lock, self.hold_sync():
            self._show_places()
            self._look_again(events)
            self._show_standing()
            if LabelsChanged in kinds and self.page:
                self._show_labels()
            if ImagesPrepared in kinds and self.page:
                self._send_images()
            elif is_new and self.page:
                self._fetch_ahead()
            if is_new and self.page and self._sought != self.page["serial"]:
                self._look_for_twins()  # the embeddings may have come
                self._look_for_awaited()
        if self.closeup is not None:
            self.closeup.apply(events)

    def show_all(self) -> None:
        """Show the labels as they are now, and say so if there are new scores."""
        with self.desk.lock, self.hold_sync():
            self._show_labels()
            self._show_standing()
        if self.closeup is not None:
            self.closeup.show_all()

    def close(self) -> None:
        """End all background work and take the gallery off the screen."""
        if self.closeup is not None:
            self.closeup.close()
        super().close()

    # What the browser asks for.

    @handler("Turning the page")
    def vue_do_turn(self, data: dict[str, Any]) -> None:
        """Show another page."""
        self.turn(int(data["number"]))

    @handler("Changing the list")
    def vue_do_choose(self, data: dict[str, Any]) -> None:
        """Choose the order, the filter or the size."""
        only = _filter(data["only"]) if "only" in data else None
        self.choose(only=only, **{k: data[k] for k in ("sort", "show", "per_page", "tile_size") if k in data})

    @handler("Looking for an image")
    def vue_do_jump(self, data: dict[str, Any]) -> None:
        """Go to a page by its number, or to the next image whose id contains what was typed."""
        self.jump(str(data.get("to") or ""), after=int(data.get("after", -1)))

    @handler("Refreshing the list")
    def vue_do_refresh(self, _data: dict[str, Any]) -> None:
        """Make the list anew."""
        self.refresh()

    @handler("Looking for similar images")
    def vue_do_similar(self, data: dict[str, Any]) -> None:
        """List images like those of some tiles."""
        self.show_similar(list(self._images_of(data)))

    @handler("Embedding the archive's images")
    def vue_do_embed(self, _data: dict[str, Any]) -> None:
        """Embed the highest of the archive, so that they can be compared; begun in the background."""
        place = self._shelf.place
        self._background.do("embed", lambda: self._embed(place))

    @handler("Going back to the ranking")
    def vue_do_back(self, _data: dict[str, Any]) -> None:
        """Leave the similar images."""
        self.show_ranking()

    @handler("Opening an image")
    def vue_do_look(self, data: dict[str, Any]) -> None:
        """Let an image be seen closely, and go with the cursor from then on."""
        (image_id,) = self._images_of(data | {"indices": [data.get("index")]})
        self.looking = {key: data.get(key) for key in ("serial", "index", "view", "turn")}
        self._look_at(image_id)

    def _embed(self, place: str) -> None:
        """Begin to embed; it looks at files first."""
        try:
            self.session.embed(place)
        except Exception as error:  # noqa: BLE001 (one of the three borders)
            self.desk.report(error, "Embedding the archive's images")

    # How a page is made; the lock is held.

    def _show_standing(self) -> None:
        """Say what ranks, and whether the list could be made anew from something better."""
        session, shelf = self.session, self._shelf
        self.ranking_note, self.can_similar = shelf.note, shelf.can_similar
        self.stale, self.similar_to, self.title = shelf.news(), shelf.similar_to, shelf.title
        self.among, self.offer = shelf.among, shelf.offer
        is_random = shelf.is_random(self.per_page)
        self.note = "" if not is_random else _RANDOM if session.ranked_by is None else _WAS_RANDOM
        if shelf.blind is not None:
            self.note = _BLIND


def _one_of(what: str, value: Any, allowed: tuple[Any, ...], default: Any) -> Any:
    if value is None:
        return default
    if value not in allowed:
        raise StateError(f"Unknown {what} {value!r}; allowed are {', '.join(map(str, allowed))}.")
    return value


def _filter(data: Any) -> Filter:
    """Read what was typed into the fields of the filter; an empty one filters nothing."""
    given = data if isinstance(data, dict) else {}
    limits = {}
    for name, default in (("least", 0.0), ("most", 1.0)):
        text = given.get(name)
        try:
            limits[name] = default if text in (None, "") else float(text)
        except (TypeError, ValueError) as error:
            raise StateError(f"{text!r} is no score; type a number from 0 to 1.") from error
    return Filter(contains=str(given.get("contains") or ""), tag=str(given.get("tag") or ""), **limits)
