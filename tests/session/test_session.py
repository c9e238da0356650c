"""A session as its user sees it: whole cycles, continuing, and everything that can go wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.demo import DemoSource, sky
from amatch_widgets.errors import (
    ConfigError,
    ImageReadError,
    JournalError,
    LabelError,
    NotTrainedError,
    SessionInUseError,
    SourceError,
    StateError,
    TooFewLabelsError,
    WorkspaceError,
)
from amatch_widgets.events import (
    CycleDone,
    EmbeddingProgress,
    Failed,
    HealthAlarm,
    LabelsChanged,
    Message,
    ProblemFound,
    ScoresChanged,
    ScoringProgress,
    StepDone,
)
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.labels import LabelStore
from amatch_widgets.learn import checkpoint as checkpoint_module
from amatch_widgets.query.head import InstantHead
from amatch_widgets.query.judge import Judgement, normal_scores
from amatch_widgets.score.store import ScoreStore
from amatch_widgets.session import Session
from amatch_widgets.worker import State

SKY = sky(60, size=32, prevalence=0.2)
WAIT_S = 60


class Holey(DemoSource):
    """A sky in which some images cannot be read."""

    bad = frozenset()

    def read(self, index, *, min_side=None):
        if index in self.bad:
            raise ImageReadError(self.ids[index], "it has a hole")
        return super().read(index, min_side=min_side)


def holey(bad):
    source = Holey(60, size=32, prevalence=0.2)
    source.bad = frozenset(bad)
    return source


def cycle(session, steps=2):
    session.train(steps)
    session.wait(WAIT_S)


def labels_of(session):
    return {i: line.label for i, line in session.labels.current().items()}


def truth(n):
    return dict(list(SKY.truth.items())[:n])


class Gate:
    """Holds the training after a step until it is told to go on; the test knows that it is there."""

    def __init__(self, session, at_step=1):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._at_step = at_step
        session.hub.subscribe(self._listen)

    def _listen(self, event):
        if isinstance(event, StepDone) and event.step == self._at_step:
            self.reached.set()
            assert self.go_on.wait(WAIT_S)

    def __enter__(self):
        assert self.reached.wait(WAIT_S)
        return self

    def __exit__(self, *_):
        self.go_on.set()


def deep_scores(session, cycle):
    """The trained model's scores, which may not rank yet."""
    return ScoreStore(session.path).load(cycle, len(session.source))


@pytest.fixture
def session(make_session):
    return make_session()


# ---- a cycle ----------------------------------------------------------------------------------


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


def test_scores_cannot_be_written_to(session):
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            session.scores[0] = 1
        with pytest.raises(ValueError, match="read-only"):
            session.ranking()[0] = 1
        cycle(session, 1)


def test_the_repr_is_one_line_that_says_where_it_stands(session):
    cycle(session)
    text = repr(session)
    assert "\n" not in text
    assert "Session('sky-0', 60 images, 4 anomalies and 8 normals labelled, step 2, idle, '" in text


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


# ---- labels -----------------------------------------------------------------------------------


def test_a_label_is_on_disk_and_told_when_the_call_returns(session):
    told = []
    session.hub.subscribe(told.append)
    i = SKY.ids[1]
    session.label({i: "normal"}, by="ann", tags=["ring"], note="faint", reason="top: rank 1")
    assert f'"{i}"' in (session.path / "labels.jsonl").read_text().splitlines()[-1]
    assert told == [LabelsChanged((i,))]
    line = session.labels.get(i)
    assert (line.by, line.tags, line.note, line.reason, line.score, line.step) == (
        "ann",
        ("ring",),
        "faint",
        "top: rank 1",
        None,
        None,
    )


def judged_better(monkeypatch):
    """Let whatever tests the trained model say that it is better."""
    monkeypatch.setattr("amatch_widgets.query.judge.judge", lambda *_, **__: Judgement(2.0, 0.99, 6, 9))


def test_a_label_keeps_the_score_it_was_shown_with_and_the_step_of_that_score(session, monkeypatch):
    judged_better(monkeypatch)
    cycle(session)
    gate = Gate(session, at_step=3)
    session.train(2)
    with gate:  # at step 3, but the scores are of step 2
        session.label({SKY.ids[1]: "normal"})
    session.wait(WAIT_S)
    line = session.labels.history(SKY.ids[1])[-1]
    assert line.step == 2
    assert 0 <= line.score <= 1
    session.close()
    with Session.open(session.path) as again:
        again.label({SKY.ids[2]: "normal"})
        line = again.labels.get(SKY.ids[2])
        assert line.step == 4
        assert line.score == pytest.approx(float(again.scores[2]))


