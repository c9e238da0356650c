"""Other images scored from the controls: opened in the background, told apart, refused in plain words."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import StateError
from amatch_widgets.events import ArchiveBegun, ScoringProgress, StateChanged
from amatch_widgets.session import Session
from amatch_widgets.widgets.controls import Controls
from amatch_widgets.widgets.view import Desk

WAIT_S = 30


@pytest.fixture
def controls(session):
    desk, session.said = Desk(), []
    desk.on_message(lambda level, text: session.said.append((level, text)))
    controls = Controls(session, desk)
    yield controls
    controls.close()


def settled(controls):
    """Wait until nothing is being opened."""
    done = threading.Event()
    controls._work.do("after it", done.set)
    assert done.wait(WAIT_S)


def test_a_path_is_opened_in_the_background_and_scored(controls, session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, going, go_on, scored = Controls(session, controls.desk), threading.Event(), threading.Event(), []

    def score(archive):
        going.set()
        assert go_on.wait(WAIT_S)
        scored.append(archive)

    monkeypatch.setattr(session, "score", score)
    monkeypatch.chdir("/")
    here.vue_do_score_archive({"path": " survey.npy "})
    assert going.wait(WAIT_S)
    assert here.opening == "survey.npy"
    go_on.set()
    settled(here)
    assert (scored, here.opening, session.said) == ([tmp_path / "survey.npy"], "", [])
    here.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [("", "Type where the images are"), ("/no/such/place", "There is no file or folder '/no/such/place'")],
)
def test_what_cannot_be_opened_is_said_in_plain_words(controls, session, path, said):
    controls.vue_do_score_archive({"path": path})
    settled(controls)
    ((level, text),) = session.said
    assert (level, said in text, controls.opening) == ("error", True, "")


def test_without_a_ranking_nothing_is_begun(controls, session, tmp_path):
    np.save(tmp_path / "survey.npy", np.zeros((9, 32, 32, 3), np.uint8))
    controls.vue_do_score_archive({"path": str(tmp_path / "survey.npy")})
    settled(controls)
    assert "Nothing ranks yet" in session.said[0][1]
    assert str(session.state) == "idle"


def test_a_busy_session_says_so(controls, session, monkeypatch):
    def busy(_):
        raise StateError("It trains.")

    monkeypatch.setattr(session, "score", busy)
    controls.vue_do_score_archive({"path": "x"})
    settled(controls)
    assert session.said == [("error", "It trains.")]


def test_the_progress_names_the_archive_and_that_of_the_session_does_not(controls, session, survey):
    def scoring():
        with controls.desk.lock:
            controls.state, controls.progress, controls.can = "running", 0.0, {**controls.can, "stop": True}
        controls.apply([ScoringProgress(100, 400, 50.0, 6.0)])
        return controls.state_text, controls.progress_text

    controls.apply([ArchiveBegun(survey.archive.name)])
    assert scoring() == ("Scoring sky-5", "100 of 400 · 50 images/s · 6 s left")
    controls.apply([StateChanged("idle")])
    assert scoring()[0] == "Scoring"


def test_a_url_is_opened_as_it_is(controls, session, monkeypatch):
    scored = []
    monkeypatch.setattr(session, "score", scored.append)
    controls.vue_do_score_archive({"path": "s3://survey/cutouts.zarr"})
    settled(controls)
    assert scored == ["s3://survey/cutouts.zarr"]


def test_all_images_are_scored_where_the_own_ones_are_a_sample(tmp_path, light, monkeypatch):
    whole, scored = sky(40, size=32, prevalence=0.2), []
    with Session(whole, path=tmp_path / "part", train=light(), sample=10) as session:
        monkeypatch.setattr(session, "score", scored.append)
        controls = Controls(session)
        assert controls.n_whole == 40
        controls.vue_do_score_whole({})
        settled(controls)
        controls.close()
    assert scored == [whole]


def test_a_session_of_all_images_has_no_others_to_score(controls, session):
    assert controls.n_whole == 0
    controls.vue_do_score_whole({})
    assert session.said == [
        ("error", "The images of this session are no sample: Score goes through all of them.")
    ]
