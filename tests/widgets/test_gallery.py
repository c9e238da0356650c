from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError, JournalError, LabelError, StateError
from amatch_widgets.events import LabelsChanged, ScoresChanged
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.labels import LabelStore
from amatch_widgets.query.strategies import Candidate, ranks
from amatch_widgets.session import Filter, Session
from amatch_widgets.widgets.browsing import score_text
from amatch_widgets.widgets.gallery import Gallery
from amatch_widgets.widgets.shelf import chip
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

    def pointed(self):
        """Where the cursor was last sent: the page's serial number and the tile."""
        return [m["args"][:2] for m in self.sent if m["method"] == "look_at"][-1]

    def press(self, index, label, serial=None):
        serial = self.gallery.page["serial"] if serial is None else serial
        self.gallery.vue_do_label({"serial": serial, "indices": [index], "label": label, "token": "t"})
        return self.sent[-1]


@pytest.fixture
def board(session):
    board = Board(session)
    yield board
    board.gallery.close()


def test_a_page_shows_unlabelled_images_and_its_place_in_the_list(board, session):
    page = board.gallery.page
    assert (page["number"], page["n_pages"], page["first"], page["total"]) == (0, 4, 0, 180)
    assert len(page["tiles"]) == 48
    assert not set(board.gallery.image_ids) & set(session.labels.current())
    assert board.gallery.note == "Random order: there are no scores yet."
    assert set(page["tiles"][0]) == {"id", "score", "reason", "chip", "problem"}
    assert {tile["reason"] for tile in page["tiles"]} == {"random: nothing is scored yet"}


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
    assert session.labels.get(image_id).reason == "random: nothing is scored yet"
    assert board.gallery.labels["marks"][3] == "anomaly"
    board.press(3, "clear")
    assert board.gallery.labels["marks"][3] == ""


def test_neither_labels_nor_new_scores_move_a_tile(board, scored):
    before = board.gallery.page
    board.press(0, "anomaly")
    scored()
    board.gallery.apply([ScoresChanged(cycle=1, n_scored=200), LabelsChanged(board.gallery.image_ids[:1])])
    assert board.gallery.page == before
    assert board.gallery.stale == "New scores (cycle 1)"


def test_refresh_takes_in_labels_and_scores(board, session, scored):
    first = board.gallery.image_ids[0]
    board.press(0, "normal")
    scores = scored()
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


def best(scores, without, n=48):
    """Ids of the best images but for some."""
    order = [str(i).zfill(3) for i in np.argsort(-scores, kind="stable")]
    return tuple(i for i in order if i not in without)[:n]


def test_pages_not_seen_yet_follow_the_labels_and_pages_seen_stay(board, session, ranked):
    first = dict(board.gallery.page, serial=None)
    assert board.gallery.note == "Random order: there are no scores yet."
    ranked(1)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    board.gallery.turn(1)
    assert board.gallery.note == ""
    seen = {tile["id"] for tile in first["tiles"]} | set(session.labels.current())
    scores = session.scores
    assert board.gallery.image_ids == best(scores, seen)
    second = dict(board.gallery.page, serial=None)
    newest = ranked(2)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    board.gallery.turn(0)
    assert dict(board.gallery.page, serial=None) == first
    assert board.gallery.note == "This page is in random order, from before there were scores."
    board.gallery.turn(1)
    assert dict(board.gallery.page, serial=None) == second
    board.gallery.turn(2)
    assert board.gallery.image_ids == best(newest, seen | {tile["id"] for tile in second["tiles"]})
    assert board.gallery.page["total"] == 180


def test_instant_ranking_flashes_nothing_but_another_kind_of_ranking_is_said(board, ranked, scored):
    heard = []
    board.gallery.observe(lambda change: heard.append(change["new"]), "stale")
    changed = ScoresChanged(0, 200, "instant")
    ranked(1, "novelty")
    board.gallery.apply([changed])
    assert heard == ["Ranked by novelty"]
    assert board.gallery.ranking_note.startswith("No anomaly is labelled yet: ordered by novelty")
    board.gallery.turn(1)  # the pages from here on are ranked by it
    assert heard.pop() == ""
    heard.clear()
    ranked(2)
    board.gallery.apply([changed])
    assert heard == ["Ranked by your labels"]
    board.gallery.refresh()
    heard.clear()
    for seed in range(3, 6):
        ranked(seed)
        board.gallery.apply([changed])
    scored(1)  # a trained model that was not judged better ranks nothing
    board.gallery.apply([changed])
    assert heard == []
    assert "ranks nothing" in board.gallery.ranking_note


