"""What the user says about the images of a page: labels, stars, tags, notes, and taking it back."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Int, List, Unicode

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.labels.reason import same_as
from amatch_widgets.widgets.habits import LONGEST_NAME
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.view import handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["LABELS", "LABEL_FIRST", "TAGS_OFFERED", "Labelling", "typed"]

LABELS = {"anomaly": "anomaly", "normal": "normal", "clear": None}
_PAGES_REMEMBERED = 16  # a click may still be on its way when the page has turned
TAGS_OFFERED = 100
LABEL_FIRST = (
    "This is a second look: label the image first. Then its star, tags and note are seen and changed."
)
_LONGEST = {"tag": 60, "note": 2_000, "name": LONGEST_NAME}  # characters; more is a paste by mistake


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
    n_awaited = Int(0).tag(sync=True)  # labelled images for whose twins the search is still on
    page = Dict().tag(sync=True)

    def __init__(self, *args: Any) -> None:
        self._pages: OrderedDict[int, dict[str, str]] = OrderedDict()  # id to the reason it is shown for
        # What looks the same as each image of the page, once it is known; and the images that were labelled
        # before, each with its action and label.
        self._alike: dict[str, list[str]] = {}
        self._awaited: dict[str, tuple[int | None, str | None]] = {}
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

    def hides(self, _image_id: str) -> bool:
        """Whether the user is to judge the image without seeing what was said of it."""
        return False

    # What the browser asks for.

    @handler("Labelling")
    def vue_do_label(self, data: dict[str, Any]) -> None:
        """Label tiles; of the rest of a page those that have no label by now, whatever the browser knows."""

        def label() -> None:
            if data.get("label") not in LABELS:
                raise LabelError(f"Unknown label {data.get('label')!r}; allowed are {', '.join(LABELS)}.")
            reasons = self._images_of(data)
            if data.get("is_rest"):
                reasons = {i: why for i, why in reasons.items() if i not in self.session.labels}
            self._label(reasons, LABELS[data["label"]])

        self._settle(data, label)

    @handler("Changing stars, tags or the note")
    def vue_do_annotate(self, data: dict[str, Any]) -> None:
        """Star, tag or note tiles."""

        def annotate() -> None:
            star, note = data.get("star"), data.get("note")
            image_ids = list(self._images_of(data))
            if any(map(self.hides, image_ids)):
                raise LabelError(LABEL_FIRST)
            self.session.annotate(
                image_ids,
                star=None if star is None else bool(star),
                add=[typed("tag", tag) for tag in data.get("add") or ()],
                remove=[str(tag) for tag in data.get("remove") or ()],
                note=None if note is None else typed("note", note),
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
        self.session.annotator = self.annotator = typed("name", data.get("name") or "")
        self._keep_habits()

    # The lock is held.

    def _label(self, reasons: dict[str, str], label: str | None) -> None:
        """Label images that are shown for these reasons, "" where there is none, and their twins."""
        wanted, reasons = list(reasons), dict(reasons)
        for image_id in wanted if self.with_twins else ():
            for twin, why in self._of_twins(image_id, self._alike.get(image_id, ()), label).items():
                reasons.setdefault(twin, why)
        self.session.label(dict.fromkeys(reasons, label), reason=reasons)
        self._await_twins(wanted, label)
        self._show_labels()

    def _of_twins(self, image_id: str, twins: Iterable[str], label: str | None) -> dict[str, str]:
        """Return the twins that get the same label as an image, and why.

        A twin that a person has labelled keeps that; one that was labelled with its twin goes with it.
        """
        store, why, found = self.session.labels, same_as(image_id), {}
        for twin in twins:
            line = store.get(twin)
            is_free, is_ours = line is None or line.label is None, line is not None and line.reason == why
            if is_ours or (is_free and label is not None):
                found[twin] = why
        return found

    def _await_twins(self, image_ids: Iterable[str], label: str | None) -> None:
        """Remember which images were labelled before it was known what looks the same."""
        for image_id in image_ids:
            self._awaited.pop(image_id, None)  # what is said now holds
            if self.with_twins and image_id not in self._alike:
                lines = reversed(self.session.labels.history())
                action = next(line.action for line in lines if line.image_id == image_id)
                self._awaited[image_id] = action, label
        self.n_awaited = len(self._awaited)
        if self._awaited:
            self._look_for_awaited()

    def _label_awaited(self, alike: dict[str, list[str]]) -> None:
        """Label what looks the same as images that were labelled before that was known, in that action."""
        for image_id in alike.keys() & self._awaited.keys():
            action, label = self._awaited.pop(image_id)
            line = self.session.labels.get(image_id)
            if (None if line is None else line.label) != label:
                continue  # taken back, or changed elsewhere
            reasons = self._of_twins(image_id, alike[image_id], label)
            if reasons:
                try:
                    self.session.label(dict.fromkeys(reasons, label), reason=reasons, action=action)
                except Exception as error:  # noqa: BLE001 (a border: it is told in words)
                    self.desk.report(error, "Labelling what looks the same")
        self.n_awaited = len(self._awaited)
        self._show_labels()

    def _look_for_awaited(self) -> None:
        """Have `_label_awaited` called with what looks the same as the images that wait for it."""
        raise NotImplementedError

    def _keep_habits(self) -> None:
        """Keep what is to be as it is now the next time."""
        raise NotImplementedError

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
        hidden = [self.hides(image_id) for image_id in self.image_ids]
        told = [
            None if is_hidden else store.get(i) for i, is_hidden in zip(self.image_ids, hidden, strict=True)
        ]
        with self.hold_sync():
            self.labels = {
                "serial": self.page["serial"],
                "marks": ["" if line is None else line.label or "" for line in told],
                "stars": [line is not None and line.star for line in told],
                "tags": [[] if line is None else list(line.tags) for line in told],
                "notes": ["" if line is None else line.note for line in told],
                "hidden": hidden,
            }
            self.known_tags = list(store.tags())[:TAGS_OFFERED]
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


def typed(what: str, text: Any) -> str:
    """Return what the user typed as a "tag", "note" or "name", without the space around it.

    Raises
    ------
    LabelError
        If it is too long.
    """
    text = str(text).strip()
    if len(text) > _LONGEST[what]:
        raise LabelError(f"This {what} has {len(text):,} characters; allowed are {_LONGEST[what]:,}.")
    return text