def test_the_annotator_is_written_beside_the_label(tmp_path, light):
    with Session(SKY, path=tmp_path / "run", train=light(), annotator="ann") as session:
        session.label({SKY.ids[0]: "normal"})
        session.label({SKY.ids[1]: "normal"}, by="ben")
        assert [session.labels.get(i).by for i in SKY.ids[:2]] == ["ann", "ben"]


def test_an_unknown_id_changes_nothing(session):
    before = labels_of(session)
    with pytest.raises(
        LabelError, match=r"Unknown image id 'x' and 1 more. The ids of 'sky-0' look like '00'"
    ):
        session.label({SKY.ids[0]: "normal", "x": "normal", "y": "anomaly"})
    with pytest.raises(LabelError, match=r"Unknown label 'anomly'.*Did you mean 'anomaly'"):
        session.label({SKY.ids[0]: "normal", SKY.ids[1]: "anomly"})
    assert labels_of(session) == before


def test_labelling_nothing_is_nothing(session):
    told = []
    session.hub.subscribe(told.append)
    session.label({})
    assert told == []


def test_labels_given_at_the_start_do_not_override_later_ones(make_session, tmp_path):
    table = tmp_path / "labels.csv"
    a, b, c = SKY.ids[:3]
    table.write_text(f"id,label\n{a},anomaly\n{b},anomaly\n{c},removed\n")
    with make_session(labels=table) as session:
        assert labels_of(session) == {a: "anomaly", b: "anomaly"}
        session.label({a: "normal", b: None})
    with make_session(labels=table) as session:
        assert labels_of(session) == {a: "normal"}
        assert len(session.labels.history()) == 4


def test_importing_a_table_again_changes_nothing(session, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\n{SKY.ids[1]},anomaly\nzz,normal\n")
    found = session.import_labels(table)
    assert found.unknown_ids == ("zz",)
    version = session.labels.version
    session.import_labels(table)
    assert session.labels.version == version
    session.label({SKY.ids[0]: None})
    session.import_labels(table)  # asked for by name: it does count
    assert session.labels.get(SKY.ids[0]).label == "normal"


@pytest.mark.parametrize("source", ["import", "start"])
def test_an_export_never_overwrites_the_imported_table(make_session, tmp_path, source):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\n")
    session = make_session(labels=table if source == "start" else None)
    session.import_labels(table)
    with pytest.raises(WorkspaceError, match="never written to"):
        session.export(table)
    session.close()
    with Session.open(session.path) as again, pytest.raises(WorkspaceError, match="never written to"):
        again.export(table)
    assert table.read_text() == f"id,label\n{SKY.ids[0]},normal\n"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (None, "found 0 normal and 0 anomaly. Label at least one image as normal and one as anomaly"),
        (
            {"00": "normal", "01": "normal"},
            "found 2 normal and 0 anomaly. Label at least one image as anomaly",
        ),
        ({"00": "anomaly"}, "found 0 normal and 1 anomaly. Label at least one image as normal"),
    ],
)
def test_training_says_which_labels_are_still_needed(make_session, labels, text):
    session = make_session(labels=labels)
    with pytest.raises(TooFewLabelsError, match=text):
        session.train()
    assert session.state is State.IDLE


# ---- metrics ----------------------------------------------------------------------------------


def test_metrics_are_too_few_to_say_before_and_with_few_held_out(session):
    assert "too few to say: 0 anomalies of 0 held out" in repr(session.metrics.auroc)
    cycle(session)
    assert session.metrics.auroc.value is None
    assert "too few to say" in repr(session.history.cycles[0].metrics.auprc)


def test_metrics_follow_the_labels_that_are_held_out(session):
    cycle(session)
    session.label(truth(60))
    held_out = session.labels.for_split("test")
    metrics = session.metrics
    assert metrics.auroc.n_total == len(held_out) > 8
    assert metrics.auroc.n_anomalies == sum(label == "anomaly" for label in held_out.values()) >= 2
    assert metrics.auroc.low <= metrics.auroc.value <= metrics.auroc.high
    assert session.metrics is metrics  # kept while nothing changes


def test_held_out_labels_are_not_learnt_from(session):
    session.label(truth(60))
    known = session._learnable()[1]
    held_out = {SKY.ids.index(i) for i in session.labels.for_split("test")}
    assert held_out
    assert not held_out & set(known)
    assert len(held_out) + len(known) == 60


def test_an_alarm_of_the_training_is_told_once_a_cycle(make_session):
    session = make_session(threshold=0.501)  # nearly every guess counts as sure
    told = []
    session.hub.subscribe(told.append)
    cycle(session, 3)
    (alarm,) = [e for e in told if isinstance(e, HealthAlarm) and e.kind == "head_trap"]
    assert "step 1" in alarm.text or "first step" in alarm.text
    assert alarm.advice


