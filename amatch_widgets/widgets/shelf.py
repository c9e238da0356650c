"""Which images the gallery lists: a ranking that follows the labels, images like one of them, or any."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.blind import Blind
from amatch_widgets.widgets.listing import Listing
from amatch_widgets.widgets.tiles import Page, Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from amatch_widgets.session import Session, Show

__all__ = ["BY_SCORE", "Shelf", "chip"]

BY_SCORE = ("highest", "lowest", "uncertain")
_TOP = 100  # what has risen into it is said
_FAR = 4  # pages: who jumps further ahead gets the ranking, since the pages between are not looked at
_N_SIMILAR = 191  # and the image itself: full pages
_NEW = {"novelty": "Ranked by novelty", "instant": "Ranked by your labels"}


class _Standing(NamedTuple):
    """Which scores a list was made of."""

    ranked_by: str | None
    cycle: int | None  # of the trained model, where it takes part
    version: int


class Shelf:
    """The list of a gallery, and the page it is opened at.

    Thread safety: none but for `warm_up`; the gallery's lock guards it.

    Parameters
    ----------
    session : Session
        Whose images are listed.

    Attributes
    ----------
    place : str
        "": these are the session's own images.
    number : int
        The page last taken, counted from 0.
    similar_to : str
        The image whose like are listed ("3 images" for several), or "".
    title : str
        What a list of chosen images is called, or "".
    blind : Blind or None
        What must not be seen while labels are judged again, in this list and in those that it leads to.
    """

    place = among = offer = ""
    is_quick = True

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sort, self._show, self._only, self._seed = "highest", "unlabelled", Filter(), 0
        self._listing = Listing(np.empty(0, np.int64), np.empty(0, np.float32), is_live=False)
        self._covered: tuple[Listing, int] | None = None  # the ranking behind another list, and its place
        self._standing = _Standing(None, None, 0)
        self.number = 0
        self.similar_to = self.title = ""
        self._rise: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # ranks before and now
        self._n_models = 0  # images whose like are listed
        self._reasons: dict[int, str] = {}  # of the images of mixed pages
        self.blind: Blind | None = None
        self._n_random = 0  # images from the beginning that wait for scores to be ordered by

    def __len__(self) -> int:
        return len(self._listing)

    @property
    def note(self) -> str:
        """What ranks, in plain words."""
        return self._session.ranking_note

    @property
    def can_similar(self) -> bool:
        """Whether images like one of these can be looked for."""
        return self._session.is_embedded

    def is_random(self, per_page: int) -> bool:
        """Whether an order by score was wanted and there were no scores yet for this page."""
        return self._covered is None and self.number * per_page < self._n_random

    def n_pages(self, per_page: int) -> int:
        """Return the number of pages, at least 1."""
        return self._listing.n_pages(per_page)

    def rank(self, sort: str, show: str, only: Filter, *, seed: int) -> None:
        """List images anew, from the present scores and labels; see `Session.ranking`."""
        self._sort, self._show, self._only, self._seed = sort, show, only, seed
        self._standing = self._standing_now()
        is_live = show == "unlabelled" and sort in {*BY_SCORE, "mixed"}
        self._reasons = {}
        self.blind = Blind(self._session.labels) if sort == "second look" else None
        self._listing = Listing(self._newest(), self._session.scores, is_live=is_live)
        self._rise = self._session.rise() if sort == "rising" else None
        self._n_random = len(self._listing) if self._waits(self._standing) else 0
        self._covered = None
        self.number, self.similar_to, self.title = 0, "", ""

    def list_similar(self, image_ids: Sequence[str], per_page: int) -> None:
        """List the images most like one, or like several taken together; these come first.

        Raises
        ------
        NotTrainedError
            If there is no embedding of one of them yet.
        """
        like = (c.image_id for c in self._session.similar(image_ids, _N_SIMILAR))
        listed = dict.fromkeys([*image_ids, *like])
        self._cover(self._session.places(listed), per_page)
        self.similar_to = image_ids[0] if len(image_ids) == 1 else f"{len(image_ids)} images"
        self._n_models = len(image_ids)

    def list_images(self, image_ids: Sequence[str], title: str, per_page: int) -> None:
        """List some images, the highest scores first, under a title."""
        scores = self._session.scores
        places = np.sort(self._session.places(dict.fromkeys(image_ids)))
        self._cover(places[np.argsort(-scores[places], kind="stable")], per_page)  # NaN comes last
        self.title = title

    def _cover(self, order: NDArray[np.int64], per_page: int) -> None:
        """List images in place of the ranking, which waits where it was left."""
        if self._covered is None:
            self._covered = self._listing, self.number * per_page
        self._listing = Listing(order, self._session.scores, is_live=False)
        self.number, self.similar_to, self.title = 0, "", ""

    def uncover(self, per_page: int) -> bool:
        """Go back from another list to the ranking, where it was left; whether there was one."""
        if self._covered is None:
            return False
        (self._listing, first), self._covered = self._covered, None
        self.number, self.similar_to, self.title = first // per_page, "", ""
        return True

    def take(self, number: int, per_page: int) -> Page:
        """Take a page: what was seen stays, and the newest ranking follows it.

        Parameters
        ----------
        number : int
            Counted from 0; beyond either end it is the page there.
        per_page : int
            Images a page.

        Returns
        -------
        Page
            With the scores to write beside its images.
        """
        indices, values = self._page(number, per_page)
        problems, ids = self._session.problems, [self._session.source.ids[int(i)] for i in indices]
        tiles = [
            Tile(image_id, float(value), reason, problems.get(image_id, ""))
            for image_id, value, reason in zip(ids, values, self.reasons(per_page), strict=True)
        ]
        return Page(self.number, self.n_pages(per_page), self.number * per_page, len(self), tiles)

    def use(self, page: Page) -> None:
        """Take note of the page that is on screen now: it is the one last taken."""

    def look(self) -> None:
        """Look whether there is news: `news` does so by itself."""

    def _page(self, number: int, per_page: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        listing = self._listing
        if listing.is_live and not listing.n_seen:
            self._mix(per_page, per_page)
        if listing.is_live and listing.n_seen and listing.is_unseen(max(number, 0), per_page):
            standing = self._standing_now()
            listing.splice(self._newest(), self._session.scores)
            self._mix((max(number, 0) + 1) * per_page, per_page)
            if not self._waits(standing):
                self._n_random = min(self._n_random, listing.n_seen)
            if number > 0:  # larger first pages still begin with what was listed before
                self._standing = standing
        self.number = max(0, min(number, listing.n_pages(per_page) - 1))
        page = listing.page(self.number, per_page)
        listing.see(self.number, per_page)
        return page

    def reasons(self, per_page: int) -> list[str]:
        """Say of each image of the page last taken why it is there."""
        first, n = self.number * per_page, len(self._listing)
        places = range(first + 1, min(first + per_page, n) + 1)
        if self.similar_to:
            like, n_models = f"similar to {self.similar_to}", self._n_models
            return [
                "shown for its like" if k <= n_models else f"{like}: rank {k - n_models:,}" for k in places
            ]
        if self.title:
            return [f"{self.title}: rank {k:,} of {n:,}" for k in places]
        if self.is_random(per_page):
            return ["random: nothing is scored yet"] * len(places)
        if self._rise is not None:
            indices, _ = self._listing.page(self.number, per_page)
            before, now = (ranks[indices].tolist() for ranks in self._rise)
            return [_risen(*ranks) for ranks in zip(before, now, strict=True)]
        if self._reasons:
            indices, _ = self._listing.page(self.number, per_page)
            return [
                self._reasons.get(int(i), f"highest: rank {k:,} of {n:,} unlabelled")
                for i, k in zip(indices, places, strict=True)
            ]
        what = "" if self._show == "all" else f" {self._show}"
        what += "" if self._only.is_open else " and filtered"
        return [f"{self._sort}: rank {k:,} of {n:,}{what}" for k in places]

    def find(self, image_ids: Sequence[str], per_page: int) -> int | None:
        """Return the number of the first page that lists one of these images; None if none does."""
        self._renew()
        at = self._listing.positions(self._session.places(image_ids))
        return int(at[0]) // per_page if len(at) else None

    def seek(self, text: str, after: int) -> int | None:
        """Return the position of the next listed image whose id contains a text; None if none does.

        One whose id is just that comes before the others; after the last comes the first.
        """
        found = self._session.find(text)
        exact = self._session.places([text])
        self._renew()
        at = self._listing.positions(exact if len(exact) else found)
        if not len(at):
            return None
        later = at[at > after]
        return int(later[0] if len(later) else at[0])

    def _renew(self) -> None:
        """Order what was not seen as a page taken now would be: what is found is then where it is found."""
        if self._listing.is_live:
            self._listing.splice(self._newest(), self._session.scores)

    def ahead(self, per_page: int) -> list[str]:
        """Return the images of the next page, as it would be now."""
        ids = self._session.source.ids
        return [ids[int(i)] for i in self._following(per_page)]

    def _following(self, per_page: int) -> NDArray[np.int64]:
        listing, following = self._listing, self.number + 1
        if listing.is_live and listing.is_unseen(following, per_page):
            return listing.rest_of(self._newest(), len(self._session.source))[:per_page]
        return listing.page(following, per_page)[0]

    def warm_up(self) -> None:
        """Let the session rank, and keep, what `page` and `ahead` will ask for; from any thread."""
        if self._listing.is_live:
            self._newest()

    def news(self) -> str:
        """Say in a few words what a list made anew would be made of; "" when that is no news.

        The ranking follows each label: where the next page shows it, or where no order is by
        score, only another kind of ranking or another cycle is news.
        """
        now, listed = self._standing_now(), self._standing
        is_quiet = self._listing.is_live or self._sort not in {*BY_SCORE, "mixed", "rising"}
        if (
            now.ranked_by is None
            or self._covered is not None
            or (now[:2] == listed[:2] if is_quiet else now == listed)
        ):
            return ""
        if now.ranked_by != listed.ranked_by and now.ranked_by in _NEW:
            return _NEW[now.ranked_by]
        return f"New scores (cycle {now.cycle})" if now.cycle else "New scores"

    def _mix(self, upto: int, per_page: int) -> None:
        """Compose what is listed from the last image seen up to a place anew, of several kinds of images.

        A filter would take images out of reach of the audit, so a filtered list is by score alone.
        """
        listing, n = self._listing, upto - self._listing.n_seen
        if self._sort != "mixed" or not self._only.is_open or n > _FAR * per_page:
            return
        ids = self._session.source.ids
        seen, _ = listing.page(0, listing.n_seen) if listing.n_seen else (np.empty(0, np.int64), None)
        leave_out = [ids[int(i)] for i in seen]
        # Turning a page waits for nothing: a label given just now is learnt from on the page after it.
        found = self._session.query(n, strategy="mixed", leave_out=leave_out, wait=False)
        mixed = self._session.places([c.image_id for c in found])
        self._reasons |= dict(zip(mixed.tolist(), (c.reason for c in found), strict=True))
        rest = listing.rest_of(self._newest(), len(ids))
        listing.splice(np.concatenate([mixed, rest[~np.isin(rest, mixed)]]), self._session.scores)

    def _newest(self) -> NDArray[np.int64]:
        """Rank as was chosen; until there are scores, at random."""
        sort = "random" if self._waits(self._standing_now()) else self._sort
        sort = "highest" if sort == "mixed" else sort
        show = cast("Show", self._show)
        return self._session.ranking(sort, show=show, only=self._only, seed=self._seed)

    def _waits(self, standing: _Standing) -> bool:
        """Whether the order is by scores that are not there."""
        return self._sort in {*BY_SCORE, "mixed", "rising"} and standing.ranked_by is None

    def _standing_now(self) -> _Standing:
        session, ranked_by = self._session, self._session.ranked_by
        cycle = session.scores_cycle if ranked_by in {"deep", "both"} else None
        return _Standing(ranked_by, cycle, session.scores_version)


def _risen(before: int, now: int) -> str:
    """Say how an image has moved in the ranking."""
    if not before or not now:
        return "rising: it had no rank before" if now else "rising: it has no score"
    return f"rising: rank {before:,} -> {now:,}" + (
        f", new in the top {_TOP}" if now <= _TOP < before else ""
    )


def chip(reason: str, sort: str) -> str:
    """Return what of a reason is to be read on the tile: what does not follow from the list's order."""
    kind, _, rest = reason.partition(": ")
    if kind == "rising" and "->" in rest:
        moved, _, is_new = rest.removeprefix("rank ").partition(", new")
        return ("new: " if is_new else "") + moved.replace(" -> ", "\N{RIGHTWARDS ARROW}")
    return kind if sort == "mixed" and kind in {"audit", "uncertain", "diverse"} else ""
