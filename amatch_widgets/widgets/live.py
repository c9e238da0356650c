"""Keep a part that stands alone up to date, for as long as a browser shows it."""

from __future__ import annotations

import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol

from amatch_widgets.events import Event, Failed, HealthAlarm, Message
from amatch_widgets.widgets.logfile import keep_log
from amatch_widgets.widgets.pump import Pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.session import Session
    from amatch_widgets.widgets.view import Desk

__all__ = ["SILENCE_S", "Live"]

# A display whose browser has been silent for so long is not looked at: it stops working until
# the browser is heard again. Browsers slow the timers of hidden tabs to one a minute.
SILENCE_S = 180.0
_LOOK_AGAIN_S = 1.0
_KEPT = 30


class _Part(Protocol):
    session: Session
    desk: Desk

    def apply(self, events: list[Event]) -> float | None: ...
    def show_all(self) -> None: ...
    def forget_images(self) -> None: ...


class Live:
    """What a part has in place of a dashboard: a pump, the session's messages, and the log file.

    The pump's thread runs only while a browser is heard: ipywidgets holds each widget until it is
    closed, so a part that is dropped would keep its thread for good. What went wrong meanwhile is
    kept and said when the browser is back.

    Thread safety: all attributes are guarded by the ``desk.lock`` of the part; ``_news`` is a deque,
    filled on the engine's threads.

    Parameters
    ----------
    part : View
        What is kept up to date.
    """

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._heard = 0.0
        self._pump: Pump | None = None
        self._news: deque[Event] = deque(
            (Message("warning", notice) for notice in part.session.notices), maxlen=_KEPT
        )
        self._end = weakref.finalize(
            self,
            _end_all,
            keep_log(part.session.path / "dashboard.log"),
            part.session.hub.subscribe(_keeper(self._news)),
        )

    @property
    def is_awake(self) -> bool:
        """Whether the part is kept up to date."""
        return self._pump is not None

    def hear(self) -> None:
        """Take note that a browser shows the part, and wake up; called with the lock held."""
        self._heard = time.monotonic()
        if self._pump is None and self._end.alive:
            # First, so that nothing is missed in between.
            self._pump = Pump(self._part.session.hub, self, _LOOK_AGAIN_S)
            self._part.show_all()
            self._tell()

    def apply(self, events: list[Event]) -> float | None:
        """Bring the part up to date, or go to sleep; called on the pump's thread.

        Parameters
        ----------
        events : list of Event
            What has happened since the last call.

        Returns
        -------
        float or None
            Seconds after which to call again; None for never.
        """
        part = self._part
        with part.desk.lock:
            if time.monotonic() - self._heard > SILENCE_S:
                part.forget_images()
                pump, self._pump = self._pump, None
                if pump is not None:
                    pump.close()  # its own thread: it is not waited for
                return None
            self._tell()
        again_s = None
        try:
            again_s = part.apply(events)
        except Exception as error:  # noqa: BLE001 (one of the three borders)
            part.desk.report(error, "Showing what is new")
        return _LOOK_AGAIN_S if again_s is None else min(again_s, _LOOK_AGAIN_S)

    def close(self) -> None:
        """End the thread and the subscriptions; safe to call twice."""
        self._end()
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.close()

    def _tell(self) -> None:
        while self._news:
            self._part.desk.tell(self._news.popleft())


def _keeper(news: deque[Event]) -> Callable[[Event], None]:
    """Keep what a user has to know; holds the deque alone, and so no part."""

    def keep(event: Event) -> None:
        if isinstance(event, (Message, Failed, HealthAlarm)):
            news.append(event)

    return keep


def _end_all(*ends: Callable[[], None]) -> None:
    for end in ends:
        end()
