"""What the user says about the one image that is seen closely: label, star, tags, note."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from traitlets import Bool, List, Unicode

from amatch_widgets.errors import LabelError
from amatch_widgets.widgets.closeup import label_row
from amatch_widgets.widgets.labelling import LABEL_FIRST, LABELS, TAGS_OFFERED, typed
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.view import Desk, handler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amatch_widgets.session import Session

__all__ = ["Judging"]


class Judging(Part):
    """A view of one image that can be labelled, starred, tagged and noted; see `Detail`.

    What the browser asks for carries the image's id. What is shown is on disk.

    Thread safety: all traits and attributes are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one the view stands alone.
    hides : callable, optional
        Takes an id; whether the user is to judge the image without seeing what was said of it.
    """

    image_id = Unicode("").tag(sync=True)
    mark = Unicode("").tag(sync=True)
    is_starred = Bool(False).tag(sync=True)
    tags: Any = List().tag(sync=True)
    note = Unicode("").tag(sync=True)
    known_tags: Any = List().tag(sync=True)
    kept: Any = List().tag(sync=True)  # the last label that reached the disk: [id, label]
    past: Any = List().tag(sync=True)
    is_hidden = Bool(False).tag(sync=True)  # what was said of the image, and its score

    def __init__(
        self,
        session: Session,
        desk: Desk | None = None,
        *,
        hides: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._hides = hides
        super().__init__(session, desk)

    def label(self, image_id: str, label: str | None) -> None:
        """Keep a label of an image on disk, then show it."""
        with self.desk.lock:
            self.session.label({image_id: label}, reason="detail")
            self._show_known()

    # What the browser asks for.

    @handler("Labelling")
    def vue_do_label(self, data: dict[str, Any]) -> None:
        """Label the image on screen; the browser gets word whether the label is on disk."""
        is_kept = False
        try:
            if data.get("label") not in LABELS:
                raise LabelError(f"Unknown label {data.get('label')!r}; allowed are {', '.join(LABELS)}.")
            self.label(str(data.get("id")), LABELS[data["label"]])
            is_kept = True
        finally:
            self.send({"method": "settled", "args": [data.get("token"), is_kept]})

    @handler("Changing the star, tags or the note")
    def vue_do_annotate(self, data: dict[str, Any]) -> None:
        """Star, tag or note the image."""
        image_id, star, note = str(data.get("id")), data.get("star"), data.get("note")
        if self._hides(image_id):
            raise LabelError(LABEL_FIRST)
        self.session.annotate(
            image_id,
            star=None if star is None else bool(star),
            add=[typed("tag", tag) for tag in data.get("add") or ()],
            remove=[str(tag) for tag in data.get("remove") or ()],
            note=None if note is None else typed("note", note),
        )
        self._show_known()

    @handler("Undoing")
    def vue_do_undo(self, _data: dict[str, Any]) -> None:
        """Take the last action back, whichever image it was about."""
        self._tell(self.session.undo(), "Undone")

    @handler("Doing it again")
    def vue_do_redo(self, _data: dict[str, Any]) -> None:
        """Do again what was undone last."""
        self._tell(self.session.redo(), "Done again")

    # The lock is held.

    def _tell(self, image_ids: Sequence[str], done: str) -> None:
        """Show what was changed, or say which image that is where another one is on screen."""
        self._show_known()
        if image_ids and self.image_id not in image_ids:
            others = f" and {len(image_ids) - 1:,} more" if len(image_ids) > 1 else ""
            self.desk.say("info", f"{done}: {image_ids[0]}{others}.")

    def _show_known(self) -> None:
        """Show all that was said of the image, or nothing of it in a second look."""
        store = self.session.labels
        self.is_hidden = self._hides(self.image_id)
        now = None if self.is_hidden else store.get(self.image_id)
        self.mark = "" if now is None else now.label or ""
        self.is_starred = now is not None and now.star
        self.tags, self.note = ([], "") if now is None else (list(now.tags), now.note)
        self.known_tags = list(store.tags())[:TAGS_OFFERED]
        history = [] if self.is_hidden else store.history(self.image_id)
        self.past = [label_row(line) for line in reversed(history)]
