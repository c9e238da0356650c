from __future__ import annotations

import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.errors import ConfigError, ImageReadError
from amatch_widgets.events import ImagesPrepared, StepDone
from amatch_widgets.images.preprocess import Preprocess, as_rgb
from amatch_widgets.images.source import open_source
from amatch_widgets.session import Session
from amatch_widgets.widgets import Dashboard, Preview
from amatch_widgets.widgets.view import Desk

WAIT_S = 20
N_SHOWN = 14


class Screen:
    """A preview without a browser: what it sends, and what it says."""

    def __init__(self, session):
        self.messages, self.sent = [], []
        self.arrived = threading.Condition()
        desk = Desk()
        desk.on_message(lambda level, text: self.messages.append((level, text)))
        self.preview = Preview(session, desk)
        self.preview.send = self.send

    def send(self, content, buffers=None):
        with self.arrived:
            self.sent.append(content)
            self.arrived.notify_all()

    def images(self, n=N_SHOWN):
        """The pictures and problems of the sample on screen, by id, once all are there."""

        def found():
            number = self.preview.number
            return {
                m["args"][1]: m["args"][2:]
                for m in self.sent
                if m["method"] == "image" and m["args"][0] == number
            }

        with self.arrived:
            assert self.arrived.wait_for(lambda: len(found()) == n, WAIT_S), f"{len(found())} of {n} came"
            by_place = found()
        return {self.preview.tiles[place][0]: shown for place, shown in by_place.items()}

    def settled(self):
        """Wait until the background work that was asked for has been done."""
        done = threading.Event()
        self.preview._work.do("test", done.set)
        assert done.wait(WAIT_S)
        return self.preview


def pixels(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def screen_of(session):
    screen = Screen(session)
    screen.preview.vue_do_want({"view": "a"})
    return screen


@pytest.fixture
def screen(session):
    screen = screen_of(session)
    yield screen
    screen.preview.close()


@pytest.fixture
def bands(tmp_path, light):
    """A session on images of four named bands, float32, with a few pixels without data."""
    images = np.random.default_rng(0).gamma(2, 10, (30, 20, 24, 4)).astype(np.float32)
    images[:, 0, 0] = np.nan
    images[7] = np.nan
    source = open_source(images)
    source.bands = ("VIS", "Y", "J", "H")
    image = Preprocess(size=16)
    with Session(source, path=tmp_path / "bands", labels={"03": "anomaly"}, train=light(), image=image) as s:
        yield s


@pytest.fixture
def four(bands):
    screen = screen_of(bands)
    yield screen
    screen.preview.close()


def test_nothing_is_read_until_somebody_looks(session, monkeypatch):
    monkeypatch.setattr(session.pictures, "pixels", lambda image_id: pytest.fail("an image was read"))
    screen = Screen(session)
    screen.preview.try_out(Preprocess(size=32))
    screen.settled()
    assert not screen.sent
    screen.preview.close()


def test_what_is_shown_is_what_the_model_sees_to_the_pixel(screen, session):
    shown = screen.images()
    assert len(shown) == N_SHOWN
    for image_id, (url, problem) in shown.items():
        assert not problem
        seen = session.image(session.source.read(int(image_id)))
        np.testing.assert_array_equal(pixels(url), as_rgb(seen))
    assert "data:image" not in repr(screen.preview.get_state())


def test_the_sample_has_some_anomalies_with_their_marks_and_others_when_asked(screen, session):
    first = screen.images()
    marks = dict(screen.preview.tiles)
    assert sum(mark == "anomaly" for mark in marks.values()) >= 4
    labels = session.labels.current()
    assert all(mark == (labels[i].label if i in labels else "") for i, mark in marks.items())
    screen.preview.vue_do_others({})
    assert screen.images().keys() != first.keys()


def test_a_small_set_is_shown_whole(tmp_path, light):
    source = open_source(np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8))
    with Session(source, path=tmp_path / "three", train=light(), image=Preprocess(size=8)) as session:
        screen = screen_of(session)
        assert screen.images(3).keys() == {"0", "1", "2"}
        screen.preview.close()


def test_a_draft_is_shown_and_not_used_until_it_is(four, bands):
    before = four.images()
    preview = four.preview
    assert (preview.is_changed, preview.chosen, preview.draft["size"]) == (False, None, 16)
    preview.vue_do_try({"chosen": [3, 1, 0], "stretch": "asinh", "limits": "percentile", "white": 99})
    assert (preview.is_changed, preview.chosen, preview.mixture) == (True, [3, 1, 0], "")
    assert bands.image.stretch == "linear"
    after = four.images()
    assert after.keys() == before.keys()  # one sees the change, and no other images
    expected = Preprocess(size=16, mix=["H", "Y", "VIS"], stretch="asinh", limits="percentile", white=99)
    seen = expected.fitted(bands.source)(bands.source.read(3))
    np.testing.assert_array_equal(pixels(after["03"][0]), as_rgb(seen))
    preview.vue_do_revert({})
    assert not preview.is_changed
    assert four.images() == before


