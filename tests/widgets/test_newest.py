from __future__ import annotations

import logging
import threading

import pytest

from amatch_widgets.widgets.newest import Newest

WAIT_S = 20


@pytest.fixture
def newest():
    newest = Newest("test-newest")
    yield newest
    newest.close()


class Jobs:
    """Jobs that write down what was done; the first can be held."""

    def __init__(self, newest):
        self.newest = newest
        self.done = []
        self.held, self.gate, self.end = (threading.Event() for _ in range(3))

    def hold(self):
        self.newest.do("held", lambda: (self.held.set(), self.gate.wait(WAIT_S)))
        assert self.held.wait(WAIT_S)

    def do(self, kind, what):
        self.newest.do(kind, lambda: self.done.append(what))

    def finish(self):
        self.newest.do("end", self.end.set)
        self.gate.set()
        assert self.end.wait(WAIT_S)
        return self.done


def test_jobs_are_done_in_order_and_of_each_kind_only_the_newest(newest):
    jobs = Jobs(newest)
    jobs.hold()
    for k in range(5):
        jobs.do("picture", f"picture {k}")
        jobs.do("neighbours", f"neighbours {k}")
    assert jobs.finish() == ["picture 4", "neighbours 4"]


def test_what_is_cleared_is_not_done(newest):
    jobs = Jobs(newest)
    jobs.hold()
    jobs.do("picture", "old")
    newest.clear()
    jobs.do("picture", "new")
    assert jobs.finish() == ["new"]


def test_a_job_that_fails_is_logged_and_the_next_one_done(newest, caplog):
    jobs = Jobs(newest)
    jobs.hold()
    with caplog.at_level(logging.ERROR):
        newest.do("bad", lambda: 1 / 0)
        jobs.do("good", "good")
        assert jobs.finish() == ["good"]
    assert "ZeroDivisionError" in caplog.text


def test_no_thread_is_left_when_there_is_nothing_to_do(newest):
    jobs = Jobs(newest)
    jobs.do("picture", "one")
    jobs.finish()
    for thread in threading.enumerate():
        if thread.name == "test-newest":
            thread.join(WAIT_S)
            assert not thread.is_alive()
    jobs.end.clear()
    jobs.do("picture", "two")
    assert jobs.finish() == ["one", "two"]


def test_after_closing_nothing_is_done_any_more(newest):
    newest.close()
    newest.close()
    newest.do("picture", lambda: pytest.fail("it was closed"))
    assert "test-newest" not in {thread.name for thread in threading.enumerate()}