def test_the_instant_tier_ranks_alone_until_the_trained_model_was_judged_better(make_session, monkeypatch):
    session = make_session(test_share=0)
    cycle(session)
    assert session.ranked_by == "instant"
    assert "ranks nothing: too few labels since to judge it" in session.ranking_note
    first, second = unlabelled(session)[:2]
    session.label({first: "normal"})
    session.query(0)
    assert session.ranked_by == "instant"
    judged_better(monkeypatch)
    session.label({second: "normal"})
    session.query(0)  # the ranking follows the label, with no training
    assert session.ranked_by == "both"
    assert "takes part: judged better" in session.ranking_note
    alone = session._board._fit.scores
    assert sorted(session.scores) == sorted(alone)
    assert not np.array_equal(session.scores, alone)
    session.close()
    with Session.open(session.path) as again:
        assert again.ranked_by == "both"
        np.testing.assert_array_equal(again.scores, session.scores)


def evidence(session, score):
    """What the file says of images with this score, "instant" or "deep": {id: score}."""
    path = session.path / "evidence.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["id"]: line[score] for line in lines if score in line}


def unlabelled(session):
    return [i for i in SKY.ids if i not in session.labels.current()]


def test_only_labels_that_the_trained_model_has_not_learnt_from_test_it(make_session):
    session = make_session(test_share=0)
    during, *tested, later = unlabelled(session)[:4]
    gate = Gate(session, at_step=2)
    session.train(3)
    with gate:
        session.label({during: "normal"})  # during the training, and learnt from
    session.wait(WAIT_S)
    learnt = session._tiers._evidence.learnt_of(1)
    assert {SKY.ids[i] for i in learnt} == set(session.labels.current())
    session.label(dict.fromkeys(tested, "normal"))
    session.query(0)
    assert list(evidence(session, "instant")) == [during, *tested]
    assert list(evidence(session, "deep")) == tested
    session.close()
    with Session.open(session.path) as again:  # goes on testing the same model
        again.label({later: "normal"})
        again.query(0)
    assert list(evidence(session, "deep")) == [*tested, later]
    assert np.isfinite(list(evidence(session, "deep").values())).all()


def test_each_label_is_tested_with_the_instant_scores_it_was_offered_by(make_session):
    session = make_session(test_share=0)
    cycle(session)
    wanted = {}
    for i in unlabelled(session)[:4]:
        at = np.array([SKY.ids.index(i)])
        wanted[i] = normal_scores(session._board._fit.scores, at)[0]
        session.label({i: SKY.truth[i]})
        session.query(0)
    assert evidence(session, "instant") == wanted
    assert len(set(wanted.values())) == 4


def test_a_label_given_while_a_fit_runs_is_tested_with_the_one_before(make_session, monkeypatch):
    session = make_session(test_share=0)
    cycle(session)
    first, second, third = unlabelled(session)[:3]
    before, fit = session._board._fit.scores, InstantHead.fit
    running, go_on = threading.Event(), threading.Event()

    def slow(head, labels):
        running.set()
        assert go_on.wait(WAIT_S)
        return fit(head, labels)

    with monkeypatch.context() as patch:
        patch.setattr(InstantHead, "fit", slow)
        session.label({first: "normal"})
        assert running.wait(WAIT_S)
        session.label({second: "normal"})
        go_on.set()
        session.query(0)
    at = np.array([SKY.ids.index(i) for i in (first, second)])
    assert list(evidence(session, "instant").values()) == normal_scores(before, at).tolist()
    session.label({third: "normal"})
    session.query(0)
    assert list(evidence(session, "instant")) == [first, second, third]


def test_a_label_that_no_fit_was_made_of_before_the_end_is_tested_too(make_session, monkeypatch):
    session = make_session(test_share=0)
    cycle(session)
    first = unlabelled(session)[0]
    with monkeypatch.context() as patch:
        patch.setattr(InstantHead, "fit", None)  # calling it fails
        session.label({first: "normal"})
        session.close()
    assert list(evidence(session, "deep")) == [first]
    with Session.open(session.path) as again:
        again.query(0)
    assert list(evidence(session, "deep")) == [first]


def test_labels_that_no_instant_ranking_offered_are_not_asked(make_session):
    session = make_session(labels=None, test_share=0)
    session.label({SKY.ids[0]: "normal"})  # before there is any ranking
    session.embed()
    session.wait(WAIT_S)
    rare = next(i for i, label in SKY.truth.items() if label == "anomaly")
    session.label({rare: "anomaly", SKY.ids[1]: "normal"})  # by novelty
    session.query(0)
    assert session.ranked_by == "instant"
    session.close()
    with Session.open(session.path) as again:  # its first fit knows all there is
        again.query(0)
        assert evidence(again, "instant") == {}
        again.label({SKY.ids[2]: "normal"})
        again.query(0)
    assert list(evidence(session, "instant")) == [SKY.ids[2]]


