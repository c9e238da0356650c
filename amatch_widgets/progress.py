"""Progress of a session as lines of text, for the command line."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self, TextIO

from amatch_widgets.events import (
    EmbeddingProgress,
    Event,
    Failed,
    HealthAlarm,
    Message,
    ScoringProgress,
    StepDone,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.session import Session

__all__ = ["Progress", "printable"]

_TERMINAL_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 10.0  # a log file wants a few lines, not thousands
_N_PROBLEMS_SHOWN = 5
_MINUTE_S = 60


def printable(text: str) -> str:
    """Put `text` on one line, without the control codes that a file name may carry to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


class Progress:
    """Show a session's events as lines of text: rate and time left, messages, unreadable images.

    On a terminal one line is written over; in a file a line comes every 10 s and at the end.

    Thread safety: events come on the worker's thread, `clear` on the caller's; ``_lock`` guards all.

    Parameters
    ----------
    session : Session
        Its hub is listened to between entering and leaving the context.
    stream : text file, optional
        Where to write; None for the standard error.
    clock : callable
        Gives the time in s.
    """

    def __init__(
        self, session: Session, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._lock = threading.Lock()
        self._is_terminal = self._stream.isatty()
        self._written_at = -float("inf")
        self._width = 0  # of the line that stands on the terminal

    def __enter__(self) -> Self:
        self._unsubscribe = self._session.hub.subscribe(self.show)
        for notice in self._session.notices:
            self._line(f"warning: {printable(notice)}")
        return self

    def __exit__(self, *_: object) -> None:
        self._unsubscribe()
        self.clear()
        problems = dict(self._session.problems)
        if problems:
            counted = "1 image" if len(problems) == 1 else f"{len(problems)} images"
            self._stream.write(f"{counted} could not be read and got no score:\n")
            for image_id, reason in list(problems.items())[:_N_PROBLEMS_SHOWN]:
                self._stream.write(f"  {printable(image_id)}: {printable(reason)}\n")
            if len(problems) > _N_PROBLEMS_SHOWN:
                self._stream.write(f"  and {len(problems) - _N_PROBLEMS_SHOWN} more\n")

    def show(self, event: Event) -> None:
        """Write what `event` says, if it is of interest and not too soon after the last."""
        if isinstance(event, StepDone):
            rate = f"{_rate(event.steps_per_s)} steps/s"
            self._progress("training", "step", event, rate)
        elif isinstance(event, ScoringProgress):
            rate = f"{_rate(event.images_per_s)} images/s"
            self._progress("scoring", "image", event, rate)
        elif isinstance(event, EmbeddingProgress):
            rate = f"{_rate(event.images_per_s)} images/s"
            self._progress(f"embedding {printable(event.archive)}".rstrip(), "image", event, rate)
        elif isinstance(event, Message):
            text = printable(event.text)
            self._line(text if event.level == "info" else f"{event.level}: {text}")
        elif isinstance(event, HealthAlarm):
            self._line(f"warning: {printable(event.text)} {printable(event.advice)}")
        elif isinstance(event, Failed):
            self.clear()  # the error itself comes out of wait()

    def clear(self) -> None:
        """Take the progress line off the terminal, so that another line can be written."""
        with self._lock:
            self._clear()

    def _progress(
        self, job: str, unit: str, event: StepDone | ScoringProgress | EmbeddingProgress, rate: str
    ) -> None:
        interval = _TERMINAL_INTERVAL_S if self._is_terminal else _LOG_INTERVAL_S
        with self._lock:
            now = self._clock()
            if now - self._written_at < interval and event.done < event.total:
                return
            self._written_at = now
            left = _duration(event.seconds_left)
            text = f"{job}: {unit} {event.done} of {event.total}, {rate}, {left} left"
            if self._is_terminal:
                self._stream.write("\r" + text.ljust(self._width))
                self._width = len(text)
            else:
                self._stream.write(text + "\n")
            self._stream.flush()

    def _line(self, text: str) -> None:
        with self._lock:
            self._clear()
            self._stream.write(text + "\n")
            self._stream.flush()

    def _clear(self) -> None:
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def _rate(per_s: float) -> str:
    """Write a rate with two figures at least and no more digits than it is worth."""
    return f"{per_s:.2g}" if per_s < 10 else f"{per_s:.0f}"  # noqa: PLR2004


def _duration(seconds: float) -> str:
    """Write a time span in the unit a person would use; "?" when it is not known yet."""
    if not 0 <= seconds < float("inf"):
        return "?"
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
