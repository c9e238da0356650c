from __future__ import annotations

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.demo import DemoSource
from amatch_widgets.errors import ImageReadError, JournalError, LabelError, NotTrainedError
from amatch_widgets.events import LabelsChanged, ScoresChanged
from amatch_widgets.images.render import Rendering, render
from amatch_widgets.query.strategies import Candidate
from amatch_widgets.session import Session
from amatch_widgets.session.explain import Explanation
from amatch_widgets.widgets import Dashboard, Detail
from amatch_widgets.widgets.view import Desk

WAIT_S = 20


class Screen:
    """A detail without a browser: what it sends, and what it says."""

    def __init__(self, session, **options):
        self.messages, self.sent = [], []
        self.arrived = threading.Condition()
        desk = Desk()
        desk.on_message(lambda level, text: self.messages.append((level, text)))
        self.detail = Detail(session, desk, **options)
        self.detail.send = self.send

    def send(self, content, buffers=None):
        with self.arrived:
            self.sent.append(content)
            self.arrived.notify_all()

    def last(self, method, holds=lambda args: True):
        """The last message of a kind, once there is one for the image on screen that `holds`."""

        def found():
            number = self.detail.number
            return [
                m["args"]
                for m in self.sent
                if m["method"] == method and m["args"][0] == number and holds(m["args"])
            ]

        with self.arrived:
            assert self.arrived.wait_for(found, WAIT_S), f"no {method} came"
            return found()[-1][1:]

    def picture(self, holds=lambda shown: True):
        return self.last("picture", lambda args: holds(args[1]))[0]


