from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import itertools
import logging
import signal
import threading
import weakref

import pytest

from amatch_widgets.errors import StateError, WeightsError
from amatch_widgets.events import EventHub, Failed, Mailbox, Message, StateChanged
from amatch_widgets.worker import Worker, plain_text, transition
from amatch_widgets.worker.state import Command, State

_PATIENCE_S = 20
IDLE, RUNNING, PAUSED, FAILED, CLOSED = State.IDLE, State.RUNNING, State.PAUSED, State.FAILED, State.CLOSED

# Every pair of state and command; None where the command is refused.
_EXPECTED = {
    IDLE: {"start": RUNNING, "stop": IDLE, "close": CLOSED},
    RUNNING: {
        "pause": PAUSED,
        "resume": RUNNING,
        "stop": RUNNING,
        "close": CLOSED,
        "finish": IDLE,
        "fail": FAILED,
    },
    PAUSED: {
        "pause": PAUSED,
        "resume": RUNNING,
        "stop": RUNNING,
        "close": CLOSED,
        "finish": IDLE,
        "fail": FAILED,
    },
    FAILED: {"start": RUNNING, "stop": FAILED, "close": CLOSED},
    CLOSED: {"stop": CLOSED, "close": CLOSED, "finish": CLOSED, "fail": CLOSED},
}


# ---- the table, without threads -------------------------------------------------------------


@pytest.mark.parametrize(("state", "command"), list(itertools.product(State, Command)))
def test_every_command_in_every_state_leads_where_it_should_or_is_refused(state, command):
    expected = _EXPECTED[state].get(command.value)
    if expected is None:
        with pytest.raises(StateError, match=f"^Cannot {command} now: .+"):
            transition(state, command)
    else:
        assert transition(state, command) is expected