def test_a_label_given_by_novelty_while_the_first_instant_fit_runs_is_not_asked(make_session, monkeypatch):
    session = make_session(labels=None, test_share=0)
    session.embed()
    session.wait(WAIT_S)
    rare = next(i for i, label in SKY.truth.items() if label == "anomaly")
    fit = InstantHead.fit

    def with_a_label(head, labels):
        if SKY.ids[1] not in session.labels.current():
            session.label({SKY.ids[1]: "normal"})
        return fit(head, labels)

    monkeypatch.setattr(InstantHead, "fit", with_a_label)
    session.label({rare: "anomaly"})
    session.query(0)
    assert session.ranked_by == "instant"
    assert evidence(session, "instant") == {}


def test_where_it_is_not_known_what_a_model_has_learnt_labels_wait_for_the_next(make_session):
    session = make_session(test_share=0)
    gate = Gate(session)
    session.train(1000)
    with gate:
        session.stop()
    session.wait(WAIT_S)
    session.score()
    session.wait(WAIT_S)
    first, second = unlabelled(session)[:2]
    session.label({first: "normal"})
    session.query(0)
    assert "too few labels" in session.ranking_note
    assert evidence(session, "deep") == {}
    cycle(session)
    session.label({second: "normal"})
    session.query(0)
    assert list(evidence(session, "deep")) == [second]


def test_the_trained_model_starts_from_the_instant_ranking(make_session):
    session = make_session(test_share=0, learning_rate=1e-12)
    cycle(session, 1)
    deep, instant = session._board.deep[1], session._board._fit.scores
    rank = lambda scores: np.argsort(np.argsort(scores))  # noqa: E731
    assert np.corrcoef(rank(deep), rank(instant))[0, 1] > 0.98


def test_without_labels_the_order_is_novelty_and_says_so(make_session):
    session = make_session(labels=None)
    assert (session.ranked_by, session.ranking_note, session.is_embedded) == (None, "", False)
    session.embed()
    session.wait(WAIT_S)
    assert (session.ranked_by, session.is_embedded) == ("novelty", True)
    assert "No anomaly is labelled yet" in session.ranking_note
    assert np.isfinite(session.scores).all()


def test_a_label_moves_the_ranking_without_any_training(make_session):
    session = make_session(labels=None, test_share=0)
    session.embed()
    session.wait(WAIT_S)
    rare = [i for i, label in SKY.truth.items() if label == "anomaly"]
    session.label({rare[0]: "anomaly"})
    session.query(1)
    assert session.ranked_by == "instant"
    assert session.ranking("highest")[0] == SKY.ids.index(rare[0])
    before = session.scores_version
    session.label({rare[0]: None})
    session.query(1)
    assert session.scores_version > before
    assert session.ranked_by == "novelty"


def test_embeddings_are_made_once_for_all_sessions_on_the_same_images(make_session, tmp_path, monkeypatch):
    first = make_session()
    first.embed()
    first.wait(WAIT_S)
    monkeypatch.setattr("amatch_widgets.learn.embed.Embedder.raw", None)  # calling it would fail
    other = make_session(path=tmp_path / "other")
    other.embed()
    other.wait(WAIT_S)
    assert other.is_embedded
    np.testing.assert_array_equal(first.scores, other.scores)


def test_where_embeddings_cannot_be_kept_the_trained_model_ranks_alone(session, monkeypatch):
    def no_room(*_, **__):
        raise WorkspaceError("Nowhere can the vectors of the images be kept.")

    monkeypatch.setattr("amatch_widgets.score.embeddings.EmbeddingStore.open", no_room)
    told = []
    session.hub.subscribe(told.append)
    cycle(session)
    assert session.ranked_by == "deep"
    assert "the trained model ranks alone" in next(e.text for e in told if isinstance(e, Message))
    session.embed()
    with pytest.raises(WorkspaceError, match="Nowhere"):
        session.wait(WAIT_S)


def test_a_second_training_does_not_look_for_embeddings_again(session, monkeypatch):
    cycle(session)
    monkeypatch.setattr("amatch_widgets.session.tiers.embed_images", None)  # calling it would fail
    cycle(session)
    assert session.cycle == 2


