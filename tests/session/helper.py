"""What several test modules of a session share: a small sky, a gate in a training, short ways to ask."""

from __future__ import annotations

import threading

from amatch_widgets.demo import DemoSource, sky
from amatch_widgets.errors import ImageReadError
from amatch_widgets.events import StepDone
from amatch_widgets.query.judge import Judgement

SKY = sky(60, size=32, prevalence=0.2)
WAIT_S = 60


class Holey(DemoSource):
    """A sky in which some images cannot be read."""

    bad = frozenset()

    def read(self, index, *, min_side=None):
        if index in self.bad:
            raise ImageReadError(self.ids[index], "it has a hole")
        return super().read(index, min_side=min_side)


def holey(bad):
    source = Holey(60, size=32, prevalence=0.2)
    source.bad = frozenset(bad)
    return source


def cycle(session, steps=2):
    session.train(steps)
    session.wait(WAIT_S)


def labels_of(session):
    return {i: line.label for i, line in session.labels.current().items()}


def truth(n):
    return dict(list(SKY.truth.items())[:n])


class Gate:
    """Holds the training after a step until it is told to go on; the test knows that it is there."""

    def __init__(self, session, at_step=1):
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._at_step = at_step
        session.hub.subscribe(self._listen)

    def _listen(self, event):
        if isinstance(event, StepDone) and event.step == self._at_step:
            self.reached.set()
            assert self.go_on.wait(WAIT_S)

    def __enter__(self):
        assert self.reached.wait(WAIT_S)
        return self

    def __exit__(self, *_):
        self.go_on.set()


def judged_better(monkeypatch):
    """Let whatever tests the trained model say that it is better."""
    monkeypatch.setattr("amatch_widgets.query.judge.judge", lambda *_, **__: Judgement(2.0, 0.99, 6, 9))
