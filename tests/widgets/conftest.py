from __future__ import annotations

import pytest

from amatch_widgets.demo import sky
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session import Session


@pytest.fixture
def session(tmp_path):
    source = sky(200, seed=0, prevalence=0.05)
    config = TrainConfig(steps=7)
    with Session(source, path=tmp_path / "run", labels=source.first_labels(5, 15), train=config) as session:
        yield session


def sent(widget):
    """Collect the messages a widget sends to the browser from now on."""
    messages = []
    widget.send = lambda content, buffers=None: messages.append(content)
    return messages