def test_embedding_goes_on_where_it_was_stopped(make_session, monkeypatch):
    monkeypatch.setattr("amatch_widgets.session.embedding._SAMPLE", 20)
    session = make_session(source=sky(200, size=32, prevalence=0.2))
    gate = threading.Event()

    def stop(event):
        if isinstance(event, EmbeddingProgress) and event.done > 20:
            session.stop()
            gate.set()

    session.hub.subscribe(stop)
    session.embed()
    assert gate.wait(WAIT_S)
    session.wait(WAIT_S)
    done = int(np.isfinite(session.scores).sum())
    assert 20 < done < 200
    assert not session.is_embedded
    assert f"{done} of 200 images are embedded" in session.ranking_note
    session.close()
    with Session.open(session.path) as again:
        assert int(np.isfinite(again.scores).sum()) == done
        progress = []
        again.hub.subscribe(lambda e: progress.append(e) if isinstance(e, EmbeddingProgress) else None)
        again.embed()
        again.wait(WAIT_S)
        assert again.is_embedded
        assert progress[0].done > done


def test_training_takes_over_from_a_running_embedding(make_session):
    session = make_session(source=sky(200, size=32, prevalence=0.2))
    begun = threading.Event()
    session.hub.subscribe(lambda e: begun.set() if isinstance(e, EmbeddingProgress) else None)
    session.embed()
    assert begun.wait(WAIT_S)
    cycle(session)
    assert session.is_embedded
    assert session.step == 2


def test_similar_images_come_with_their_cosine(session):
    with pytest.raises(NotTrainedError, match=r"session\.embed\(\)"):
        session.similar(SKY.ids[0])
    session.embed()
    session.wait(WAIT_S)
    found = session.similar(SKY.ids[0], 5)
    assert len({c.image_id for c in found} - {SKY.ids[0]}) == 5
    assert all(c.reason.startswith("similar: cosine ") for c in found)
    assert session.similar([SKY.ids[0], SKY.ids[1]], 3)
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        session.similar(["x"])
    with pytest.raises(LabelError, match="name at least one image"):
        session.similar([])


def test_a_ranking_that_cannot_follow_the_labels_says_so(make_session, monkeypatch):
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    told = []
    session.hub.subscribe(told.append)
    before = session.scores

    def broken(*_):
        raise ValueError("no way")

    monkeypatch.setattr("amatch_widgets.query.head.InstantHead.fit", broken)
    session.label({SKY.ids[40]: "normal"})
    session.query(1)  # does not hang
    (message,) = [e for e in told if isinstance(e, Message)]
    assert "does not follow the last labels: ValueError: no way" in message.text
    assert session.scores is before


# ---- queries ----------------------------------------------------------------------------------


def test_a_query_before_any_scores_is_random_and_says_so(session):
    found = session.query(5)
    assert len({c.image_id for c in found}) == 5
    assert {(c.score, c.reason) for c in found} == {(None, "random: nothing is scored yet")}


@pytest.mark.parametrize("strategy", ["top", "uncertain", "random", "mixed"])
def test_a_query_leaves_out_what_has_a_label_or_cannot_be_read(make_session, strategy):
    source = holey([i for i in range(60) if SKY.truth[SKY.ids[i]] == "normal"][-10:])
    some = list(SKY.ids[:12])
    session = make_session(source, labels={i: SKY.truth[i] for i in some} | {some[0]: "anomaly"})
    cycle(session)
    found = {c.image_id for c in session.query(60, strategy=strategy)}
    bad = {source.ids[i] for i in source.bad}
    assert found == set(source.ids) - set(labels_of(session)) - bad


def test_the_top_is_what_scores_highest_among_the_unlabelled(session):
    cycle(session)
    found = session.query(5)
    free = [i for i in session.ranking() if SKY.ids[i] not in labels_of(session)]
    assert [c.image_id for c in found] == [SKY.ids[i] for i in free[:5]]
    assert found[0].score == pytest.approx(float(session.scores[free[0]]))
    assert found[0].reason == "top: rank 1 of 48 unlabelled"


def test_rankings_show_what_is_asked_for(session):
    cycle(session)
    everything = session.ranking()
    assert (np.diff(session.scores[everything]) <= 0).all()
    assert sorted(everything) == list(range(60))
    np.testing.assert_array_equal(session.ranking("lowest"), everything[::-1])
    labelled, free = (session.ranking(show=s) for s in ("labelled", "unlabelled"))
    assert (len(labelled), len(free)) == (12, 48)
    assert not set(labelled) & set(free)
    session.label({SKY.ids[5]: "normal"})
    assert session.ranking("recent")[0] == 5
    assert len(session.ranking("recent", show="unlabelled")) == 0
    assert not np.array_equal(session.ranking("random", seed=1), session.ranking("random", seed=2))


