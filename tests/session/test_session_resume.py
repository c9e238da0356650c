"""A training that is paused, or broken off and gone on with, ends to the bit as one that never was."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.errors import StateError
from amatch_widgets.events import Message
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, Gate, cycle

STEPS = 5


def model_of(session):
    """Give the weights that are trained and their average."""
    trainer = session._engine._trainer
    models = {"model": trainer.model, "average": trainer.average}
    return {
        (name, key): value.numpy().copy()
        for name, model in models.items()
        for key, value in model.state_dict().items()
    }


def assert_equal(first, second):
    for name, value in model_of(first).items():
        np.testing.assert_array_equal(value, model_of(second)[name], err_msg=str(name))
    for number in range(1, first.cycle + 1):
        scores = [ScoreStore(session.path).load(number, len(SKY)) for session in (first, second)]
        np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(first.scores, second.scores)
    learnt = [[(r.step, r.cycle, r.loss) for r in session.history.steps] for session in (first, second)]
    assert learnt[0] == learnt[1]
    assert first.history.cycles[-1].metrics == second.history.cycles[-1].metrics


def pause_at(session, step, **options):
    """Train, and hold after a step."""
    gate = Gate(session, at_step=step)
    session.train(**options)
    with gate:
        session.pause()


def texts(session):
    told = []
    session.hub.subscribe(lambda e: told.append(e.text) if isinstance(e, Message) else None)
    return told


@pytest.fixture(params=[{}, {"freeze_norm": True, "restart": True}], ids=["goes on", "restarts"])
def two(request, make_session, tmp_path):
    """Give two sessions that have done the same first cycle; the first has done the second one, too."""
    sessions = [make_session(path=tmp_path / name, steps=STEPS, **request.param) for name in "ab"]
    for session in sessions:
        cycle(session, 2)
    cycle(sessions[0], None)
    assert (sessions[0].step, sessions[0].cycle) == (2 + STEPS, 2)
    return sessions


def test_a_pause_changes_nothing(two):
    whole, paused = two
    pause_at(paused, 4)
    paused.resume()
    paused.wait(WAIT_S)
    assert_equal(whole, paused)


@pytest.mark.parametrize("step", [3, 5])
def test_a_cycle_broken_off_by_close_goes_on_when_the_session_is_opened_again(two, step):
    whole, closed = two
    pause_at(closed, step)
    closed.close()
    with Session.open(closed.path) as again:
        assert (again.step, again.cycle, again.scores_cycle) == (step, 2, 1)
        broken_off = f"Cycle 2 was broken off at step {step}, {7 - step} before its end."
        assert f"{broken_off} The next training goes on with it." in again.notices
        told = texts(again)
        cycle(again, None)
        assert told[0] == f"{broken_off} It goes on for {7 - step} steps, with the labels there are now."
        assert_equal(whole, again)
        cycle(again, 1)
        assert again.cycle == 3
        assert len(told) == 1


def test_a_cycle_that_was_stopped_has_ended_in_the_session_and_after_it(two):
    _, stopped = two
    pause_at(stopped, 4)
    with pytest.raises(StateError, match="paused"):
        stopped.train()  # refused, and changes nothing
    stopped.stop()
    stopped.wait(WAIT_S)
    assert (stopped.step, stopped.cycle) == (4, 2)
    stopped.close()
    with Session.open(stopped.path) as again:
        assert not again.notices
        told = texts(again)
        pause_at(again, 5)
        assert (again.step, again.cycle) == (5, 3)
        again.stop()
        again.wait(WAIT_S)
        cycle(again, 2)
        assert (again.step, again.cycle) == (7, 4)
        assert not told


def test_a_cycle_goes_on_with_the_labels_that_came_meanwhile_and_the_steps_asked_for(two):
    _, closed = two
    pause_at(closed, 3)
    closed.close()
    with Session.open(closed.path) as again:
        again.label({i: SKY.truth[i] for i in SKY.ids[20:40]})
        cycle(again, 1)
        assert (again.step, again.cycle, again.scores_cycle) == (4, 2, 2)
        _, labels = again._learnable()
        assert again._tiers._evidence.learnt_of(2) == set(labels)
        cycle(again, 1)
        assert again.cycle == 3


def test_with_other_options_a_new_cycle_begins(make_session, light):
    first = make_session(steps=STEPS)
    pause_at(first, 2)
    first.close()
    other = make_session(train=light(steps=STEPS, restart=True), labels=None)
    assert not other.notices
    told = texts(other)
    cycle(other, 2)
    assert (other.step, other.cycle) == (4, 2)
    assert not told
