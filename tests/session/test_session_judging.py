"""The trained model and the instant tier of a session, judged by labels that neither has learnt from."""

from __future__ import annotations

import json
import threading

import numpy as np

from amatch_widgets.query.head import InstantHead
from amatch_widgets.query.judge import normal_scores
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, Gate, cycle, judged_better


def evidence(session, score):
    """What the file says of images with this score, "instant" or "deep": {id: score}."""
    path = session.path / "evidence.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["id"]: line[score] for line in lines if score in line}


def unlabelled(session):
    return [i for i in SKY.ids if i not in session.labels.current()]


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

    def slow(head, labels, outside=None):
        running.set()
        assert go_on.wait(WAIT_S)
        return fit(head, labels, outside)

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

    def with_a_label(head, labels, outside=None):
        if SKY.ids[1] not in session.labels.current():
            session.label({SKY.ids[1]: "normal"})
        return fit(head, labels, outside)

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
