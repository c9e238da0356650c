"""What the labels of an archive's images teach the session."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import TooFewLabelsError
from amatch_widgets.events import Message, ProblemFound
from amatch_widgets.learn.feed import Feed
from tests.session.helper import SKY, WAIT_S, Gate, Holey, labels_of

SURVEY = sky(80, size=32, seed=5, prevalence=0.2)
RARE = [i for i, label in SURVEY.truth.items() if label == "anomaly"]


def of(session, archive=SURVEY):
    session.score(archive)
    session.wait(WAIT_S)
    return next(a for a in session.archives.values() if a.fingerprint == archive.fingerprint())


def learnt(session):
    """Wait until all labels are in the ranking; return the scores."""
    assert session._teaching.wait(WAIT_S)
    assert session._tiers.wait(WAIT_S)
    return session.scores.copy()


@pytest.fixture
def session(make_session):
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    return session


def test_they_are_learnt_from_as_the_sessions_own_are(session):
    own = [i for i in SKY.ids if i not in session.labels][:6]
    labels = {i: SKY.truth[i] for i in own}
    twins = of(session, Holey(60, size=32, prevalence=0.2))  # the same images, called something else
    session.label({twins.id_of(i): label for i, label in labels.items()})
    by_archive = learnt(session)
    n_anomalies = 4 + list(labels.values()).count("anomaly")
    assert f"from {n_anomalies} anomalies" in session.ranking_note
    _, outside = session._teaching.outside()
    vectors = session._tiers.embeddings[0][[SKY.ids.index(i) for i in sorted(own)]]
    np.testing.assert_allclose(outside.vectors, vectors, atol=0.02)
    session.label(dict.fromkeys(map(twins.id_of, labels)))
    session.label(labels)
    by_own = learnt(session)
    rest = [k for k, i in enumerate(SKY.ids) if i not in labels]
    # Not the same: what stands for the pool, 60 images, has them or not.
    assert np.corrcoef(by_archive[rest], by_own[rest])[0, 1] > 0.97


def test_an_undone_label_teaches_nothing_any_more(session):
    before = learnt(session)
    survey = of(session)
    session.label({survey.id_of(RARE[0]): "anomaly"})
    assert not np.array_equal(learnt(session), before)
    session.undo()
    np.testing.assert_array_equal(learnt(session), before)


def test_after_reopening_they_teach_without_a_look_at_the_images(make_session, session, monkeypatch):
    survey = of(session)
    session.label({survey.id_of(i): "anomaly" for i in RARE[:3]})
    scores = learnt(session)
    session.close()
    monkeypatch.setattr("amatch_widgets.session.archive.reopen", lambda _: pytest.fail("it was opened"))
    session = make_session(labels=None, test_share=0)
    np.testing.assert_array_equal(learnt(session), scores)


def test_without_the_file_the_vectors_are_made_again(make_session, session):
    survey = of(session)
    session.label({survey.id_of(i): "anomaly" for i in RARE[:3]})
    scores = learnt(session)
    session.close()
    (session.path / "vectors.jsonl").write_text('{"id": "x", "key": "y", "vector": "not one"}\n[1]\n')
    session = make_session(labels=None, test_share=0)
    np.testing.assert_allclose(learnt(session), scores, atol=1e-3)


def test_the_next_scoring_uses_them_even_if_it_begins_at_once(session):
    survey = of(session)
    cycle = survey.scores.cycle
    session.label({survey.id_of(RARE[0]): "anomaly"})
    survey = of(session)
    assert survey.scores.cycle.number == cycle.number + 1
    assert "5 anomalies" in survey.scores.cycle.note or "4 anomalies" in survey.scores.cycle.note
    learnt(session)
    assert of(session).scores.cycle.number == cycle.number + 1  # it had learnt from all of them


def test_an_image_that_cannot_be_read_is_told_and_the_others_teach(session):
    before, told, found = learnt(session), threading.Event(), []

    def listen(event):
        if isinstance(event, ProblemFound) and "::" in event.image_id:
            found.append(event)
            told.set()

    session.hub.subscribe(listen)
    source = Holey(50, size=32, seed=3, prevalence=0.2)
    source.bad = frozenset({3})
    survey = of(session, source)
    session.label({survey.id_of("03"): "anomaly", survey.id_of("04"): "anomaly"})
    assert not np.array_equal(learnt(session), before)
    assert told.wait(WAIT_S)
    assert [(e.image_id, e.reason) for e in found] == [(survey.id_of("03"), "it has a hole")]
    assert "5 anomalies" in session.ranking_note


def test_labels_before_the_embeddings_teach_when_these_are_there(make_session, session):
    survey = of(session)
    session.label({survey.id_of(RARE[0]): "anomaly"})
    scores = learnt(session)
    session.close()
    (session.path / "vectors.jsonl").unlink()
    other = make_session(labels=None, test_share=0)
    other.prepare(other.image)  # the same: embedded already
    other.wait(WAIT_S)
    np.testing.assert_allclose(learnt(other), scores, atol=1e-3)


def test_they_are_embedded_between_two_steps_of_a_training(session):
    survey = of(session)
    gate = Gate(session)
    session.train(3)
    with gate:
        session.label({survey.id_of(RARE[0]): "anomaly"})
    assert session._teaching.wait(WAIT_S)
    session.wait(WAIT_S)
    assert session.step == 3


def test_a_failure_is_told_and_the_labels_stay(session, monkeypatch):
    survey = of(session)
    told, there = [], threading.Event()

    def listen(event):
        if isinstance(event, Message) and event.level == "error":
            told.append(event.text)
            there.set()

    def broken(_key):
        raise RuntimeError("out of everything")

    session.hub.subscribe(listen)
    monkeypatch.setattr(session._teaching, "_embedder", broken)
    session.label({survey.id_of(RARE[0]): "anomaly"})
    assert there.wait(WAIT_S)
    assert told[0].startswith(
        "Labelled images of archives (1) teach nothing: RuntimeError: out of everything."
    )
    assert session.labels.get(survey.id_of(RARE[0])).label == "anomaly"


def test_a_training_learns_from_them_too(make_session, monkeypatch):
    fed, usual = [], Feed._with_labelled

    def watched(feed, *args):
        step = usual(feed, *args)
        fed.extend(zip(step.labelled, step.classes.tolist(), strict=True))
        return step

    monkeypatch.setattr(Feed, "_with_labelled", watched)
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    survey, events = of(session), []
    # No anomaly of the session's own is left: without the archive's it could not be trained.
    session.label(dict.fromkeys([i for i, c in labels_of(session).items() if c == "anomaly"], "normal"))
    with pytest.raises(TooFewLabelsError):
        session.train(1)
    session.hub.subscribe(events.append)
    named = survey.id_of(RARE[0])
    session.label({named: "anomaly", survey.id_of("07"): "normal"})
    session.train(2)
    session.wait(WAIT_S)
    shown = session.pictures.prepared(named)
    assert all(np.array_equal(image, shown) for image, label in fed if label == 1)
    assert any(label == 1 for _, label in fed)
    assert (session.step, [e for e in events if isinstance(e, Message)]) == (2, [])


def test_a_training_says_what_it_cannot_learn_from(session):
    events, source = [], Holey(50, size=32, seed=3, prevalence=0.2)
    survey = of(session, source)
    source.bad = frozenset({3})
    session.hub.subscribe(events.append)
    session.label({survey.id_of("03"): "anomaly"})
    session.train(1)
    session.wait(WAIT_S)
    (said,) = [e.text for e in events if isinstance(e, Message) and "training" in e.text]
    assert said.startswith("The training leaves out 1 labelled images of archives: ")
    assert "it has a hole" in said
