"""Whole cycles of a session, and what may happen while it trains: pause, stop, new labels, an alarm."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, NotTrainedError, SourceError, StateError, TooFewLabelsError
from amatch_widgets.events import (
    CycleDone,
    Failed,
    ScoresChanged,
    ScoringProgress,
    StepDone,
    TopScored,
)
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session import Session
from amatch_widgets.worker import State
from tests.session.helper import SKY, WAIT_S, Gate, cycle, holey, labels_of

_SCORING = (ScoringProgress, TopScored)

# ---- a cycle ----------------------------------------------------------------------------------


def deep_scores(session, cycle):
    """The trained model's scores, which may not rank yet."""
    return ScoreStore(session.path).load(cycle, len(session.source))


def test_a_cycle_trains_scores_and_evaluates(session):
    events = []
    session.hub.subscribe(events.append)
    assert np.isnan(session.scores).all()
    assert (session.step, session.cycle, session.scores_cycle) == (0, 0, None)
    cycle(session, 3)
    assert (session.step, session.cycle, session.scores_cycle) == (3, 1, 1)
    assert session.state is State.IDLE
    assert session.scores.dtype == np.float32
    assert session.scores.shape == (60,)
    assert ((session.scores >= 0) & (session.scores <= 1)).all()
    kinds = [type(e) for e in events]
    assert kinds.count(StepDone) == 3
    assert [e.done for e in events if isinstance(e, ScoringProgress)] == [32, 60]
    assert kinds[-3:-1] == [ScoresChanged, CycleDone]
    assert [r.step for r in session.history.steps] == [1, 2, 3]
    (record,) = session.history.cycles
    assert (record.cycle, record.step, record.n_anomalies, record.n_normals) == (1, 3, 4, 8)
    assert record.metrics == session.metrics


def test_the_next_cycle_goes_on_and_its_scores_are_others(session):
    cycle(session)
    cycle(session)
    assert (session.step, session.cycle, session.scores_cycle) == (4, 2, 2)
    assert not np.array_equal(deep_scores(session, 1), deep_scores(session, 2))
    assert [c.cycle for c in session.history.cycles] == [1, 2]


def test_without_a_number_the_configuration_says_how_many_steps(make_session):
    session = make_session(steps=1)
    session.train()
    session.wait(WAIT_S)
    assert session.step == 1


@pytest.mark.parametrize("steps", [0, -1, 2.5, "5"])
def test_a_number_of_steps_out_of_range_is_refused(session, steps):
    with pytest.raises(ConfigError, match="allowed is a whole number at least 1"):
        session.train(steps)


def test_the_same_seed_and_labels_give_the_same_scores_and_another_seed_others(make_session, tmp_path):
    results = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        session = make_session(path=tmp_path / run, seed=seed)
        cycle(session)
        session.label({session.source.ids[0]: "normal"})
        cycle(session)
        results.append(session.scores)
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_session_that_was_opened_again_goes_on_as_if_it_had_not_been_closed(make_session, tmp_path):
    whole = make_session(path=tmp_path / "whole")
    cycle(whole)
    cycle(whole)
    with make_session(path=tmp_path / "halved") as first:
        cycle(first)
    with Session.open(tmp_path / "halved") as second:
        cycle(second)
        np.testing.assert_array_equal(whole.scores, second.scores)


def test_the_packaged_weights_hunt_too(make_session):
    session = make_session(backbone="tf_efficientnet_lite0", weights=None, freeze_norm=True)
    cycle(session, 1)
    assert np.isfinite(session.scores).all()


def test_arrays_of_five_channels_can_be_hunted_in(tmp_path, light):
    images = np.random.default_rng(0).normal(size=(30, 16, 16, 5)).astype(np.float32)
    labels = {"00": "anomaly", "01": "normal"}
    with Session(
        images, path=tmp_path / "run", labels=labels, train=light(), image=Preprocess(size=16)
    ) as session:
        assert session.image.channels == 5
        cycle(session, 1)
        assert np.isfinite(session.scores).all()
        assert session.thumbnail("03").startswith(b"\xff\xd8")
    with pytest.raises(SourceError, match="Pass the array again as source="):
        Session.open(tmp_path / "run")
    with Session.open(tmp_path / "run", source=images) as session:
        assert session.scores_cycle == 1


def test_scoring_needs_a_model(session):
    with pytest.raises(NotTrainedError, match=r"no model yet. Train first: session\.train\(\)"):
        session.score()


