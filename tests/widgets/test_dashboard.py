from __future__ import annotations

import gc
import threading
import time

import pytest

from amatch_widgets.errors import MissingExtraError, StateError
from amatch_widgets.events import (
    EmbeddingProgress,
    Failed,
    HealthAlarm,
    Message,
    ScoringProgress,
    StateChanged,
    StepDone,
)
from amatch_widgets.widgets import Dashboard
from amatch_widgets.widgets.controls import duration
from amatch_widgets.widgets.view import View, in_words, require_ipyvuetify

WAIT_S = 20


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


@pytest.fixture(autouse=True)
def embed(monkeypatch):
    """Let no dashboard embed by itself, but where a test puts this back."""
    embed = Dashboard._embed_if_idle
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)
    return lambda: monkeypatch.setattr(Dashboard, "_embed_if_idle", embed)


@pytest.fixture
def board(session):
    board = Dashboard(session)
    yield board
    board.close()


def texts(board):
    return [(m["level"], m["text"]) for m in board.messages]


def test_counts_are_those_of_the_session(board, session):
    assert board.counts["images"] == 200
    assert (board.counts["anomalies"], board.counts["normals"]) == (5, 15)
    assert board.counts["held_out"] == len(session.labels.for_split("test"))
    session.label({session.source.ids[0]: "normal", session.source.ids[1]: "normal"})
    until(lambda: sum(board.counts[k] for k in ("anomalies", "normals")) == len(session.labels))


def test_session_shows_a_dashboard(session):
    board = session.show()
    assert isinstance(board, Dashboard)
    board.close()
    board.close()


def test_displayed_session_leaves_its_own_words_for_when_the_kernel_is_gone(session):
    bundle = session._repr_mimebundle_()
    assert bundle["text/plain"] == repr(session)
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_dashboard_begins_with_what_was_odd_at_the_opening(session):
    session._notices.append("l.csv: 3 of its ids fit no image.")
    board = Dashboard(session)
    assert texts(board) == [("warning", "l.csv: 3 of its ids fit no image.")]
    board.close()


def test_two_dashboards_agree_on_labels(board, session):
    other = Dashboard(session)
    for each in (board, other):
        each.gallery.choose(show="all", sort="random")
    image_id = next(i for i in board.gallery.image_ids if session.labels.get(i) is None)
    board.gallery.label(image_id, "anomaly")
    place = other.gallery.image_ids.index(image_id)
    until(lambda: other.gallery.labels["marks"][place] == "anomaly")
    other.close()


def test_progress_and_state_are_shown(board, session):
    assert board.controls.state_text == "Ready"
    assert board.controls.can == {
        "embed": True,
        "train": True,
        "pause": False,
        "resume": False,
        "stop": False,
        "score": True,
    }
    board.controls.state, board.controls.progress = "running", 0.0
    board.controls.can = {**board.controls.can, "stop": True}
    board.controls.apply([StepDone(step=30, done=5, total=20, steps_per_s=2.0, seconds_left=75.0)])
    assert board.controls.progress == 0.25
    assert board.controls.state_text == "Training"
    assert board.controls.progress_text == "step 5 of 20 · 2 steps/s · 1 min 15 s left"
    board.controls.apply([ScoringProgress(done=1000, total=4000, images_per_s=1050.4, seconds_left=3.0)])
    assert board.controls.progress_text == "1,000 of 4,000 · 1,050 images/s · 3 s left"
    board.controls.apply([EmbeddingProgress(done=0, total=4000, images_per_s=0.0, seconds_left=float("inf"))])
    assert (board.controls.state_text, board.controls.progress_text) == ("Embedding", "0 of 4,000")
    board.controls.apply([EmbeddingProgress(done=1000, total=4000, images_per_s=500.0, seconds_left=6.0)])
    assert board.controls.progress_text == "1,000 of 4,000 · 500 images/s · 6 s left"
    board.controls.apply([EmbeddingProgress(0, 4000, 0.0, float("inf"), "survey")])
    assert board.controls.state_text == "Embedding survey"
    board.controls.apply([StateChanged("idle")])
    assert (board.controls.progress, board.controls.progress_text) == (-1.0, "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"command": "score"}, "no model yet"),
        ({"command": "pause"}, "nothing is running"),
        ({"command": "close"}, "Unknown command"),
        ({"command": "train", "steps": "many"}, "no number of steps"),
        ({"command": "train", "steps": 0}, "allowed are 1 to"),
        ({}, "Unknown command"),
    ],
)
def test_what_the_session_refuses_is_said_in_plain_words(board, data, said):
    board.controls.vue_do_run(data)
    assert len(board.messages) == 1
    assert said in board.messages[0]["text"]


