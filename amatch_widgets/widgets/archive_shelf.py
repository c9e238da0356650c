"""Which images of an archive the gallery lists: asked of files, and so in the background."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from amatch_widgets.archive.order import Chosen
from amatch_widgets.session.archive import Progress
from amatch_widgets.widgets.tiles import Page, Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amatch_widgets.archive.order import Order
    from amatch_widgets.session import Show
    from amatch_widgets.session.archive import Archive
    from amatch_widgets.session.selection import Filter
    from amatch_widgets.widgets.blind import Blind

__all__ = ["ArchiveShelf"]


class ArchiveShelf:
    """One list of an archive's images, which stays as it was made: labels and new scores move no tile.

    Thread safety: `take`, `find`, `seek` and `look` read files and may be called from any thread, without
    the gallery's lock. What they find is kept under ``_lock``; all else is quick, and of the gallery's lock.

    Parameters
    ----------
    archive : Archive
    sort, show, only, seed
        As for `Archive.order`.

    Attributes
    ----------
    place : str
        The archive's name.
    number : int
        The page on screen, counted from 0.
    """

    is_quick = False
    can_similar = True  # what is missing for it is said
    similar_to = title = ""
    blind: Blind | None = None  # there is no second look here

    def __init__(self, archive: Archive, sort: str, show: Show, only: Filter, *, seed: int) -> None:
        self._archive, self._asked = archive, (sort, show, only, seed)
        self.place = archive.name
        self.number = 0
        self._lock = threading.Lock()
        self._made: tuple[Order, Progress] | None = None
        self._now = Progress()  # when it was looked for last
        self._ahead: Sequence[str] = ()

    @property
    def among(self) -> str:
        """Among which images these were looked for: it is a ranking."""
        return ""

    @property
    def offer(self) -> str:
        """What could be embedded besides: nothing is compared."""
        return ""

    @property
    def note(self) -> str:
        """What ranks, how far the scoring is, and what was labelled, in plain words."""
        archive = self._archive
        now = Progress() if self._made is None else self._made[1]
        if not now.cycle:
            return f"Nothing of {archive.title} is scored yet."
        note = ""
        if now.n_done < len(archive):
            note = f"{now.n_done:,} of {len(archive):,} images are scored"
            note += ", and the highest of the cycle before. " if now.has_first else ". "
        labels = [line.label for line in archive.lines().values()]
        n_anomalies, n_normals = labels.count("anomaly"), labels.count("normal")
        if n_anomalies or n_normals:
            note += f"Labelled here: {n_anomalies:,} ◆, {n_normals:,} ●. "
        return f"{note}Cycle {now.cycle} of {archive.title}: {now.note}"

    def take(self, number: int, per_page: int) -> Page:
        """Find the images of a page, and of the one after it."""
        order, _ = self._order()
        n = len(order)
        n_pages = max(1, -(-n // per_page))
        number = max(0, min(number, n_pages - 1))
        first = number * per_page
        rows = order.rows(first, 2 * per_page)
        self._archive.remember(rows)
        tiles = [
            Tile(self._archive.id_of(row.id), row.score, self._reason(place, n), row.problem)
            for place, row in enumerate(rows[:per_page], start=first + 1)
        ]
        ahead = tuple(self._archive.id_of(row.id) for row in rows[per_page:])
        return Page(number, n_pages, first, n, tiles, ahead)

    def use(self, page: Page) -> None:
        """Take note of the page that is on screen now."""
        self.number, self._ahead = page.number, page.ahead

    def find(self, image_ids: Sequence[str], per_page: int) -> int | None:
        """Return the number of the page that lists one of these images; None if none does."""
        order, _ = self._order()
        for image_id in image_ids:
            place = order.place(self._archive.index(image_id))
            if place is not None:
                return place // per_page
        return None

    def seek(self, text: str, after: int) -> int | None:
        """Return the position of the next listed image whose id contains a text; None if none does."""
        return self._order()[0].seek(text, after)

    def look(self) -> None:
        """Look how far the scoring is now."""
        self._now = self._archive.progress()

    def news(self) -> str:
        """Say in a few words what a list made anew would be made of; "" when that is no news."""
        if self._made is None:
            return ""
        listed, now = self._made[1], self._now
        if now.cycle > listed.cycle:
            return f"New scores (cycle {now.cycle})" if listed.cycle else "First scores"
        return "More scores" if now.cycle == listed.cycle and now.n_done > listed.n_done else ""

    def ahead(self, _per_page: int) -> Sequence[str]:
        """Return the images of the next page."""
        return self._ahead

    def is_random(self, _per_page: int) -> bool:
        """Whether there are no scores to order by: without, nothing is listed."""
        return False

    def uncover(self, _per_page: int) -> bool:
        """Go back from another list: there is none here."""
        return False

    def warm_up(self) -> None:
        """Prepare what is asked for next: nothing."""

    def _reason(self, place: int, n: int) -> str:
        """Say why the image at a place of `n`, counted from 1, is there."""
        sort, show, only, _ = self._asked
        what = "scored" if show == "all" else str(show)
        what += "" if only.is_open else " and filtered"
        return f"{self._archive.title}, {sort}: rank {place:,} of {n:,} {what}"

    def _list(self) -> Order:
        """List the images; something is scored."""
        sort, show, only, seed = self._asked
        return self._archive.order(sort, show=show, only=only, seed=seed)

    def _order(self) -> tuple[Order, Progress]:
        with self._lock:
            if self._made is None:
                progress = self._archive.progress()
                order: Order = self._list() if progress.cycle else Chosen(())
                self._made = order, progress
                self._now = progress
            return self._made
