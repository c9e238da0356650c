"""What can be taken back: the user's actions, each with what it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amatch_widgets.labels.label import Label

__all__ = ["Actions", "Change"]

Change = tuple["Label | None", "Label"]  # the image's line before, and the action's own


class Actions:
    """Which actions can be undone, and which of the undone ones can be done again.

    To undo is an action itself, which says what it undoes; to redo is to undo that one. So the
    journal holds all of it, and after a restart the same can be undone as before.

    Thread safety: none; the `LabelStore` that owns it guards it.
    """

    def __init__(self) -> None:
        self._changes: dict[int, list[Change]] = {}
        self._done: list[int] = []
        self._undone: list[int] = []  # undoing actions, the latest last
        self._last = 0

    @property
    def n_done(self) -> int:
        """How many actions can be undone, one after the other."""
        return len(self._done)

    @property
    def n_undone(self) -> int:
        """How many can be done again."""
        return len(self._undone)

    @property
    def next(self) -> int:
        """The number of the next action."""
        return self._last + 1

    def is_done(self, action: int) -> bool:
        """Whether an action was not taken back."""
        return action in self._done

    def last_done(self) -> tuple[int, list[Change]] | None:
        """Return the action that is undone next, with its changes, or None."""
        return (self._done[-1], self._changes[self._done[-1]]) if self._done else None

    def last_undone(self) -> tuple[int, list[Change]] | None:
        """Return the undoing action that is taken back next, with its changes, or None."""
        return (self._undone[-1], self._changes[self._undone[-1]]) if self._undone else None

    def note(self, before: Label | None, line: Label) -> None:
        """Take in a line of the journal; `before` is the line the image had until then."""
        action = line.action
        if action is None:  # of an older journal, or of a table: not the work of a moment
            return
        if action not in self._changes:
            self._changes[action] = []
            self._last = max(self._last, action)
            self._turn(action, line.undoes)
        self._changes[action].append((before, line))

    def _turn(self, action: int, undoes: int | None) -> None:
        if undoes is not None and self._done[-1:] == [undoes]:
            self._done.pop()
            self._undone.append(action)
        elif undoes is not None and self._undone[-1:] == [undoes]:
            self._undone.pop()
            self._done.append(action)
        else:
            self._done.append(action)
            self._undone.clear()
