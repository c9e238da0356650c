"""How the images are shown is kept for the next time, and never stands in the way."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.render import Rendering
from amatch_widgets.session import Session
from amatch_widgets.widgets import Gallery
from amatch_widgets.widgets.habits import Habits

WAIT_S = 20


@pytest.fixture
def written(monkeypatch):
    """Wait until some habits are on disk; give all that were."""
    arrived, kept = threading.Condition(), []
    write = Habits.write

    def note(self, path):
        write(self, path)
        with arrived:
            kept.append(self)
            arrived.notify_all()

    def wait(habits):
        with arrived:
            assert arrived.wait_for(lambda: habits in kept, WAIT_S)
        return kept

    monkeypatch.setattr(Habits, "write", note)
    return wait


def test_what_was_chosen_is_there_again(session, written):
    first = Gallery(session)
    rendering = Rendering(stretch="asinh", brightness=1.5)
    first.choose(per_page=24, tile_size="large")
    first.render(rendering)
    written(Habits(24, "large", rendering))
    first.close()
    again = Gallery(session)
    assert (again.per_page, again.tile_size, again.tile_px) == (24, "large", 180)
    assert len(again.image_ids) == 24
    assert (again.rendering, again.css_filter) == (rendering, "brightness(1.5)")
    assert again.rendering_note == "asinh, brightness 1.5"
    assert again.closeup.rendering == rendering.to_dict()
    assert again.closeup.is_used
    again.close()


def test_the_annotator_is_there_again_after_a_restart_unless_one_is_given(session, written):
    gallery = Gallery(session)
    gallery.vue_do_name({"name": " Ada "})
    written(Habits(annotator="Ada"))
    gallery.close()
    path = session.path
    session.close()
    for given, name in (("", "Ada"), ("Grace", "Grace")):
        again = Session.open(path, annotator=given)
        gallery = Gallery(again)
        assert (again.annotator, gallery.annotator) == (name, name)
        gallery.label(gallery.image_ids[0], "normal")
        assert again.labels.history()[-1].by == name
        gallery.close()
        again.close()


def test_it_is_kept_only_when_it_has_changed(session, written):
    gallery = Gallery(session)
    gallery.choose(sort="random")
    gallery.choose(per_page=48)
    gallery.choose(tile_size="small")
    habits = Habits(tile_size="small")
    assert written(habits) == [habits]
    assert json.loads((session.path / "view.json").read_text())["tile_size"] == "small"
    gallery.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"per_page": 7, "tile_size": "small", "rendering": {}}',
        '{"per_page": 24, "tile_size": []}',
        '{"per_page": 24, "tile_size": "small", "rendering": {}, "annotator": 7}',
        '{"per_page": 24, "tile_size": "small", "rendering": {}, "annotator": "' + 61 * "x" + '"}',
    ],
)
def test_nonsense_is_logged_and_the_defaults_hold(tmp_path, caplog, text):
    (tmp_path / "view.json").write_text(text)
    with caplog.at_level(logging.ERROR):
        assert Habits.read(tmp_path / "view.json") == Habits()
    assert "view.json" in caplog.text


def test_a_folder_that_cannot_be_written_is_logged(tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        Habits(24).write(tmp_path / "missing" / "view.json")
    assert "could not be kept" in caplog.text
    assert Habits.read(tmp_path / "missing" / "view.json") == Habits()


def test_only_what_there_is_can_be_chosen():
    with pytest.raises(ConfigError, match="7 tiles"):
        Habits(per_page=7)
