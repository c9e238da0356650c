"""What goes wrong in a real training is told, with advice, by the session and in the dashboard."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from amatch_widgets.demo import sky
from amatch_widgets.errors import StateError, WorkspaceError
from amatch_widgets.events import Failed, HealthAlarm
from amatch_widgets.learn import health
from amatch_widgets.learn import trainer as trainer_module
from amatch_widgets.learn.start import VectorClassifier
from amatch_widgets.widgets import Dashboard

WAIT_S = 120
APART = 3.0  # a learning rate at which the weights run ahead of their average, and stay finite


@pytest.fixture
def watched(monkeypatch):
    """Train while a dashboard is open; give the alarms that were told and what the dashboard says."""
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)

    def train(session, *steps):
        alarms = []
        session.hub.subscribe(lambda e: alarms.append(e) if isinstance(e, HealthAlarm) else None)
        board = Dashboard(session)
        try:
            for n in steps:
                session.train(n)
                session.wait(WAIT_S)
            until(lambda: all(any(a.text in text for text in texts(board)) for a in alarms))
            return alarms, texts(board)
        finally:
            board.close()

    return train


def texts(board):
    return [m["text"] for m in board.messages]


def until(condition):
    """Wait for what the dashboard's own thread does."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


def one(kind, alarms, messages):
    """Give the one alarm of a kind, after a look at whether the dashboard says the same."""
    (alarm,) = [a for a in alarms if a.kind == kind]
    assert alarm.advice
    (message,) = [m for m in messages if alarm.text in m]
    assert alarm.advice in message
    return alarm


@pytest.fixture
def without_embeddings(monkeypatch):
    """Let a training start as plain FixMatch does, with a linear probe."""

    def no_room(*_, **__):
        raise WorkspaceError("Nowhere can the vectors of the images be kept.")

    monkeypatch.setattr("amatch_widgets.score.embeddings.EmbeddingStore.open", no_room)


@torch.no_grad()
def blow_up(head):
    """Scale a head badly, as one that was made for 1000 classes is for two."""
    head.weight.mul_(1000)
    head.bias.mul_(1000)


def test_a_start_that_is_sure_of_nearly_all_images_is_told(make_session, watched, monkeypatch):
    begin = VectorClassifier.begin

    def begin_badly(self, start):
        begin(self, start)
        blow_up(self.head)

    monkeypatch.setattr(VectorClassifier, "begin", begin_badly)
    alarm = one("head_trap", *watched(make_session(batch=8, unlabelled_ratio=4), 1))
    assert "already sure of 100% of the random images" in alarm.text


@pytest.mark.usefixtures("without_embeddings")
def test_a_probe_that_is_sure_of_nearly_all_images_is_told(make_session, watched, monkeypatch):
    start_head = trainer_module.start_head

    def start_badly(model, labelled):
        start_head(model, labelled)
        blow_up(model.head)

    monkeypatch.setattr(trainer_module, "start_head", start_badly)
    options = {"batch": 8, "unlabelled_ratio": 4, "pseudo_labels": "hard", "background": 0, "likely_share": 0}
    alarm = one("head_trap", *watched(make_session(**options), 1))
    assert "it was meant to be sure of 0%" in alarm.text


@pytest.mark.usefixtures("without_embeddings")
def test_a_probe_as_it_is_made_is_no_trap(make_session, watched):
    options = {"batch": 8, "unlabelled_ratio": 4, "pseudo_labels": "hard", "background": 0, "likely_share": 0}
    session = make_session(**options)
    alarms, _ = watched(session, 1)
    assert session.history.steps[0].meant == 0
    assert not alarms


def test_a_network_that_calls_everything_normal_is_told(make_session, watched, monkeypatch):
    monkeypatch.setattr(health, "_PATIENCE", 10)  # now and then one labelled anomaly is taken right
    # The background, which is taken for normal, counts a thousand times as much as the labels.
    session = make_session(background=1000.0, learning_rate=0.02, l2_sp=0.0)
    alarm = one("one_class", *watched(session, 60))
    assert "no image got the pseudo-label 'anomaly'" in alarm.text


def test_weights_that_decay_to_nothing_are_told_as_a_constant_output(make_session, watched):
    options = {"weight_decay": 1000.0, "momentum": 0.0, "l2_sp": 0.0, "frozen_stages": 0}
    session = make_session(learning_rate=1e-3, unlabelled_ratio=1, **options)
    alarm = one("constant_output", *watched(session, 27))
    assert "the same score" in alarm.text


def test_weights_that_run_ahead_of_their_average_are_told(make_session, watched):
    session = make_session(learning_rate=APART, l2_sp=0.0, unlabelled_ratio=1)
    one("models_apart", *watched(session, 25))


def test_a_network_that_learns_wrong_labels_by_heart_is_told_from_one_session_to_the_next(
    make_session, light, watched
):
    source = sky(120, size=32, prevalence=0.4)
    options = {"test_share": 0.5, "batch": 16, "freeze_norm": True}
    with make_session(source, labels=source.truth, unlabelled_weight=50.0, **options) as first:
        watched(first, 1)
    second = make_session(source, labels=None, train=light(restart=True, unlabelled_ratio=0, **options))
    other = {"anomaly": "normal", "normal": "anomaly"}
    second.label({i: other[source.truth[i]] for i in second.labels.for_split("train")})
    alarm = one("overfitting", *watched(second, 20))
    losses = [record.loss for record in second.history.steps]
    assert f"fell from {losses[0]:.2f} to {sum(losses[1:]) / 20:.2f}" in alarm.text
    before, after = (record.alone.auroc.value for record in second.history.cycles)
    assert f"from {before:.2f} to {after:.2f}" in alarm.text


def test_a_loss_that_is_not_finite_is_told(make_session, monkeypatch):
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)
    session = make_session(learning_rate=1e12, gradient_clip=1e12)
    told = []
    session.hub.subscribe(lambda e: told.append(e) if isinstance(e, Failed) else None)
    board = Dashboard(session)
    try:
        session.train(50)
        with pytest.raises(StateError, match="diverged"):
            session.wait(WAIT_S)
        until(lambda: any(told[0].text in text for text in texts(board)))
        assert "Train with a learning_rate smaller than" in told[0].text
    finally:
        board.close()


def test_an_alarm_that_was_told_is_not_told_again_when_the_cycle_goes_on(make_session, watched, monkeypatch):
    session = make_session(learning_rate=APART, l2_sp=0.0, unlabelled_ratio=1)
    monkeypatch.setattr(trainer_module, "_COMPARE_EVERY", 2)
    told = []

    def pause_after_the_alarm(event):
        if isinstance(event, HealthAlarm):
            told.append(event.kind)
            session.pause()

    session.hub.subscribe(pause_after_the_alarm)
    session.train(40)
    until(lambda: session.state == "paused")
    session.close()
    assert told == ["models_apart"]
    again = make_session(labels=None, train=session.config)
    alarms, _ = watched(again, 10)
    assert again.cycle == 1
    assert "models_apart" not in [alarm.kind for alarm in alarms]