def test_a_button_hands_the_command_to_the_session(board, session, monkeypatch):
    calls = []
    monkeypatch.setattr(session, "train", lambda steps=None: calls.append(steps))
    board.controls.vue_do_run({"command": "train", "steps": "12"})
    board.controls.vue_do_run({"command": "train", "steps": ""})
    assert calls == [12, None]
    assert board.controls.steps == 12


def test_errors_of_the_worker_and_messages_are_shown_once_with_a_count(board, session):
    session.hub.publish(Failed("train", "The loss is not a number."))
    for _ in range(3):
        session.hub.publish(Message("warning", "Only 2 anomalies are labelled."))
    until(lambda: len(board.messages) == 2 and board.messages[1]["times"] == 3)
    assert texts(board) == [
        ("error", "Training failed: The loss is not a number."),
        ("warning", "Only 2 anomalies are labelled."),
    ]
    board.log.vue_do_dismiss({"number": board.messages[0]["number"]})
    assert len(board.messages) == 1
    board.log.vue_do_dismiss({})
    assert board.messages == []


def test_an_alarm_is_a_warning_with_its_advice(board, session):
    session.hub.publish(HealthAlarm("collapse", "All pseudo-labels are of one class.", "Stop the training."))
    until(lambda: board.messages)
    assert texts(board) == [("warning", "All pseudo-labels are of one class. Stop the training.")]


def test_an_opened_dashboard_makes_the_embeddings_and_says_so(session, embed):
    embed()
    board, other = Dashboard(session), Dashboard(session)
    assert board.controls.state == "running"
    assert board.controls.state_text in {"Making embeddings", "Embedding"}
    assert board.controls.can["stop"]
    session.wait(WAIT_S)
    for each in (board, other):
        until(lambda each=each: each.controls.state_text == "Ready" and each.gallery.can_similar)
        assert each.controls.is_embedded
        until(lambda each=each: each.gallery.ranking_note.startswith("Ranked by the instant tier"))
        assert each.gallery.stale == "Ranked by your labels"
        assert texts(each) == []
    first = board.gallery.image_ids
    board.gallery.turn(1)
    shown = [tile["score"] for tile in board.gallery.page["tiles"]]
    assert shown == sorted(shown, reverse=True)
    board.gallery.show_similar(board.gallery.image_ids[0])
    assert len(board.gallery.image_ids) == 48
    board.gallery.show_ranking()
    board.gallery.turn(0)
    assert board.gallery.image_ids == first
    charts = {chart["key"]: chart for chart in board.plots.charts}
    until(lambda: {c["key"]: c for c in board.plots.charts}["scores"]["value"] == "images, your labels")
    assert charts.keys() == {"discovery", "metrics", "losses", "share", "scores"}
    board.close()
    other.close()
    again = Dashboard(session)  # they are there: nothing to do
    assert again.controls.state_text == "Ready"
    again.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StateError("Cannot start now: a job is running already."), []),
        (
            OSError(28, "No space left on device"),
            [("error", "Making the embeddings: No space left on device")],
        ),
    ],
)
def test_embeddings_that_cannot_be_begun_bar_no_dashboard(session, embed, monkeypatch, error, said):
    def fails():
        raise error

    embed()
    monkeypatch.setattr(session, "embed", fails)
    board = Dashboard(session)
    assert texts(board) == said
    board.close()


