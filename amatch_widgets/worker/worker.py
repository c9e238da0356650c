"""One background thread that works off jobs.

A job is a generator: the worker takes one item after the other, publishes it, and looks at
commands between two items. Pause, stop, progress and errors are written once, here.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from amatch_widgets.errors import AmatchError, StateError
from amatch_widgets.events import Event, EventHub, Failed, StateChanged
from amatch_widgets.worker.state import WHY_NOT, Command, State, transition

__all__ = ["Command", "State", "Worker", "plain_text", "transition"]

_log = logging.getLogger(__name__)
_SLICE_S = 0.5  # the longest that Ctrl-C may take


def plain_text(error: BaseException) -> str:
    """Return an error as a line for the user.

    Errors of this package and those of memory speak for themselves; others get their type in front.
    """
    text = str(error)
    if text and isinstance(error, AmatchError | MemoryError):
        return text
    name = type(error).__name__
    if text and name == "OutOfMemoryError":  # torch's, by name: the worker does not import torch
        return text
    return f"{name}: {text}" if text else name


Job = Callable[[], Iterator[Event]]
_Answer = TypeVar("_Answer")


class Worker:
    """Run one job at a time on a thread of its own.

    All code of a job runs on that thread: making the iterator, each item, and its
    ``close()``. Errands, short calls whose answer somebody waits for, are run there too, between
    two items. The thread is a daemon and starts with the first job or errand.

    Parameters
    ----------
    hub : EventHub
        Gets the events of the jobs, `StateChanged` at each change of `state`, `is_stopping`
        and `is_pausing`, and `Failed` when a job raises. All come in the order in which they
        happened; a command's event may come on the thread that gave the command.

    Notes
    -----
    Thread safety: ``_changed``'s lock guards all attributes but ``_publishing``, and is never
    held while events are published, so that a subscriber may take any lock of its own.
    ``_publishing`` is held by the one thread that empties ``_outbox``; no thread waits for it.
    """

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._changed = threading.Condition()
        self._publishing = threading.Lock()
        self._outbox: deque[Event] = deque()
        self._state = State.IDLE
        self._name: str | None = None
        self._task: Job | None = None
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._is_held = False  # paused, and the thread waits
        self._closing = False
        self._is_settled = True  # the last job has ended and its events are published
        self._error: BaseException | None = None  # not yet raised by wait()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Worker({self._state}{f', {self._name}' if self._name else ''})"

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    @property
    def job(self) -> str | None:
        """Name of the job that runs or is paused, or None."""
        return self._name

    @property
    def is_busy(self) -> bool:
        """Whether a job runs or is paused."""
        return self._state in (State.RUNNING, State.PAUSED)

    @property
    def is_stopping(self) -> bool:
        """Whether the job has been told to stop and has not ended yet."""
        return self._stopping

    @property
    def is_pausing(self) -> bool:
        """Whether the job has been told to pause and its present item has not ended yet."""
        return self._state is State.PAUSED and not self._is_held

    def start(self, name: str, job: Job) -> None:
        """Begin a job; returns at once.

        Parameters
        ----------
        name : str
            What to call it, e.g. "train".
        job : callable
            Called without arguments on the worker's thread; returns an iterator of events. If
            it has a ``close()`` (a generator has), that is called at its end, stopped or not.

        Raises
        ------
        StateError
            If another job runs, is paused or has not ended yet, or the worker is closed.
        """
        with self._changed:
            self._apply(Command.START)
            self._name, self._task, self._error, self._is_settled = name, job, None, False
            self._outbox.append(StateChanged(self._state, name))
            self._wake()
        self._publish()

    def ask(self, errand: Callable[[], _Answer]) -> _Answer:
        """Run a short call on the worker's thread, and return what it returns or raise what it raises.

        It is run at once where no job runs or one is paused, else before the job's next item; the
        job waits meanwhile and goes on as if nothing had been. The state stays as it is.

        Parameters
        ----------
        errand : callable
            Called without arguments.

        Returns
        -------
        object

        Raises
        ------
        StateError
            If the worker is closed, also while this waits, or this is called on its own thread.
        """
        self._refuse_on_own_thread("ask itself")
        answer: Future[_Answer] = Future()
        with self._changed:
            if self._closing:
                raise StateError(f"Cannot ask now: {WHY_NOT[State.CLOSED]}")
            self._errands.append((errand, answer))
            self._wake()
        return answer.result()

    def pause(self) -> None:
        """Hold the job before its next item; returns at once.

        The state is PAUSED at once, with `is_pausing` until the present item has ended.

        Raises
        ------
        StateError
            If nothing is running.
        """
        self._command(Command.PAUSE)

    def resume(self) -> None:
        """Go on with a paused job; returns at once.

        Raises
        ------
        StateError
            If nothing is running or paused.
        """
        self._command(Command.RESUME)

    def stop(self) -> None:
        """End the job, running or paused, after its present item; returns at once.

        The state stays RUNNING, with `is_stopping`, until the job has ended. Without a job
        this does nothing.
        """
        self._command(Command.STOP)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the job has ended, and raise what it raised.

        An error is raised once; the state stays FAILED until the next start. Interrupting the
        wait (Ctrl-C) leaves the job running.

        Parameters
        ----------
        timeout_s : float, optional
            Wait no longer than this many seconds.

        Raises
        ------
        TimeoutError
            If the job has not ended in time. It goes on.
        StateError
            If the job is paused and there is no `timeout_s`: this could wait for ever.
        """
        self._refuse_on_own_thread("wait for itself")
        with self._changed:
            if self._state is State.PAUSED and timeout_s is None:
                raise StateError(
                    f"The job {self._name!r} is paused, so waiting may never end. Resume or stop it first."
                )
            if not self._settles(timeout_s):
                raise TimeoutError(
                    f"The job {self._name!r} has not ended within {timeout_s:g} s. It goes on."
                )
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self, timeout_s: float = 30) -> None:
        """Stop the job, wait for its end, and end the thread; closing twice does no harm.

        Parameters
        ----------
        timeout_s : float
            Wait no longer than this many seconds for the job.

        Raises
        ------
        TimeoutError
            If the job has not ended in time. The worker is closed; its thread ends with the
            present item of the job.
        StateError
            If called on the worker's own thread.
        """
        self._refuse_on_own_thread("close itself")
        with self._changed:
            self._closing = True
            self._stop_job()
            self._changed.notify_all()
        self._publish()
        with self._changed:
            has_ended = self._settles(timeout_s)
            name, thread = self._name, self._thread
            was = self._state
            self._apply(Command.CLOSE)
            self._name = None
            if self._state is not was:
                self._outbox.append(StateChanged(self._state))
        self._publish()
        if not has_ended:
            raise TimeoutError(
                f"The job {name!r} has not ended within {timeout_s:g} s; it ends after its present item."
            )
        if thread is not None:
            thread.join()

    def _wake(self) -> None:
        """See to it that the thread looks for something to do; under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="amatch-worker", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _settles(self, timeout_s: float | None) -> bool:
        """Wait until the last job has ended; False after `timeout_s`. Under the lock."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_settled:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # In slices: an interrupt that comes just before the lock is waited for does not end the wait.
            self._changed.wait(min(left, _SLICE_S))
        return True

    def _refuse_on_own_thread(self, what: str) -> None:
        if threading.current_thread() is self._thread:
            raise StateError(f"The worker's thread cannot {what}. Call this from another thread.")

    def _apply(self, command: Command) -> None:
        """Change the state, or raise; under the lock."""
        if command is Command.START and self._closing:
            raise StateError(f"Cannot start now: {WHY_NOT[State.CLOSED]}")
        if self._stopping and command in (Command.START, Command.PAUSE):
            raise StateError(
                f"Cannot {command} now: the job {self._name!r} is stopping. Wait until it has ended."
            )
        self._state = transition(self._state, command)

    def _command(self, command: Command) -> None:
        with self._changed:
            if command is Command.STOP:
                self._stop_job()
            else:
                was = self._state
                self._apply(command)
                if self._state is not was:
                    self._outbox.append(StateChanged(self._state, self._name))
            self._changed.notify_all()
        self._publish()

    def _stop_job(self) -> None:
        """Tell a job that runs to end; under the lock."""
        self._apply(Command.STOP)
        if self._state is State.RUNNING and not self._stopping:
            self._stopping = True
            self._outbox.append(StateChanged(self._state, self._name))

    def _publish(self) -> None:
        """Empty the outbox in order, unless another thread is at it: then that one goes on.

        Whoever finds the lock taken leaves: the holder looks again after it has let go.
        """
        while self._outbox and self._publishing.acquire(blocking=False):
            try:
                while self._outbox:
                    self._hub.publish(self._outbox.popleft())
            finally:
                self._publishing.release()

    # ---- on the worker's thread -------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._run_errands()
            with self._changed:
                self._changed.wait_for(lambda: self._task is not None or self._errands or self._closing)
                if self._errands:
                    continue
                if self._task is None:
                    return
                task, self._task = self._task, None
            error: BaseException | None = None
            try:
                self._work_off(task)
            except BaseException as raised:  # noqa: BLE001 (a border; also SystemExit must not kill the thread)
                error = raised
            del task  # its model and images go with it
            self._end(error)
            del error

    def _work_off(self, task: Job) -> None:
        if not self._may_go_on():
            return
        items = task()
        try:
            for event in items:
                self._outbox.append(event)
                self._publish()
                if not self._may_go_on():
                    return
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _may_go_on(self) -> bool:
        """Run the errands, and hold while paused; False if the job is to stop."""
        while True:
            self._run_errands()
            with self._changed:
                if self.is_pausing:
                    self._is_held = True
                    self._outbox.append(StateChanged(self._state, self._name))
                else:
                    self._changed.wait_for(
                        lambda: self._stopping or self._errands or self._state is not State.PAUSED
                    )
                    if self._stopping or not self._errands:  # those left are run when the job has ended
                        self._is_held = False
                        return not self._stopping
            self._publish()

    def _run_errands(self) -> None:
        """Answer all that wait for one; with an error once the worker is to close."""
        while True:
            with self._changed:
                if not self._errands:
                    return
                errand, answer = self._errands.popleft()
                is_closing = self._closing
            try:
                if is_closing:
                    raise StateError("The session was closed meanwhile. Open it again.")  # noqa: TRY301
                answer.set_result(errand())
            except BaseException as error:  # noqa: BLE001 (a border: it is raised where it was asked)
                answer.set_exception(error)
            del errand, answer

    def _end(self, error: BaseException | None) -> None:
        if error is not None:
            _log.error("The job %r failed", self._name, exc_info=error)
            # The frames would keep the batch, and maybe all of the memory, until the next job.
            traceback.clear_frames(error.__traceback__)
        with self._changed:
            name, self._name = self._name or "", None
            was = self._state
            self._apply(Command.FINISH if error is None else Command.FAIL)
            self._stopping, self._error = False, error
            if self._state is not was:
                self._outbox.append(StateChanged(self._state))
            if error is not None:
                self._outbox.append(Failed(name, plain_text(error)))
        self._publish()
        with self._changed:
            # A subscriber may have started the next job meanwhile.
            self._is_settled = not self.is_busy
            self._changed.notify_all()