def test_scoring_again_gives_the_same_scores(session):
    cycle(session)
    before, version = deep_scores(session, 1), session.scores_version
    session.score()
    session.wait(WAIT_S)
    np.testing.assert_array_equal(before, deep_scores(session, 1))
    assert session.scores_version > version


def test_what_ranked_highest_is_scored_first_and_told_before_the_rest(make_session):
    session = make_session(score_batch=4)
    session.embed()
    session.wait(WAIT_S)
    highest, told = session.ranking()[:6], []
    session.hub.subscribe(lambda event: told.append(event) if isinstance(event, _SCORING) else None)
    session.train(1)
    session.wait(WAIT_S)
    (top,) = [event for event in told if isinstance(event, TopScored)]
    assert told[told.index(top) - 1].done == 8  # two batches; the second goes on in the order of the source
    scores = deep_scores(session, 1)
    assert set(top.image_ids) == {SKY.ids[i] for i in highest}
    assert list(top.image_ids) == [SKY.ids[i] for i in sorted(highest, key=lambda i: -scores[i])]
    assert top.cycle == 1
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(("chunk", "n"), [(1, 6), (3, 2), (10, 0)])
def test_the_more_images_are_unpacked_together_the_fewer_are_scored_first(make_session, chunk, n):
    session = make_session()
    session.source.chunk = chunk
    asked = []
    whole = session._engine._highest
    session._engine._highest = lambda k: asked.append(k) or whole(k)
    cycle(session, 1)
    assert asked == [n]


def test_without_a_ranking_the_order_is_that_of_the_source(session, monkeypatch):
    told = []
    monkeypatch.setattr(session._engine, "_highest", lambda _: np.empty(0, np.int64))
    session.hub.subscribe(lambda event: told.append(event) if isinstance(event, TopScored) else None)
    cycle(session, 1)
    assert not told
    assert np.isfinite(deep_scores(session, 1)).all()


def test_unreadable_images_among_the_highest_are_left_out_of_what_is_told(make_session):
    session = make_session(holey(()), score_batch=4)
    session.embed()
    session.wait(WAIT_S)
    highest = session.ranking()[:6]
    session.source.bad = frozenset(highest[:2].tolist())
    session._pool.prepare(session.image)  # what is in memory is dropped
    told = []
    session.hub.subscribe(lambda event: told.append(event) if isinstance(event, TopScored) else None)
    session.train(1)
    session.wait(WAIT_S)
    assert set(told[0].image_ids) == {SKY.ids[i] for i in highest[2:]}


