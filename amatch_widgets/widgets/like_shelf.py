"""Which images of an archive the gallery lists as like others: among those that are embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amatch_widgets.archive.order import Chosen
from amatch_widgets.session.comparing import N_HIGHEST
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.archive_shelf import ArchiveShelf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amatch_widgets.archive.order import Order, Row
    from amatch_widgets.session import Session
    from amatch_widgets.session.archive import Archive
    from amatch_widgets.widgets.tiles import ImageList

__all__ = ["LikeShelf"]

_N_SIMILAR = 191  # and the image itself: full pages


class LikeShelf(ArchiveShelf):
    """The images of an archive most like one, or like several taken together.

    Those that they are like come first, as far as they are of the archive themselves.

    Thread safety: as that of `ArchiveShelf`.

    Parameters
    ----------
    session : Session
    archive : Archive
    models : sequence of str
        The images whose like are listed, by their names in the session.
    behind : ImageList
        The list of the archive that one came from.
    first : int
        Position in it to come back to.

    Attributes
    ----------
    models, behind, first
        As given.
    """

    def __init__(
        self,
        session: Session,
        archive: Archive,
        models: Sequence[str],
        *,
        behind: ImageList,
        first: int,
    ) -> None:
        super().__init__(archive, "highest", "all", Filter(), seed=0)
        self._session = session
        self.models, self.behind, self.first = tuple(models), behind, first
        self.similar_to = models[0] if len(models) == 1 else f"{len(models)} images"
        self._n_models = 0  # that are listed
        self._n_listed = self._n_now = 0  # images that were embedded when it was made, and are now
        self._may_embed = True

    @property
    def among(self) -> str:
        """Say how many images these were looked for among."""
        n, archive = self._n_listed, self._archive
        if not n:
            return f"No image of {archive.title} is embedded yet"
        if n >= len(archive):
            return f"among all images of {archive.title}"
        return f"among {n:,} of {len(archive):,} images, embedded for their scores"

    @property
    def offer(self) -> str:
        """Say in a few words which images could be embedded besides; "" where that goes on, or is done."""
        if not self._may_embed or self._session.job == "embed":
            return ""
        n = len(self._archive)
        return "embed all" if n <= N_HIGHEST else f"embed the {N_HIGHEST:,} highest"

    def look(self) -> None:
        """Look how many images are embedded now."""
        self._n_now = self._session.n_embedded(self.place)
        self._may_embed = self._session.may_embed(self.place)

    def news(self) -> str:
        """Say that more images could be compared."""
        more = self._n_now - self._n_listed
        return f"{more:,} more embedded" if self._made is not None and more > 0 else ""

    def _reason(self, place: int, n: int) -> str:
        del n
        if place <= self._n_models:
            return "shown for its like"
        return f"similar to {self.similar_to}: rank {place - self._n_models:,}"

    def _list(self) -> Order:
        self.look()
        self._n_listed = self._n_now
        rows = self._rows([i for i in self.models if self._archive.owns(i)])
        self._n_models = len(rows)
        if self._n_listed:
            like = self._session.similar(self.models, _N_SIMILAR, archive=self.place)
            rows += self._rows([c.image_id for c in like])
        return Chosen(rows)

    def _rows(self, image_ids: Sequence[str]) -> list[Row]:
        places = self._archive.positions(image_ids)
        rows = self._archive.rows(places.values())
        return [rows[places[i]] for i in image_ids if places.get(i) in rows]
