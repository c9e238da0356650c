"""The gallery on an archive: asked in the background, labelled as the session's own images are."""

from __future__ import annotations

import threading

import pytest

from amatch_widgets.errors import LabelError, StateError
from amatch_widgets.events import ScoringProgress, StateChanged
from amatch_widgets.session import Filter
from amatch_widgets.widgets.archive_shelf import ArchiveShelf
from amatch_widgets.widgets.dashboard import Dashboard
from amatch_widgets.widgets.past import Past
from tests.widgets.board import WAIT_S, Board


@pytest.fixture
def held(monkeypatch):
    """Lists of archives wait for `held.go_on` before they give a page; `held.asked` says that they do."""

    class Held:
        asked, go_on = threading.Event(), threading.Event()

    take = ArchiveShelf.take

    def waiting(self, *args):
        Held.asked.set()
        assert Held.go_on.wait(WAIT_S)
        return take(self, *args)

    monkeypatch.setattr(ArchiveShelf, "take", waiting)
    yield Held
    Held.go_on.set()


def test_there_is_a_choice_only_where_there_is_an_archive(tmp_path, board, survey, session):
    assert board.gallery.places == [[survey.archive.name, "sky-5", 300]]
    assert (board.gallery.place, board.gallery.page["total"]) == ("", 180)


def test_an_archive_is_paged_through_in_order(board, survey):
    page = board.browse("sky-5")
    ids = survey.ids()
    assert board.gallery.place == survey.archive.name
    assert [tile["id"] for tile in page["tiles"]] == ids[:48]
    assert (page["total"], page["n_pages"]) == (198, 5)
    assert "200 of 300 images are scored" in board.gallery.ranking_note
    board.gallery.turn(3)
    assert [tile["id"] for tile in board.settle()["tiles"]] == ids[144:192]
    assert [t["id"] for t in board.choose(sort="lowest")["tiles"]] == ids[::-1][:48]
    only = Filter(most=0.5, contains="3")
    assert all(float(t["score"]) <= 0.5 for t in board.choose(only=only)["tiles"])
    assert [t["problem"] for t in board.choose(only=Filter(), show="problem")["tiles"]] == ["torn", "torn"]
    assert board.browse()["total"] == 0  # the filter stays, and no own image is known to be unreadable


def test_thumbnails_and_reasons_of_what_cannot_be_read_arrive(board, survey, session):
    survey.source.read = None  # not asked: the archive was opened from its own description
    session.archives[survey.archive.name]._source = None
    board.browse("sky-5")
    board.until(
        lambda: len({i for m in board.sent if m["method"] == "images" for i, *_ in m["args"][1]}) == 48
    )
    assert all(url for m in board.sent if m["method"] == "images" for _, url, _ in m["args"][1])


def test_an_archive_that_is_gone_shows_the_reason_on_each_tile(board, survey, session):
    session.archives[survey.archive.name]._source = None
    session.archives[survey.archive.name]._spec = {"kind": "folder", "path": "/no/such/folder"}
    board.browse("sky-5")
    serial = board.gallery.page["serial"]

    def problems():
        of_page = [m["args"][1] for m in board.sent if m["method"] == "images" and m["args"][0] == serial]
        return [problem for images in of_page for _, _, problem in images]

    board.until(lambda: len(problems()) >= 48)
    assert all("no file or folder '/no/such/folder'" in problem for problem in problems())
    assert board.press(0, "anomaly")


def test_while_it_is_looked_for_the_page_before_stays_and_can_be_labelled(board, session, held):
    before = board.gallery.page
    board.gallery.browse("sky-5")
    assert held.asked.wait(WAIT_S)
    assert (board.gallery.page, board.gallery.busy) == (before, "Looking through the scores…")
    assert board.press(2, "normal")
    assert session.labels.get(before["tiles"][2]["id"]).label == "normal"
    held.go_on.set()
    assert board.settle()["tiles"][0]["id"].startswith("sky-5-")


