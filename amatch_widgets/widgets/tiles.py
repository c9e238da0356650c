"""A page of images as a list gives it to the gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amatch_widgets.widgets.blind import Blind

__all__ = ["ImageList", "Page", "Tile"]


@dataclass(frozen=True, slots=True)
class Tile:
    """An image of a page: its id, its score (None or NaN for none), why it is there, why it is unreadable."""

    image_id: str
    score: float | None
    reason: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list.

    Attributes
    ----------
    number, n_pages : int
        Counted from 0; at least 1.
    first : int
        Position of its first image in the list.
    total : int
        Images of the list.
    tiles : sequence of Tile
    ahead : sequence of str
        Ids of the images of the next page, where they are known already.
    """

    number: int
    n_pages: int
    first: int
    total: int
    tiles: Sequence[Tile]
    ahead: Sequence[str] = ()


class ImageList(Protocol):
    """A list of images that the gallery looks at: of the session's own, or of an archive's.

    Attributes
    ----------
    place : str
        Name of the archive; "" for the session's own images.
    is_quick : bool
        Whether `take`, `find` and `seek` may be called with the gallery's lock held; else they are called
        in the background, without it.
    number : int
        The page on screen, counted from 0.
    similar_to, title : str
        What it is a list of, in place of a ranking; else "".
    among, offer : str
        Of similar images of an archive, among which images they were looked for, and what could be embedded
        besides; else "".
    blind : Blind or None
        What must not be seen while labels are judged again.
    """

    place: str
    is_quick: bool
    number: int
    similar_to: str
    title: str

    @property
    def among(self) -> str:
        """Among which images these were looked for."""

    @property
    def offer(self) -> str:
        """What could be embedded besides."""

    blind: Blind | None

    @property
    def note(self) -> str:
        """What ranks, in plain words."""

    @property
    def can_similar(self) -> bool:
        """Whether images like one of these can be looked for."""

    def take(self, number: int, per_page: int) -> Page:
        """Return a page; numbers beyond either end give the page there."""

    def use(self, page: Page) -> None:
        """Take note of the page that is on screen now."""

    def find(self, image_ids: Sequence[str], per_page: int) -> int | None:
        """Return the number of a page that lists one of these images; None if none does."""

    def seek(self, text: str, after: int) -> int | None:
        """Return the position of the next listed image whose id contains a text; None if none does.

        One whose id is just that comes before the others; after the last comes the first.
        """

    def look(self) -> None:
        """Look whether there is news; as `take`."""

    def news(self) -> str:
        """Say in a few words what a list made anew would be made of; "" when that is no news."""

    def ahead(self, per_page: int) -> Sequence[str]:
        """Return the ids of the images of the next page, as it would be now."""

    def is_random(self, per_page: int) -> bool:
        """Whether an order by score was wanted and there were no scores yet for this page."""

    def uncover(self, per_page: int) -> bool:
        """Go back from another list to the ranking, where it was left; whether there was one."""

    def warm_up(self) -> None:
        """Let what is asked for next be made; from any thread."""
