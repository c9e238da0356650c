from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.query.head import InstantFit
from amatch_widgets.session import Session


@pytest.fixture
def session(tmp_path, light):
    source = sky(200, seed=0, prevalence=0.05)
    config = light(steps=7)
    with Session(source, path=tmp_path / "run", labels=source.first_labels(5, 15), train=config) as session:
        yield session


@pytest.fixture
def scored(session):
    """Let a trained model of `cycle` rank alone, with scores drawn at random."""

    def score(cycle=1):
        scores = np.random.default_rng(cycle).random(len(session.source)).astype(np.float32)
        session._board.use_deep(cycle, 0, scores, None)
        return scores

    return score


@pytest.fixture
def ranked(session):
    """Let the instant tier rank, with scores drawn at random from `seed`."""

    def rank(seed, kind="labels"):
        scores = np.random.default_rng([9, seed]).random(len(session.source)).astype(np.float32)
        session._board.use_instant(InstantFit(scores, kind, (0.5, 0.5), -1.0, 5, 15, None, 0.0), None)
        return scores

    return rank