def test_embeddings_that_fail_say_why(board, session):
    session.hub.publish(Failed("embed", "None of the 200 images could be read."))
    until(lambda: board.messages)
    assert texts(board) == [("error", "Making the embeddings failed: None of the 200 images could be read.")]


def test_a_stopped_embedding_can_be_begun_again(board, session, monkeypatch):
    calls = []
    monkeypatch.setattr(session, "embed", lambda: calls.append("embed"))
    assert board.controls.can["embed"]
    assert not board.controls.is_embedded
    board.controls.vue_do_run({"command": "embed"})
    assert calls == ["embed"]


def test_no_more_than_the_last_messages_are_kept(board):
    for k in range(100):
        board.desk.say("info", str(k))
    assert len(board.messages) == 30
    assert board.messages[-1]["text"] == "99"


def test_an_unforeseen_error_in_a_part_is_said_and_the_others_go_on(board, session, monkeypatch):
    def broken(events):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(board.controls, "apply", broken)
    session.label({session.source.ids[0]: "anomaly"})
    until(lambda: board.messages and board.counts["anomalies"] == session.labels.counts()["anomaly"])
    assert "Unexpected ZeroDivisionError" in board.messages[0]["text"]


def test_export_writes_the_shortlist_or_says_why_not(board, tmp_path):
    target = tmp_path / "shortlist.csv"
    board.vue_do_export({"path": str(target), "n": ""})
    until(lambda: board.messages)
    assert board.messages[0]["level"] == "info"
    assert len(target.read_text().splitlines()) == 1 + 20
    board.vue_do_export({"path": str(tmp_path / "no" / "such" / "\0"), "n": "5"})
    until(lambda: len(board.messages) == 2)
    assert board.messages[1]["level"] == "error"
    board.vue_do_export({"path": " "})
    assert "Type the name" in board.messages[2]["text"]