@pytest.mark.parametrize(
    ("state", "command", "cure"),
    [
        (IDLE, "pause", "nothing is running. Start a job first"),
        (RUNNING, "start", "a job is running already. Wait until it has ended, or stop it"),
        (PAUSED, "start", "a job is paused. Resume it, or stop it"),
        (FAILED, "resume", "the last job failed"),
        (CLOSED, "start", "it is closed. Open the session again"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(state, command, cure):
    with pytest.raises(StateError, match=cure):
        transition(state, command)


def test_an_unknown_command_is_a_mistake_of_the_programmer():
    with pytest.raises(ValueError, match="restart"):
        transition(IDLE, "restart")


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WeightsError("No weights. Name a file."), "No weights. Name a file."),
        (ValueError("bad shape"), "ValueError: bad shape"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError"),
        (MemoryError("Unable to allocate 3 GiB"), "Unable to allocate 3 GiB"),
        (MemoryError(), "MemoryError"),
        (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            "CUDA out of memory. Tried to allocate 2 GiB",
        ),
    ],
)
def test_errors_are_told_in_plain_words(error, text):
    assert plain_text(error) == text


# ---- with the thread ------------------------------------------------------------------------


class Steps:
    """A job whose items the test hands out one by one."""

    def __init__(self):
        self.threads = {}
        self.reached = threading.Semaphore(0)  # the job is about to yield an item
        self.let = threading.Semaphore(0)
        self.n = 0
        self.error = None
        self.is_closed = threading.Event()

    def __call__(self):
        self.threads["build"] = threading.current_thread()
        return self._items()

    def _items(self):
        try:
            while True:
                self.threads["step"] = threading.current_thread()
                self.reached.release()
                assert self.let.acquire(timeout=_PATIENCE_S)
                if self.error is not None:
                    raise self.error
                self.n += 1
                if self.n == 100:
                    return
                yield Message("info", f"step {self.n}")
        finally:
            self.threads["close"] = threading.current_thread()
            self.is_closed.set()

    def has_begun_a_step(self):
        assert self.reached.acquire(timeout=_PATIENCE_S)

    def end(self):
        self.n = 99
        self.let.release()


@pytest.fixture
def hub():
    return EventHub()


@pytest.fixture
def mailbox(hub):
    mailbox = Mailbox()
    hub.subscribe(mailbox.post)
    return mailbox


@pytest.fixture
def worker(hub):
    worker = Worker(hub)
    yield worker
    worker.close(_PATIENCE_S)


@pytest.fixture
def steps():
    steps = Steps()
    yield steps
    steps.let.release(1000)  # a failed test must not leave the thread waiting


def _next(mailbox, n):
    """Wait for `n` events."""
    got = []
    while len(got) < n:
        assert mailbox.wait(_PATIENCE_S), f"only {got}"
        got += mailbox.drain()
    return got


def _states(events):
    return [event.state for event in events if isinstance(event, StateChanged)]


def _ends(n=3):
    for i in range(n):
        yield Message("info", f"{i}")


def _fails(error):
    yield Message("info", "before")
    raise error


def test_no_thread_is_there_before_the_first_job(worker):
    before = threading.active_count()
    assert (worker.state, worker.job, worker.is_busy) == (IDLE, None, False)
    assert threading.active_count() == before
    assert worker._thread is None


def test_a_job_is_worked_off_and_its_events_come_between_those_of_the_worker(worker, mailbox):
    worker.start("count", _ends)
    worker.wait(_PATIENCE_S)
    assert worker.state is IDLE
    assert mailbox.drain() == [
        StateChanged("running", "count"),
        Message("info", "0"),
        Message("info", "1"),
        Message("info", "2"),
        StateChanged("idle"),
    ]


def test_all_of_a_job_runs_on_one_daemon_thread_that_is_not_the_callers(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.stop()
    steps.let.release()
    worker.wait(_PATIENCE_S)
    assert set(steps.threads) == {"build", "step", "close"}
    (thread,) = set(steps.threads.values())
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_one_thread_serves_all_jobs(worker):
    threads = []

    def job():
        threads.append(threading.current_thread())
        yield Message("info", "")

    for _ in range(3):
        worker.start("job", job)
        worker.wait(_PATIENCE_S)
    assert len(set(threads)) == 1


def test_a_running_job_is_named(worker, steps):
    worker.start("train", steps)
    assert (worker.state, worker.job, worker.is_busy, repr(worker)) == (
        RUNNING,
        "train",
        True,
        "Worker(running, train)",
    )
    steps.has_begun_a_step()
    steps.end()
    worker.wait(_PATIENCE_S)
    assert (worker.job, worker.is_busy, repr(worker)) == (None, False, "Worker(idle)")


def test_an_iterator_without_a_close_is_a_job_too(worker, mailbox):
    worker.start("list", lambda: iter([Message("info", "one")]))
    worker.wait(_PATIENCE_S)
    assert Message("info", "one") in mailbox.drain()


def test_a_paused_job_does_no_further_step_until_it_is_resumed(worker, steps, mailbox):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.pause()
    assert (worker.state, worker.is_pausing) == (PAUSED, True)
    steps.let.release(2)  # the step that was under way, and one more
    assert _states(_next(mailbox, 4)) == ["running", "paused", "paused"]  # told, and held
    assert not worker.is_pausing
    assert steps.n == 1
    assert not steps.reached.acquire(blocking=False)
    worker.pause()  # changes nothing
    assert not worker.is_pausing
    worker.resume()
    steps.has_begun_a_step()
    assert (worker.state, worker.is_pausing) == (RUNNING, False)
    assert _next(mailbox, 2) == [StateChanged("running", "train"), Message("info", "step 2")]


def test_a_job_that_is_paused_and_resumed_within_one_step_goes_on(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.pause()
    worker.resume()
    steps.let.release()
    steps.has_begun_a_step()
    assert steps.n == 1


def test_a_job_that_is_paused_behind_its_last_item_just_ends(worker, steps, mailbox):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.pause()
    steps.end()
    worker.wait(_PATIENCE_S)
    assert _states(mailbox.drain()) == ["running", "paused", "idle"]


def test_stop_returns_at_once_and_the_job_ends_within_one_step(worker, steps, mailbox):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.stop()
    worker.stop()  # changes nothing
    assert (worker.state, worker.is_stopping, steps.is_closed.is_set()) == (RUNNING, True, False)
    steps.let.release(10)
    worker.wait(_PATIENCE_S)
    assert (worker.state, worker.is_stopping, steps.n) == (IDLE, False, 1)
    assert steps.is_closed.is_set()
    events = mailbox.drain()
    assert _states(events) == ["running", "running", "idle"]  # the second says: now stopping
    assert Message("info", "step 1") in events


def test_a_job_that_is_stopping_takes_no_start_and_no_pause(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.stop()
    for command in (lambda: worker.start("score", _ends), worker.pause):
        with pytest.raises(StateError, match="the job 'train' is stopping"):
            command()
    worker.resume()  # nothing to do
    assert worker.is_stopping
    steps.let.release()
    worker.wait(_PATIENCE_S)
    worker.start("score", _ends)
    worker.wait(_PATIENCE_S)


def test_a_paused_job_can_be_stopped(worker, steps, mailbox):
    worker.start("train", steps)
    steps.has_begun_a_step()
    worker.pause()
    steps.let.release()
    _next(mailbox, 4)
    worker.stop()
    worker.wait(_PATIENCE_S)
    assert steps.is_closed.is_set()
    assert _states(mailbox.drain()) == ["running", "idle"]


def test_a_job_that_is_stopped_before_it_began_is_never_built(worker, steps):
    blocker = Steps()
    worker.start("first", blocker)
    blocker.has_begun_a_step()
    blocker.end()
    worker.wait(_PATIENCE_S)
    with worker._changed:  # the thread cannot wake up yet
        worker.start("second", steps)
        worker.stop()
    worker.wait(_PATIENCE_S)
    assert steps.threads == {}


def test_stop_without_a_job_does_nothing(worker, mailbox):
    worker.stop()
    assert worker.state is IDLE
    assert not worker.is_stopping
    assert mailbox.drain() == []


def test_a_second_job_is_refused_while_one_runs_or_is_paused(worker, steps):
    worker.start("train", steps)
    with pytest.raises(StateError, match="running already"):
        worker.start("score", _ends)
    worker.pause()
    with pytest.raises(StateError, match="is paused"):
        worker.start("score", _ends)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_without_a_job_there_is_nothing_to_pause_or_resume(worker, command):
    with pytest.raises(StateError, match="nothing is running"):
        getattr(worker, command)()


# ---- errors ---------------------------------------------------------------------------------


def test_a_job_that_raises_fails_is_told_and_logged_and_raises_once_in_wait(worker, mailbox, caplog):
    error = ValueError("bad shape")
    with caplog.at_level(logging.ERROR):
        worker.start("train", lambda: _fails(error))
        with pytest.raises(ValueError, match="bad shape") as caught:
            worker.wait(_PATIENCE_S)
    assert caught.value is error
    assert worker.state is FAILED
    assert mailbox.drain()[2:] == [StateChanged("failed"), Failed("train", "ValueError: bad shape")]
    assert "Traceback" in caplog.text
    assert "_fails" in caplog.text
    worker.wait(_PATIENCE_S)
    assert worker.state is FAILED


def test_a_failed_job_can_be_followed_by_another(worker):
    worker.start("train", lambda: _fails(ValueError("x")))
    with pytest.raises(ValueError, match="x"):
        worker.wait(_PATIENCE_S)
    worker.stop()
    assert worker.state is FAILED
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)
    assert worker.state is IDLE


def test_an_error_that_nobody_waited_for_is_not_raised_for_the_next_job(worker, mailbox):
    worker.start("train", lambda: _fails(ValueError("old")))
    _next(mailbox, 4)
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)


def _cannot_be_built():
    raise WeightsError("No weights.")


class _CannotClose:
    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def close(self):
        raise OSError("disk full")


def _ignores_its_end():
    with contextlib.suppress(GeneratorExit):
        while True:
            yield Message("info", "")
    yield Message("info", "still here")


@pytest.mark.parametrize(
    ("job", "error"),
    [
        (_cannot_be_built, WeightsError),
        (_CannotClose, OSError),
        (lambda: None, TypeError),
        (lambda: _fails(SystemExit(3)), SystemExit),
        (lambda: _fails(MemoryError()), MemoryError),
    ],
    ids=["building", "closing", "no iterator", "exit", "memory"],
)
def test_whatever_goes_wrong_fails_the_job_and_not_the_worker(worker, job, error):
    worker.start("train", job)
    with pytest.raises(error):
        worker.wait(_PATIENCE_S)
    assert worker.state is FAILED
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)


def test_an_error_while_stopping_is_a_failure(worker, mailbox):
    worker.start("train", _ignores_its_end)
    _next(mailbox, 2)
    worker.stop()
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        worker.wait(_PATIENCE_S)
    assert (worker.state, worker.is_stopping) == (FAILED, False)


class _Model:
    """Something large."""


def test_what_a_job_held_is_free_when_it_has_ended_even_if_it_failed(worker):
    alive = []

    def job(error):
        model = _Model()
        alive.append(weakref.ref(model))
        yield Message("info", "")
        if error is not None:
            raise error

    error = ValueError("x")
    worker.start("train", lambda: job(None))
    worker.wait(_PATIENCE_S)
    worker.start("train", lambda: job(error))
    with pytest.raises(ValueError, match="x"):
        worker.wait(_PATIENCE_S)
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_a_broken_subscriber_does_not_stop_the_job(worker, hub, mailbox):
    def broken(event):
        raise RuntimeError("the view is gone")

    hub.subscribe(broken)
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)
    assert worker.state is IDLE
    assert len(mailbox.drain()) == 5