def test_a_list_that_follows_no_label_says_when_its_order_is_old(board, ranked):
    ranked(1)
    board.gallery.choose(show="all")
    assert board.gallery.stale == ""
    before = board.gallery.page
    ranked(2)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    assert board.gallery.stale == "New scores"
    board.gallery.turn(1)
    board.gallery.turn(0)
    assert board.gallery.page["tiles"] == before["tiles"]
    board.gallery.choose(sort="random")
    ranked(3)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    assert board.gallery.stale == ""


def test_the_next_page_is_fetched_ahead_as_it_would_be_now(board, session, ranked, monkeypatch):
    ahead = []
    monkeypatch.setattr(board.gallery._loader, "fetch_ahead", lambda ids, look: ahead.append(tuple(ids)))
    ranked(1)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    board.gallery.turn(1)
    assert ahead[0] == board.gallery.image_ids


def similar_to(*image_ids):
    return lambda wanted, k: [Candidate(i, 0.5, "similar") for i in image_ids]


def test_more_like_this_lists_similar_images_and_leads_back(board, session, ranked, monkeypatch):
    monkeypatch.setattr(session, "similar", similar_to("150", "007", "033"))
    ranked(1)
    board.gallery.refresh()
    board.gallery.turn(1)
    before = board.gallery.page
    board.gallery.vue_do_similar({"serial": before["serial"], "indices": [4]})
    meant = before["tiles"][4]["id"]
    assert board.gallery.similar_to == meant
    assert board.gallery.image_ids == (meant, "150", "007", "033")
    assert board.gallery.page["n_pages"] == 1
    ranked(2)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    assert board.gallery.stale == ""
    board.press(2, "anomaly")
    assert session.labels.get("007").reason == f"similar to {meant}: rank 2"
    serial = board.gallery.page["serial"]
    board.gallery.vue_do_similar({"serial": serial, "indices": [1]})  # and on from there
    assert board.gallery.similar_to == "150"
    board.gallery.vue_do_back({})
    assert board.gallery.similar_to == ""
    assert dict(board.gallery.page, serial=0) == dict(before, serial=0)
    board.gallery.vue_do_back({})
    assert not board.messages


def test_another_order_leaves_the_similar_images(board, session, monkeypatch):
    monkeypatch.setattr(session, "similar", similar_to("150"))
    board.gallery.show_similar("003")
    board.gallery.choose(show="all")
    assert board.gallery.similar_to == ""
    assert board.gallery.page["total"] == 200


def test_the_place_in_the_list_survives_other_page_sizes_meanwhile(board, session, monkeypatch):
    monkeypatch.setattr(session, "similar", similar_to("150"))
    board.gallery.turn(1)
    left = board.gallery.image_ids
    board.gallery.show_similar("003")
    board.gallery.choose(per_page=24)
    board.gallery.show_ranking()
    assert board.gallery.image_ids == left[:24]


def test_chosen_images_are_a_list_of_their_own_the_best_first(board, session, ranked):
    scores = ranked(1)
    board.gallery.refresh()
    board.gallery.turn(1)
    left = dict(board.gallery.page, serial=0)
    chosen = ["150", "007", "033"]
    board.gallery.show_images(chosen, "3 images from the map")
    assert board.gallery.title == "3 images from the map"
    assert list(board.gallery.image_ids) == sorted(chosen, key=lambda i: -scores[int(i)])
    board.press(1, "normal")
    reason = session.labels.get(board.gallery.image_ids[1]).reason
    assert reason == "3 images from the map: rank 2 of 3"
    ranked(2)
    board.gallery.apply([ScoresChanged(0, 200, "instant")])
    assert board.gallery.stale == ""
    board.gallery.vue_do_back({})
    assert (board.gallery.title, dict(board.gallery.page, serial=0)) == ("", left)


