from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError, JournalError, StateError
from amatch_widgets.events import LabelsChanged, ScoresChanged
from amatch_widgets.widgets.gallery import Gallery, _score_text
from amatch_widgets.widgets.view import Desk


class Board:
    """A gallery without a browser: what it sends, and what it says."""

    def __init__(self, session):
        self.messages = []
        self.sent = []
        self.arrived = threading.Condition()
        desk = Desk()
        desk.on_message(lambda level, text: self.messages.append((level, text)))
        self.gallery = Gallery(session, desk)
        self.gallery.send = self.send

    def send(self, content, buffers=None):
        with self.arrived:
            self.sent.append(content)
            self.arrived.notify_all()

    def images(self, n):
        """The images of the page, once `n` of them are there."""

        def found():
            serial = self.gallery.page["serial"]
            of_page = [m["args"][1] for m in self.sent if m["method"] == "images" and m["args"][0] == serial]
            return {position: (url, problem) for images in of_page for position, url, problem in images}

        with self.arrived:
            assert self.arrived.wait_for(lambda: len(found()) >= n, 20)
            return found()

    def press(self, index, label, serial=None):
        serial = self.gallery.page["serial"] if serial is None else serial
        self.gallery.vue_do_label({"serial": serial, "index": index, "label": label, "token": "t"})
        return self.sent[-1]


@pytest.fixture
def board(session):
    board = Board(session)
    yield board
    board.gallery.close()


def scored(session, cycle=1):
    scores = np.random.default_rng(cycle).random(len(session.source)).astype(np.float32)
    session._board.replace(cycle, 0, scores)
    return scores


def test_a_page_shows_unlabelled_images_and_its_place_in_the_list(board, session):
    page = board.gallery.page
    assert (page["number"], page["n_pages"], page["first"], page["total"]) == (0, 4, 0, 180)
    assert len(page["tiles"]) == 48
    assert not set(board.gallery.image_ids) & set(session.labels.current())
    assert board.gallery.note == "random order: no scores yet"
    assert set(page["tiles"][0]) == {"id", "score", "problem"}


def test_images_come_as_messages_and_are_in_no_trait(board):
    board.gallery.vue_want_images({})
    images = board.images(48)
    assert sorted(images) == list(range(48))
    assert all(url.startswith("data:image/") and not problem for url, problem in images.values())
    assert "data:image" not in repr(board.gallery.get_state())


def test_a_label_is_on_disk_before_the_browser_hears_of_it(board, session):
    image_id = board.gallery.image_ids[3]
    assert board.press(3, "anomaly") == {"method": "settled", "args": ["t", True]}
    assert session.labels.get(image_id).label == "anomaly"
    assert session.labels.get(image_id).reason == "gallery, highest"
    assert board.gallery.labels["marks"][3] == "anomaly"
    board.press(3, "clear")
    assert board.gallery.labels["marks"][3] == ""


def test_neither_labels_nor_new_scores_move_a_tile(board, session):
    before = board.gallery.page
    board.press(0, "anomaly")
    scored(session)
    board.gallery.apply([ScoresChanged(cycle=1, n_scored=200), LabelsChanged(board.gallery.image_ids[:1])])
    assert board.gallery.page == before
    assert board.gallery.stale == "New scores (cycle 1)"


def test_refresh_takes_in_labels_and_scores(board, session):
    first = board.gallery.image_ids[0]
    board.press(0, "normal")
    scores = scored(session)
    board.gallery.apply([ScoresChanged(cycle=1, n_scored=200)])
    board.gallery.vue_do_refresh({})
    assert first not in board.gallery.image_ids
    assert (board.gallery.stale, board.gallery.note) == ("", "")
    shown = [tile["score"] for tile in board.gallery.page["tiles"]]
    assert shown == sorted(shown, reverse=True)
    assert float(shown[0]) == pytest.approx(scores[session.ranking(show="unlabelled")[0]], abs=6e-4)


