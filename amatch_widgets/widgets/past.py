"""What was said so far, the latest first: to see who said what and when, to find it and to change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import ipywidgets
from traitlets import Instance, Int, List, Unicode

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.events import Event, LabelsChanged
from amatch_widgets.labels import CLASSES, Label
from amatch_widgets.session.selection import Filter
from amatch_widgets.widgets.merge import Merge
from amatch_widgets.widgets.shelf import BY_SCORE
from amatch_widgets.widgets.view import Desk, View, handler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from amatch_widgets.session import Session
    from amatch_widgets.widgets.blind import Blind
    from amatch_widgets.widgets.gallery import Gallery

__all__ = ["Past"]

_SLICE = 100  # lines shown at first, and more each time
_LONGEST = 200  # characters of a note; the whole note is at the image
_HIDDEN = "hidden until it is labelled again"  # in a second look
_LISTS_ALL = (*BY_SCORE, "random")


class _Said(NamedTuple):
    """A line of the journal, and what of it was new."""

    line: Label
    mark: str  # "anomaly", "normal", "clear", or "" where the label was not the matter
    more: tuple[str, ...]

    def holds(self, text: str, *, is_hidden: bool) -> bool:
        """Whether a text, in small letters, occurs in what is shown of it."""
        line = self.line
        parts: tuple[str, ...] = (line.image_id, line.by)
        if not is_hidden:
            parts += (line.reason, self.mark, line.note, *self.more)
        return any(text in part.casefold() for part in parts)


class Past(View):
    """All that was said of the images, the latest first, with a way to each image.

    Only the lines that are shown go to the browser, and only while somebody looks. All of it is
    text: what stands in names, tags and notes is never drawn as anything else.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        Whose labels are shown.
    desk : Desk
        Shared with the gallery.
    gallery : Gallery
        Shows the images that are gone to, and keeps the labels that are changed.
    """

    template_file = (__file__, "past.vue")

    rows: Any = List().tag(sync=True)
    total = Int(0).tag(sync=True)
    by = Unicode(None, allow_none=True).tag(sync=True)
    text = Unicode("").tag(sync=True)
    annotators: Any = List().tag(sync=True)
    merge = Instance(Merge).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(self, session: Session, desk: Desk, gallery: Gallery) -> None:
        self._gallery = gallery
        self._said: list[_Said] = []
        self._last: dict[str, Label] = {}
        self._views: set[str] = set()  # of the browser, that look
        self._n = _SLICE
        self.merge = Merge(session, desk, gallery)
        self._blind: Blind | None = None  # of the gallery when the lines were last shown
        super().__init__(session, desk)
        gallery.observe(self._follow, "page")
        self._is_following = True

    def apply(self, events: Iterable[Event]) -> None:
        """Show new lines."""
        events = list(events)
        self.merge.apply(events)
        if any(isinstance(event, LabelsChanged) for event in events):
            self.show_all()

    def show_all(self) -> None:
        """Show the journal as it is now, if anybody looks."""
        with self.desk.lock:
            if self._views:
                self._show()

    def go(self, image_id: str) -> None:
        """Bring an image to the screen: in the gallery's list if it is there, else among all images.

        Raises
        ------
        StateError
            If the source has no such image.
        """
        gallery = self._gallery
        with self.desk.lock:
            if self.session.archive_of(image_id) is not None:
                gallery.show_image(image_id)
                return
            gallery.browse()
            if gallery.go_to(image_id):
                return
            gallery.show_ranking()
            sort = gallery.sort if gallery.sort in _LISTS_ALL else "highest"
            gallery.choose(sort=sort, show="all", only=Filter())
            if not gallery.go_to(image_id):
                raise StateError(f"There is no image {image_id!r} in {self.session.source.name!r} any more.")

    def close(self) -> None:
        """Take the history and its form off the screen."""
        if getattr(self, "_is_following", False):  # ipywidgets closes twice
            self._is_following = False
            self._gallery.unobserve(self._follow, "page")
        if self.merge is not None:
            self.merge.close()
        super().close()

    # What the browser asks for.

    @handler("Showing the history")
    def vue_do_want(self, data: dict[str, Any]) -> None:
        """Show the history to one more view, or other lines of it."""
        self._views.add(str(data.get("view")))
        if "by" in data or "text" in data:
            by = data.get("by")
            self.by, self.text = None if by is None else str(by), str(data.get("text") or "").strip()
            self._n = _SLICE
        self._n += _SLICE if data.get("more") else 0
        self._show()

    @handler("Closing the history")
    def vue_do_leave(self, data: dict[str, Any]) -> None:
        """Show nothing to a view that is gone."""
        self._views.discard(str(data.get("view")))
        if not self._views:
            self.rows, self._n = [], _SLICE

    @handler("Going to the image")
    def vue_do_go(self, data: dict[str, Any]) -> None:
        """Bring the image of a line to the screen."""
        self.go(self._line(data).image_id)

    @handler("Labelling")
    def vue_do_label(self, data: dict[str, Any]) -> None:
        """Change the label of the image of a line."""
        label = data.get("label")
        if label not in (*CLASSES, "clear"):
            raise LabelError(f"Unknown label {label!r}; allowed are anomaly, normal and clear.")
        self._gallery.label(self._line(data).image_id, None if label == "clear" else label)
        self._show()

    # The lock is held.

    def _line(self, data: dict[str, Any]) -> Label:
        number = data.get("number")
        if not isinstance(number, int) or not 0 <= number < len(self._said):
            raise StateError(f"There is no line {number!r} in the history.")
        return self._said[number].line

    def _read(self) -> None:
        """Take in the lines that are new."""
        for line in self.session.labels.history()[len(self._said) :]:
            before = self._last.get(line.image_id) or Label(image_id=line.image_id, label=None)
            more = tuple(_changes(before, line))
            is_label = line.label != before.label or not more
            self._said.append(_Said(line, (line.label or "clear") if is_label else "", more))
            self._last[line.image_id] = line

    def _follow(self, _change: object) -> None:
        """Hide what a second look must not see, or show it again; the gallery calls it with the lock held."""
        if self._views and self._gallery.blind is not self._blind:
            self._show()
            self.merge.show_all()

    def _show(self) -> None:
        self._read()
        self._blind = self._gallery.blind
        text = self.text.casefold()
        numbers: Sequence[int] = range(len(self._said) - 1, -1, -1)
        if self.by is not None or text:
            numbers = [
                k
                for k in numbers
                if (self.by is None or self._said[k].line.by == self.by)
                and self._said[k].holds(text, is_hidden=self._hides(k))
            ]
        with self.hold_sync():
            self.total = len(numbers)
            self.annotators = sorted({said.line.by for said in self._said})
            self.rows = [self._row(k) for k in numbers[: self._n]]

    def _hides(self, number: int) -> bool:
        return self._blind is not None and self._blind.hides(self._said[number].line.image_id)

    def _row(self, number: int) -> dict[str, Any]:
        line, mark, more = self._said[number]
        row = {
            "number": number,
            "time": line.time,
            "by": line.by,
            "mark": mark,
            "more": list(more),
            "undoes": line.undoes is not None,
            "id": line.image_id,
            "reason": line.reason,
            "now": self._last[line.image_id].label or "clear",
        }
        hidden = {"mark": "", "more": [_HIDDEN], "undoes": False, "reason": "", "now": ""}
        return row | hidden if self._hides(number) else row


def _changes(before: Label, line: Label) -> Iterator[str]:
    """Say what changed beside the label."""
    if line.star != before.star:
        yield "★ star" if line.star else "star taken away"
    yield from (f"+ {tag}" for tag in line.tags if tag not in before.tags)
    yield from (f"− {tag}" for tag in before.tags if tag not in line.tags)  # noqa: RUF001 (a minus)
    if line.note != before.note:
        note = line.note if len(line.note) <= _LONGEST else f"{line.note[:_LONGEST]}…"
        yield f"note: {note}" if note else "note taken away"