def test_similar_images_and_chosen_ones_follow_each_other_and_lead_back_to_the_ranking(
    board, session, monkeypatch
):
    monkeypatch.setattr(session, "similar", similar_to("150"))
    left = board.gallery.image_ids
    board.gallery.show_images(["001"], "1 image")
    board.gallery.show_similar("003")
    assert (board.gallery.title, board.gallery.similar_to) == ("", "003")
    board.gallery.show_images(["001"], "1 image")
    assert (board.gallery.title, board.gallery.similar_to) == ("1 image", "")
    board.gallery.show_ranking()
    assert (board.gallery.title, board.gallery.image_ids) == ("", left)


def test_an_image_is_gone_to_where_it_is_listed_or_else_among_all(board, session, ranked):
    ranked(1)
    board.gallery.refresh()
    last = session.source.ids[int(session.ranking(show="unlabelled")[-1])]
    board.gallery.show_image(last)
    assert (board.gallery.show, board.gallery.page["number"]) == ("unlabelled", 3)
    assert board.gallery.image_ids[board.pointed()[1]] == last
    board.gallery.show_images(["001"], "1 image")
    board.gallery.show_image(last)  # not in this list, but in the ranking
    assert (board.gallery.title, board.gallery.show) == ("", "unlabelled")
    assert board.gallery.image_ids[board.pointed()[1]] == last
    labelled = next(iter(session.labels.current()))
    board.gallery.choose(sort="recent", only=Filter(contains="nothing"))
    board.gallery.show_image(labelled)
    assert (board.gallery.sort, board.gallery.show) == ("highest", "all")
    assert board.pointed() == [board.gallery.page["serial"], board.gallery.image_ids.index(labelled)]
    with pytest.raises(LabelError, match="'x'"):
        board.gallery.show_image("x")


@pytest.mark.parametrize("go", ["show_image", "jump"])
def test_an_image_is_found_where_the_newest_ranking_has_it(board, session, ranked, go):
    ranked(1)  # the list is at random, from before there were scores
    last = session.source.ids[int(session.ranking(show="unlabelled")[-1])]
    getattr(board.gallery, go)(last)
    assert board.gallery.show == "unlabelled"
    assert board.gallery.image_ids[board.pointed()[1]] == last


def test_without_embeddings_there_is_nothing_similar_and_it_is_said(board):
    assert not board.gallery.can_similar
    serial = board.gallery.page["serial"]
    board.gallery.vue_do_similar({"serial": serial, "indices": [0]})
    board.gallery.vue_do_similar({"serial": serial, "indices": [99]})
    assert [level for level, _ in board.messages] == ["error", "error"]
    assert "session.embed()" in board.messages[0][1]
    assert "no tile 99" in board.messages[1][1]


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
        {"serial": 99, "indices": [0], "label": "anomaly"},
        {"serial": 1, "indices": [500], "label": "anomaly"},
        {"serial": 1, "indices": [-1], "label": "anomaly"},
        {"serial": 1, "indices": [0], "label": "galaxy"},
        {"serial": 1, "indices": [0], "label": ["anomaly"]},
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


def test_an_order_of_labelled_images_gives_way_to_what_was_shown_before_it(board):
    gallery = board.gallery
    for order, shown in (("second look", "labelled"), ("recent", "labelled"), ("highest", "unlabelled")):
        gallery.vue_do_choose({"sort": order})
        assert (gallery.sort, gallery.show) == (order, shown)
    gallery.vue_do_choose({"sort": "recent"})
    gallery.vue_do_choose({"show": "anomaly"})  # the user's own choice stays
    gallery.vue_do_choose({"sort": "lowest"})
    assert (gallery.sort, gallery.show) == ("lowest", "anomaly")


@pytest.mark.parametrize(
    "choice", [{"sort": "best"}, {"show": "some"}, {"per_page": 7}, {"tile_size": "big"}]
)
def test_a_choice_that_does_not_exist_is_refused(board, choice):
    with pytest.raises(StateError, match="allowed are"):
        board.gallery.choose(**choice)