# ---- waiting --------------------------------------------------------------------------------


def test_wait_without_a_job_returns_at_once(worker):
    worker.wait()


def test_wait_gives_up_after_its_time_and_the_job_goes_on(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    with pytest.raises(TimeoutError, match=r"'train' has not ended within 0.01 s. It goes on"):
        worker.wait(0.01)
    assert worker.state is RUNNING


def test_wait_for_a_paused_job_is_refused_unless_it_has_an_end(worker, steps):
    worker.start("train", steps)
    worker.pause()
    with pytest.raises(StateError, match="'train' is paused, so waiting may never end"):
        worker.wait()
    with pytest.raises(TimeoutError):
        worker.wait(0.01)


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt, as in a kernel; a shell that runs tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_wait_leaves_the_job_running(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    waiting = threading.Event()
    wait = worker._changed.wait

    def announce(*args):
        waiting.set()
        return wait(*args)

    worker._changed.wait = announce

    def interrupt():
        assert waiting.wait(_PATIENCE_S)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        worker.wait()
    assert (worker.state, worker.is_stopping) == (RUNNING, False)
    steps.let.release()
    steps.has_begun_a_step()
    assert steps.n == 1


@pytest.mark.parametrize("call", ["wait", "close"])
def test_the_worker_does_not_wait_for_itself(worker, hub, call):
    got = []

    def subscriber(event):
        if event == Message("info", "0"):
            try:
                getattr(worker, call)()
            except StateError as error:
                got.append(str(error))

    hub.subscribe(subscriber)
    release = threading.Event()

    def job():
        assert release.wait(_PATIENCE_S)  # so that the item is published by the worker's own thread
        yield from _ends()

    worker.start("train", job)
    release.set()
    worker.wait(_PATIENCE_S)
    assert len(got) == 1
    assert "Call this from another thread" in got[0]
    assert worker.state is IDLE


# ---- commands and events from everywhere ----------------------------------------------------


def test_a_subscriber_may_start_the_next_job_and_wait_waits_for_both(worker, hub, mailbox):
    def follow(event):
        if event == StateChanged("idle") and not followed:
            followed.append(True)
            worker.start("score", _ends)

    followed = []
    hub.subscribe(follow)
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)
    assert [e.job for e in mailbox.drain() if isinstance(e, StateChanged)] == ["train", None, "score", None]


def test_a_subscriber_may_give_commands(worker, hub, mailbox):
    def pause_once(event):
        if event == Message("info", "1"):
            worker.pause()
            worker.resume()

    hub.subscribe(pause_once)
    worker.start("train", _ends)
    worker.wait(_PATIENCE_S)
    assert _states(mailbox.drain()) == ["running", "paused", "running", "idle"]


def test_a_subscriber_that_waits_for_a_lock_does_not_block_a_command_of_the_locks_holder(worker, hub, steps):
    ui_lock, is_stuck = threading.Lock(), threading.Event()

    def view(event):
        if isinstance(event, Message):
            is_stuck.set()
            with ui_lock:
                pass

    hub.subscribe(view)
    worker.start("train", steps)
    steps.has_begun_a_step()
    with ui_lock:
        steps.let.release()
        assert is_stuck.wait(_PATIENCE_S)
        worker.pause()  # would hang here
        assert worker.state is PAUSED


def _endless():
    while True:
        yield Message("info", "")


def _try(calls):
    for call in calls:
        with contextlib.suppress(StateError):
            call()


def test_commands_of_many_threads_leave_a_worker_that_works_and_events_that_tell_its_state(worker, hub):
    events = []
    hub.subscribe(events.append)
    commands = [worker.pause, worker.resume, worker.stop] * 30
    starts = [lambda: worker.start("job", _endless)] * 60
    threads = [threading.Thread(target=_try, args=(calls,)) for calls in (commands, commands, starts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    worker.stop()
    worker.wait(_PATIENCE_S)
    states = _states(events)
    allowed = {
        "running": {"running", "paused", "idle"},
        "paused": {"running"},
        "idle": {"running"},
    }
    assert states[0] == "running"
    assert states[-1] == "idle"
    assert all(after in allowed[before] for before, after in itertools.pairwise(states))


# ---- closing --------------------------------------------------------------------------------


def test_close_without_a_job_closes_and_twice_does_no_harm(worker, mailbox):
    worker.close()
    worker.close()
    assert worker.state is CLOSED
    assert mailbox.drain() == [StateChanged("closed")]


@pytest.mark.parametrize("is_paused", [False, True])
def test_close_stops_the_job_and_ends_the_thread(worker, steps, mailbox, is_paused):
    worker.start("train", steps)
    steps.has_begun_a_step()
    if is_paused:
        worker.pause()
    steps.let.release()
    worker.close(_PATIENCE_S)
    assert steps.is_closed.is_set()
    assert not steps.threads["step"].is_alive()
    assert (worker.state, worker.job) == (CLOSED, None)
    assert _states(mailbox.drain())[-2:] == ["idle", "closed"]


def test_close_gives_up_after_its_time_and_says_so_and_the_thread_ends_with_its_step(worker, steps):
    worker.start("train", steps)
    steps.has_begun_a_step()
    with pytest.raises(TimeoutError, match=r"'train' has not ended .* ends after its present item"):
        worker.close(0.01)
    assert worker.state is CLOSED
    steps.let.release()
    steps.threads["step"].join(_PATIENCE_S)
    assert not steps.threads["step"].is_alive()
    assert steps.is_closed.is_set()
    assert (worker.state, worker.is_stopping) == (CLOSED, False)


def test_a_closed_worker_refuses_jobs_and_ignores_stop(worker):
    worker.close()
    worker.stop()
    worker.wait()
    with pytest.raises(StateError, match="Open the session again"):
        worker.start("train", _ends)
    with pytest.raises(StateError, match="closed"):
        worker.pause()


def test_no_job_slips_in_while_the_worker_closes(worker, hub, steps):
    refused = threading.Event()

    def restart(event):
        if event == StateChanged("idle"):
            try:
                worker.start("again", _ends)
            except StateError:
                refused.set()

    hub.subscribe(restart)
    worker.start("train", steps)
    steps.has_begun_a_step()
    steps.let.release()
    worker.close(_PATIENCE_S)
    assert refused.is_set()
    assert worker.state is CLOSED


def test_an_error_can_still_be_had_after_closing(worker, mailbox):
    worker.start("train", lambda: _fails(ValueError("x")))
    _next(mailbox, 4)
    worker.close(_PATIENCE_S)
    with pytest.raises(ValueError, match="x"):
        worker.wait()


# ---- errands --------------------------------------------------------------------------------


@pytest.fixture
def asked():
    """A worker that is closed in the end, and whom to ask from another thread."""
    worker = Worker(EventHub())
    with concurrent.futures.ThreadPoolExecutor(2) as others:
        yield worker, lambda errand: others.submit(worker.ask, errand)
        worker.close()


def test_an_errand_is_run_on_the_workers_thread_while_it_is_idle(asked):
    worker, _ = asked
    assert worker.ask(threading.current_thread).name == "amatch-worker"
    with pytest.raises(KeyError, match="3"):
        worker.ask(lambda: {}[3])
    assert worker.state is IDLE
    worker.start("after it", lambda: iter([Message("info", "done")]))
    worker.wait(_PATIENCE_S)


@pytest.mark.parametrize("is_paused", [False, True])
def test_an_errand_is_run_between_two_items_of_a_job_and_while_it_is_paused(asked, is_paused):
    worker, ask = asked
    steps = Steps()
    worker.start("steps", steps)
    steps.has_begun_a_step()
    if is_paused:
        worker.pause()
    answer = ask(lambda: (steps.n, worker.state, threading.current_thread()))
    assert not answer.done()
    steps.let.release()
    assert answer.result(_PATIENCE_S) == (1, PAUSED if is_paused else RUNNING, steps.threads["step"])
    if is_paused:
        assert worker.ask(lambda: steps.n) == 1
        assert worker.state is PAUSED
        worker.resume()
    steps.has_begun_a_step()
    steps.end()
    worker.wait(_PATIENCE_S)


def test_an_errand_that_fails_does_not_harm_the_job(asked):
    worker, ask = asked
    steps = Steps()
    worker.start("steps", steps)
    steps.has_begun_a_step()
    answer = ask(lambda: 1 / 0)
    steps.let.release()
    assert isinstance(answer.exception(_PATIENCE_S), ZeroDivisionError)
    steps.has_begun_a_step()
    assert worker.state is RUNNING
    steps.end()
    worker.wait(_PATIENCE_S)


def test_a_worker_that_closes_answers_nobody_any_more(asked):
    worker, ask = asked
    steps = Steps()
    worker.start("steps", steps)
    steps.has_begun_a_step()
    answer = ask(lambda: pytest.fail("it was closed"))
    with pytest.raises(TimeoutError):
        worker.close(timeout_s=0)
    steps.let.release()
    with pytest.raises(StateError, match="closed meanwhile"):
        answer.result(_PATIENCE_S)
    with pytest.raises(StateError, match="Cannot ask now: it is closed"):
        worker.ask(lambda: None)


def test_the_worker_cannot_run_an_errand_of_its_own(asked):
    worker, _ = asked
    with pytest.raises(StateError, match="cannot ask itself"):
        worker.ask(lambda: worker.ask(lambda: None))
