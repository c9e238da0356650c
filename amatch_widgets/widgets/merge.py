"""Merging another annotator's labels: what it would change, in words, and the disagreements to settle."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Int, List, Unicode

from amatch_widgets.errors import AmatchError, LabelError, StateError
from amatch_widgets.events import Event, LabelsChanged
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.view import Desk, View, handler, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amatch_widgets.labels import Label
    from amatch_widgets.labels.merge import Merged, MergeResult
    from amatch_widgets.session import Session
    from amatch_widgets.widgets.gallery import Gallery

__all__ = ["Merge", "told"]

_log = logging.getLogger(__name__)
_ROWS_SHOWN = 200
_IDS_SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The other session as it was read last, and what was said here then."""

    path: str
    name: str = ""
    disagreements: dict[str, Merged] = field(default_factory=dict)
    here: dict[str, Label | None] = field(default_factory=dict)


class Merge(View):
    """A form that takes over what another annotator said of the same images.

    First it says what would change; the merge is another click, and one undo takes it back. Labels
    that both sides changed, and differently, stay as they are here and are listed: each is settled by
    labelling its image, by taking theirs, or by keeping ours, which writes nothing unless another label was
    taken meanwhile. All of it is text: what stands in paths, ids and names is never drawn as anything else.

    Thread safety: all traits and attributes are guarded by ``desk.lock``, which is not held while the
    other session, perhaps far away, is read.

    Parameters
    ----------
    session : Session
        Takes the labels.
    desk : Desk
        Shared with the gallery.
    gallery : Gallery
        Lists the images of the disagreements.
    """

    template_file = (__file__, "merge.vue")

    path = Unicode("").tag(sync=True)  # of what was read last
    is_busy = Bool(False).tag(sync=True)
    problem = Unicode("").tag(sync=True)
    words: Any = List().tag(sync=True)
    n_changes = Int(0).tag(sync=True)  # that a merge would make
    rows: Any = List().tag(sync=True)
    total = Int(0).tag(sync=True)  # disagreements
    n_open = Int(0).tag(sync=True)

    def __init__(self, session: Session, desk: Desk, gallery: Gallery) -> None:
        self._gallery = gallery
        self._base = Path.cwd()  # what a relative path typed here means, also after an os.chdir
        self._found = _Found("")
        self._kept: set[str] = set()  # disagreements in which ours was chosen
        self._work = Newest("amatch-merge")
        super().__init__(session, desk)

    def apply(self, events: Iterable[Event]) -> None:
        """Show which disagreements are settled by now."""
        if any(isinstance(event, LabelsChanged) for event in events):
            self.show_all()

    def show_all(self) -> None:
        """Show which disagreements are settled, and hide those that a second look must not see."""
        with self.desk.lock:
            self._show_rows()

    def close(self) -> None:
        """End the background work and take the form off the screen."""
        work = getattr(self, "_work", None)
        if work is not None:
            work.close()
        super().close()

    # What the browser asks for.

    @handler("Comparing the labels")
    def vue_do_compare(self, data: dict[str, Any]) -> None:
        """Read another session and say what merging it would change."""
        path = str(data.get("path") or "").strip()
        if not path:
            self.problem = "Type the folder of the other session, or the path of its labels.jsonl."
            return
        self._kept = set()
        self._do("compare", lambda: self._read(path))

    @handler("Merging the labels")
    def vue_do_merge(self, _data: dict[str, Any]) -> None:
        """Merge what was compared."""
        path = self._found.path
        if not path:
            raise StateError("Nothing was compared yet. Name the other session first.")
        self._do("merge", lambda: self._merge(path))

    @handler("Settling a disagreement")
    def vue_do_settle(self, data: dict[str, Any]) -> None:
        """Take their label of an image, or keep ours."""
        image_id, take, path = self._disagreement(data), data.get("take"), self._found.path
        if take == "mine":
            self._kept.add(image_id)
            then = self._label_then(image_id)
            if self._label_now(image_id) != then:
                self._gallery.label(image_id, then)
            self._show_rows()
        elif take == "theirs":
            self._kept.discard(image_id)
            self._do(f"settle {image_id}", lambda: self._take(path, image_id))
        else:
            raise LabelError(f"Unknown choice {take!r}; allowed are 'theirs' and 'mine'.")

    @handler("Going to the image")
    def vue_do_go(self, data: dict[str, Any]) -> None:
        """List the disagreements in the gallery, and go to one of them."""
        image_id = self._disagreement(data)
        self._list()
        self._gallery.go_to(image_id)

    @handler("Listing the images")
    def vue_do_list(self, _data: dict[str, Any]) -> None:
        """List the disagreements in the gallery."""
        self._list()

    # The lock is held.

    def _disagreement(self, data: dict[str, Any]) -> str:
        image_id = str(data.get("id"))
        if image_id not in self._found.disagreements:
            raise StateError(f"There is no disagreement about {image_id!r}. Compare the labels again.")
        return image_id

    def _list(self) -> None:
        found = self._found
        self._gallery.show_images(list(found.disagreements), f"Disagreements with {found.name}")

    def _do(self, kind: str, job: Callable[[], None]) -> None:
        """Do what reads another folder, on a thread of its own."""

        def work() -> None:
            problem = ""
            try:
                job()
            except Exception as error:  # noqa: BLE001 (a border: it is said beside the form)
                if not isinstance(error, AmatchError):
                    _log.exception("The labels could not be merged")
                problem = in_words(error)
            with self.desk.lock, self.hold_sync():
                self.problem, self.is_busy = problem, False

        self.problem, self.is_busy = "", True
        self._work.do(kind, work)

    def _state(self, image_id: str) -> str:
        """Say how a disagreement was settled: "theirs", "mine", "neither", or "" while it is open."""
        label = self._label_now(image_id)
        if label == self._found.disagreements[image_id].theirs.label:
            return "theirs"
        if label != self._label_then(image_id):
            return "neither"
        is_confirmed = _is_confirmed(self._found.here[image_id], self.session.labels.get(image_id))
        return "mine" if image_id in self._kept or is_confirmed else ""

    def _label_then(self, image_id: str) -> str | None:
        then = self._found.here[image_id]
        return None if then is None else then.label

    def _label_now(self, image_id: str) -> str | None:
        now = self.session.labels.get(image_id)
        return None if now is None else now.label

    def _show_rows(self) -> None:
        found = self._found.disagreements
        states = {image_id: self._state(image_id) for image_id in found}
        with self.hold_sync():
            self.total, self.n_open = len(states), sum(not state for state in states.values())
            shown = list(states.items())[:_ROWS_SHOWN]
            blind = self._gallery.blind
            self.rows = [
                _row(found[i], state, is_hidden=blind is not None and blind.hides(i)) for i, state in shown
            ]

    # On the background thread.

    def _place(self, path: str) -> str | Path:
        return path if path.startswith("~") else self._base / path

    def _read(self, path: str) -> None:
        try:
            result = self.session.merge_labels(self._place(path), dry_run=True)
        except Exception:
            self._use(_Found(""), [], 0)
            raise
        self._use_result(path, result, told(result))

    def _merge(self, path: str) -> None:
        done = told(self.session.merge_labels(self._place(path)))
        self._use_result(path, self.session.merge_labels(self._place(path), dry_run=True), done)

    def _take(self, path: str, image_id: str) -> None:
        self.session.merge_labels(self._place(path), take="theirs", only=[image_id])
        self.show_all()

    def _use_result(self, path: str, result: MergeResult, words: list[str]) -> None:
        store = self.session.labels
        differ = {image.image_id: image for image in result.disagreements}
        here = {image_id: store.get(image_id) for image_id in differ}
        self._use(_Found(path, result.name, differ, here), words, len(result.lines))

    def _use(self, found: _Found, words: list[str], n_changes: int) -> None:
        with self.desk.lock, self.hold_sync():
            self._found, self.path, self.words, self.n_changes = found, found.path, words, n_changes
            self._show_rows()