def test_an_image_that_cannot_be_read_gets_a_tile_with_the_reason(session, monkeypatch):
    def broken(image_id, side, rendering):
        raise ImageReadError(image_id, "the file is empty")

    monkeypatch.setattr(session, "thumbnail", broken)
    board = Board(session)
    board.gallery.vue_want_images({})
    assert board.images(48)[0] == ("", "the file is empty")
    board.gallery.close()


def test_a_score_below_one_is_never_written_as_one():
    assert [score_text(s) for s in (np.float32("nan"), 0.99996, 1.0, 0.0)] == ["", "0.999", "1.000", "0.000"]


def test_a_jump_goes_to_a_page_or_to_the_next_image_with_that_id(board):
    gallery = board.gallery
    gallery.vue_do_jump({"to": "3", "after": 0})
    assert gallery.page["number"] == 2
    wanted = gallery.image_ids[5]
    gallery.turn(0)
    gallery.vue_do_jump({"to": wanted, "after": 0})
    assert gallery.page["number"] == 2
    assert board.pointed() == [gallery.page["serial"], 5]
    gallery.vue_do_jump({"to": "nowhere", "after": 0})
    gallery.vue_do_jump({"to": " ", "after": 0})
    assert [level for level, _ in board.messages] == ["error", "error"]
    assert gallery.page["number"] == 2


def test_a_search_goes_on_after_the_image_it_found_and_round_the_end(board, session):
    board.gallery.choose(sort="highest", show="all")
    listed = [session.source.ids[i] for i in board.gallery._shelf._listing.page(0, 200)[0]]
    matches = [k for k, i in enumerate(listed) if "13" in i]
    after, found = -1, []
    for _ in range(len(matches) + 1):
        board.gallery.jump("13", after=after)
        _, place = board.pointed()
        after = board.gallery.page["first"] + place
        found.append(after)
    assert found == [*matches, matches[0]]


def test_a_filter_is_typed_in_and_cleared(board, session):
    gallery = board.gallery
    gallery.vue_do_choose({"only": {"contains": "01", "tag": "", "least": "", "most": ""}})
    assert gallery.only == {"contains": "01", "tag": "", "least": 0.0, "most": 1.0}
    assert gallery.page["total"] == sum("01" in i and i not in session.labels for i in session.source.ids)
    gallery.vue_do_choose({"only": {"least": "much"}})
    gallery.vue_do_choose({"only": {"least": 0.9, "most": 0.1}})
    assert [level for level, _ in board.messages] == ["error", "error"]
    assert gallery.only["contains"] == "01"
    gallery.vue_do_choose({"only": {}})
    assert gallery.page["total"] == 180


def test_undo_leads_to_the_page_of_what_was_undone(board, session):
    gallery = board.gallery
    gallery.turn(2)
    board.press(4, "anomaly")
    image_id = gallery.image_ids[4]
    gallery.turn(0)
    gallery.vue_do_undo({})
    assert (gallery.page["number"], gallery.image_ids[4], gallery.labels["marks"][4]) == (2, image_id, "")
    assert board.pointed() == [gallery.page["serial"], 4]
    gallery.vue_do_redo({"token": "mine"})  # the browser's, which tells whether its user has gone on since
    assert gallery.labels["marks"][4] == "anomaly"
    assert board.sent[-1] == {"method": "look_at", "args": [gallery.page["serial"], 4, "mine"]}
    gallery.choose(show="normal")
    gallery.undo()
    assert board.messages[-1] == ("info", f"Undone: {image_id}, not in this list.")
    assert (gallery.n_undo, gallery.n_redo) == (0, 1)


def test_no_wish_walks_through_all_ids(board, session, ranked, monkeypatch):
    def walk(self):
        raise AssertionError("of a million images this takes seconds")

    ranked(0)
    assert isinstance(session.source.ids, NumberedIds)
    monkeypatch.setattr(NumberedIds, "__iter__", walk, raising=False)
    gallery, (first, second) = board.gallery, board.gallery.image_ids[:2]
    like = [Candidate(first, None, ""), Candidate(second, None, "")]
    monkeypatch.setattr(session, "similar", lambda image_ids, k: like)
    board.press(0, "anomaly")
    gallery.turn(1)
    gallery.undo()
    assert gallery.page["number"] == 0
    gallery.choose(sort="mixed")
    assert {tile["reason"].split(":")[0] for tile in gallery.page["tiles"]} > {"top", "audit"}
    gallery.jump(first)
    gallery.show_similar([first])
    assert gallery.image_ids == (first, second)
    gallery.vue_do_choose({"only": {"contains": "12"}})
    assert all("12" in i for i in gallery.image_ids)
    assert not board.messages


