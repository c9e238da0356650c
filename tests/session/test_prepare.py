"""The model is to see the images in another way: before it is trained, and with all that follows."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, ImageReadError, StateError
from amatch_widgets.events import ImagesPrepared
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.source import open_source
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, Gate, cycle, labels_of

ASINH = Preprocess(size=24, stretch="asinh", limits="fixed", low=0, high=255, softening=0.02)


@pytest.fixture
def embedded(make_session):
    session = make_session(test_share=0)
    session.embed()
    session.wait(WAIT_S)
    return session


def prepared(session, image=ASINH):
    session.prepare(image)
    session.wait(WAIT_S)
    return session


def test_the_images_are_embedded_and_ranked_anew(embedded):
    told = []
    embedded.hub.subscribe(told.append)
    before = embedded.scores.copy()
    labels = labels_of(embedded)
    prepared(embedded)
    assert embedded.image == ASINH
    assert sum(isinstance(event, ImagesPrepared) for event in told) == 1
    assert embedded.is_embedded
    assert np.isfinite(embedded.scores).all()
    assert not np.allclose(embedded.scores, before)
    assert labels_of(embedded) == labels
    images, _ = embedded._pool.batch([0])
    np.testing.assert_array_equal(images[0], ASINH(SKY.read(0)))
    assert embedded.explain(SKY.ids[0]).losses.shape == (24, 24)


def test_it_is_kept(embedded):
    scores = prepared(embedded).scores.copy()
    path = embedded.path
    embedded.close()
    with Session.open(path, source=SKY) as again:
        assert again.image == ASINH
        assert again.is_embedded
        np.testing.assert_allclose(again.scores, scores, rtol=1e-5)
        cycle(again)  # and it is trained on images of that size
        assert np.isfinite(again.scores).all()


def test_the_same_again_does_nothing(embedded):
    told = []
    before = embedded.scores.copy()
    embedded.hub.subscribe(told.append)
    prepared(embedded, embedded.image)
    assert not any(isinstance(event, ImagesPrepared) for event in told)
    np.testing.assert_array_equal(embedded.scores, before)


def test_stopped_half_way_the_old_ranking_stays_and_the_new_embeddings_follow(embedded, monkeypatch):
    before = embedded.scores.copy()
    monkeypatch.setattr(embedded._engine, "embed", lambda: iter(()))  # stopped before the first image
    prepared(embedded)
    assert not embedded.is_embedded
    np.testing.assert_array_equal(embedded.scores, before)
    path = embedded.path
    embedded.close()
    with Session.open(path, source=SKY) as again:
        assert again.image == ASINH
        assert not again.is_embedded
        again.embed()
        again.wait(WAIT_S)
        assert again.is_embedded
        assert not np.allclose(again.scores, before)


def test_a_trained_model_keeps_its_images_as_they_are(make_session):
    session = make_session()
    cycle(session)
    with pytest.raises(ConfigError, match="A model has been trained on the images as they are prepared now"):
        session.prepare(ASINH)
    assert session.image.stretch == "linear"


def test_a_running_training_is_not_given_up_for_it(make_session):
    session = make_session()
    gate = Gate(session)
    session.train(2)
    with gate, pytest.raises((ConfigError, StateError)):
        session.prepare(ASINH)
    session.wait(WAIT_S)
    assert session.step == 2


def test_images_that_could_not_be_prepared_may_be_now(make_session):
    images = np.random.default_rng(0).normal(size=(12, 16, 16, 2)).astype(np.float32)
    images[3, ..., 1] = np.nan
    source = open_source(images)
    source.bands = ("g", "r")
    red = Preprocess(size=16, mix=["r"])
    session = make_session(source, labels={"00": "anomaly"}, image=red, test_share=0)
    session.embed()
    session.wait(WAIT_S)
    assert session.problems == {"03": "no pixel is finite: all are NaN or infinite"}
    with pytest.raises(ImageReadError, match="no pixel is finite"):
        session.thumbnail("03", 16)
    prepared(session, Preprocess(size=16, mix=["g", "g", "r"]))
    assert not session.problems
    assert session.thumbnail("03", 16)
    assert session.image.channels == 3
