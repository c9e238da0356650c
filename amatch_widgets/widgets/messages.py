"""The list of messages: what went wrong, what is written, what to mind."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from traitlets import List

from amatch_widgets.widgets.view import Desk, View, handler

if TYPE_CHECKING:
    from amatch_widgets.session import Session

__all__ = ["Messages"]

_KEPT = 30


class Messages(View):
    """What was said at a desk, the newest first, each until it is dismissed.

    Thread safety: all traits are guarded by ``desk.lock``.

    Parameters
    ----------
    session : Session
        Whose messages they are.
    desk : Desk
        Where they are said.
    """

    template_file = (__file__, "messages.vue")

    messages: Any = List().tag(sync=True)

    def __init__(self, session: Session, desk: Desk) -> None:
        self._numbers = itertools.count(1)
        super().__init__(session, desk)
        desk.on_message(self._add)

    @handler("Dismissing a message")
    def vue_do_dismiss(self, data: dict[str, Any]) -> None:
        """Take one message away, or all."""
        number = data.get("number")
        self.messages = [m for m in self.messages if number is not None and m["number"] != number]

    def _add(self, level: str, text: str) -> None:
        """Show one more; called with the lock held."""
        last = self.messages[-1] if self.messages else None
        if last is not None and (last["level"], last["text"]) == (level, text):
            again = {**last, "times": last["times"] + 1}
            self.messages = [*self.messages[:-1], again]
            return
        message = {
            "number": next(self._numbers),
            "level": level,
            "text": text,
            "time": time.strftime("%H:%M:%S"),
            "times": 1,
        }
        self.messages = [*self.messages, message][-_KEPT:]