def test_a_star_and_tags_of_several_tiles_are_kept(board, session):
    serial, ids = board.gallery.page["serial"], board.gallery.image_ids
    board.gallery.vue_do_annotate({"serial": serial, "indices": [1, 2], "star": True, "add": [" merger "]})
    assert [session.labels.get(ids[k]).tags for k in (1, 2)] == [("merger",)] * 2
    assert board.gallery.labels["stars"][:3] == [False, True, True]
    assert board.gallery.labels["tags"][2] == ["merger"]
    assert board.gallery.known_tags == ["merger"]
    board.gallery.vue_do_annotate({"serial": serial, "indices": [1], "add": ["x" * 61]})
    assert "61 characters" in board.messages[-1][1]


def reasons(gallery):
    return [tile["reason"].split(":")[0] for tile in gallery.page["tiles"]]


def test_mixed_pages_show_why_each_image_is_there_and_keep_it_with_the_label(board, session, ranked):
    ranked(1)
    gallery = board.gallery
    gallery.choose(sort="mixed", per_page=24)
    first = gallery.image_ids
    assert (
        reasons(gallery) == ["top"] * 18 + ["uncertain"] * 3 + ["audit"] * 3
    )  # no embeddings to be unlike in
    board.press(23, "normal")
    kept = session.labels.get(first[23]).reason
    assert kept.startswith("audit: drawn at random, chance 1 in ")
    assert [tile["chip"] for tile in gallery.page["tiles"]] == [""] * 18 + ["uncertain"] * 3 + ["audit"] * 3
    gallery.turn(1)
    assert not set(gallery.image_ids) & set(first)
    assert reasons(gallery).count("audit") == 3
    assert session.n_audits_open == 5  # what was not shown was not drawn
    gallery.turn(0)
    assert gallery.image_ids == first
    assert reasons(gallery)[23] == "audit"
    assert session.n_audits_open == 5
    session.label(dict.fromkeys(first, "normal"))
    assert session.remaining.n_draws == 3


def test_what_has_risen_says_from_where_to_where(board, session, ranked, monkeypatch):
    gallery = board.gallery
    before, now = ranked(1), ranked(2)
    monkeypatch.setattr(session, "rise", lambda: (ranks(before), ranks(now)))
    gallery.choose(sort="rising")
    n_new = 0
    for tile in gallery.page["tiles"]:
        k = int(tile["id"])
        was, is_now = (1 + int((scores > scores[k]).sum()) for scores in (before, now))
        is_new = is_now <= 100 < was
        n_new += is_new
        assert tile["reason"] == f"rising: rank {was} -> {is_now}" + is_new * ", new in the top 100"
        assert tile["chip"] == "new: " * is_new + f"{was}\N{RIGHTWARDS ARROW}{is_now}"
    assert n_new
    first = gallery.page["tiles"][0]
    ranked(3)  # the page says what it was made of
    gallery.turn(0)
    assert gallery.page["tiles"][0]["reason"] == first["reason"]
    board.press(0, "anomaly")
    assert session.labels.get(first["id"]).reason == first["reason"]
    gallery.choose(show="all", sort="uncertain")
    assert {tile["chip"] for tile in gallery.page["tiles"]} == {""}
    assert gallery.page["tiles"][2]["reason"] == "uncertain: rank 3 of 200"


@pytest.mark.parametrize(
    ("reason", "sort", "text"),
    [
        ("rising: it had no rank before", "rising", ""),
        ("rising: it has no score", "rising", ""),
        ("similar to 003: rank 2", "mixed", ""),
        ("audit: drawn at random, chance 1 in 9", "highest", ""),
    ],
)
def test_what_says_nothing_new_is_not_on_the_tile(reason, sort, text):
    assert chip(reason, sort) == text


