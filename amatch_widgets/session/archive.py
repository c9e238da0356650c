"""Images other than the session's own: where they lie, in which order they are looked at, what was said."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amatch_widgets.archive.order import Row
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.scores import ArchiveScores
from amatch_widgets.archive.search import Search
from amatch_widgets.errors import AmatchError, LabelError, NotTrainedError, SourceError
from amatch_widgets.session.archive_order import make_order
from amatch_widgets.session.reopen import reopen
from amatch_widgets.session.selection import Filter, Show

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from pathlib import Path

    from amatch_widgets.archive.order import Order
    from amatch_widgets.images.remote import Remote
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import Label, LabelStore

__all__ = ["SEPARATOR", "Archive", "OwnIds", "Progress"]

SEPARATOR = "::"
_SEEN = 100_000  # images whose position and score are remembered: a thousand pages


class OwnIds:
    """The ids of the session's own images, as opposed to those of archives, which have a `SEPARATOR`.

    Parameters
    ----------
    index : container of str
        All ids of the session; to look one up in ten million takes a millisecond.
    """

    def __init__(self, index: Container[str]) -> None:
        self._index = index

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, str) and (SEPARATOR not in image_id or image_id in self._index)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the scoring is.

    Attributes
    ----------
    cycle : int
        0 before anything is scored.
    note : str
        What ranks in it, in plain words.
    n_done : int
        Images whose part is there.
    has_first : bool
        Whether the highest of the cycle before have their scores, before all others.
    """

    cycle: int = 0
    note: str = ""
    n_done: int = 0
    has_first: bool = False


