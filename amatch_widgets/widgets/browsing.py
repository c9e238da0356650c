"""What the gallery lists, the session's own images or an archive's, and how a page of it gets there."""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from traitlets import Dict, List, Unicode

from amatch_widgets.errors import StateError
from amatch_widgets.events import EmbeddingProgress, Event, ScoringProgress, StateChanged
from amatch_widgets.session.archive_order import ORDERS
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.archive_shelf import ArchiveShelf
from amatch_widgets.widgets.like_shelf import LikeShelf
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.pages import Pages
from amatch_widgets.widgets.shelf import Shelf, chip
from amatch_widgets.widgets.view import Desk, handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amatch_widgets.session import Session, Show
    from amatch_widgets.widgets.tiles import ImageList, Page

__all__ = ["Browsing", "score_text"]

_T = TypeVar("_T")
_OF_ARCHIVES = (ScoringProgress, EmbeddingProgress, StateChanged)
_LOOK_AGAIN_S = 2.0  # to see whether more of an archive is scored: a folder has to be listed


class Browsing(Pages):
    """Pages of a list; see `Gallery`, which says in which order and filter.

    A list of the session's own images is asked at once, one of an archive in the background; until it
    answers, the page on screen stays, and labels mean its images.

    Thread safety: all traits and attributes are guarded by ``desk.lock``, which is not held while an
    archive is asked.
    """

    sort = Unicode("highest").tag(sync=True)
    show = Unicode("unlabelled").tag(sync=True)
    only = Dict().tag(sync=True)
    place = Unicode("").tag(sync=True)  # the archive that is looked at; "" for the session's own images
    places: Any = List().tag(sync=True)  # its archives: [name, title, number of images]
    busy = Unicode("").tag(sync=True)  # what is being looked for

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._own = Shelf(session)
        self._shelf: ImageList = self._own
        self._listed = ("highest", "unlabelled", Filter())  # what the shelf was asked for
        self._asking = Newest("amatch-archive")
        self._n_asked = 0
        self._looked = 0.0
        self._serials = itertools.count(1)
        self._seed = 0
        self._only = Filter()
        super().__init__(session, desk)

    def browse(self, archive: str = "") -> None:
        """Look at the images of an archive, or at the session's own again.

        Parameters
        ----------
        archive : str
            Its name or title, see `Session.archives`; "" for the session's own images.

        Raises
        ------
        LabelError
            If there is no such archive.
        """
        found = self.session.archive(archive) if archive else None
        place = "" if found is None else found.name
        with self.desk.lock, self.hold_sync():
            if place == self.place == self._shelf.place:
                return
            self.place = place
            if self.place and self.sort not in ORDERS:
                self.sort, self.show = "highest", "unlabelled"
            self._show_places()
            self._query()

    def close(self) -> None:
        """End all background work and take the pages off the screen."""
        if getattr(self, "_asking", None) is not None:
            self._asking.close()
        super().close()

    # What the browser asks for.

    @handler("Choosing what is looked at")
    def vue_do_browse(self, data: dict[str, Any]) -> None:
        """Look at an archive, or at the session's own images."""
        self.browse(str(data.get("place") or ""))

    # The lock is held.

    def _show_standing(self) -> None:
        """Say what ranks, and whether the list could be made anew from something better."""
        raise NotImplementedError

    def _query(self) -> None:
        asked = self.sort, cast("Show", self.show), self._only
        shelf: ImageList = self._own
        if self.place:
            shelf = ArchiveShelf(self.session.archives[self.place], *asked, seed=self._seed)
        else:
            self._own.rank(*asked, seed=self._seed)
        self._list(shelf, lambda: shelf.take(0, self.per_page), self._put)

    def _query_again(self) -> None:
        """Make the list that was asked for last anew."""
        shelf = self._shelf
        if isinstance(shelf, LikeShelf) and self._is_settled:
            self._list_like(shelf.models)
        else:
            self._query()

    def _list_like(self, image_ids: Sequence[str]) -> None:
        """List the images like these of the archive that is on screen."""
        shown = self._shelf
        behind, first = shown, shown.number * self.per_page
        if isinstance(shown, LikeShelf):
            behind, first = shown.behind, shown.first
        self.place = shown.place
        archive = self.session.archives[self.place]
        shelf = LikeShelf(self.session, archive, image_ids, behind=behind, first=first)
        self._list(shelf, lambda: shelf.take(0, self.per_page), self._put)

    def _go_behind(self) -> bool:
        """Go back from similar images of an archive to the list before; whether there was one."""
        shelf = self._shelf
        if not isinstance(shelf, LikeShelf):
            return False
        behind, number = shelf.behind, shelf.first // self.per_page
        self.place = behind.place
        self._list(behind, lambda: behind.take(number, self.per_page), self._put)
        return True

    def _list(self, shelf: ImageList, find: Callable[[], Page], put: Callable[[Page], None]) -> None:
        """Show a page of another list, once it is found."""
        asked, per_page = (self.sort, self.show, self._only), self.per_page

        def use(page: Page) -> None:
            self._shelf, self._listed = shelf, asked
            put(page)
            if per_page != self.per_page:  # it was changed meanwhile
                self._show_page(page.first // self.per_page)

        self._ask(shelf, find, use)

    @property
    def _is_settled(self) -> bool:
        """Whether the list on screen is the one that was asked for last."""
        is_asked_for = (self.sort, self.show, self._only) == self._listed
        return not self.busy or (self.place == self._shelf.place and is_asked_for)

    def _ask(self, shelf: ImageList, ask: Callable[[], _T], use: Callable[[_T], None]) -> None:
        """Ask a list and use what it says: at once, or later if that takes longer than one waits for a key.

        Of what is asked later only the last counts. What fails leaves the list that is on screen.
        """
        self._n_asked += 1
        number = self._n_asked
        if shelf.is_quick:
            self.busy = ""
            use(ask())
            return
        self.busy = "Looking through the scores…"

        def work() -> None:
            try:
                found = ask()
            except Exception as error:  # noqa: BLE001 (one of the three borders)
                self._give_up(number, error)
                return
            with self.desk.lock, self.hold_sync():
                if number == self._n_asked:
                    self.busy = ""
                    use(found)

        self._asking.do("ask", work)

    def _give_up(self, number: int, error: Exception) -> None:
        """Say why a list or page cannot be had; the one on screen stays, and so does what is said of it."""
        with self.desk.lock, self.hold_sync():
            if number != self._n_asked:
                return
            self.busy = ""
            self.place = self._shelf.place
            self.sort, self.show, self._only = self._listed
            self.only = dataclasses.asdict(self._only)
            self.desk.report(error, "Looking through the scores")

    def _go_home(self) -> None:
        """Look at the session's own images."""
        if self.place or self._shelf is not self._own:
            self.place = ""
            self._query()

    def _show_of_archive(self, name: str, image_id: str) -> None:
        """Go to an image of an archive: in the list, if it is there, else among all that are scored."""
        if self.place == self._shelf.place == name and image_id in self.image_ids:
            self._point_at(self.image_ids.index(image_id))
            return
        self._only, self.only = Filter(), dataclasses.asdict(Filter())
        self.place, self.sort, self.show = name, "highest", "all"
        shelf = ArchiveShelf(self.session.archives[name], "highest", "all", Filter(), seed=self._seed)

        def put(page: Page) -> None:
            self._put_and_point(shelf, page, [tile.image_id for tile in page.tiles].index(image_id))

        def find() -> Page:
            number = shelf.find([image_id], self.per_page)
            if number is None:
                raise StateError(f"{image_id!r} has no score yet, or cannot be read: it is in no list.")
            return shelf.take(number, self.per_page)

        self._list(shelf, find, put)

    def _show_places(self) -> None:
        archives = self.session.archives.values()
        self.places = [[archive.name, archive.title, len(archive)] for archive in archives]

    def _look_again(self, events: list[Event]) -> None:
        """Look whether more of an archive is scored, at most every few seconds while it is."""
        shelf, now = self._shelf, time.monotonic()
        if shelf.is_quick or not any(isinstance(e, _OF_ARCHIVES) for e in events):
            return
        if now - self._looked > _LOOK_AGAIN_S or any(isinstance(e, StateChanged) for e in events):
            self._looked = now
            self._asking.do("look", lambda: self._look_at_news(shelf))

    def _look_at_news(self, shelf: ImageList) -> None:
        """Say whether there is news; on the background thread."""
        shelf.look()
        with self.desk.lock:
            if shelf is self._shelf and shelf.news() and not self.page["tiles"] and not self.busy:
                self._query_again()  # no tile can move where there is none
            self._show_standing()

    def _show_page(self, number: int | None = None) -> None:
        shelf, per_page = self._shelf, self.per_page
        if not self._is_settled:
            return  # another list is on its way, with a page of its own
        number = shelf.number if number is None else number
        self._ask(shelf, lambda: shelf.take(number, per_page), self._put)

    def _put(self, page: Page) -> None:
        """Show a page of the list."""
        self._shelf.use(page)
        serial = next(self._serials)
        self._remember_page(serial, {tile.image_id: tile.reason for tile in page.tiles})
        # Novelty gives ranks and no scores, which they would be taken for.
        is_rank = not self._shelf.place and self.session.ranked_by == "novelty"
        tiles = [
            {
                "id": tile.image_id,
                "score": "" if is_rank else score_text(tile.score),
                "reason": tile.reason,
                "chip": chip(tile.reason, self.sort),
                "problem": tile.problem,
            }
            for tile in page.tiles
        ]
        with self.hold_sync():
            self.page = {
                "serial": serial,
                "number": page.number,
                "n_pages": page.n_pages,
                "first": page.first,
                "total": page.total,
                "tiles": tiles,
            }
            self._show_labels()
            self._show_standing()
        self._send_images()
        self._look_for_twins()

    def _put_and_point(self, shelf: ImageList, page: Page, position: int) -> None:
        if self._shelf is shelf:
            self._put(page)
            self._point_at(position)

    def _go_to(self, image_ids: Sequence[str], done: str, token: str = "") -> None:
        shelf, on_page = self._shelf, self._find(image_ids) if image_ids else None
        if shelf.is_quick or not image_ids or on_page is not None or not self._is_settled:
            super()._go_to(image_ids, done, token)
            return
        self._show_labels()
        archive = self.session.archive(shelf.place)
        ours = [i for i in image_ids if archive.owns(i)]

        def find() -> Page | None:
            number = shelf.find(ours, self.per_page)
            return None if number is None else shelf.take(number, self.per_page)

        def use(page: Page | None) -> None:
            if page is None:
                self._say_missing(image_ids, done)
                return
            place = next(k for k, tile in enumerate(page.tiles) if tile.image_id in image_ids)
            self._put_and_point(shelf, page, place)

        self._ask(shelf, find, use)

    def _find(self, image_ids: Sequence[str]) -> int | None:
        if not self._shelf.is_quick:  # what is not on the page takes its time
            return next((k for k, i in enumerate(self.image_ids) if i in image_ids), None)
        for is_last in (False, True):
            on_page = [i for i in image_ids if i in self._pages[self.page["serial"]]]
            if on_page:
                return self.image_ids.index(on_page[0])
            number = None if is_last else self._shelf.find(image_ids, self.per_page)
            if number is None:
                break
            self._show_page(number)  # a mixed page may have been composed without it
        return None

    def _ahead(self) -> list[str]:
        return list(self._shelf.ahead(self.per_page))


def score_text(score: float | None) -> str:
    """Three digits, and never 1.000 for what is not 1."""
    if score is None or np.isnan(score):
        return ""
    return f"{min(float(score), 0.999) if score < 1 else 1.0:.3f}"