def test_scores_cannot_be_written_to(session):
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            session.scores[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            session.ranking()[0] = 1
        cycle(session, 1)


# ---- stop, pause, what happens meanwhile ------------------------------------------------------


def test_a_stop_ends_within_a_step_keeps_the_model_and_does_not_score(session):
    gate = Gate(session)
    session.train(1000)
    with gate:
        session.stop()
        assert session.is_stopping
    session.wait(WAIT_S)
    assert session.step == 1
    assert session.state is State.IDLE
    assert session.scores_cycle is None
    session.score()
    session.wait(WAIT_S)
    assert session.scores_cycle == 1
    session.close()
    with Session.open(session.path) as again:
        assert (again.step, again.cycle) == (1, 1)


def test_a_paused_training_waits_and_goes_on(session):
    gate = Gate(session)
    session.train(3)
    with gate:
        session.pause()
    assert session.state is State.PAUSED
    assert session.is_busy
    with pytest.raises(StateError, match="paused, so waiting may never end"):
        session.wait()
    session.resume()
    session.wait(WAIT_S)
    assert session.step == 3
    assert session.scores_cycle == 1


def test_a_paused_training_can_be_stopped(session):
    gate = Gate(session)
    session.train(1000)
    with gate:
        session.pause()
    session.stop()
    session.wait(WAIT_S)
    assert session.step == 1


def test_a_second_job_is_refused(session):
    gate = Gate(session)
    session.train(2)
    with gate:
        with pytest.raises(StateError, match="a job is running already"):
            session.train()
        assert session.job == "train"
    session.wait(WAIT_S)


def test_new_labels_enter_a_running_training(session, monkeypatch):
    from amatch_widgets.learn.trainer import Trainer  # noqa: PLC0415 (imports torch)

    seen, look = [], Trainer._look

    def spy(self, images):
        seen.append({image.tobytes() for image in images.labelled})
        return look(self, images)

    monkeypatch.setattr(Trainer, "_look", spy)
    new = [i for i, label in SKY.truth.items() if label == "anomaly" and session.labels.get(i) is None][:4]
    old = [i for i, label in labels_of(session).items() if label == "anomaly"]
    gate = Gate(session)
    session.train(2)
    with gate:
        session.label(dict.fromkeys(new, "anomaly") | dict.fromkeys(old, None))
    session.wait(WAIT_S)
    new_bytes = {SKY.read(SKY.ids.index(i)).tobytes() for i in new}
    assert not seen[0] & new_bytes
    assert len(seen[1] & new_bytes) == 2  # half of a batch of 4


def test_labels_taken_back_while_training_end_it_with_the_model_kept(session):
    gate = Gate(session, at_step=2)
    session.train(1000)
    with gate:
        session.label({i: None for i, label in labels_of(session).items() if label == "anomaly"})
    with pytest.raises(TooFewLabelsError, match="Label at least one image as anomaly"):
        session.wait(WAIT_S)
    assert session.state is State.FAILED
    assert session.step == 2
    session.score()
    session.wait(WAIT_S)
    assert session.scores_cycle == 1


def test_a_training_that_diverges_is_told_and_the_last_checkpoint_is_kept(make_session, light):
    session = make_session()
    cycle(session)
    kept = session.scores
    session.close()
    wild = make_session(train=light(learning_rate=1e12, gradient_clip=1e12), labels=None)
    told = []
    wild.hub.subscribe(told.append)
    wild.train(50)
    with pytest.raises(StateError, match="diverged"):
        wild.wait(WAIT_S)
    assert "diverged" in next(e.text for e in told if isinstance(e, Failed))
    assert (wild.state, wild.step, wild.cycle) == (State.FAILED, 2, 1)
    wild.score()
    wild.wait(WAIT_S)
    np.testing.assert_array_equal(wild.scores, kept)


@pytest.mark.parametrize(
    ("steps", "options"), [(5, {"checkpoint_every": 1}), (1, {})], ids=["checkpoint", "end"]
)
@pytest.mark.parametrize("weight_decay", [1e10, 0], ids=["weights", "scores"])
def test_weights_that_an_update_spoilt_are_neither_kept_nor_scored(
    make_session, light, weight_decay, steps, options
):
    with make_session() as sound:
        cycle(sound)
        kept = sound.scores
        files = sorted((sound.path / "checkpoints").iterdir())
    wild = make_session(train=light(learning_rate=1e38, weight_decay=weight_decay, **options), labels=None)
    told = []
    wild.hub.subscribe(told.append)
    wild.train(steps)
    with pytest.raises(StateError, match=r"weights after step 3, .*not finite. The last"):
        wild.wait(WAIT_S)
    assert "diverged" in next(e.text for e in told if isinstance(e, Failed))
    assert not [e for e in told if isinstance(e, ScoringProgress)]
    assert (wild.state, wild.step, wild.cycle) == (State.FAILED, 2, 1)
    assert sorted((wild.path / "checkpoints").iterdir()) == files
    wild.score()
    wild.wait(WAIT_S)
    np.testing.assert_array_equal(wild.scores, kept)


def test_a_stop_right_after_an_update_that_spoilt_the_weights_keeps_the_last_checkpoint(make_session, light):
    with make_session() as sound:
        cycle(sound)
    wild = make_session(train=light(learning_rate=1e38, weight_decay=1e10), labels=None)
    gate = Gate(wild, at_step=3)
    wild.train(1000)
    with gate:
        wild.stop()
    with pytest.raises(StateError, match="diverged"):
        wild.wait(WAIT_S)
    assert (wild.state, wild.step, wild.cycle) == (State.FAILED, 2, 1)


def test_closing_while_training_keeps_the_model(session):
    gate = Gate(session)
    session.train(1000)
    closer = threading.Thread(target=session.close)
    with gate:
        closer.start()
    closer.join(WAIT_S)
    assert session.state is State.CLOSED
    with Session.open(session.path) as again:
        assert again.step >= 1
        assert labels_of(again) == labels_of(session)


def test_a_closed_session_says_so(session):
    session.close()
    session.close()
    with pytest.raises(StateError, match="NOT kept"):
        session.label({SKY.ids[0]: "normal"})
    with pytest.raises(StateError, match="closed"):
        session.train()
