"""What the user says about the images of a page: labels, stars, tags, notes, and taking it back."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Int, List, Unicode

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.labels.reason import same_as
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.view import handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amatch_widgets.labels import Label

__all__ = ["Labelling"]

_LABELS = {"anomaly": "anomaly", "normal": "normal", "clear": None}
_PAGES_REMEMBERED = 16  # a click may still be on its way when the page has turned
_TAGS_OFFERED = 100
_LONGEST = {"tag": 60, "note": 2_000, "name": 60}  # characters; more is a paste by mistake


class Labelling(Part):
    """A view with pages of images that can be labelled; see `Gallery`.

    What the browser asks for carries the page's serial number and positions on that page, so that
    it means the images the user saw. Each wish is answered by whether it is on disk.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.
    """

    labels = Dict().tag(sync=True)
    known_tags: Any = List().tag(sync=True)
    n_undo = Int(0).tag(sync=True)
    n_redo = Int(0).tag(sync=True)
    annotator = Unicode("").tag(sync=True)
    with_twins = Bool(False).tag(sync=True)  # label what looks the same, too: a network may err in that
    page = Dict().tag(sync=True)

    def __init__(self, *args: Any) -> None:
        self._pages: OrderedDict[int, dict[str, str]] = OrderedDict()  # id to the reason it is shown for
        self._twins: dict[str, list[str]] = {}  # of the images of the page
        super().__init__(*args)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images of the page on screen, in order."""
        return tuple(self._pages[self.page["serial"]])

    def label(self, image_ids: str | Sequence[str], label: str | None) -> None:
        """Keep a label of images on disk, as one action, then show it."""
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        with self.desk.lock:
            self._label(dict.fromkeys(wanted, ""), label)

    def undo(self) -> None:
        """Take the last action back, and go to where it was made."""
        with self.desk.lock:
            self._go_to(self.session.undo(), "Undone")

    def redo(self) -> None:
        """Do again what was undone last, and go to where that was."""
        with self.desk.lock:
            self._go_to(self.session.redo(), "Done again")

    def go_to(self, image_id: str) -> bool:
        """Bring an image to the screen, the cursor on it; return whether it is in the list."""
        with self.desk.lock:
            position = self._find([image_id])
            if position is not None:
                self._point_at(position)
            return position is not None

    def hides(self, _line: Label) -> bool:
        """Whether the user is to judge the image without seeing what was said of it."""
        return False

    # What the browser asks for.

    @handler("Labelling")
    def vue_do_label(self, data: dict[str, Any]) -> None:
        """Label tiles."""

        def label() -> None:
            if data.get("label") not in _LABELS:
                raise LabelError(f"Unknown label {data.get('label')!r}; allowed are {', '.join(_LABELS)}.")
            self._label(self._images_of(data), _LABELS[data["label"]])

        self._settle(data, label)

    @handler("Changing stars, tags or the note")
    def vue_do_annotate(self, data: dict[str, Any]) -> None:
        """Star, tag or note tiles."""

        def annotate() -> None:
            star, note = data.get("star"), data.get("note")
            self.session.annotate(
                list(self._images_of(data)),
                star=None if star is None else bool(star),
                add=[_text("tag", tag) for tag in data.get("add") or ()],
                remove=[str(tag) for tag in data.get("remove") or ()],
                note=None if note is None else _text("note", note),
            )
            self._show_labels()

        self._settle(data, annotate)

    @handler("Changing what is labelled")
    def vue_do_with_twins(self, data: dict[str, Any]) -> None:
        """Label the twins of an image with it from now on, or not."""
        self.with_twins = bool(data.get("on"))

    @handler("Undoing")
    def vue_do_undo(self, data: dict[str, Any]) -> None:
        """Take the last action back."""
        self._go_to(self.session.undo(), "Undone", str(data.get("token") or ""))

    @handler("Doing it again")
    def vue_do_redo(self, data: dict[str, Any]) -> None:
        """Do again what was undone last."""
        self._go_to(self.session.redo(), "Done again", str(data.get("token") or ""))

    @handler("Changing the annotator")
    def vue_do_name(self, data: dict[str, Any]) -> None:
        """Take the name that stands beside the labels from now on."""
        self.session.annotator = self.annotator = _text("name", data.get("name") or "")

    # The lock is held.

    def _label(self, reasons: dict[str, str], label: str | None) -> None:
        """Label images that are shown for these reasons, "" where there is none, and their twins."""
        reasons = reasons | self._of_twins(reasons, label)
        self.session.label(dict.fromkeys(reasons, label), reason=reasons)
        self._show_labels()

    def _of_twins(self, reasons: dict[str, str], label: str | None) -> dict[str, str]:
        """Return the twins that get the same label, and why, if the user wants that.

        A twin that a person has labelled keeps that; one that was labelled with its twin goes with it.
        """
        store, found = self.session.labels, {}
        for image_id in reasons if self.with_twins else ():
            why = same_as(image_id)
            for twin in self._twins.get(image_id, ()):
                line = store.get(twin)
                is_free, is_ours = line is None or line.label is None, line is not None and line.reason == why
                if twin not in reasons and (is_ours or (is_free and label is not None)):
                    found[twin] = why
        return found

    def _settle(self, data: dict[str, Any], do: Callable[[], None]) -> None:
        """Do what was asked for; the browser gets word whether it is on disk."""
        is_kept = False
        try:
            do()
            is_kept = True
        finally:
            self.send({"method": "settled", "args": [data.get("token"), is_kept]})

    def _remember_page(self, serial: int, reasons: dict[str, str]) -> None:
        self._pages[serial] = reasons
        while len(self._pages) > _PAGES_REMEMBERED:
            self._pages.popitem(last=False)

    def _images_of(self, data: dict[str, Any]) -> dict[str, str]:
        """Find which images a wish meant, also when the page has turned since, and why they are shown."""
        reasons = self._pages.get(data.get("serial", -1))
        if reasons is None:
            raise StateError("The page was left too long ago: turn back to it and try again.")
        indices = data.get("indices")
        if not isinstance(indices, list) or not indices:
            raise LabelError(f"There are no tiles {indices!r} on the page.")
        images = list(reasons.items())
        for index in indices:
            if not isinstance(index, int) or not 0 <= index < len(images):
                raise LabelError(f"There is no tile {index!r} on the page.")
        return dict(images[index] for index in indices)

    def _show_labels(self) -> None:
        store = self.session.labels
        kept = [store.get(image_id) for image_id in self.image_ids]
        told = [None if line is None or self.hides(line) else line for line in kept]
        with self.hold_sync():
            self.labels = {
                "serial": self.page["serial"],
                "marks": ["" if line is None else line.label or "" for line in told],
                "stars": [line is not None and line.star for line in told],
                "tags": [[] if line is None else list(line.tags) for line in told],
                "notes": ["" if line is None else line.note for line in told],
                "hidden": [line is not None and self.hides(line) for line in kept],
            }
            self.known_tags = list(store.tags())[:_TAGS_OFFERED]
            self.n_undo, self.n_redo = store.n_undo, store.n_redo
            self.annotator = self.session.annotator

    def _go_to(self, image_ids: Sequence[str], done: str, token: str = "") -> None:
        """Show the labels, and bring the first of these images to the screen, where it is listed.

        The browser that asked gave a `token`; it moves its cursor unless its user has gone on meanwhile.
        """
        self._show_labels()
        if not image_ids:
            return
        position = self._find(image_ids)
        if position is None:
            self._say_missing(image_ids, done)
        else:
            self._point_at(position, token)

    def _say_missing(self, image_ids: Sequence[str], done: str) -> None:
        others = f" and {len(image_ids) - 1:,} more" if len(image_ids) > 1 else ""
        self.desk.say("info", f"{done}: {image_ids[0]}{others}, not in this list.")

    def _point_at(self, position: int, token: str = "") -> None:
        """Move the browser's cursor to a tile of the page."""
        self.send({"method": "look_at", "args": [self.page["serial"], position, token]})

    def _find(self, image_ids: Sequence[str]) -> int | None:
        """Go to the page that lists one of these images; return its place there, None if none does."""
        raise NotImplementedError


def _text(what: str, text: Any) -> str:
    """Check what the user typed."""
    text = str(text).strip()
    if len(text) > _LONGEST[what]:
        raise LabelError(f"This {what} has {len(text):,} characters; allowed are {_LONGEST[what]:,}.")
    return text