def test_the_report_is_written_into_the_session_folder_or_it_is_said_why_not(board, session, monkeypatch):
    board.vue_do_report({})
    until(lambda: board.messages)
    assert board.messages[0]["level"] == "info"
    assert board.messages[0]["text"].startswith("The report is in ")
    assert board.messages[0]["text"].endswith("report.html")
    assert (session.path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    def fail():
        raise MissingExtraError("Figures and reports need matplotlib.")

    monkeypatch.setattr(session, "report", fail)
    board.vue_do_report({})
    until(lambda: len(board.messages) == 2)
    assert board.messages[1]["level"] == "error"
    assert "need matplotlib" in board.messages[1]["text"]


def test_the_figures_are_drawn_off_the_handler_and_it_is_said_where_they_are(board, session, monkeypatch):
    go_on, figures = threading.Event(), session.figures

    def slow():
        assert go_on.wait(WAIT_S)
        return figures(formats=["svg"])

    monkeypatch.setattr(session, "figures", slow)
    board.vue_do_figures({})
    assert board.messages == []  # and it has come back
    go_on.set()
    until(lambda: board.messages)
    folder = session.path / "figures"
    assert texts(board) == [("info", f"The figures are in {folder}")]
    assert len(list(folder.glob("*.svg"))) == 4

    def fail():
        raise MissingExtraError("Figures and reports need matplotlib.")

    monkeypatch.setattr(session, "figures", fail)
    board.vue_do_figures({})
    until(lambda: len(board.messages) == 2)
    assert texts(board)[1] == ("error", "Figures and reports need matplotlib.")


def test_closing_ends_the_thread_and_the_subscription(session):
    before = len(session.hub._subscribers)
    board = Dashboard(session)
    pump = board._pump
    assert len(session.hub._subscribers) == before + 1
    board.close()
    assert not pump.is_alive
    assert len(session.hub._subscribers) == before


def test_a_dashboard_no_browser_asks_for_sleeps_and_wakes_up_whole(board, session, monkeypatch):
    sent = []
    board.frame.send = lambda content, buffers=None: sent.append(content)
    board._heard -= 1_000
    session.label({session.source.ids[0]: "anomaly"})
    until(lambda: board._is_asleep)
    session.hub.publish(Failed("train", "told while asleep"))
    until(lambda: board.messages)
    counts = board.counts
    session.label({session.source.ids[2]: "anomaly"})
    board.frame.vue_beat({})
    assert sent == [{"method": "pulse", "args": []}]
    assert board.counts != counts
    assert board.counts["anomalies"] == session.labels.counts()["anomaly"]


def test_the_pump_does_not_keep_a_dropped_dashboard(session):
    board = Dashboard(session)
    pump = board._pump
    board.close()
    del board
    gc.collect()
    assert not pump.is_alive


def test_clicks_are_not_pinned_to_a_busy_thread():
    class Comm:
        def _reply_subshell_for(self, data, default):
            return "pinned"

    class Part:
        comm = Comm()

    View._unpin(Part)
    assert getattr(Part.comm, "_reply_subshell_for", None) is None
    Part.comm = object()  # another ipykernel: nothing to undo
    View._unpin(Part)


@pytest.mark.parametrize("version", ["1.11.3", "2.0", "3.0.9"])
def test_an_old_ipyvuetify_is_refused_with_the_line_to_type(version):
    with pytest.raises(MissingExtraError, match=r"pip install 'ipyvuetify>=3\.1,<4'"):
        require_ipyvuetify(version)
    require_ipyvuetify("3.1.0")
    require_ipyvuetify("10.0.0rc1")


def test_errors_of_the_system_are_said_without_their_number():
    assert in_words(PermissionError(13, "Permission denied", "/x.csv")) == "Permission denied: /x.csv"
    assert in_words(KeyError(3)) == "Unexpected KeyError: 3. The details are in dashboard.log."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
        (float("nan"), "some time"),
        (float("inf"), "some time"),
        (-1, "some time"),
    ],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_errors_are_in_a_log_file_that_dashboards_share_and_the_last_closes(session):
    log = session.path / "dashboard.log"
    boards = [Dashboard(session), Dashboard(session)]
    assert not log.exists()
    boards[0].desk.report(KeyError("lost"), "Trying")
    boards[0].close()
    boards[1].desk.report(KeyError("again"), "Trying")
    boards[1].close()
    boards[1].desk.report(KeyError("too late"), "Trying")
    text = log.read_text()
    assert (text.count("KeyError: 'lost'"), text.count("KeyError: 'again'"), text.count("too late")) == (
        1,
        1,
        0,
    )


def test_labels_renew_the_figures_of_the_ranking(board, session, scored):
    before = board.plots.headline
    ids = [i for i in session.source.ids if session.labels.get(i) is None]
    session.label(dict.fromkeys(ids[:20], "normal"))
    session.label(dict.fromkeys(ids[20:40], "anomaly"))
    scored()
    session.label({ids[41]: "normal"})
    until(lambda: board.plots.headline != before)
    assert [item["name"] for item in board.plots.headline] == ["AUROC", "AUPRC"]
    assert board.plots.headline[0]["interval"].startswith("[")


def test_plots_are_drawn_at_most_twice_a_second_and_the_last_value_always(session, monkeypatch):
    board = Dashboard(session)
    board._pump.close()  # this test calls in its place
    drawn = []
    monkeypatch.setattr(board.plots, "show_all", lambda: drawn.append(session.step))
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    board._heard = now[0]
    event = StepDone(step=1, done=1, total=9, steps_per_s=1.0, seconds_left=1.0)
    assert board.apply([event]) is None
    assert len(drawn) == 1
    now[0] += 0.1
    assert board.apply([event]) == pytest.approx(0.4)
    now[0] += 0.1
    assert board.apply([event]) == pytest.approx(0.3)
    assert len(drawn) == 1
    now[0] += 0.31
    assert board.apply([]) is None
    assert len(drawn) == 2
    assert board.apply([]) is None
    assert len(drawn) == 2
    board.close()