def test_a_mixed_list_is_of_unlabelled_images_and_without_an_audit_where_it_is_filtered(
    board, session, ranked
):
    ranked(1)
    gallery = board.gallery
    gallery.choose(show="all")
    gallery.choose(sort="mixed")
    assert gallery.show == "unlabelled"
    n_drawn = session.n_audits_open
    gallery.vue_do_choose({"only": {"contains": "1"}})
    assert set(reasons(gallery)) == {"mixed"}
    assert session.n_audits_open == n_drawn
    gallery.choose(show="labelled")
    assert gallery.sort == "highest"


def test_images_that_look_the_same_are_labelled_together_where_that_is_wanted(
    board, session, ranked, monkeypatch
):
    ranked(1)
    gallery = board.gallery
    gallery.refresh()
    a, b, c = gallery.image_ids[:3]
    elsewhere = next(i for i in session.source.ids if i not in gallery.image_ids and i not in session.labels)
    known = next(iter(session.labels.current()))
    gallery._use_twins(gallery.page["serial"], {a: [b, elsewhere, known]})
    assert gallery.twins["ids"][:2] == [[b, elsewhere, known], []]
    was = session.labels.get(known)
    board.press(0, "anomaly")
    assert session.labels.get(b) is None  # unless it is wanted
    gallery.undo()
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")
    assert [session.labels.get(i).label for i in (a, b, elsewhere)] == ["anomaly"] * 3
    assert session.labels.get(elsewhere).reason == f"same as {a}"
    assert session.labels.get(known) == was  # what a person said stays
    assert session.discovery.n_looks == 1
    board.press(1, "normal")
    board.press(0, "clear")
    assert [session.labels.get(i) for i in (a, elsewhere)] == [None, None]
    assert session.labels.get(b).label == "normal"
    for _ in range(3):
        gallery.undo()
    assert [session.labels.get(i) for i in (a, b, c, elsewhere)] == [None] * 4


class Search:
    """A search for twins that ends when it is told to; `begun` is set when one waits."""

    def __init__(self, session, monkeypatch, twins):
        self.begun, self.gate, self.asked = threading.Event(), threading.Event(), []
        self._twins = twins
        monkeypatch.setattr(Session, "is_embedded", True)
        monkeypatch.setattr(session, "twins", self.find)

    def find(self, image_ids):
        self.asked.append(tuple(image_ids))
        self.begun.set()
        assert self.gate.wait(20)
        return {i: self._twins[i] for i in image_ids if i in self._twins}

    def end(self, gallery):
        """Let the search end, and wait until all that it is good for is done."""
        self.gate.set()
        done = threading.Event()
        gallery._background.do("last", done.set)
        assert done.wait(20)


def test_an_early_label_takes_its_twins_along_as_soon_as_they_are_known(board, session, ranked, monkeypatch):
    gallery = board.gallery
    ranked(1)
    gallery.refresh()
    a, b, c = gallery.image_ids[:3]
    elsewhere = next(i for i in session.source.ids if i not in gallery.image_ids and i not in session.labels)
    search = Search(session, monkeypatch, {a: [b, elsewhere]})
    gallery.turn(1)
    assert search.begun.wait(20)
    gallery.turn(0)
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")
    board.press(2, "normal")
    assert session.labels.get(a).label == "anomaly"  # kept at once
    assert session.labels.get(b) is None
    assert gallery.n_awaited == 2
    search.end(gallery)
    assert [session.labels.get(i).label for i in (b, elsewhere)] == ["anomaly"] * 2
    assert session.labels.get(elsewhere).reason == f"same as {a}"
    assert (gallery.labels["marks"][:3], gallery.n_awaited) == (["anomaly", "anomaly", "normal"], 0)

    again = LabelStore(session.path / "labels.jsonl")  # from disk
    assert again.n_undo == session.labels.n_undo == 2
    again.close()
    gallery.undo()
    gallery.undo()
    assert [session.labels.get(i) for i in (a, b, c, elsewhere)] == [None] * 4
    gallery.redo()
    assert [session.labels.get(i).label for i in (a, b, elsewhere)] == ["anomaly"] * 3
    assert not board.messages