@pytest.mark.parametrize("how", ["highest", "recent"])
def test_an_unknown_ranking_is_refused(session, how):
    with pytest.raises(ConfigError, match="Unknown show='some'"):
        session.ranking(how, show="some")
    with pytest.raises(ConfigError, match="Did you mean 'highest'"):
        session.ranking("higest")


def test_tables_hold_scores_ranks_and_labels(session, tmp_path):
    cycle(session)
    table = session.top(60)
    assert table["rank"].tolist() == list(range(1, 61))
    assert table["score"].is_monotonic_decreasing
    assert (table["label"] == "anomaly").sum() == 4
    path = session.export(tmp_path / "out" / "top.csv", n=7)
    assert pd.read_csv(path, dtype={"id": str})["id"].tolist() == table["id"][:7].tolist()
    labelled = pd.read_csv(session.export(str(tmp_path / "labelled.csv")), dtype={"id": str})
    assert dict(zip(labelled["id"], labelled["label"], strict=True)) == labels_of(session)
    assert labelled["rank"].is_monotonic_increasing


def test_a_table_of_the_best_before_any_scores_is_refused(session, tmp_path):
    with pytest.raises(NotTrainedError, match="Train first"):
        session.top(3)
    with pytest.raises(NotTrainedError, match="Train first"):
        session.export(tmp_path / "best.csv", n=3)
    assert not (tmp_path / "best.csv").exists()


def test_the_labels_can_be_exported_before_any_scores(session, tmp_path):
    table = pd.read_csv(session.export(tmp_path / "labels.csv"))
    assert len(table) == len(session.labels)
    assert table["score"].isna().all()
    assert (table["rank"] == 0).all()


def test_a_thumbnail_is_a_small_jpeg(session):
    assert session.thumbnail(SKY.ids[0], side=16).startswith(b"\xff\xd8")


def test_a_thumbnail_that_cannot_be_made_says_why(make_session, tmp_path):
    session = make_session(holey([3]))
    with pytest.raises(ImageReadError, match="'03' cannot be read: it has a hole"):
        session.thumbnail("03")
    with pytest.raises(LabelError, match=r"Unknown image id 'x'\. The ids of 'sky-0' look like '00'"):
        session.thumbnail("x")
    nothing = np.full((2, 8, 8), np.nan, np.float32)
    other = make_session(nothing, path=tmp_path / "nan", labels=None, image=Preprocess(size=8))
    with pytest.raises(ImageReadError, match="'0' cannot be read: no pixel is finite"):
        other.thumbnail("0")


def test_refused_first_labels_leave_no_open_journal(make_session, monkeypatch):
    closed, close = [], LabelStore.close

    def note(store):
        closed.append(store)
        close(store)

    monkeypatch.setattr(LabelStore, "close", note)
    with pytest.raises(LabelError, match="Unknown image id"):
        make_session(SKY, labels={"no-such-image": "anomaly"})
    assert len(closed) == 1


def test_what_was_odd_at_the_opening_is_told(make_session, tmp_path):
    table = tmp_path / "l.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\nx.png,anomaly\n")
    session = make_session(SKY, labels=table)
    assert session.notices == ("l.csv: 1 of its ids fits no image, the first is 'x.png'.",)
    source = holey([3])
    source.skipped = {"night1": "Permission denied", "night2": "Permission denied"}
    other = make_session(source, labels=None, path=tmp_path / "other")
    assert other.notices == (
        "2 folders or files in 'sky-0' cannot be looked at; the first, 'night1': Permission denied.",
    )


# ---- images that cannot be read ---------------------------------------------------------------


def test_unreadable_images_are_listed_and_never_stop_a_run(make_session):
    source = holey([0, 13, 59])
    session = make_session(source)
    told = []
    session.hub.subscribe(told.append)
    cycle(session)
    wanted = {source.ids[i]: "it has a hole" for i in source.bad}
    assert session.problems == wanted
    assert {e.image_id: e.reason for e in told if isinstance(e, ProblemFound)} == wanted
    assert "3 of 60 images could not be read" in next(e.text for e in told if isinstance(e, Message))
    assert set(np.flatnonzero(np.isnan(session.scores))) == source.bad
    assert set(session.ranking()[-3:]) == source.bad
    session.problems.clear()  # a copy
    assert len(session.problems) == 3
    assert session.top(60)["rank"].tolist() == [*range(1, 58)]  # those without a score are no shortlist


def test_a_labelled_image_that_cannot_be_read_is_left_out_of_the_metrics(make_session):
    source = holey(range(30, 60))
    session = make_session(source, labels=source.truth)
    cycle(session)
    readable = [i for i in session.labels.for_split("test") if i not in session.problems]
    assert session.metrics.auroc.n_total == len(readable)