def test_used_it_is_what_the_model_sees(four, bands):
    four.preview.vue_do_try({"chosen": [0], "stretch": "log"})
    four.preview.vue_do_use({})
    bands.wait(WAIT_S)
    four.preview.apply([ImagesPrepared()])
    assert (bands.image.stretch, bands.image.mixture) == ("log", "VIS")
    assert not four.preview.is_changed
    assert not four.messages


def test_one_band_may_be_all_three_colours(four):
    four.preview.vue_do_try({"chosen": [2, 2, 2]})
    assert four.preview.chosen == [2, 2, 2]
    four.preview.vue_do_try({"chosen": None})
    assert four.preview.chosen is None
    assert four.preview.draft["channels"] == 4


def test_weights_are_shown_in_words(four, bands):
    four.preview.try_out(Preprocess(size=16, mix=[{"VIS": 0.5, "H": 0.5}]))
    assert (four.preview.chosen, four.preview.mixture) == (None, "0.5 VIS + 0.5 H")
    four.preview.vue_do_try({"stretch": "asinh"})  # the weights stay
    assert four.preview.mixture == "0.5 VIS + 0.5 H"


def test_an_image_that_cannot_be_prepared_says_why_in_its_place(four):
    for _ in range(20):  # of 30 images 14 are shown
        shown = four.images()
        if "07" in shown:
            break
        four.preview.vue_do_others({})
    assert shown["07"] == ["", "no pixel is finite: all are NaN or infinite"]
    assert all(url for image_id, (url, _) in shown.items() if image_id != "07")


def test_an_unreadable_image_says_why_in_its_place(screen, session, monkeypatch):
    read = session.source.read

    def broken(index, **options):
        if index % 2:
            raise ImageReadError(session.source.ids[index], "the file is cut off")
        return read(index, **options)

    screen.images()
    screen.preview.vue_do_leave({"view": "a"})
    screen.settled()  # what was read is forgotten
    monkeypatch.setattr(session.source, "read", broken)
    screen.preview.vue_do_want({"view": "b"})
    shown = screen.images()
    odd = {i for i in shown if int(i) % 2}
    assert odd
    assert {i for i, (_, problem) in shown.items() if problem == "the file is cut off"} == odd


def test_the_facts_are_of_the_images_as_they_lie(four, screen):
    four.images()
    facts = dict(four.settled().facts)
    assert facts["size"] == "24 x 20 px"
    assert facts["pixels"] == "float32"
    low, _, high = facts["values"].partition(" to ")
    assert 0 <= float(low) < 5
    assert float(high) > 40
    assert facts["no data:"].endswith("% of the pixels")
    screen.images()
    assert dict(screen.settled().facts) == {"size": "64 x 64 px", "pixels": "uint8"}


def test_fixed_limits_begin_at_those_of_the_sample(four):
    four.images()
    four.preview.vue_do_try({"limits": "fixed"})
    four.settled()
    draft = four.preview.draft
    assert draft["limits"] == "fixed"
    assert 0 <= draft["low"] < 3
    assert 50 < draft["high"] < 200
    four.preview.vue_do_try({"low": -5})
    assert (four.preview.draft["low"], four.preview.draft["high"]) == (-5, draft["high"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 4}, "allowed is a whole number from 8 to 1024"),
        ({"stretch": "cubic"}, "cubic"),
        ({"black": 60, "white": 40, "limits": "percentile"}, "black"),
        ({"colour": 1}, "Unknown options"),
        ({"chosen": [9]}, ""),
    ],
)
def test_what_is_not_allowed_is_said_and_changes_nothing(four, options, says):
    before = dict(four.preview.draft)
    four.preview.vue_do_try(options)
    (level, text), *_ = four.messages
    assert level == "error"
    assert says in text
    assert four.preview.draft == before
    assert {"method": "refused", "args": []} in four.sent


def test_a_trained_model_keeps_its_images(four, bands, monkeypatch):
    monkeypatch.setattr(type(bands), "step", property(lambda _: 7))
    four.preview.apply([StepDone(7, 7, 7, 1.0, 0.0)])
    assert four.preview.is_trained
    four.preview.vue_do_use({})
    assert "A model has been trained" in four.messages[-1][1]


def test_images_are_freed_when_nobody_looks_any_more(screen):
    screen.images()
    screen.preview.vue_do_want({"view": "b"})
    screen.images()
    screen.preview.vue_do_leave({"view": "a"})
    assert screen.settled()._read
    screen.preview.vue_do_leave({"view": "b"})
    assert not screen.settled()._read


def test_bands_of_other_images_are_refused(four):
    with pytest.raises(ConfigError):
        four.preview.try_out(Preprocess(size=16, mix=["nir"]))


def test_a_dashboard_has_one_that_follows_it(session):
    board = Dashboard(session)
    assert isinstance(board.preview, Preview)
    assert not board.preview.is_alone
    board.close()