def test_twins_of_a_label_come_after_the_page_has_turned(board, session, monkeypatch):
    gallery = board.gallery
    a = gallery.image_ids[0]
    search = Search(session, monkeypatch, {a: ["150", "151"]})
    session.label({"151": "normal"})
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")
    gallery.turn(1)
    gallery.turn(2)
    search.end(gallery)
    assert (session.labels.get("150").label, session.labels.get("151").label) == ("anomaly", "normal")
    assert gallery.n_awaited == 0


@pytest.mark.parametrize("then", ["undo", "other", "clear"])
def test_twins_follow_what_is_said_when_they_are_known(board, session, monkeypatch, then):
    gallery = board.gallery
    a = gallery.image_ids[0]
    search = Search(session, monkeypatch, {a: ["150"]})
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")
    if then == "undo":
        gallery.undo()
    else:
        board.press(0, {"other": "normal"}.get(then, then))
    search.end(gallery)
    line = session.labels.get("150")
    assert (line.label if line else None) == {"other": "normal"}.get(then)
    assert gallery.n_awaited == 0


def test_labels_wait_for_their_twins_until_there_are_embeddings(board, session, monkeypatch):
    gallery = board.gallery
    a = gallery.image_ids[0]
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")
    assert gallery.n_awaited == 1
    search = Search(session, monkeypatch, {a: ["150"]})
    gallery.apply([ScoresChanged(0, 200, "novelty")])
    search.end(gallery)
    assert session.labels.get("150").label == "anomaly"
    assert gallery.twins["ids"][0] == ["150"]
    n = len(search.asked)
    gallery.apply([ScoresChanged(0, 200, "instant")])  # what is known is not looked for again
    search.end(gallery)
    assert len(search.asked) == n


def test_twins_that_cannot_be_labelled_are_told(board, session, monkeypatch):
    gallery = board.gallery
    a = gallery.image_ids[0]
    search = Search(session, monkeypatch, {a: ["150"]})
    gallery.vue_do_with_twins({"on": True})
    board.press(0, "anomaly")

    def full(*args, **kwargs):
        raise JournalError("No space is left on the disk. The label was not kept.")

    monkeypatch.setattr(session.labels, "set", full)
    search.end(gallery)
    assert board.messages == [("error", "No space is left on the disk. The label was not kept.")]
    assert session.labels.get(a).label == "anomaly"


def test_twins_of_a_page_that_was_left_are_not_used(board):
    serial, first = board.gallery.page["serial"], board.gallery.image_ids[0]
    board.gallery.turn(1)
    board.gallery._use_twins(serial, {first: ["000"]})
    assert board.gallery.twins == {}


# ---- a second look ----------------------------------------------------------------------------

SHOWN = ("marks", "stars", "tags", "notes", "hidden")


def told(gallery, image_id):
    """What the tile of an image shows of what was said."""
    position = gallery.image_ids.index(image_id)
    return {kind: gallery.labels[kind][position] for kind in SHOWN}


def test_a_second_look_hides_each_label_until_the_image_is_labelled_again(board, session):
    gallery = board.gallery
    gallery.choose(sort="second look")
    assert (gallery.show, len(gallery.image_ids)) == ("labelled", 20)
    assert "hidden until" in gallery.note
    assert set(gallery.labels["marks"]) == {""}
    first = gallery.image_ids[0]
    before = session.labels.get(first).label
    gallery.label(first, before)  # the same again
    assert gallery.labels["marks"] == [before] + [""] * 19
    assert session.labels.get(first).reason == ""
    gallery.turn(0)
    assert gallery.labels["marks"] == [before] + [""] * 19
    gallery.choose(show="all")
    assert gallery.sort == "highest"
    gallery.choose(sort="second look")
    assert set(gallery.labels["marks"]) == {""}
    gallery.choose(sort="recent")
    assert "" not in gallery.labels["marks"]
    assert gallery.show == "labelled"


