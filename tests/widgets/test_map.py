from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, ImageReadError, MissingExtraError, NotTrainedError
from amatch_widgets.events import LabelsChanged, ScoresChanged
from amatch_widgets.session import Session
from amatch_widgets.session.atlas import ImageMap
from amatch_widgets.widgets import Dashboard, Gallery, Map
from amatch_widgets.widgets.view import Desk

WAIT_S = 20
# Images 0 to 99 in two columns, from top to bottom; the other hundred is not on the map.
SPOTS = np.stack([np.arange(100) % 2, np.arange(100) // 2 / 49], 1).astype(np.float32)


class Screen:
    """A map without a browser: what it sends, and what it says."""

    def __init__(self, session, *, is_linked=True):
        self.messages, self.sent = [], []
        self.arrived = threading.Condition()
        desk = Desk()
        desk.on_message(lambda level, text: self.messages.append((level, text)))
        self.gallery = Gallery(session, desk) if is_linked else None
        self.map = Map(session, desk, gallery=self.gallery)
        self.map.send = self.send

    def send(self, content, buffers=None):
        with self.arrived:
            self.sent.append((content["method"], content["args"], buffers))
            self.arrived.notify_all()

    def last(self, method, holds=lambda args: True):
        """The last message of a kind that `holds`, once there is one: its arguments and buffers."""

        def found():
            return [m[1:] for m in self.sent if m[0] == method and holds(m[1])]

        with self.arrived:
            assert self.arrived.wait_for(found, WAIT_S), f"no {method} came"
            return found()[-1]

    def open(self):
        self.map.vue_want({})
        return self.drawn(1)

    def drawn(self, number):
        """Wait for the map of a number; give the places of its points."""
        _, (places,) = self.last("points", lambda args: args[0] == number)
        self.last("states", lambda args: args[0] == number)
        return np.frombuffer(places, "<u2").reshape(-1, 2)

    def states(self):
        _, (shades, marks) = self.last("states")
        return np.frombuffer(shades, np.uint8), np.frombuffer(marks, np.uint8)


@pytest.fixture
def mapped(session, monkeypatch):
    """Have a session that is embedded and knows its map; give the methods that were asked for."""
    asked = []

    def make(n=5000, *, method="pca"):
        asked.append(method)
        return ImageMap(tuple(session.source.ids[:100]), np.arange(100), SPOTS)

    monkeypatch.setattr(session, "map", make)
    monkeypatch.setattr(Session, "is_embedded", True)
    return asked


@pytest.fixture
def screen(session, mapped):
    screen = Screen(session)
    yield screen
    screen.map.close()
    screen.gallery.close()


def test_the_map_is_made_when_it_is_first_wanted_and_not_before(screen, session, mapped, ranked):
    ranked(1)
    screen.map.apply([ScoresChanged(0, 200, "instant"), LabelsChanged(("001",))])
    screen.map.show_all()
    assert not screen.sent
    assert not mapped
    places = screen.open()
    assert (places.shape, places.min(), places.max()) == ((100, 2), 0, 65535)
    np.testing.assert_allclose(places / 65535, SPOTS, atol=1e-4)
    screen.map.vue_want({})  # another browser
    assert mapped == ["pca"]
    assert [m[0] for m in screen.sent].count("points") == 2
    screen.map.vue_do_refresh({})
    screen.drawn(2)
    assert len(mapped) == 2


def test_scores_and_labels_change_how_points_look_and_nothing_else(screen, session, ranked):
    screen.open()
    shades, marks = screen.states()
    assert not shades.any()  # no scores yet
    known = {i: line.label for i, line in session.labels.current().items() if int(i) < 100}
    assert {i: marks[int(i)] for i in known} == {i: 1 if v == "anomaly" else 2 for i, v in known.items()}
    scores = ranked(1)
    free = next(k for k in range(100) if not marks[k])
    session.label({session.source.ids[free]: "anomaly", "150": "anomaly"})
    screen.map.apply([ScoresChanged(0, 200, "instant"), LabelsChanged((session.source.ids[free], "150"))])
    shades, marks = screen.states()
    np.testing.assert_array_equal(shades, 1 + np.round(254 * scores[:100]))
    assert marks[free] == 1
    assert screen.map.counts == {
        "drawn": 100,
        "images": 200,
        "anomalies": int((marks == 1).sum()),
        "normals": int((marks == 2).sum()),
    }
    assert [m[0] for m in screen.sent].count("points") == 1


def test_the_page_of_the_gallery_is_outlined_and_followed(screen):
    screen.open()
    for turn in (0, 1):
        screen.gallery.turn(turn)
        ids = screen.gallery.image_ids
        assert screen.map.page == {
            "serial": screen.gallery.page["serial"],
            "number": 1,
            "points": [int(i) if int(i) < 100 else -1 for i in ids],
        }


def test_a_click_leads_the_gallery_to_the_image(screen, session):
    screen.open()
    labelled = int(next(i for i in session.labels.current() if int(i) < 100))
    screen.map.vue_do_pick({"number": 1, "point": labelled})  # not among the unlabelled
    assert screen.gallery.show == "all"
    assert session.source.ids[labelled] in screen.gallery.image_ids
    assert screen.map.chosen == (session.source.ids[labelled],)


def test_a_rectangle_lists_the_images_in_it(screen):
    screen.open()
    screen.map.vue_do_select({"number": 1, "box": [0.5, -0.1, 1.2, 2.01 / 49]})
    assert (screen.gallery.title, set(screen.gallery.image_ids)) == (
        "3 images of the map",
        {"001", "003", "005"},
    )
    assert screen.map.chosen == ("001", "003", "005")
    screen.map.vue_do_select({"number": 1, "box": [0.2, 0.2, 0.4, 0.4]})
    assert screen.messages == [("info", "There is no image in this part of the map.")]
    assert screen.gallery.title == "3 images of the map"


@pytest.mark.parametrize(
    "data", [{"number": 7, "point": 3}, {"number": 1, "point": 100}, {"number": 1, "point": "x"}, {}]
)
def test_what_makes_no_sense_is_said_and_changes_nothing(screen, data):
    screen.open()
    before = screen.gallery.page
    screen.map.vue_do_pick(data)
    assert screen.messages[0][0] == "error"
    assert screen.gallery.page == before


def test_a_point_is_named_at_once_and_its_thumbnail_follows(screen, session, ranked, monkeypatch):
    scores = ranked(1)
    screen.open()
    screen.map.vue_do_peek({"number": 1, "point": 7})
    (number, point, facts), _ = screen.last("peek", lambda args: args[2]["url"])
    assert (number, point, facts["id"]) == (1, 7, "007")
    assert facts["rows"][0] == ["Score", f"{scores[7]:.3f}"]
    assert facts["url"].startswith("data:image/jpeg")
    monkeypatch.setattr(session, "thumbnail", lambda *_: (_ for _ in ()).throw(ImageReadError("008", "torn")))
    screen.map.vue_do_peek({"number": 1, "point": 8})
    (_, _, facts), _ = screen.last("peek", lambda args: args[2]["problem"])
    assert facts["problem"] == "torn"
    n_sent = len(screen.sent)
    screen.map.vue_do_peek({"number": 9, "point": 8})
    assert len(screen.sent) == n_sent
    assert "data:image" not in repr(screen.map.get_state())


def test_the_map_waits_for_embeddings_and_is_made_again_when_all_are_there(
    screen, session, mapped, monkeypatch
):
    whole, busy = session.map, threading.Event()
    screen.map.observe(lambda change: busy.set() if not change["new"] else None, "is_busy")
    monkeypatch.setattr(Session, "is_embedded", False)
    monkeypatch.setattr(session, "map", lambda **_: (_ for _ in ()).throw(NotTrainedError("none")))
    screen.map.vue_want({})
    assert busy.wait(WAIT_S)
    assert "needs the embeddings" in screen.map.note
    monkeypatch.setattr(session, "map", whole)
    screen.map.apply([ScoresChanged(0, 90, "instant")])  # some are there
    screen.drawn(1)
    assert "Not all images" in screen.map.note
    screen.map.apply([ScoresChanged(0, 100, "instant")])
    assert len(mapped) == 1
    monkeypatch.setattr(Session, "is_embedded", True)
    screen.map.apply([])
    screen.drawn(2)
    assert screen.map.note == ""
    screen.map.apply([ScoresChanged(0, 200, "instant")])
    assert len(mapped) == 2


def test_a_map_that_fails_says_why_and_is_not_tried_again_by_itself(screen, session, monkeypatch):
    asked, busy = [], threading.Event()

    def fail(**_):
        asked.append(1)
        raise MissingExtraError("Type: pip install")

    screen.map.observe(lambda change: busy.set() if not change["new"] else None, "is_busy")
    monkeypatch.setattr(session, "map", fail)
    screen.map.vue_want({})
    assert busy.wait(WAIT_S)
    assert screen.map.note == "Type: pip install"
    screen.map.apply([ScoresChanged(0, 200, "instant")])
    assert len(asked) == 1


def test_another_method_makes_the_map_anew_and_the_old_one_stays_until_then(screen, mapped):
    screen.map.vue_want({})
    screen.drawn(1)
    screen.map.vue_do_choose({"method": "umap"})
    assert screen.map.is_busy or screen.map.number == 2
    screen.drawn(2)
    assert (mapped, screen.map.method) == (["pca", "umap"], "umap")
    screen.map.choose("umap")
    screen.map.refresh()
    screen.drawn(3)
    assert mapped == ["pca", "umap", "umap"]


@pytest.mark.parametrize("is_first", [True, False])
def test_where_umap_is_not_installed_the_map_is_that_of_pca(screen, session, monkeypatch, is_first):
    make = session.map

    def missing(n=5000, *, method="pca"):
        if method == "umap":
            raise MissingExtraError("Type: pip install")
        return make(n, method=method)

    monkeypatch.setattr(session, "map", missing)
    if not is_first:
        screen.map.vue_want({})
        screen.drawn(1)
    told = threading.Event()
    screen.map.observe(lambda change: told.set() if change["new"] == "pca" else None, "method")
    screen.map.vue_do_choose({"method": "umap"})
    assert told.wait(WAIT_S)
    screen.drawn(1)
    assert (screen.map.method, screen.map.note) == ("pca", "")
    assert screen.messages == [("error", "Type: pip install")]


def test_a_method_that_there_is_not_is_refused(screen):
    with pytest.raises(ConfigError, match=r"'tsne'.*pca, umap"):
        screen.map.choose("tsne")


def test_alone_it_keeps_what_was_chosen_and_hears_of_labels(session, mapped):
    alone = Map(session, method="umap")
    try:
        alone.frame.vue_beat({})  # a browser shows it
        sent = threading.Event()
        alone.send = lambda content, buffers=None: sent.set() if content["method"] == "states" else None
        alone.vue_want({})
        assert sent.wait(WAIT_S)
        assert mapped == ["umap"]
        alone.vue_do_pick({"number": 1, "point": 4})
        assert alone.chosen == ("004",)
        sent.clear()
        session.label({"004": "anomaly"})
        assert sent.wait(WAIT_S)
    finally:
        alone.close()
    assert not alone.is_alone


def test_the_dashboard_has_a_map_that_costs_nothing_until_it_is_opened(session, mapped, monkeypatch):
    monkeypatch.setattr(session, "embed", lambda: None)
    dashboard = Dashboard(session)
    try:
        assert dashboard.map.is_linked
        session.label({"004": "anomaly"})
        dashboard.gallery.turn(1)
        dashboard.show_all()
        assert not mapped
    finally:
        dashboard.close()


def test_a_second_look_hides_labels_and_scores_on_the_map(screen, session, ranked):
    ranked(1)
    screen.open()
    before, counts = screen.states(), screen.map.counts
    labelled = [i for i in session.labels.current() if int(i) < 100]
    points = [int(i) for i in labelled]
    screen.gallery.choose(sort="second look")
    shades, marks = screen.states()
    assert not marks.any()
    assert not shades[points].any()
    assert shades.any()
    assert screen.map.counts == counts  # the sums tell nothing of an image
    screen.map.vue_do_peek({"number": 1, "point": points[0]})
    _, _, facts = screen.last("peek")[0]
    assert facts["rows"] == [["Hidden", "until it is labelled again"]]

    screen.gallery.label(labelled[0], "anomaly")
    screen.map.apply([LabelsChanged((labelled[0],))])
    assert screen.states()[1][points].tolist() == [1] + [0] * (len(points) - 1)
    screen.map.vue_do_peek({"number": 1, "point": points[0]})
    assert screen.last("peek", lambda args: args[1] == points[0])[0][2]["rows"][0][0] == "Score"
    screen.gallery.label(labelled[0], session.labels.history(labelled[0])[0].label)
    screen.gallery.choose(sort="recent")
    for now, then in zip(screen.states(), before, strict=True):
        np.testing.assert_array_equal(now, then)
