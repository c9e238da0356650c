"""Progress lines: what they say, how often, and what a hostile file name can do to them."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from amatch_widgets.events import (
    EmbeddingProgress,
    EventHub,
    Failed,
    HealthAlarm,
    Message,
    ScoringProgress,
    StepDone,
)
from amatch_widgets.progress import Progress, printable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(done: int, *, seconds_left: float = 30.0) -> StepDone:
    return StepDone(step=100 + done, done=done, total=50, steps_per_s=2.0, seconds_left=seconds_left)


@pytest.fixture
def session():
    return SimpleNamespace(hub=EventHub(), problems={}, notices=())


@pytest.fixture
def clock():
    return Clock()


def lines_of(session, clock, stream, *events):
    with Progress(session, stream=stream, clock=clock):
        for event in events:
            session.hub.publish(event)
    return stream.getvalue()


def test_a_log_file_gets_rate_and_time_left_in_whole_lines(session, clock):
    text = lines_of(session, clock, io.StringIO(), step(1))
    assert text == "training: step 1 of 50, 2 steps/s, 30 s left\n"


def test_a_log_file_gets_the_first_and_the_last_of_many_events(session, clock):
    text = lines_of(session, clock, io.StringIO(), *(step(done) for done in range(1, 51)))
    assert [line.split(",")[0] for line in text.splitlines()] == [
        "training: step 1 of 50",
        "training: step 50 of 50",
    ]


def test_a_terminal_line_is_written_over_and_taken_away_at_the_end(session, clock):
    text = lines_of(session, clock, Terminal(), step(1))
    assert "\n" not in text
    assert text.split("\r")[1] == "training: step 1 of 50, 2 steps/s, 30 s left"
    assert text.split("\r")[2].strip() == ""


def test_scoring_counts_images(session, clock):
    event = ScoringProgress(done=256, total=20_000, images_per_s=1040.4, seconds_left=19.0)
    text = lines_of(session, clock, io.StringIO(), event)
    assert text == "scoring: image 256 of 20000, 1040 images/s, 19 s left\n"


def test_embedding_counts_images(session, clock):
    event = EmbeddingProgress(done=512, total=20_000, images_per_s=800.0, seconds_left=24.0)
    text = lines_of(session, clock, io.StringIO(), event)
    assert text == "embedding: image 512 of 20000, 800 images/s, 24 s left\n"
    event = EmbeddingProgress(512, 20_000, images_per_s=800.0, seconds_left=24.0, archive="survey")
    text = lines_of(session, clock, io.StringIO(), event)
    assert text == "embedding survey: image 512 of 20000, 800 images/s, 24 s left\n"


def test_an_alarm_is_a_warning_with_its_advice(session, clock):
    alarm = HealthAlarm("collapse", "Almost all pseudo-labels are of one class.", "Label more anomalies.")
    text = lines_of(session, clock, io.StringIO(), alarm)
    assert text == "warning: Almost all pseudo-labels are of one class. Label more anomalies.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.4, "59 s"), (61.0, "1 min 01 s"), (3661.0, "1 h 01 min"), (float("nan"), "?"), (float("inf"), "?")],
)
def test_time_left_is_told_in_the_unit_a_person_would_use(session, clock, seconds, text):
    shown = lines_of(session, clock, io.StringIO(), step(1, seconds_left=seconds))
    assert f", {text} left" in shown


def test_a_message_is_a_line_of_its_own_with_its_level(session, clock):
    events = (
        Message("info", "Labels were read."),
        Message("warning", "Half of it is missing."),
        Failed("train", "x"),
    )
    text = lines_of(session, clock, io.StringIO(), *events)
    assert text == "Labels were read.\nwarning: Half of it is missing.\n"


def test_unreadable_images_are_listed_at_the_end_and_cannot_steer_the_terminal(session, clock):
    session.problems = {f"a\n\x1b[2J{i}.png": "it is empty" for i in range(7)}
    text = lines_of(session, clock, io.StringIO())
    assert text.splitlines()[0] == "7 images could not be read and got no score:"
    assert text.splitlines()[-1] == "  and 2 more"
    assert len(text.splitlines()) == 7
    assert "\x1b" not in text


def test_after_the_context_events_are_not_shown(session, clock):
    stream = io.StringIO()
    lines_of(session, clock, stream)
    session.hub.publish(step(1))
    assert stream.getvalue() == ""


def test_printable_keeps_letters_of_any_script():
    assert printable("Würzburg\n銀河\t\x07") == "Würzburg 銀河 \N{REPLACEMENT CHARACTER}"