def told(result: MergeResult) -> list[str]:
    """Say in sentences what a merge would change, or has changed, and what it leaves."""
    take, join = ("To take over", "To join with yours") if result.is_dry_run else ("Taken over", "Joined")
    taken = [image.line.label for image in result.images if image.line is not None and image.changes_label]
    n_joined, n_open = len(result.lines) - len(taken), len(result.disagreements)
    words = {"anomaly": "◆ anomaly", "normal": "● normal", None: "taken back"}
    kinds = ", ".join(f"{taken.count(kind):,} {word}" for kind, word in words.items() if kind in taken)
    said = []
    if taken:
        said.append(f"{take}: {_many(len(taken), 'label')}, {kinds}.")
    if n_joined:
        said.append(f"{join}: tags, notes or stars of {_many(n_joined, 'image')}.")
    if not result.lines:
        said.append("There is nothing to take over.")
    elif not result.is_dry_run:
        said.append("One undo takes all of it back.")
    if result.n_agree:
        said.append(f"On {_many(result.n_agree, 'image')} you agree already.")
    if n_open:
        said.append(
            f"On {_many(n_open, 'image')} you disagree: what you said stays until you settle it below."
        )
    if result.unknown_ids:
        named = ", ".join(map(repr, result.unknown_ids[:_IDS_SHOWN]))
        more = ", ..." if len(result.unknown_ids) > _IDS_SHOWN else ""
        ids = _many(len(result.unknown_ids), "id")
        said.append(f"Left out, as they are of no image here: {ids} of theirs, {named}{more}.")
    if result.n_splits_differ:
        n = result.n_splits_differ
        said.append(f"Held out on one side only: {_many(n, 'label')}; here none of them moves.")
    return [*said, result.notice] if result.notice else said


def _row(image: Merged, state: str, *, is_hidden: bool) -> dict[str, str]:
    if is_hidden:  # in a second look
        return {"id": image.image_id, "mine": "", "theirs": "", "state": ""}
    image_id, mine, mine_by, mine_time, theirs, theirs_by, theirs_time, _ = image.to_row()
    return {
        "id": image_id,
        "mine": mine or "clear",
        "mine_by": mine_by,
        "mine_time": mine_time,
        "theirs": theirs or "clear",
        "theirs_by": theirs_by,
        "theirs_time": theirs_time,
        "state": state,
    }


def _is_confirmed(then: Label | None, now: Label | None) -> bool:
    """Whether the image was given the label again that it had: not only a star, tag or note."""
    if then is None or now is None or now.undoes is not None or now.time == then.time:
        return False
    return (now.star, now.tags, now.note) == (then.star, then.tags, then.note)


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
