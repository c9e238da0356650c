from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.query.head import InstantFit


@pytest.fixture
def rank():
    """Let the instant tier of a session rank, with scores drawn at random or given."""

    def rank(session, scores=None, kind="labels"):
        if scores is None:
            scores = np.random.default_rng(0).random(len(session.source))
        fit = InstantFit(np.asarray(scores, np.float32), kind, (0.5, 0.5), -1.0, 5, 15, None, 0.0)
        session._board.use_instant(fit, None)
        return session.scores

    return rank


@pytest.fixture
def look():
    """Label the first images without a label, as a person who looks: "a" anomaly, "n" normal."""

    def look(session, marks):
        free = [i for i in session.source.ids if i not in session.labels][: len(marks)]
        for image_id, mark in zip(free, marks, strict=True):
            session.label(
                {image_id: {"a": "anomaly", "n": "normal"}[mark]}, reason="gallery, highest", by="Ada"
            )
        return free

    return look
