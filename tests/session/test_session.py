"""A session as its user sees it: begun, opened again, held by one kernel, and what it shows."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import (
    ConfigError,
    ImageReadError,
    LabelError,
    SessionInUseError,
    SourceError,
    WorkspaceError,
)
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.labels import LabelStore
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, cycle, holey, labels_of, truth

# ---- open and continue ------------------------------------------------------------------------


def test_opening_restores_everything(session):
    cycle(session)
    session.label(truth(30))
    cycle(session)
    session.close()
    with Session.open(session.path) as again:
        assert labels_of(again) == labels_of(session)
        assert (again.step, again.cycle, again.scores_cycle) == (4, 2, 2)
        np.testing.assert_array_equal(again.scores, session.scores)
        np.testing.assert_array_equal(again.ranking(), session.ranking())
        assert again.metrics == session.metrics
        assert again.history.steps == session.history.steps
        assert again.history.cycles == session.history.cycles
        assert (again.config, again.image) == (session.config, session.image)
        assert [c.image_id for c in again.query(9)] == [c.image_id for c in session.query(9)]


def test_a_folder_of_images_is_found_again(tmp_path, light):
    from PIL import Image  # noqa: PLC0415

    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(SKY.read(i)).save(tmp_path / "images" / f"{i}.png")
    labels = {"0.png": "anomaly", "1.png": "normal"}
    with Session(tmp_path / "images", path=tmp_path / "run", labels=labels, train=light()) as session:
        cycle(session, 1)
    with Session.open(tmp_path / "run") as again:
        assert list(again.source.ids) == sorted(f"{i}.png" for i in range(12))
        assert again.scores_cycle == 1
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="no file or folder"):
        Session.open(tmp_path / "run")
    with Session.open(tmp_path / "run", source=tmp_path / "moved") as moved:
        assert moved.scores_cycle == 1
    (tmp_path / "moved" / "5.png").unlink()
    with pytest.raises(SourceError, match=r"is of 'images' with 12 images|is of 'moved' with 12 images"):
        Session.open(tmp_path / "run", source=tmp_path / "moved")


def test_continuing_with_other_images_or_options_is_refused(make_session, light):
    with make_session() as session:
        cycle(session, 1)
    with pytest.raises(SourceError, match="found 'sky-1'"):
        make_session(sky(60, seed=1, size=32), labels=None)
    with pytest.raises(ConfigError, match="backbone='test_resnet'; found 'test_vit'"):
        make_session(train=light(backbone="test_vit"))
    with pytest.raises(ConfigError, match=r"prepares images with Preprocess\(size=32"):
        make_session(image=Preprocess(size=48))
    with make_session() as again:  # the refused ones have let the folder go, and changed nothing
        assert again.step == 1
        assert again.image.size == 32


def test_a_mistaken_backbone_is_told_and_can_be_put_right(make_session):
    with make_session(backbone="test_resnett") as session:
        session.train(1)
        with pytest.raises(ConfigError, match="Did you mean 'test_resnet'"):
            session.wait(WAIT_S)
    session = make_session()
    cycle(session, 1)
    assert session.step == 1


def test_opening_what_is_no_session_says_so(tmp_path):
    with pytest.raises(WorkspaceError, match="is no session folder"):
        Session.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_session_stays_in_its_folder_when_the_working_directory_changes(
    make_session, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    session = make_session(path="here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    session.label({SKY.ids[0]: "normal"})
    cycle(session, 1)
    assert session.path == tmp_path / "here"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_path_the_folder_is_named_after_the_images(tmp_path, light, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Session(SKY, train=light()) as session:
        assert session.path == tmp_path / "runs" / "sky-0"


def test_refused_first_labels_leave_no_open_journal(make_session, monkeypatch):
    closed, close = [], LabelStore.close

    def note(store):
        closed.append(store)
        close(store)

    monkeypatch.setattr(LabelStore, "close", note)
    with pytest.raises(LabelError, match="Unknown image id"):
        make_session(SKY, labels={"no-such-image": "anomaly"})
    assert len(closed) == 1


def test_what_was_odd_at_the_opening_is_told(make_session, tmp_path):
    table = tmp_path / "l.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\nx.png,anomaly\n")
    session = make_session(SKY, labels=table)
    assert session.notices == ("l.csv: 1 of its ids fits no image, the first is 'x.png'.",)
    source = holey([3])
    source.skipped = {"night1": "Permission denied", "night2": "Permission denied"}
    other = make_session(source, labels=None, path=tmp_path / "other")
    assert other.notices == (
        "2 folders or files in 'sky-0' cannot be looked at; the first, 'night1': Permission denied.",
    )


# ---- who holds the folder ---------------------------------------------------------------------

HOLDER = """
import sys
from amatch_widgets.session import Session
session = Session.open(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_session_of_this_kernel_is_refused(session):
    with pytest.raises(SessionInUseError, match="another session of this kernel"):
        Session.open(session.path)


def test_a_session_of_another_process_is_refused_until_it_ends(session):
    session.close()
    arguments = [sys.executable, "-c", HOLDER, str(session.path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(SessionInUseError, match=rf"in use by process {process.pid} on"):
            Session.open(session.path)
        process.kill()
        process.wait(10)
    Session.open(session.path).close()


def test_a_session_closed_on_another_thread_lets_the_folder_go(session):
    thread = threading.Thread(target=session.close)
    thread.start()
    thread.join(WAIT_S)
    Session.open(session.path).close()


def test_a_session_that_could_not_begin_lets_the_folder_go(make_session, tmp_path):
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        make_session(labels={"x": "normal"})
    with pytest.raises(LabelError):
        make_session(labels=tmp_path / "absent.csv")
    make_session()


# ---- display ----------------------------------------------------------------------------------


def test_the_repr_is_one_line_that_says_where_it_stands(session):
    cycle(session)
    text = repr(session)
    assert "\n" not in text
    assert "Session('sky-0', 60 images, 4 anomalies and 8 normals labelled, step 2, idle, '" in text


def test_a_thumbnail_is_a_small_jpeg(session):
    assert session.thumbnail(SKY.ids[0], side=16).startswith(b"\xff\xd8")


def test_a_thumbnail_that_cannot_be_made_says_why(make_session, tmp_path):
    session = make_session(holey([3]))
    with pytest.raises(ImageReadError, match="'03' cannot be read: it has a hole"):
        session.thumbnail("03")
    with pytest.raises(LabelError, match=r"Unknown image id 'x'\. The ids of 'sky-0' look like '00'"):
        session.thumbnail("x")
    nothing = np.full((2, 8, 8), np.nan, np.float32)
    other = make_session(nothing, path=tmp_path / "nan", labels=None, image=Preprocess(size=8))
    with pytest.raises(ImageReadError, match="'0' cannot be read: no pixel is finite"):
        other.thumbnail("0")


def test_showing_a_session_gives_its_dashboard(session):
    widget = session.show()
    try:
        assert type(widget).__name__ == "Dashboard"
    finally:
        widget.close()