def test_paging_back_shows_what_was_labelled(board):
    first = board.gallery.image_ids
    board.press(5, "normal")
    board.gallery.vue_do_turn({"number": 1})
    assert not set(first) & set(board.gallery.image_ids)
    board.gallery.vue_do_turn({"number": 0})
    assert board.gallery.image_ids == first
    assert board.gallery.labels["marks"][5] == "normal"


def test_a_label_on_its_way_while_the_page_turns_finds_its_image(board, session):
    image_id, serial = board.gallery.image_ids[2], board.gallery.page["serial"]
    board.gallery.turn(1)
    board.press(2, "anomaly", serial)
    assert session.labels.get(image_id).label == "anomaly"
    assert "anomaly" not in board.gallery.labels["marks"]


def test_turning_beyond_the_end_stays_on_the_last_page(board):
    board.gallery.turn(99)
    assert board.gallery.page["number"] == 3
    assert len(board.gallery.page["tiles"]) == 180 - 3 * 48
    board.gallery.turn(-5)
    assert board.gallery.page["number"] == 0


def test_a_label_that_cannot_be_kept_is_taken_back_and_said(board, session, monkeypatch):
    def full(*args, **kwargs):
        raise JournalError("No space is left on the disk. The label was not kept.")

    monkeypatch.setattr(session.labels, "set", full)
    assert board.press(0, "anomaly") == {"method": "settled", "args": ["t", False]}
    assert board.gallery.labels["marks"][0] == ""
    assert board.messages == [("error", "No space is left on the disk. The label was not kept.")]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"serial": 99, "index": 0, "label": "anomaly"},
        {"serial": 1, "index": 500, "label": "anomaly"},
        {"serial": 1, "index": -1, "label": "anomaly"},
        {"serial": 1, "index": 0, "label": "galaxy"},
        {"serial": 1, "index": 0, "label": ["anomaly"]},
        "no dictionary",
    ],
)
def test_nonsense_from_the_browser_changes_nothing_and_is_said(board, session, data):
    before = session.labels.current()
    board.gallery.vue_do_label(data)
    assert session.labels.current() == before
    assert len(board.messages) == 1
    assert board.messages[0][0] == "error"


def test_orders_filters_and_sizes(board, session):
    gallery = board.gallery
    gallery.vue_do_choose({"sort": "recent"})
    assert (gallery.sort, gallery.show) == ("recent", "labelled")
    assert gallery.page["total"] == 20
    assert all(gallery.labels["marks"])
    gallery.vue_do_choose({"show": "unlabelled"})
    assert gallery.sort == "highest"
    gallery.vue_do_choose({"show": "all", "per_page": 24})
    assert (gallery.page["total"], len(gallery.page["tiles"])) == (200, 24)
    gallery.turn(3)
    gallery.vue_do_choose({"per_page": 96})
    assert gallery.page["number"] == 0  # image 72 of the list is on it
    gallery.vue_do_choose({"tile_size": "large"})
    assert gallery.tile_px > 150
    assert not board.messages


@pytest.mark.parametrize(
    "choice", [{"sort": "best"}, {"show": "some"}, {"per_page": 7}, {"tile_size": "big"}]
)
def test_a_choice_that_does_not_exist_is_refused(board, choice):
    with pytest.raises(StateError, match="allowed are"):
        board.gallery.choose(**choice)


def test_an_image_that_cannot_be_read_gets_a_tile_with_the_reason(session, monkeypatch):
    def broken(image_id, side=128):
        raise ImageReadError(image_id, "the file is empty")

    monkeypatch.setattr(session, "thumbnail", broken)
    board = Board(session)
    board.gallery.vue_want_images({})
    assert board.images(48)[0] == ("", "the file is empty")
    board.gallery.close()


def test_a_score_below_one_is_never_written_as_one():
    assert [_score_text(s) for s in (np.float32("nan"), 0.99996, 1.0, 0.0)] == ["", "0.999", "1.000", "0.000"]