def test_a_second_look_hides_all_that_was_said_in_the_tile_and_in_the_detail(session):
    gallery = Gallery(session)
    detail = gallery.closeup
    gallery.choose(sort="second look")
    first = gallery.image_ids[0]
    before = session.labels.get(first).label
    session.annotate(first, star=True, add=["merger"], note="an odd one")
    for _ in range(2):  # what is added meanwhile hides itself, as what was there before does
        assert told(gallery, first) == dict(zip(SHOWN, ["", False, [], "", True], strict=True))
        detail.show(first)
        detail.apply([LabelsChanged((first,))])
        assert (detail.is_hidden, detail.mark, detail.past, detail.standing) == (True, "", [], [])
        assert detail.kept == []
        gallery.refresh()

    gallery.label(first, before)
    detail.show_all()
    assert told(gallery, first) == dict(
        zip(SHOWN, [before, True, ["merger"], "an odd one", False], strict=True)
    )
    assert (detail.is_hidden, detail.mark) == (False, before)
    assert len(detail.past) == len(session.labels.history(first))
    assert detail.standing
    gallery.close()


def test_a_second_look_is_blind_in_the_lists_it_leads_to(board, session, monkeypatch):
    gallery = board.gallery
    gallery.choose(sort="second look")
    first, other = gallery.image_ids[:2]
    monkeypatch.setattr(session, "similar", similar_to(first, other))
    gallery.show_similar(first)
    assert set(gallery.labels["marks"]) == {""}
    gallery.show_images([first, other], "2 images")
    assert set(gallery.labels["marks"]) == {""}
    gallery.label(first, "anomaly")
    assert told(gallery, first)["marks"] == "anomaly"
    gallery.show_ranking()
    assert gallery.labels["hidden"] == [False] + [True] * 19


def test_the_rest_of_a_page_leaves_every_label_as_it_is_seen_or_not(board, session):
    gallery = board.gallery
    gallery.choose(sort="second look")
    n, before = session.labels.version, session.labels.current()
    wish = {"serial": gallery.page["serial"], "indices": list(range(20)), "label": "normal", "is_rest": True}
    gallery.vue_do_label(wish)
    assert (session.labels.version, session.labels.current()) == (n, before)
    gallery.choose(sort="random", show="unlabelled")
    a, b = gallery.image_ids[:2]
    session.label({a: "anomaly"})  # by another annotator, and the browser has not heard of it yet
    gallery.vue_do_label({**wish, "serial": gallery.page["serial"], "indices": [0, 1]})
    assert [session.labels.get(i).label for i in (a, b)] == ["anomaly", "normal"]
    assert not board.messages


@pytest.mark.parametrize("wish", [{}, {"note": ""}, {"star": True}, {"add": ["odd"]}, {"remove": ["merger"]}])
def test_what_is_hidden_is_not_written_over(board, session, wish):
    gallery = board.gallery
    known = next(iter(session.labels.current()))
    session.annotate(known, add=["merger"], note="an odd one")
    gallery.choose(sort="second look")
    n, serial, index = session.labels.version, gallery.page["serial"], gallery.image_ids.index(known)
    gallery.vue_do_annotate({"serial": serial, "indices": [index], "token": "t", **wish})
    assert session.labels.version == n
    assert board.sent[-1] == {"method": "settled", "args": ["t", False]}
    assert "label the image first" in board.messages[-1][1]
    board.press(index, "normal")
    gallery.vue_do_annotate({"serial": serial, "indices": [index], "add": ["odd"]})
    assert session.labels.get(known).tags == ("merger", "odd")


def test_who_takes_the_new_label_back_has_not_judged(board, session):
    gallery = board.gallery
    gallery.choose(sort="second look")
    first, second = gallery.image_ids[:2]
    before = session.labels.get(first).label
    for _ in range(2):  # also where the very same was said in the same place before
        gallery.choose(sort="recent")
        gallery.choose(sort="second look")
        index = gallery.image_ids.index(first)
        board.press(index, before)
        assert told(gallery, first)["marks"] == before
        gallery.undo()
        assert told(gallery, first)["hidden"]
        gallery.redo()
        assert told(gallery, first)["marks"] == before
        session.annotate(first, star=not session.labels.get(first).star)
        gallery.undo()
        assert told(gallery, first)["marks"] == before
    session.label({second: "anomaly"}, note="seen by somebody else")
    gallery.show_all()
    assert told(gallery, second)["marks"] == "anomaly"
    for _ in range(4):  # and beyond where the second look began
        gallery.undo()
    assert told(gallery, first)["hidden"]