def test_of_what_is_asked_for_meanwhile_only_the_last_is_shown(board, survey, held):
    shown = []
    board.gallery.observe(lambda change: shown.append(change["new"]["tiles"][0]["id"]), "page")
    board.gallery.browse("sky-5")
    assert held.asked.wait(WAIT_S)
    board.gallery.choose(sort="lowest")
    board.gallery.choose(sort="uncertain")
    held.go_on.set()
    board.settle()
    closest = min(survey.ids(), key=lambda i: abs(survey.scores[int(i[-3:])] - 0.5))
    assert shown == [closest]
    board.gallery.browse()
    assert board.gallery.busy == ""


def test_to_turn_the_page_meanwhile_takes_nothing_away(board, session, survey, held):
    board.browse()
    before = board.gallery.page
    board.gallery.browse("sky-5")
    assert held.asked.wait(WAIT_S)
    board.gallery.turn(1)
    board.gallery.jump("2")
    session.label({session.source.ids[9]: "normal"})
    board.gallery.undo()
    assert board.gallery.page["number"] == before["number"]
    assert board.gallery.busy
    board.gallery.choose(per_page=24)
    held.go_on.set()
    board.until(lambda: len(board.gallery.page["tiles"]) == 24)
    page = board.settle()
    assert [t["id"] for t in page["tiles"]] == survey.ids()[:24]
    assert (board.gallery.place, page["n_pages"]) == (survey.archive.name, 9)


def test_to_browse_where_one_is_already_moves_nothing(board):
    board.gallery.turn(2)
    before = board.gallery.page
    board.gallery.browse()
    assert board.gallery.page is before


def test_going_home_meanwhile_is_what_holds(board, held):
    before = board.gallery.page["tiles"]
    board.gallery.browse("sky-5")
    assert held.asked.wait(WAIT_S)
    board.gallery.browse()
    assert (board.gallery.place, board.gallery.busy, board.gallery.page["tiles"]) == ("", "", before)
    asked = threading.Event()
    board.gallery._asking.do("after it", asked.set)
    held.go_on.set()
    assert asked.wait(WAIT_S)
    assert (board.gallery.place, board.gallery.page["tiles"]) == ("", before)


def test_an_order_that_cannot_be_had_leaves_the_list_and_says_why(board):
    before = board.browse("sky-5")
    assert board.choose(sort="rising") == before
    assert board.gallery.sort == "highest"
    assert "no earlier cycle to compare with" in board.messages[-1][1]
    with pytest.raises(StateError, match="own images only"):
        board.gallery.choose(sort="mixed")
    with pytest.raises(LabelError, match="'nowhere' names 0 archives"):
        board.gallery.browse("nowhere")


def test_an_order_that_archives_do_not_have_is_left_for_the_highest(board):
    board.gallery.choose(sort="mixed")
    assert board.browse("sky-5")["total"] == 198
    assert (board.gallery.sort, board.gallery.show) == ("highest", "unlabelled")


def test_labels_are_kept_undone_and_found_again(board, session, survey):
    board.browse("sky-5")
    ids = survey.ids()
    assert board.press(1, "anomaly")
    assert board.press(2, "normal")
    assert board.gallery.labels["marks"][:3] == ["", "anomaly", "normal"]
    assert session.labels.get(ids[1]).reason == "sky-5, highest: rank 2 of 198 unlabelled"
    board.gallery.turn(2)
    board.settle()
    board.gallery.vue_do_undo({"token": "t"})  # goes to where it was
    assert board.settle()["number"] == 0
    board.until(lambda: board.pointed() == [board.gallery.page["serial"], 2])
    assert board.gallery.labels["marks"][:3] == ["", "anomaly", ""]
    assert [t["id"] for t in board.choose(show="labelled")["tiles"]] == [ids[1]]
    board.gallery.vue_do_redo({})
    board.until(lambda: board.messages)
    assert board.messages[-1] == ("info", f"Done again: {ids[2]}, not in this list.")
    board.gallery.refresh()
    assert {t["id"] for t in board.settle()["tiles"]} == set(ids[1:3])


