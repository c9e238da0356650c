"""What ranks a session's images: novelty, then the instant tier, and how the images are embedded for both."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import WorkspaceError
from amatch_widgets.events import EmbeddingProgress, Message
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, cycle


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
