"""What all parts of the dashboard share: a lock, a message area, and a border that lets no error slip away.

A widget's callback runs on the kernel's main thread or on a subshell's, whichever the front
end chose, and an exception in it is shown nowhere. So each callback holds the dashboard's one
lock, and `handler` turns what it raises into a message the user reads.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import threading
from typing import TYPE_CHECKING, Any

from ipyvuetify.VuetifyTemplate import VuetifyTemplate

from amatch_widgets.errors import AmatchError, MissingExtraError
from amatch_widgets.events import Failed, HealthAlarm, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from amatch_widgets.events import Event
    from amatch_widgets.session import Session

__all__ = ["Desk", "View", "handler", "in_words", "require_ipyvuetify"]

_log = logging.getLogger(__name__)
_OLDEST = (3, 1)
_JOBS = {"embed": "Making the embeddings", "train": "Training", "score": "Scoring"}


def require_ipyvuetify(version: str | None = None) -> None:
    """Refuse an ipyvuetify that cannot draw the templates.

    Parameters
    ----------
    version : str, optional
        The version to judge; by default the installed one.

    Raises
    ------
    MissingExtraError
        When it is older than 3.1: 1.x is built on Vue 2 and shows nothing.
    """
    found = importlib.metadata.version("ipyvuetify") if version is None else version
    numbers = tuple(int(part) if part.isdigit() else 0 for part in found.split(".")[:2])
    if numbers < _OLDEST:
        raise MissingExtraError(
            f"The dashboard needs ipyvuetify 3.1 or newer, found {found}. "
            "Type: pip install 'ipyvuetify>=3.1,<4', then restart JupyterLab and the kernel."
        )


def in_words(error: BaseException) -> str:
    """Say in plain words what `error` is.

    Parameters
    ----------
    error : BaseException
        What was caught.

    Returns
    -------
    str
        The message itself for our own errors and those of the operating system; else the kind
        of error too, since the message alone (``KeyError: 3``) would say little.
    """
    if isinstance(error, AmatchError) and str(error):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"Unexpected {type(error).__name__}: {error}. The details are in dashboard.log."


class Desk:
    """What the parts of one dashboard share: its lock and where its messages go.

    Thread safety: ``lock`` is re-entrant and held by every callback and every update from the
    engine's events; the engine never takes it. ``_sinks`` is only changed while the dashboard
    is built.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._sinks: list[Callable[[str, str], None]] = []

    def on_message(self, sink: Callable[[str, str], None]) -> None:
        """Call `sink` with the level and the text of each message from now on."""
        self._sinks.append(sink)

    def say(self, level: str, text: str) -> None:
        """Show `text` in the message area; `level` is "info", "warning" or "error"."""
        with self.lock:
            for sink in self._sinks:
                sink(level, text)

    def tell(self, event: Event) -> None:
        """Say what `event` is about, where a user has to know: failures, alarms, messages."""
        if isinstance(event, Message):
            self.say(event.level, event.text)
        elif isinstance(event, Failed):
            self.say("error", f"{_JOBS.get(event.job, event.job)} failed: {event.text}")
        elif isinstance(event, HealthAlarm):
            self.say("warning", f"{event.text} {event.advice}")

    def report(self, error: BaseException, doing: str) -> None:
        """Log `error` with its traceback and say it in plain words."""
        _log.error("%s failed", doing, exc_info=error)
        # Our own messages say all by themselves.
        self.say(
            "error", in_words(error) if isinstance(error, AmatchError) else f"{doing}: {in_words(error)}"
        )


def handler(doing: str) -> Callable[[Callable[[Any, dict[str, Any]], None]], Callable[..., None]]:
    """Make a method the callback of a browser event: under the lock, and no error leaves it.

    Parameters
    ----------
    doing : str
        What the user was about to do; the message of an unforeseen error begins with it.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(method: Callable[[Any, dict[str, Any]], None]) -> Callable[..., None]:
        @functools.wraps(method)
        def guarded(self: View, data: object = None, _buffers: object = None) -> None:
            with self.desk.lock:
                try:
                    method(self, data if isinstance(data, dict) else {})
                except Exception as error:  # noqa: BLE001 (one of the three borders)
                    self.desk.report(error, doing)

        return guarded

    return decorate


class View(VuetifyTemplate):
    """A part of the dashboard: shows a session and hands the user's wishes to it.

    Parameters
    ----------
    session : Session
        What it shows.
    desk : Desk
        Shared with the other parts of the same dashboard.
    """

    def __init__(self, session: Session, desk: Desk) -> None:
        self.session, self.desk = session, desk
        super().__init__()

    def apply(self, events: Iterable[Event]) -> float | None:  # noqa: ARG002 (here nothing is new)
        """Bring the view up to date after these events; called on the pump's thread.

        Parameters
        ----------
        events : iterable of Event
            What has happened since the last call.

        Returns
        -------
        float or None
            Seconds after which it wants to be called again even without events; None when it shows
            all there is.
        """
        return None

    def show_all(self) -> None:
        """Bring the view up to date with all that the session knows."""

    def open(self) -> None:
        """Open the comm to the browser, and let clicks through while a cell runs."""
        super().open()
        self._unpin()

    def _unpin(self) -> None:
        """Undo ipykernel's pinning of the browser's replies to the thread that sent last.

        ipykernel 7.4 sends what a comm's browser side answers to the shell that used the comm
        last, so after a cell, or a thread it started, has touched a widget, clicks wait until
        that cell ends. The name is private and new in 7.4: where it is absent nothing is pinned.
        """
        comm = self.comm
        if getattr(comm, "_reply_subshell_for", None) is not None:
            comm._reply_subshell_for = None  # noqa: SLF001 (ipykernel then keeps the browser's own choice)