def pixels(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture
def screen(session):
    screen = Screen(session)
    yield screen
    screen.detail.close()


def near(*image_ids):
    return lambda wanted, k, among: [
        Candidate(i, 0.5, f"similar: cosine 0.{9 - n}1") for n, i in enumerate(image_ids) if i in among
    ]


def test_it_shows_nothing_until_it_is_asked(screen):
    assert not screen.detail.is_open
    screen.detail.vue_want({})
    assert not screen.sent


def test_an_image_is_shown_to_the_pixel_and_is_in_no_trait(screen, session):
    assert screen.detail.show("007") is screen.detail
    assert (screen.detail.is_open, screen.detail.image_id, screen.detail.home) == (True, "007", "007")
    shown = screen.picture()
    np.testing.assert_array_equal(pixels(shown["url"]), session.source.read(7))
    assert (shown["width"], shown["height"], shown["drawn"], shown["problem"]) == (64, 64, 64, "")
    screen.last("thumbnails")
    assert "data:image" not in repr(screen.detail.get_state())
    assert screen.detail.facts == [["Size", "64 x 64 px"], ["Pixels", "3 channels, uint8"]]
    assert screen.detail.standing == [["Score", "none yet"]]
    assert screen.detail.n_channels == 3
    screen.detail.vue_want({})  # drawn anew, e.g. after a reload of the page
    screen.last("picture")


def test_what_the_source_knows_comes_after_the_picture_once_and_as_text(screen, session, monkeypatch):
    hostile, gate, asked = "<b>{{ 1 }}</b>", threading.Event(), []

    def describe(index):
        asked.append(index)
        assert gate.wait(WAIT_S)
        return {hostile: hostile, "FILTER": 'r"'}

    monkeypatch.setattr(session.source, "describe", describe, raising=False)
    monkeypatch.setattr(session.source, "position", lambda _: (150.1, -2.25), raising=False)
    screen.detail.show("007")
    screen.picture()  # which does not wait for it
    gate.set()
    screen.detail.show("008")
    screen.last("thumbnails")  # made after it
    known = [["RA, Dec", "150.100000, -2.250000 deg (ICRS)"], [hostile, hostile], ["FILTER", 'r"']]
    assert screen.detail.facts[2:] == known
    n = len(asked)
    screen.detail.vue_do_render({"stretch": "asinh"})
    screen.picture()
    screen.last("thumbnails")
    assert screen.detail.facts[2:] == known
    assert len(asked) == n


@pytest.mark.parametrize("method", ["describe", "position"])
def test_a_source_that_fails_to_tell_what_it_knows_takes_nothing_from_the_view(
    screen, session, monkeypatch, method
):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr(session.source, method, fail, raising=False)
    screen.detail.show("007")
    assert screen.picture()["problem"] == ""
    screen.last("thumbnails")
    assert [name for name, _ in screen.detail.facts] == ["Size", "Pixels"]
    assert screen.messages == []


def test_an_unknown_image_is_refused(screen):
    with pytest.raises(LabelError, match="no such image"):
        screen.detail.show("x")
    screen.detail.vue_do_visit({"id": "<b>"})
    assert screen.messages[0][0] == "error"
    assert not screen.detail.is_open


def test_only_the_newest_image_is_sent(screen, session, monkeypatch):
    held, gate = threading.Event(), threading.Event()
    read = session.pictures.pixels

    def slow(image_id):
        if image_id == "000":
            held.set()
            assert gate.wait(WAIT_S)
        return read(image_id)

    monkeypatch.setattr(session.pictures, "pixels", slow)
    screen.detail.show("000")
    assert held.wait(WAIT_S)
    with screen.detail.desk.lock:  # an image that takes its time holds nobody up
        for k in range(1, 6):
            screen.detail.show(f"00{k}")
    gate.set()
    screen.last("picture")
    screen.last("thumbnails")
    assert [m["args"][0] for m in screen.sent if m["method"] == "picture"] == [screen.detail.number]


def test_an_unreadable_image_shows_its_reason_and_the_next_one_is_shown(screen, session, monkeypatch):
    read = session.pictures.pixels

    def broken(image_id):
        if image_id == "000":
            raise ImageReadError(image_id, "the file is empty")
        if image_id == "001":
            raise KeyError(3)
        return read(image_id)

    monkeypatch.setattr(session.pictures, "pixels", broken)
    screen.detail.show("000")
    assert screen.picture()["problem"] == "the file is empty"
    assert screen.detail.facts == []
    screen.detail.show("001")
    assert "KeyError" in screen.picture()["problem"]
    screen.detail.show("002")
    assert screen.picture()["problem"] == ""


def test_a_label_is_on_disk_before_the_browser_hears_of_it(screen, session):
    screen.detail.show("003")
    before = len(screen.detail.past)
    screen.detail.vue_do_label({"id": "003", "label": "anomaly", "token": "t"})
    settled = [m for m in screen.sent if m["method"] == "settled"]
    assert settled == [{"method": "settled", "args": ["t", True]}]
    assert session.labels.get("003").reason == "detail"
    assert screen.detail.mark == "anomaly"
    assert screen.detail.past[0]["label"] == "anomaly"
    screen.detail.vue_do_label({"id": "003", "label": "clear", "token": "u"})
    assert screen.detail.mark == ""
    assert len(screen.detail.past) == before + 2


def test_a_star_tags_and_a_note_are_kept_and_shown_and_taken_back(screen, session):
    detail = screen.detail
    detail.show("003")
    detail.vue_do_annotate({"id": "003", "star": True, "add": [" merger "], "note": " two cores "})
    line = session.labels.get("003")
    assert (line.star, line.tags, line.note, line.label) == (True, ("merger",), "two cores", None)
    assert (detail.is_starred, detail.tags, detail.note) == (True, ["merger"], "two cores")
    assert detail.known_tags == ["merger"]
    detail.vue_do_annotate({"id": "003", "remove": ["merger"]})
    assert detail.tags == []
    detail.vue_do_undo({})
    assert detail.tags == ["merger"]
    detail.vue_do_undo({})
    assert (detail.is_starred, detail.tags, detail.note) == (False, [], "")
    detail.vue_do_redo({})
    assert detail.is_starred
    detail.show("004")
    assert (detail.is_starred, detail.tags, detail.note) == (False, [], "")
    assert not screen.messages
    detail.vue_do_undo({})
    assert screen.messages == [("info", "Undone: 003.")]


@pytest.mark.parametrize("wish", [{"add": ["x" * 61]}, {"note": "x" * 2001}, {"id": "x", "star": True}])
def test_a_remark_that_makes_no_sense_is_refused(screen, session, wish):
    screen.detail.show("003")
    n = session.labels.version
    screen.detail.vue_do_annotate({"id": "003", **wish})
    assert session.labels.version == n
    assert [level for level, _ in screen.messages] == ["error"]


def test_in_a_second_look_the_label_comes_before_the_star(session):
    known = next(iter(session.labels.current()))
    session.annotate(known, add=["merger"], note="odd")
    screen = Screen(session, hides=lambda image_id: image_id == known)
    screen.detail.show(known)
    assert (screen.detail.tags, screen.detail.note) == ([], "")
    n = session.labels.version
    screen.detail.vue_do_annotate({"id": known, "note": ""})
    assert session.labels.version == n
    assert "label the image first" in screen.messages[0][1]
    screen.detail.close()


@pytest.mark.parametrize("data", [{}, {"id": "x", "label": "normal"}, {"id": "003", "label": "galaxy"}])
def test_nonsense_from_the_browser_labels_nothing_and_is_said(screen, session, data):
    screen.detail.show("003")
    before = session.labels.current()
    screen.detail.vue_do_label({**data, "token": "t"})
    assert session.labels.current() == before
    assert {"method": "settled", "args": ["t", False]} in screen.sent
    assert [level for level, _ in screen.messages] == ["error"]


def test_a_label_that_cannot_be_kept_is_not_shown_and_said(screen, session, monkeypatch):
    def full(*args, **kwargs):
        raise JournalError("No space is left on the disk. The label was not kept.")

    screen.detail.show("003")
    monkeypatch.setattr(session.labels, "set", full)
    screen.detail.vue_do_label({"id": "003", "label": "anomaly", "token": "t"})
    assert screen.detail.mark == ""
    assert screen.messages == [("error", "No space is left on the disk. The label was not kept.")]


def test_labels_and_scores_from_elsewhere_are_shown(screen, session, ranked):
    screen.detail.show("003")
    session.label({"003": "normal", "004": "anomaly"})
    ranked(1)
    screen.detail.apply([LabelsChanged(("003", "004")), ScoresChanged(0, 200, "instant")])
    assert screen.detail.mark == "normal"
    assert screen.detail.kept == ["004", "anomaly"]
    assert screen.detail.standing[0][0] == "Score"
    screen.detail.leave()
    session.label({"003": "anomaly"})
    screen.detail.apply([LabelsChanged(("003",))])
    assert screen.detail.mark == "normal"  # nobody looks


def test_another_rendering_is_drawn_from_the_same_pixels(screen, session, monkeypatch):
    screen.detail.show("007")
    plain = screen.picture()["url"]
    image = session.source.read(7)
    monkeypatch.setattr(session.pictures, "pixels", lambda _: pytest.fail("it was read already"))
    screen.detail.vue_do_render({"stretch": "asinh", "channel": 1})
    shown = screen.picture(lambda shown: shown["url"] != plain)
    np.testing.assert_array_equal(pixels(shown["url"]), render(image, Rendering(stretch="asinh", channel=1)))
    assert screen.detail.rendering["channel"] == 1
    assert not screen.detail.is_used


def test_what_the_browser_adds_by_itself_is_not_drawn_anew(screen):
    screen.detail.show("007")
    screen.picture()
    screen.last("thumbnails")
    n = len(screen.sent)
    screen.detail.vue_do_render({"invert": True, "brightness": 2})
    assert screen.detail.rendering["invert"] is True
    assert len(screen.sent) == n


@pytest.mark.parametrize("options", [{"black": None}, {"stretch": "sqrt"}, {"gamma": 2}, {"white": 0.1}])
def test_a_rendering_that_makes_no_sense_is_refused_and_the_fields_go_back(screen, options):
    screen.detail.show("007")
    before = screen.detail.rendering
    screen.detail.vue_do_render(options)
    assert screen.detail.rendering == before
    assert {"method": "refused", "args": []} in screen.sent
    assert screen.messages[0][0] == "error"


def test_a_part_of_a_large_image_is_sent_in_full(tmp_path, light):
    images = np.arange(2 * 2100 * 300, dtype=np.uint32).reshape(2, 2100, 300, 1) % 60_000
    with Session(images.astype(np.uint16), path=tmp_path / "large", train=light()) as session:
        screen = Screen(session)
        screen.detail.show("0")
        shown = screen.picture()
        assert (shown["width"], shown["height"], shown["drawn"]) == (300, 2100, 293)
        number = screen.detail.number
        screen.detail.vue_do_part({"number": number, "x": 200, "y": 2000, "width": 999, "height": 999})
        window, url = screen.last("part")
        assert window == [200, 2000, 100, 100]
        assert pixels(url).shape == (100, 100, 3)
        n = len(screen.sent)
        for wrong in ({"number": number - 1, "x": 0}, {"number": number, "x": 5000}):
            screen.detail.vue_do_part({"y": 0, "width": 10, "height": 10, **wrong})
        screen.detail.vue_do_render({"stretch": "log"})
        screen.picture(lambda s: s["url"] != shown["url"])
        assert [m["method"] for m in screen.sent[n:]].count("part") == 0
        screen.detail.close()


def test_without_embeddings_or_labels_there_are_no_neighbours_and_it_is_said(screen, session):
    screen.detail.show("007")
    screen.last("thumbnails")
    assert screen.detail.neighbours == []
    assert "session.embed()" in screen.detail.neighbours_note
    session.label(dict.fromkeys(session.labels.current()))
    screen.detail.show("008")
    screen.last("thumbnails")
    assert screen.detail.neighbours_note == "No other image is labelled yet."


def test_the_nearest_labelled_images_come_with_mark_and_cosine(screen, session, monkeypatch):
    anomaly, normal = (
        next(i for i, line in session.labels.current().items() if line.label == label)
        for label in ("anomaly", "normal")
    )
    monkeypatch.setattr(session, "similar", near(normal, anomaly, "199"))
    screen.detail.show(anomaly)
    urls = screen.last("thumbnails")[0]
    assert screen.detail.neighbours == [{"id": normal, "label": "normal", "cosine": "0.91"}]
    screen.detail.show("150")
    urls = screen.last("thumbnails")[0]
    assert [row["id"] for row in screen.detail.neighbours] == [normal, anomaly]
    assert all(urls[i].startswith("data:image/jpeg") for i in (normal, anomaly))
    assert screen.detail.neighbours_note == ""


def test_in_a_second_look_neighbours_that_are_not_judged_yet_show_no_label(session, monkeypatch):
    normal, anomaly = (
        next(i for i, line in session.labels.current().items() if line.label == label)
        for label in ("normal", "anomaly")
    )
    monkeypatch.setattr(session, "similar", near(normal, anomaly))
    screen = Screen(session, hides=lambda image_id: image_id == anomaly)
    screen.detail.show("000")
    screen.last("thumbnails")
    assert [row["label"] for row in screen.detail.neighbours] == ["normal", "hidden"]
    screen.detail.close()


def test_real_embeddings_find_neighbours(session):
    session.embed()
    session.wait(60)
    screen = Screen(session)
    screen.detail.show("150")
    screen.last("thumbnails")
    assert len(screen.detail.neighbours) == 6
    assert {row["id"] for row in screen.detail.neighbours} <= set(session.labels.current())
    cosines = [float(row["cosine"]) for row in screen.detail.neighbours]
    assert cosines == sorted(cosines, reverse=True)
    screen.detail.close()


def test_neighbours_that_fail_do_not_hide_the_image(screen, session, monkeypatch):
    def fail(*args, **kwargs):
        raise NotTrainedError("There are no embeddings yet.")

    def bug(*args, **kwargs):
        raise KeyError(3)

    for similar, note in ((fail, "There are no embeddings yet."), (bug, "KeyError")):
        monkeypatch.setattr(session, "similar", similar)
        screen.detail.show("007")
        screen.picture()
        screen.last("thumbnails")
        assert note in screen.detail.neighbours_note


def test_a_neighbour_is_visited_and_leads_back(screen):
    screen.detail.show("007")
    screen.detail.vue_do_visit({"id": "042"})
    assert (screen.detail.image_id, screen.detail.home) == ("042", "007")
    screen.picture()
    screen.detail.vue_do_home({})
    assert screen.detail.image_id == "007"


def explain_of(losses):
    return lambda i, coarse: Explanation(i, np.full((32, 32), losses, np.float32), 2.0, 0.88, (11, 6))


def test_why_is_answered_beside_the_picture_and_is_in_no_trait(screen, session, monkeypatch):
    monkeypatch.setattr(session, "explain", explain_of(1))
    screen.detail.show("007")
    screen.detail.vue_do_why({"number": screen.detail.number})
    why = screen.last("why", lambda args: not args[1]["is_coarse"])[0]
    assert [m["args"][1]["is_coarse"] for m in screen.sent if m["method"] == "why"] == [True, False]
    assert pixels(why["url"]).shape == (32, 32, 4)
    assert why["at"] == [0, 0, 64, 64]
    assert why["rows"][0].startswith("Score 0.880")
    screen.last("thumbnails")
    assert "data:image" not in repr(screen.detail.get_state())
    assert not screen.messages


def test_why_of_an_image_that_was_left_is_not_sent(screen, session, monkeypatch):
    held, gate = threading.Event(), threading.Event()
    asked = []

    def slow(image_id, *, coarse):
        asked.append((image_id, coarse))
        held.set()
        assert gate.wait(WAIT_S)
        return explain_of(1)(image_id, coarse)

    monkeypatch.setattr(session, "explain", slow)
    screen.detail.show("000")
    screen.detail.vue_do_why({"number": screen.detail.number})
    assert held.wait(WAIT_S)
    for k in range(1, 4):
        screen.detail.show(f"00{k}")
        screen.detail.vue_do_why({"number": screen.detail.number})
        screen.detail.vue_do_why({"number": screen.detail.number - 1})  # late: the image had changed
    screen.picture()  # which does not wait for it
    gate.set()
    screen.last("why", lambda args: not args[1]["is_coarse"])
    assert asked == [("000", True), ("003", True), ("003", False)]
    assert [m["args"][0] for m in screen.sent if m["method"] == "why"] == [screen.detail.number] * 2


def test_why_that_is_not_to_be_had_is_said_in_words(screen, session, monkeypatch):
    session.label(dict.fromkeys(session.labels.current()))
    screen.detail.show("007")
    screen.detail.vue_do_why({"number": screen.detail.number})
    why = screen.last("why")[0]
    assert (why["url"], "no embeddings yet" in why["problem"]) == ("", True)
    assert screen.messages == [("error", why["problem"])]
    monkeypatch.setattr(session, "explain", lambda _, coarse: {}[3])
    screen.detail.vue_do_why({"number": screen.detail.number})
    assert "KeyError" in screen.last("why", lambda args: "KeyError" in args[1]["problem"])[0]["problem"]
    screen.detail.leave()
    screen.detail.vue_do_why({"number": screen.detail.number})
    assert [m["method"] for m in screen.sent].count("why") == 2


class Catalogue(DemoSource):
    """A sky with one position, and with a method that fails or gives nonsense."""

    def position(self, index):
        if index == 1:
            raise RuntimeError("the catalogue is gone")
        return {0: (10.5, -41.25), 3: ("10.5", '"><script>')}.get(index)


def test_a_source_that_knows_positions_gets_links(tmp_path, light):
    with Session(Catalogue(5), path=tmp_path / "sky", train=light()) as session:
        screen = Screen(session)
        screen.detail.show("0")
        screen.picture()
        assert [name for name, _ in screen.detail.links] == ["ESASky", "Aladin Lite"]
        for image_id in ("1", "2", "3"):
            screen.detail.show(image_id)
            assert screen.picture()["problem"] == ""
            assert screen.detail.links == []
        screen.detail.close()


def test_leaving_frees_the_image_and_tells_the_gallery(session):
    left = []
    screen = Screen(session, use=lambda rendering: None, left=lambda: left.append(1))
    assert screen.detail.is_guest
    screen.detail.show("007")
    screen.picture()
    screen.detail.vue_do_leave({})
    assert not screen.detail.is_open
    assert left == [1]
    screen.detail._work.do("end", lambda: screen.send({"method": "end", "args": [screen.detail.number]}))
    screen.last("end")
    assert screen.detail._closeup is None
    screen.detail.close()


# ---- with the gallery ---------------------------------------------------------------------------


@pytest.fixture
def board(session, monkeypatch):
    monkeypatch.setattr(Dashboard, "_embed_if_idle", lambda _: None)
    board = Dashboard(session)
    yield board
    board.close()


def test_the_gallery_opens_the_detail_of_a_tile(board):
    serial = board.gallery.page["serial"]
    board.gallery.vue_do_look({"serial": serial, "index": 4, "view": "v", "turn": 1})
    assert board.detail.image_id == board.gallery.image_ids[4]
    assert board.gallery.looking == {"serial": serial, "index": 4, "view": "v", "turn": 1}
    board.detail.vue_do_leave({})
    assert board.gallery.looking == {}
    board.gallery.vue_do_look({"serial": serial, "index": 99, "view": "v"})
    assert not board.detail.is_open
    assert "no tile 99" in board.messages[0]["text"]


def test_a_rendering_is_used_for_the_gallery_at_once_and_taken_back(board, session, monkeypatch):
    sent = []
    monkeypatch.setattr(board.gallery, "send", lambda content, buffers=None: sent.append(content))
    asked = []
    thumbnail = session.thumbnail
    monkeypatch.setattr(session, "thumbnail", lambda i, s, r: asked.append(r) or thumbnail(i, s, r))
    board.gallery.vue_do_look({"serial": board.gallery.page["serial"], "index": 0, "view": "v"})
    board.detail.vue_do_render({"stretch": "asinh", "invert": True})
    assert board.gallery.rendering == Rendering()
    before = board.gallery.page
    board.detail.vue_do_use({})
    assert board.gallery.rendering == Rendering(stretch="asinh", invert=True)
    assert (board.gallery.css_filter, board.gallery.rendering_note) == ("invert(1)", "asinh, inverted")
    assert board.gallery.page == before
    assert board.detail.is_used
    until = threading.Event()
    while Rendering(stretch="asinh") not in asked:
        assert not until.wait(0.01)
    board.gallery.vue_do_plain({})
    assert (board.gallery.css_filter, board.gallery.rendering_note) == ("", "")
    assert not board.detail.is_used
    board.detail.vue_do_use({})
    board.detail.vue_do_reset({})
    assert board.gallery.rendering == Rendering()
    assert board.detail.rendering == Rendering().to_dict()
    assert board.detail.is_used


def test_inverting_the_gallery_makes_no_thumbnail_anew(board, monkeypatch):
    monkeypatch.setattr(board.gallery, "_send_images", lambda: pytest.fail("the pixels are the same"))
    board.gallery.render(Rendering(invert=True, contrast=1.5))
    assert board.gallery.css_filter == "contrast(1.5) invert(1)"


def test_a_thumbnail_that_comes_late_is_not_shown_in_the_new_rendering(board, monkeypatch):
    gallery, sent = board.gallery, []
    monkeypatch.setattr(gallery, "send", lambda content, buffers=None: sent.append(content))
    old = gallery._look()
    monkeypatch.setattr(gallery._loader, "show", lambda *args: [])
    gallery.render(Rendering(stretch="log"))
    gallery._deliver(gallery.page["serial"], old, [(0, None)])
    assert sent == []
