from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.archive.parts import Parts
from amatch_widgets.demo import sky
from amatch_widgets.query.head import InstantFit
from amatch_widgets.session import Session
from amatch_widgets.widgets.gallery import Gallery
from amatch_widgets.widgets.view import Desk
from tests.widgets.board import Board


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


class Survey:
    """An archive of 300 images in three parts, of which two are scored, at random."""

    def __init__(self, session):
        self.source = sky(300, size=32, seed=5)
        self.scores = np.random.default_rng(3).random(300).astype(np.float32)
        name = f"{self.source.name}-{self.source.fingerprint()[:8]}"
        self.parts = Parts.create(
            session.path / "archives" / name,
            fingerprint=self.source.fingerprint(),
            n_images=300,
            spec=self.source.spec(),
            part_rows=100,
        )
        self.cycle = self.parts.begin("k", "Ranked by chance.")
        self.write(0)
        self.write(1)
        self.archive = session._archives.note(self.source, self.parts.root)

    def write(self, part):
        start, stop = self.parts.bounds(part)
        scores = self.scores[start:stop].copy()
        scores[7] = np.nan  # one of each cannot be read
        problems = {start + 7: "torn"}
        ids = self.source.ids[start:stop]
        self.parts.write(self.cycle, part, ids=ids, scores=scores, problems=problems)

    def ids(self, n=200):
        """The ids in the session of what is scored of the first `n` images, the highest scores first."""
        order = [i for i in np.argsort(-self.scores[:n], kind="stable") if i % 100 != 7]
        return [self.archive.id_of(self.source.ids[i]) for i in order]


@pytest.fixture
def survey(session):
    return Survey(session)


@pytest.fixture
def board(session, survey):
    board = Board(session)
    yield board
    board.gallery.close()


@pytest.fixture
def desk():
    desk = Desk()
    desk.said = []
    desk.on_message(lambda level, text: desk.said.append((level, text)))
    return desk


@pytest.fixture
def gallery(session, desk):
    gallery = Gallery(session, desk)
    yield gallery
    gallery.close()
