"""Nothing is lost when the kernel is killed: real processes, ended by SIGKILL in the middle of their work.

A child prints what it has been promised, line by line; the parent reads up to the moment it waits for,
kills, and then opens the session to look for everything that was promised.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.session import Session
from amatch_widgets.worker import State

WAIT_S = 60

BEGIN = """
import sys
import numpy as np
from amatch_widgets.demo import sky
from amatch_widgets.events import ScoringProgress, StepDone
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session import Session

def tell(*words):
    print(*words, flush=True)

source = sky(300, size=32, prevalence=0.2)
config = TrainConfig(backbone="test_resnet", weights="random", batch=4, unlabelled_ratio=2, freeze_norm=False,
                     checkpoint_every=2, score_batch=8, device="cpu")
session = Session(source, path=sys.argv[1], train=config, image=Preprocess(size=32))
"""

LABELLING = """
import json
known = list(source.truth.items())
for start in range(0, 10**9, 3):
    labels = dict(known[(start + k) % 300] for k in range(3))
    if start // 300 % 2:  # the second time round they are taken back
        labels = dict.fromkeys(labels)
    session.label(labels, note="x" * 500)
    tell(json.dumps(labels))
"""

ONE_CYCLE = """
session.label(source.first_labels(5, 20))
session.train(3)
session.wait()
np.save(sys.argv[1] + ".npy", session.scores)
"""

TRAINING = """
def listen(event):
    if isinstance(event, StepDone):
        tell("step", event.step)

session.hub.subscribe(listen)
session.train(100_000)
session.label({source.ids[7]: "normal"})
tell("labelled")
session.wait()
"""

BROKEN_OFF = """
def listen(event):
    if isinstance(event, StepDone):
        tell("step", event.step)

session.hub.subscribe(listen)
session.train(40)
session.wait()
"""

SCORING = """
def listen(event):
    if isinstance(event, ScoringProgress):
        tell("scored", event.done)

session.hub.subscribe(listen)
while True:
    session.score()
    session.wait()
"""


@contextlib.contextmanager
def child(tmp_path, *code):
    """Run code that works on the session in ``run`` until it is killed."""
    arguments = [sys.executable, "-c", "".join((BEGIN, *code)), str(tmp_path / "run")]
    with (tmp_path / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


def read_until(process, tmp_path, is_enough):
    """Read lines up to one that is enough."""
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if is_enough(lines):
            return lines
    pytest.fail(f"The child ended early: {lines[-3:]}\n{(tmp_path / 'stderr.txt').read_text()}")
    return []


def kill(process):
    """Kill at once, and return what was printed before the end."""
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().splitlines(keepends=True)
    assert process.wait(WAIT_S) == -signal.SIGKILL
    return [line.rstrip("\n") for line in rest if line.endswith("\n")]


def test_every_acknowledged_label_is_there(tmp_path):
    with child(tmp_path, LABELLING) as process:
        told = read_until(process, tmp_path, lambda lines: len(lines) == 130)
        told += kill(process)
    wanted = {}
    for line in told:
        wanted |= json.loads(line)
    with Session.open(tmp_path / "run") as session:
        history = session.labels.history()
        assert len(history) >= 3 * len(told)
        for number, line in enumerate(told):  # each in its place, as it was given
            entries = history[3 * number : 3 * number + 3]
            assert {e.image_id: e.label for e in entries} == json.loads(line)
            assert all(e.note == "x" * 500 for e in entries)
        # What was on its way when the process died may be there too, and nothing else.
        assert len(history) < 3 * len(told) + 6
        for entry in history[3 * len(told) :]:
            wanted[entry.image_id] = entry.label
        found = session.labels.current()
        assert {i: line.label for i, line in found.items()} == {i: v for i, v in wanted.items() if v}
        session.label({session.source.ids[0]: "anomaly"})  # and on it goes
    with Session.open(tmp_path / "run") as session:
        assert session.labels.get(session.source.ids[0]).label == "anomaly"


def test_a_killed_training_has_its_labels_its_last_checkpoint_and_its_scores(tmp_path):
    with child(tmp_path, ONE_CYCLE, TRAINING) as process:
        told = read_until(process, tmp_path, lambda lines: {"step 12", "labelled"} <= set(lines))
        told += kill(process)
    last = max(int(line.split()[1]) for line in told if line.startswith("step"))
    with Session.open(tmp_path / "run") as session:
        assert session.labels.get(session.source.ids[7]).label == "normal"
        assert len(session.labels) >= 25
        # A step is told before its checkpoint is made, and one is made every second step.
        assert 12 - 2 <= last - 2 <= session.step <= last + 1
        assert session.step % 2 == 0
        assert session.cycle == 2
        assert session.history.steps[-1].step == session.step
        assert [c.cycle for c in session.history.cycles] == [1]
        assert session.scores_cycle == 1
        np.testing.assert_array_equal(session.scores, np.load(tmp_path / "run.npy"))
        assert (session.state, session.problems) == (State.IDLE, {})
        before = session.step
        session.train(2)  # of the cycle that was broken off
        session.wait(WAIT_S)
        assert (session.step, session.cycle, session.scores_cycle) == (before + 2, 2, 2)
        assert [r.step for r in session.history.steps] == list(range(1, before + 3))
    names = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(names) == 2  # nothing half written is left
    assert not any(name.endswith(".tmp") for name in names)


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been_killed(tmp_path):
    with child(tmp_path, ONE_CYCLE, BROKEN_OFF) as process:
        read_until(process, tmp_path, lambda lines: "step 9" in lines)
        kill(process)
    with Session.open(tmp_path / "run") as session:
        assert 6 <= session.step < 43
        session.train()
        session.wait(WAIT_S)
        assert (session.step, session.cycle, session.scores_cycle) == (43, 2, 2)
        options = {"train": session.config, "image": session.image}
        source, labels = session.source, {i: line.label for i, line in session.labels.current().items()}
        with Session(source, path=tmp_path / "whole", labels=labels, **options) as whole:
            for steps in (3, 40):
                whole.train(steps)
                whole.wait(WAIT_S)
            wanted = whole._engine.trained().state_dict()
            found = session._engine.trained().state_dict()
            assert all(bool((value == found[name]).all()) for name, value in wanted.items())


def test_a_killed_scoring_leaves_the_scores_there_were(tmp_path):
    with child(tmp_path, ONE_CYCLE, SCORING) as process:
        read_until(process, tmp_path, lambda lines: "scored 152" in lines)
        kill(process)
    with Session.open(tmp_path / "run") as session:
        assert (session.step, session.scores_cycle) == (3, 1)
        np.testing.assert_array_equal(session.scores, np.load(tmp_path / "run.npy"))
        session.score()
        session.wait(WAIT_S)
        np.testing.assert_array_equal(session.scores, np.load(tmp_path / "run.npy"))


def test_the_sky_of_the_child_is_found_again(tmp_path):
    with child(tmp_path, 'tell("open")') as process:
        read_until(process, tmp_path, lambda lines: lines == ["open"])
    with Session.open(tmp_path / "run") as session:
        assert session.source.fingerprint() == sky(300, size=32, prevalence=0.2).fingerprint()
