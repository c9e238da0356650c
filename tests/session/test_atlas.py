"""The map of a session's images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, NotTrainedError
from tests.session.helper import WAIT_S


@pytest.fixture
def session(make_session):
    session = make_session()
    session.embed()
    session.wait(WAIT_S)
    return session


def test_a_map_has_a_place_for_each_image_that_is_on_it(session):
    found = session.map()
    assert len(found) == len(session.source)
    assert found.image_ids == tuple(session.source.ids)
    assert (found.xy.dtype, found.xy.shape) == (np.float32, (len(found), 2))
    assert found.xy.min() >= 0
    assert found.xy.max() <= 1
    assert repr(found) == "ImageMap(60 images)"
    with pytest.raises(ValueError, match="read-only"):
        found.xy[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.xy = None


def test_labelled_starred_and_top_images_are_always_on_it(session, monkeypatch):
    monkeypatch.setattr("amatch_widgets.session.atlas._N_TOP", 4)
    free = [i for i in session.source.ids if i not in session.labels.current()]
    session.annotate(free[-1], star=True)
    found = session.map(0)
    best = {session.source.ids[i] for i in session.ranking()[:4]}
    assert set(found.image_ids) == best | set(session.labels.current()) | {free[-1]}


def test_a_map_needs_embeddings_and_a_number_that_can_be(make_session):
    session = make_session()
    with pytest.raises(NotTrainedError, match=r"session\.embed\(\)"):
        session.map()
    with pytest.raises(ConfigError, match="n=-1"):
        session.map(-1)