def test_where_no_image_can_be_read_the_error_says_so(make_session):
    session = make_session(holey(range(60)))
    session.train()
    with pytest.raises(
        SourceError, match="None of the 60 images could be read; the first, '00': it has a hole"
    ):
        session.wait(WAIT_S)
    assert session.problems


def test_images_that_vanish_before_scoring_are_an_error_and_the_old_scores_stay(make_session):
    source = holey([])
    session = make_session(source)
    cycle(session)
    session.close()
    source.bad = frozenset(range(60))
    with Session.open(session.path, source=source) as again:
        again.score()
        with pytest.raises(
            SourceError, match=r"None of the 60 images could be read; the first, '00': it has"
        ):
            again.wait(WAIT_S)
        np.testing.assert_array_equal(again.scores, session.scores)


# ---- open and continue ------------------------------------------------------------------------


def test_opening_restores_everything(session):
    cycle(session)
    session.label(truth(30))
    cycle(session)
    session.close()
    with Session.open(session.path) as again:
        assert labels_of(again) == labels_of(session)
        assert (again.step, again.cycle, again.scores_cycle) == (4, 2, 2)
        np.testing.assert_array_equal(again.scores, session.scores)
        np.testing.assert_array_equal(again.ranking(), session.ranking())
        assert again.metrics == session.metrics
        assert again.history.steps == session.history.steps
        assert again.history.cycles == session.history.cycles
        assert (again.config, again.image) == (session.config, session.image)
        assert [c.image_id for c in again.query(9)] == [c.image_id for c in session.query(9)]


def test_a_folder_of_images_is_found_again(tmp_path, light):
    from PIL import Image  # noqa: PLC0415

    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(SKY.read(i)).save(tmp_path / "images" / f"{i}.png")
    labels = {"0.png": "anomaly", "1.png": "normal"}
    with Session(tmp_path / "images", path=tmp_path / "run", labels=labels, train=light()) as session:
        cycle(session, 1)
    with Session.open(tmp_path / "run") as again:
        assert list(again.source.ids) == sorted(f"{i}.png" for i in range(12))
        assert again.scores_cycle == 1
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="no file or folder"):
        Session.open(tmp_path / "run")
    with Session.open(tmp_path / "run", source=tmp_path / "moved") as moved:
        assert moved.scores_cycle == 1
    (tmp_path / "moved" / "5.png").unlink()
    with pytest.raises(SourceError, match=r"is of 'images' with 12 images|is of 'moved' with 12 images"):
        Session.open(tmp_path / "run", source=tmp_path / "moved")


def test_continuing_with_other_images_or_options_is_refused(make_session, light):
    with make_session() as session:
        cycle(session, 1)
    with pytest.raises(SourceError, match="found 'sky-1'"):
        make_session(sky(60, seed=1, size=32), labels=None)
    with pytest.raises(ConfigError, match="backbone='test_resnet'; found 'test_vit'"):
        make_session(train=light(backbone="test_vit"))
    with pytest.raises(ConfigError, match=r"prepares images with Preprocess\(size=32"):
        make_session(image=Preprocess(size=48))
    with make_session() as again:  # the refused ones have let the folder go, and changed nothing
        assert again.step == 1
        assert again.image.size == 32


def test_a_mistaken_backbone_is_told_and_can_be_put_right(make_session):
    with make_session(backbone="test_resnett") as session:
        session.train(1)
        with pytest.raises(ConfigError, match="Did you mean 'test_resnet'"):
            session.wait(WAIT_S)
    session = make_session()
    cycle(session, 1)
    assert session.step == 1


def test_opening_what_is_no_session_says_so(tmp_path):
    with pytest.raises(WorkspaceError, match="is no session folder"):
        Session.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_named_and_the_older_one_serves(make_session):
    with make_session(checkpoint_every=1) as session:
        cycle(session, 2)
    old, last = sorted((session.path / "checkpoints").iterdir())
    last.write_bytes(last.read_bytes()[:1000])
    with Session.open(session.path) as again:
        again.score()
        with pytest.raises(WorkspaceError, match=rf"{last.name}' cannot be used.*Move it away"):
            again.wait(WAIT_S)
    last.unlink()
    with Session.open(session.path) as again:
        assert again.step == 1
        cycle(again, 1)
        assert (again.step, again.cycle) == (2, 2)
    assert old.exists()


def test_damaged_scores_do_not_bar_the_way_to_the_labels(session, caplog):
    cycle(session)
    older = session.scores
    cycle(session)
    session.close()
    (part,) = (session.path / "scores" / "cycle=0002").glob("part-*")
    part.write_bytes(part.read_bytes()[:-10])
    with Session.open(session.path) as again:
        assert "part-00000.parquet' are damaged" in caplog.text
        assert labels_of(again) == labels_of(session)
        assert again.scores_cycle == 1
        np.testing.assert_array_equal(again.scores, older)
        again.score()
        again.wait(WAIT_S)
        assert again.scores_cycle == 2
        np.testing.assert_array_equal(again.scores, session.scores)


