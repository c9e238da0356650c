"""Carry the engine's events to a dashboard, no faster than a browser can draw."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from amatch_widgets.events import Event, EventHub, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pump"]

_log = logging.getLogger(__name__)

# Eight updates a second look fluent; far more of them (1000/s) made the Jupyter server drop the
# last value for good, and a gallery beside them lags.
_PERIOD_S = 0.125
_IDLE_S = 1.0


class _Target(Protocol):
    def apply(self, events: list[Event]) -> float | None: ...


class Pump:
    """One thread that drains a mailbox and hands the events to a dashboard.

    It holds its target by a weak reference, so that a dashboard nobody holds any more takes its
    pump with it.

    Thread safety: ``_stop`` is an event; all else is set once.

    Parameters
    ----------
    hub : EventHub
        Whose events are carried.
    target : object
        Its ``apply(events)`` runs on the pump's thread; it returns after how many seconds it
        wants to be called again even without events, or None.
    again_s : float, optional
        Seconds after which it is called for the first time even without events.
    """

    def __init__(self, hub: EventHub, target: _Target, again_s: float | None = None) -> None:
        self._mailbox = Mailbox()
        self._stop = threading.Event()
        # The hub may hold the mailbox, but neither may hold the target.
        self._unsubscribe = hub.subscribe(self._mailbox.post)
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(target), self._mailbox, self._stop, self._unsubscribe, again_s),
            name="amatch-pump",
            daemon=True,
        )
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the subscription and the thread; safe to call twice, and on the pump's own thread."""
        self._unsubscribe()
        self._stop.set()
        self._mailbox.post(Event())  # wakes the thread
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)


def _run(
    reference: weakref.ref[_Target],
    mailbox: Mailbox,
    stop: threading.Event,
    unsubscribe: Callable[[], None],
    again_s: float | None,
) -> None:
    while not stop.is_set():
        mailbox.wait(_IDLE_S if again_s is None else min(again_s, _IDLE_S))
        target = reference()
        if target is None:
            break
        events = mailbox.drain()
        if not stop.is_set() and (events or again_s is not None):
            try:
                again_s = target.apply(events)
            except Exception:  # noqa: BLE001 (a border: the pump outlives a view that fails)
                _log.exception("The dashboard could not be brought up to date")
                again_s = None
        del target  # or this thread would keep the dashboard alive while it waits
        stop.wait(_PERIOD_S)
    unsubscribe()
