"""What the engine tells whoever listens: frozen events, a hub, and a mailbox for slow readers.

Events say *what changed*; the data itself is pulled from the session. So a reader that
merges events loses no point of a curve.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "ArchiveBegun",
    "CycleDone",
    "EmbeddingProgress",
    "Event",
    "EventHub",
    "Failed",
    "HealthAlarm",
    "ImagesPrepared",
    "LabelsChanged",
    "Mailbox",
    "Message",
    "ProblemFound",
    "ScoresChanged",
    "ScoringProgress",
    "StateChanged",
    "StepDone",
    "TopScored",
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class StateChanged(Event):
    """The worker's state is now `state`; `job` is what it works on, or None."""

    state: str
    job: str | None = None


@dataclass(frozen=True, slots=True)
class StepDone(Event):
    """One training step is done.

    `step` counts over the whole session from 1; `done` of `total` counts within this training.
    """

    step: int
    done: int
    total: int
    steps_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class ScoringProgress(Event):
    """`done` of `total` images are read and scored."""

    done: int
    total: int
    images_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class ArchiveBegun(Event):
    """The images of the archive of this name are being scored; what is scored can be looked at."""

    name: str


@dataclass(frozen=True, slots=True)
class EmbeddingProgress(Event):
    """`done` of `total` images are read and embedded: the session's own, or those of `archive`, its title."""

    done: int
    total: int
    images_per_s: float
    seconds_left: float
    archive: str = ""


@dataclass(frozen=True, slots=True)
class ScoresChanged(Event):
    """All images have new scores.

    `cycle` is the training cycle whose model was scored last, 0 before any. `ranked_by` says what gives the
    order: "novelty" (no anomaly is labelled yet), "instant", "deep", or "both".
    """

    cycle: int
    n_scored: int
    ranked_by: str = "deep"


@dataclass(frozen=True, slots=True)
class TopScored(Event):
    """The images that ranked highest before a scoring have the new model's scores; the others follow.

    `image_ids` are in the order of those scores, the highest first. They rank nothing yet: that follows when
    all images are scored.
    """

    cycle: int
    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CycleDone(Event):
    """A cycle of training, scoring and evaluation has ended; see ``session.history``."""

    cycle: int


@dataclass(frozen=True, slots=True)
class LabelsChanged(Event):
    """These images have a new label, or lost theirs."""

    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImagesPrepared(Event):
    """The model sees the images in another way from now on; see `Session.prepare`."""


@dataclass(frozen=True, slots=True)
class ProblemFound(Event):
    """An image could not be read; it is listed in ``session.problems``."""

    image_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Message(Event):
    """Something the user should read: `level` is "info", "warning" or "error"."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class HealthAlarm(Event):
    """Something is wrong with the training: what (`kind`, `text`), and what to do about it (`advice`)."""

    kind: str
    text: str
    advice: str


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The worker's job `job` raised; `text` is the error in plain words."""

    job: str
    text: str


Subscriber = Callable[[Event], None]


class EventHub:
    """Hand each event to all subscribers, on the publisher's thread.

    A subscriber that raises is logged and does not stop the publisher: training goes on
    when a view is broken.

    Thread safety: ``_subscribers`` is a tuple replaced under ``_lock``; publishing takes no lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each event from now on.

        Parameters
        ----------
        subscriber : callable
            Takes one `Event`; runs on the publisher's thread, so it must return at once.

        Returns
        -------
        callable
            Ends the subscription; calling it twice does no harm.
        """
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:  # noqa: BLE001 (one of the three borders: log and go on)
                _log.exception("A subscriber failed on %r", event)


class Mailbox:
    """Collect events for a reader that drains them at its own pace.

    `StepDone`, `EmbeddingProgress` and `ScoringProgress` coalesce: only the latest of each is kept.
    All others are kept in order.

    Thread safety: ``_events`` and ``_latest`` are guarded by ``_ready``'s lock.
    """

    _COALESCING = (StepDone, EmbeddingProgress, ScoringProgress)

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._events: list[Event] = []
        self._latest: dict[type[Event], Event] = {}

    def post(self, event: Event) -> None:
        """Put `event` in; usable as a subscriber of an `EventHub`."""
        with self._ready:
            if isinstance(event, self._COALESCING):
                self._latest[type(event)] = event
            else:
                self._events.append(event)
            self._ready.notify_all()

    def drain(self) -> list[Event]:
        """Take all events out: those in order first, then the latest progress of each kind."""
        with self._ready:
            events = [*self._events, *self._latest.values()]
            self._events.clear()
            self._latest.clear()
        return events

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until there is something to drain; False after `timeout_s` seconds."""
        with self._ready:
            return self._ready.wait_for(lambda: bool(self._events or self._latest), timeout_s)
