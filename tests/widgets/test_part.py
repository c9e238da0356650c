from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

import amatch_widgets as am
from amatch_widgets.events import Failed
from amatch_widgets.widgets import Dashboard
from amatch_widgets.widgets.live import SILENCE_S, Live
from amatch_widgets.widgets.view import Desk

WAIT_S = 20
PARTS = ("Controls", "Detail", "Gallery", "Plots", "Preview")


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


def said(part):
    return [(m["level"], m["text"]) for m in part.frame.messages.messages]


@pytest.fixture(params=PARTS)
def part(request, session):
    part = getattr(am, request.param)(session)
    yield part
    part.close()


def test_a_part_alone_runs_no_thread_until_a_browser_shows_it(part):
    assert not part._live.is_awake
    part.frame.vue_beat({})
    pump = part._live._pump
    assert pump.is_alive
    part.frame.vue_beat({})
    assert part._live._pump is pump
    part.close()
    assert not pump.is_alive


def test_closing_a_part_leaves_no_subscription(session):
    before = len(session.hub._subscribers)
    for name in PARTS:
        part = getattr(am, name)(session)
        part.frame.vue_beat({})
        part.close()
        part.close()
    assert len(session.hub._subscribers) == before


def test_a_part_alone_says_what_went_wrong_also_before_it_was_shown(part, session):
    session.hub.publish(Failed("train", "The loss is not a number."))
    assert said(part) == []
    part.frame.vue_beat({})
    assert said(part) == [("error", "Training failed: The loss is not a number.")]
    session.hub.publish(Failed("score", "The disk is full."))
    until(lambda: len(said(part)) == 2)
    part.frame.messages.vue_do_dismiss({})
    assert said(part) == []


def test_an_error_while_showing_what_is_new_is_said_and_ends_nothing(part, session, monkeypatch):
    def broken(events):
        raise ZeroDivisionError("division by zero")

    part.frame.vue_beat({})
    monkeypatch.setattr(part, "apply", broken)
    until(lambda: said(part))
    assert "Unexpected ZeroDivisionError" in said(part)[0][1]
    assert part._live._pump.is_alive
    assert "division by zero" in (session.path / "dashboard.log").read_text()


def test_a_part_no_browser_asks_for_ends_its_thread_and_wakes_up_whole(part, session):
    part.frame.vue_beat({})
    pump = part._live._pump
    part._live._heard -= 2 * SILENCE_S
    pump._thread.join(WAIT_S)
    assert not pump.is_alive
    assert not part._live.is_awake
    session.hub.publish(Failed("train", "told while asleep"))
    part.frame.vue_beat({})
    assert said(part) == [("error", "Training failed: told while asleep")]
    assert part._live.is_awake


def test_a_gallery_alone_follows_the_labels_of_a_dashboard_and_of_a_script(session, monkeypatch):
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)
    gallery, board = am.Gallery(session), Dashboard(session)
    gallery.frame.vue_beat({})
    image_id = gallery.image_ids[3]
    board.gallery.label(image_id, "anomaly")
    until(lambda: gallery.labels["marks"][3] == "anomaly")
    session.annotate([image_id], star=True)
    until(lambda: gallery.labels["stars"][3])
    gallery.label(image_id, "normal")
    assert session.labels.get(image_id).label == "normal"
    gallery.close()
    board.close()


def test_plots_alone_follow_the_labels(session):
    plots = am.Plots(session)
    plots.frame.vue_beat({})
    looks = next(c for c in plots.charts if c["key"] == "discovery")["value"]
    ids = [i for i in session.source.ids if session.labels.get(i) is None]
    session.label({ids[0]: "anomaly"})
    until(lambda: next(c for c in plots.charts if c["key"] == "discovery")["value"] != looks)
    plots.close()


def test_a_gallery_alone_opens_a_detail_of_its_own_that_goes_with_it(session):
    gallery = am.Gallery(session)
    serial = gallery.page["serial"]
    gallery.vue_do_look({"serial": serial, "index": 2, "view": "v"})
    assert gallery.closeup.is_open
    assert gallery.closeup.image_id == gallery.image_ids[2]
    assert gallery.closeup.is_guest
    assert gallery.closeup.frame is None  # it is in the gallery's
    gallery.closeup.vue_do_leave({})
    assert gallery.looking == {}
    gallery.close()
    assert gallery.closeup.comm is None


def test_the_parts_of_a_dashboard_have_no_life_of_their_own(session, monkeypatch):
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)
    board = Dashboard(session)
    for part in (board.gallery, board.detail, board.controls, board.plots):
        assert not part.is_alone
        assert part.frame is None
    assert board.gallery.closeup is None
    board.close()


def test_what_a_live_part_subscribed_to_does_not_keep_it(session):
    class Bare:
        def __init__(self):
            self.session, self.desk = session, Desk()

        def apply(self, events):
            return None

        show_all = forget_images = lambda self: None

    before = len(session.hub._subscribers)
    part = Bare()
    part.live = Live(part)
    with part.desk.lock:
        part.live.hear()
    pump, gone = part.live._pump, weakref.ref(part)
    del part

    def is_gone():  # the pump's thread may hold it for an instant
        gc.collect()
        return gone() is None

    until(is_gone)
    pump._thread.join(WAIT_S)
    assert not pump.is_alive
    assert len(session.hub._subscribers) == before