def test_a_session_stays_in_its_folder_when_the_working_directory_changes(
    make_session, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    session = make_session(path="here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session.label({SKY.ids[0]: "normal"})
    cycle(session, 1)
    assert session.path == tmp_path / "here"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_path_the_folder_is_named_after_the_images(tmp_path, light, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Session(SKY, train=light()) as session:
        assert session.path == tmp_path / "runs" / "sky-0"


# ---- who holds the folder ---------------------------------------------------------------------

HOLDER = """
import sys
from amatch_widgets.session import Session
session = Session.open(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_session_of_this_kernel_is_refused(session):
    with pytest.raises(SessionInUseError, match="another session of this kernel"):
        Session.open(session.path)


def test_a_session_of_another_process_is_refused_until_it_ends(session):
    session.close()
    arguments = [sys.executable, "-c", HOLDER, str(session.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(SessionInUseError, match=rf"in use by process {process.pid} on"):
            Session.open(session.path)
        process.kill()
        process.wait(10)
    Session.open(session.path).close()


def test_a_session_closed_on_another_thread_lets_the_folder_go(session):
    thread = threading.Thread(target=session.close)
    thread.start()
    thread.join(WAIT_S)
    Session.open(session.path).close()


def test_a_session_that_could_not_begin_lets_the_folder_go(make_session, tmp_path):
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        make_session(labels={"x": "normal"})
    with pytest.raises(LabelError):
        make_session(labels=tmp_path / "absent.csv")
    make_session()


# ---- a workspace that is full or cannot be written --------------------------------------------


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_does_not_fit_is_told_and_the_model_is_not_lost(make_session):
    session = make_session(checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", no_space)
        session.train(5)
        with pytest.raises(
            WorkspaceError, match=r"No space left on device. It is still in memory.*labels are"
        ):
            session.wait(WAIT_S)
    assert (session.state, session.step) == (State.FAILED, 1)
    session.label({SKY.ids[0]: "normal"})
    cycle(session, 1)  # with space again
    assert (session.step, session.cycle) == (2, 2)
    session.close()
    with Session.open(session.path) as again:
        assert (again.step, len(again.labels)) == (2, 13)


def test_a_checkpoint_that_does_not_fit_at_a_stop_is_told_and_saved_by_the_next_job(session):
    gate = Gate(session)
    session.train(1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", no_space)
        with gate:
            session.stop()
        with pytest.raises(WorkspaceError, match="No space left"):
            session.wait(WAIT_S)
    assert session.step == 1
    session.score()
    session.wait(WAIT_S)
    assert session.scores_cycle == 1


def test_scores_that_do_not_fit_are_told_and_the_old_ones_stay(session):
    cycle(session)
    old = session.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        session.score()
        with pytest.raises(WorkspaceError, match=r"scores of cycle 1 cannot be written.*Labels and earlier"):
            session.wait(WAIT_S)
    assert session.scores is old
    session.close()
    with Session.open(session.path) as again:
        np.testing.assert_array_equal(again.scores, old)
        again.score()
        again.wait(WAIT_S)
        np.testing.assert_array_equal(again.scores, old)


def test_a_label_that_does_not_fit_is_not_kept_and_the_next_one_is(session):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(JournalError, match="NOT kept"):
            session.label({SKY.ids[0]: "normal"})
    assert session.labels.get(SKY.ids[0]) is None
    session.label({SKY.ids[1]: "normal"})
    session.close()
    with Session.open(session.path) as again:
        assert again.labels.get(SKY.ids[0]) is None
        assert again.labels.get(SKY.ids[1]).label == "normal"


def test_a_full_disk_at_the_start_is_told_and_the_folder_is_free_again(make_session, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match=r"No space left on device. Free some space"):
            make_session()
    cycle(make_session(), 1)


def test_a_folder_that_cannot_be_written_is_told(make_session, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(WorkspaceError, match=r"Permission denied. Choose a folder that you can write to"):
        make_session()


def test_a_history_that_cannot_be_written_stops_no_training(session):
    session._workspace.history.mkdir()
    cycle(session)
    assert len(session.history.steps) == 2
    assert session.scores_cycle == 1


# ---- display ----------------------------------------------------------------------------------


def test_showing_a_session_gives_its_dashboard(session):
    widget = session.show()
    try:
        assert type(widget).__name__ == "Dashboard"
    finally:
        widget.close()