class Archive:
    """The images that `Session.score` was given, to be looked at and labelled.

    In the session they are called by the archive's name and their own id, ``"survey-1a2b3c4d::17.png"``,
    which no other image is; those that are the session's own images as well keep their id.

    Parameters
    ----------
    name : str
        Without ``"::"``.
    folder : Path or Remote
        Where the scores lie.
    labels : LabelStore
        Of the session.
    source : ImageSource, optional
        The images, where they are open already.
    mine : callable, optional
        Takes the fingerprint of the archive; returns the ids of those of its images that are the session's
        own, which are a sample of it.

    Attributes
    ----------
    name : str
    parts : Parts

    Raises
    ------
    WorkspaceError
        If there are no scores in the folder, or they are damaged.

    Notes
    -----
    Thread safety: ``_opening`` guards ``_source`` and ``_failure`` and is held while the images are opened;
    ``_lock`` guards ``_seen``. All may be called from any thread but a widget's callback, since they read
    files; `knows` and `standing` may be called from there too, of images that were on a page.
    """

    def __init__(
        self,
        name: str,
        folder: Path | Remote,
        labels: LabelStore,
        source: ImageSource | None = None,
        *,
        mine: Callable[[str], Container[str]] = lambda _: (),
    ) -> None:
        self.name, self.parts = name, Parts.open(folder)
        self._labels = labels
        self.fingerprint, self._spec = self.parts.source()
        self._mine = mine(self.fingerprint)
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._source, self._failure = source, ""
        self._search = Search()
        self._seen: OrderedDict[str, tuple[int, float | None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Archive({self.name!r}, {len(self):,} images, {str(self.folder)!r})"

    def __len__(self) -> int:
        """How many images there are, scored or not."""
        return self.parts.n_images

    @property
    def folder(self) -> Path | Remote:
        """Where the scores lie."""
        return self.parts.root

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name.removesuffix(f"-{self.fingerprint[:8]}")

    @property
    def scores(self) -> ArchiveScores:
        """The scores of the last cycle that was begun; more may come while one looks.

        Raises
        ------
        NotTrainedError
            If nothing is scored yet.
        MissingExtraError
            If duckdb is not installed.
        """
        return ArchiveScores(self.parts, search=self._search)

    def progress(self) -> Progress:
        """Say how far the scoring is; a list made now is of this."""
        try:
            scores = self.scores
        except NotTrainedError:
            return Progress()
        files, cycle = scores.now(), scores.cycle
        return Progress(cycle.number, cycle.note, files.n_done, files.has_first)

    @property
    def source(self) -> ImageSource:
        """The images, opened when they are needed first.

        Raises
        ------
        SourceError
            If they are gone or are others, or were an array in memory.
        """
        with self._opening:
            if self._source is None:
                self._source = self._open()
            return self._source

    def use(self, source: ImageSource) -> None:
        """Take the images from here from now on."""
        with self._opening:
            self._source, self._failure = source, ""

    # Ids.

    def id_of(self, own: str) -> str:
        """Return what an image is called in the session."""
        return own if own in self._mine else f"{self.name}{SEPARATOR}{own}"

    def own_id(self, image_id: str) -> str:
        """Return what an image of the session's name is called in the archive."""
        return image_id.removeprefix(f"{self.name}{SEPARATOR}")

    def owns(self, image_id: str) -> bool:
        """Whether an image of the session's name is one of the archive, if it is there at all."""
        return image_id.startswith(f"{self.name}{SEPARATOR}") or image_id in self._mine

    def knows(self, image_id: str) -> bool:
        """Whether there is such an image; one that was never on a page is looked for in the files."""
        if self._remembered(image_id) or self._labels.history(image_id):
            return True
        return bool(self.positions([image_id]))

    def index(self, image_id: str) -> int:
        """Return the position of an image in the source.

        Raises
        ------
        LabelError
            If there is no such image, or it is not scored yet.
        """
        found = self.positions([image_id])
        if image_id not in found:
            raise LabelError(f"There is no image {image_id!r} among those of {self.title!r} that are scored.")
        return found[image_id]

    def positions(self, image_ids: Iterable[str]) -> dict[str, int]:
        """Return the positions of images in the source; those that were never scored are left out.

        What was on no page yet is looked for in the files: of the last cycle first, then of those before,
        since a cycle that was just begun has few.
        """
        seen = {i: self._remembered(i) for i in image_ids}
        found = {i: at[0] for i, at in seen.items() if at is not None}
        missing = {self.own_id(i): i for i, at in seen.items() if at is None}
        for cycle in reversed(self.parts.cycles()):
            if missing and self.parts.done(cycle):
                places = ArchiveScores(self.parts, cycle).positions(missing)
                self.remember(Row(index, own, None) for own, index in places.items())
                found |= {missing.pop(own): index for own, index in places.items()}
        return found

    def rows(self, indices: Iterable[int]) -> dict[int, Row]:
        """Return images by their positions in the source, and remember them; never scored ones are left out.

        One that the last cycle has not come to has no score.
        """
        missing, found = {int(i) for i in indices}, dict[int, Row]()
        begun = [c for c in self.parts.cycles() if self.parts.done(c) or self.parts.first(c)]
        for cycle in reversed(begun):
            there = ArchiveScores(self.parts, cycle).rows(missing) if missing else {}
            if cycle is not begun[-1]:
                there = {i: Row(i, row.id, None) for i, row in there.items()}
            found |= there
            missing -= there.keys()
        self.remember(found.values())
        return found

    def standing(self, image_id: str) -> float | None:
        """Return the score that an image had on the page where it was seen last."""
        seen = self._remembered(image_id)
        return None if seen is None else seen[1]

    def lines(self) -> dict[str, Label]:
        """Return what is said of its images, by their names in the session, the latest last."""
        said = {**self._labels.unlabelled(), **self._labels.current()}
        return {i: line for i, line in said.items() if self.owns(i)}

    # Orders.

    def order(
        self, how: str = "highest", *, show: Show = "all", only: Filter | None = None, seed: int = 0
    ) -> Order:
        """List images as they are scored now, in an order to look at; it stays as it is made.

        Parameters
        ----------
        how : {"highest", "lowest", "uncertain", "random", "rising", "recent"}
            "rising": which of the 2,000 highest scores have gained most ranks since the cycle before, on a
            logarithmic scale. "recent" shows labelled images only, the latest label first.
        show : {"all", "unlabelled", "labelled", "anomaly", "normal", "starred", "problem"}
            "all" are those that have a score; "problem" are those that cannot be read.
        only : Filter, optional
            What they must have besides.
        seed : int
            Of the random order.

        Returns
        -------
        Order
            Of rows with the ids that the archive has for them.

        Raises
        ------
        NotTrainedError
            If nothing is scored yet, or there is no earlier cycle to have risen since.
        ConfigError
            If there is no such order.
        """
        return make_order(self, how, show, Filter() if only is None else only, seed)

    def remember(self, rows: Iterable[Row]) -> None:
        """Remember where some images are and how they are scored: they are asked for next."""
        with self._lock:
            for row in rows:
                self._seen[self.id_of(row.id)] = row.index, row.score
                self._seen.move_to_end(self.id_of(row.id))
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)

    def _remembered(self, image_id: str) -> tuple[int, float | None] | None:
        with self._lock:
            return self._seen.get(image_id)

    def _open(self) -> ImageSource:
        """Open the images; that they are not there is said at once from then on."""
        if self._failure:
            raise SourceError(self._failure)
        try:
            source = reopen(self._spec)
            if source.fingerprint() == self.fingerprint:
                return source
            self._failure = f"{source.name!r} has other images now, or others in its place."
        except (AmatchError, OSError, KeyError, TypeError) as error:
            self._failure = f"The images of {self.title!r} cannot be opened: {error}"
        self._failure += " Call session.score() with them again: it makes only what is missing."
        raise SourceError(self._failure)
