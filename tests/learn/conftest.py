"""A feed of small images, for what trains."""

from __future__ import annotations

import pytest

from amatch_widgets.demo import sky
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.feed import Feed
from amatch_widgets.learn.trainer import Trainer


@pytest.fixture(scope="session")
def small_pool():
    """Give 40 images of 32 px; every fourth counts as an anomaly."""
    return PixelPool(sky(40, size=32, prevalence=0.25), Preprocess(size=32))


@pytest.fixture
def make_feed(small_pool):
    labels = {i: int(i % 4 == 0) for i in range(16)}

    def make(config, current=None):
        return Feed(
            small_pool,
            len(small_pool),
            current or (lambda: (1, labels)),
            batch=config.batch,
            n_unlabelled=config.batch * config.unlabelled_ratio,
            seed=config.seed,
        )

    return make


@pytest.fixture
def make_trainer(light):
    return lambda channels=3, **changes: Trainer(light(**changes), channels)