def test_a_page_is_jumped_to_by_its_number_and_an_image_by_its_id(board, survey):
    board.browse("sky-5")
    board.gallery.jump("4")
    assert board.settle()["number"] == 3
    wanted = survey.ids()[60]
    board.gallery.jump(wanted.rpartition("::")[2])
    assert board.settle()["number"] == 1
    assert board.pointed() == [board.gallery.page["serial"], 12]
    board.gallery.jump("nothing like it")
    board.settle()
    assert "no image with this in its id" in board.messages[-1][1]


def test_the_history_leads_to_its_images_and_back(board, session, survey):
    past = Past(session, board.desk, board.gallery)
    wanted = survey.ids()[100]
    own = session.source.ids[3]
    session.label({wanted: "normal", own: "normal"})
    past.go(wanted)
    board.settle()
    assert (board.gallery.place, board.gallery.show) == (survey.archive.name, "all")
    assert board.gallery.page["tiles"][board.pointed()[1]]["id"] == wanted
    past.go(own)
    assert board.gallery.place == ""
    assert board.gallery.page["tiles"][board.pointed()[1]]["id"] == own


def test_chosen_images_of_the_session_lead_home(board, session):
    board.browse("sky-5")
    board.gallery.show_images(session.source.ids[:5], "chosen")
    assert (board.gallery.place, board.gallery.page["total"], board.gallery.title) == ("", 5, "chosen")
    board.browse("sky-5")
    board.gallery.show_image(session.source.ids[7])
    assert board.gallery.place == ""


def test_new_parts_are_told_while_it_is_scored_and_move_nothing(board, survey):
    before = board.browse("sky-5")
    survey.write(2)
    board.gallery.apply([ScoringProgress(300, 300, 9.0, 0.0)])
    board.until(lambda: board.gallery.stale == "More scores")
    assert board.gallery.page == before
    board.gallery.vue_do_refresh({})
    assert board.settle()["total"] == 297
    assert board.gallery.stale == ""


def test_a_list_of_nothing_fills_when_there_is_something(board, survey):
    board.browse("sky-5")
    assert board.choose(show="problem", only=Filter(contains="207"))["total"] == 0
    survey.write(2)
    board.gallery.apply([StateChanged("idle")])
    board.until(lambda: board.gallery.page["total"] == 1)


def test_an_archive_that_is_begun_is_offered_at_once(session):
    board = Board(session)
    assert board.gallery.places == []
    from tests.widgets.conftest import Survey  # noqa: PLC0415 (made after the gallery)

    Survey(session)
    board.gallery.apply([StateChanged("running", "score")])
    assert [title for _, title, _ in board.gallery.places] == ["sky-5"]
    board.gallery.close()


def test_a_dashboard_opens_at_an_archive_and_sees_an_image_closely(session, survey):
    session.archives[survey.archive.name].use(survey.source)
    dashboard = session.show("sky-5")
    assert isinstance(dashboard, Dashboard)
    shown = threading.Event()
    dashboard.gallery.observe(lambda change: shown.set() if change["new"]["total"] == 198 else None, "page")
    if dashboard.gallery.page["total"] != 198:
        assert shown.wait(WAIT_S)
    sent, came = [], threading.Event()

    def send(content, buffers=None):
        sent.append(content)
        if content["method"] == "picture":
            came.set()

    dashboard.detail.send = send
    first = dashboard.gallery.page["tiles"][0]
    dashboard.gallery.vue_do_look({"serial": dashboard.gallery.page["serial"], "index": 0, "view": "v"})
    assert came.wait(WAIT_S)
    (picture,) = (m["args"][1] for m in sent if m["method"] == "picture")
    assert picture["url"].startswith("data:image/")
    score, archive = dashboard.detail.standing
    assert float(score[1]) == pytest.approx(float(first["score"]), abs=0.002)
    assert archive == ["Archive", "sky-5"]
    dashboard.detail.vue_do_label({"id": first["id"], "label": "anomaly", "token": "t"})
    assert session.labels.get(first["id"]).label == "anomaly"
    assert dashboard.counts["anomalies"] == 5  # of the session's own images
    dashboard.close()
    with pytest.raises(LabelError, match="names 0 archives"):
        session.show("nowhere")
