"""What goes wrong around a session: images, files and disks; labels and earlier scores stay."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from amatch_widgets.errors import JournalError, SourceError, WorkspaceError
from amatch_widgets.events import Message, ProblemFound
from amatch_widgets.learn import checkpoint as checkpoint_module
from amatch_widgets.session import Session
from amatch_widgets.worker import State
from tests.session.helper import SKY, WAIT_S, Gate, cycle, holey, labels_of

# ---- images that cannot be read ---------------------------------------------------------------


def test_unreadable_images_are_listed_and_never_stop_a_run(make_session):
    source = holey([0, 13, 59])
    session = make_session(source)
    told = []
    session.hub.subscribe(told.append)
    cycle(session)
    wanted = {source.ids[i]: "it has a hole" for i in source.bad}
    assert session.problems == wanted
    assert {e.image_id: e.reason for e in told if isinstance(e, ProblemFound)} == wanted
    assert "3 of 60 images could not be read" in next(e.text for e in told if isinstance(e, Message))
    assert set(np.flatnonzero(np.isnan(session.scores))) == source.bad
    assert set(session.ranking()[-3:]) == source.bad
    session.problems.clear()  # a copy
    assert len(session.problems) == 3
    assert session.top(60)["rank"].tolist() == [*range(1, 58)]  # those without a score are no shortlist


def test_a_labelled_image_that_cannot_be_read_is_left_out_of_the_metrics(make_session):
    source = holey(range(30, 60))
    session = make_session(source, labels=source.truth)
    cycle(session)
    readable = [i for i in session.labels.for_split("test") if i not in session.problems]
    assert session.metrics.auroc.n_total == len(readable)


def test_where_no_image_can_be_read_the_error_says_so(make_session):
    session = make_session(holey(range(60)))
    session.train()
    with pytest.raises(
        SourceError, match="None of the 60 images could be read; the first, '00': it has a hole"
    ):
        session.wait(WAIT_S)
    assert session.problems


def test_images_that_vanish_before_scoring_are_an_error_and_the_old_scores_stay(make_session):
    source = holey([])
    session = make_session(source)
    cycle(session)
    session.close()
    source.bad = frozenset(range(60))
    with Session.open(session.path, source=source) as again:
        again.score()
        with pytest.raises(
            SourceError, match=r"None of the 60 images could be read; the first, '[0-9]+': it has"
        ):
            again.wait(WAIT_S)
        np.testing.assert_array_equal(again.scores, session.scores)


# ---- files that are damaged -------------------------------------------------------------------


def test_a_damaged_checkpoint_is_named_and_the_older_one_serves(make_session):
    with make_session(checkpoint_every=1) as session:
        cycle(session, 2)
    old, last = sorted((session.path / "checkpoints").iterdir())
    last.write_bytes(last.read_bytes()[:1000])
    with Session.open(session.path) as again:
        again.score()
        with pytest.raises(WorkspaceError, match=rf"{last.name}' cannot be used.*Move it away"):
            again.wait(WAIT_S)
    last.unlink()
    with Session.open(session.path) as again:
        assert again.step == 1
        cycle(again, None)  # its last step is done anew
        assert (again.step, again.cycle) == (2, 1)
    assert old.exists()


def test_damaged_scores_do_not_bar_the_way_to_the_labels(session, caplog):
    cycle(session)
    older = session.scores
    cycle(session)
    session.close()
    (part,) = (session.path / "scores" / "cycle=0002").glob("part-*")
    part.write_bytes(part.read_bytes()[:-10])
    with Session.open(session.path) as again:
        assert "part-00000.parquet' are damaged" in caplog.text
        assert labels_of(again) == labels_of(session)
        assert again.scores_cycle == 1
        np.testing.assert_array_equal(again.scores, older)
        again.score()
        again.wait(WAIT_S)
        assert again.scores_cycle == 2
        np.testing.assert_array_equal(again.scores, session.scores)


# ---- a workspace that is full or cannot be written --------------------------------------------


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_does_not_fit_is_told_and_the_model_is_not_lost(make_session):
    session = make_session(checkpoint_every=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", no_space)
        session.train(5)
        with pytest.raises(
            WorkspaceError, match=r"No space left on device. It is still in memory.*labels are"
        ):
            session.wait(WAIT_S)
    assert (session.state, session.step) == (State.FAILED, 1)
    session.label({SKY.ids[0]: "normal"})
    cycle(session, 1)  # with space again
    assert (session.step, session.cycle) == (2, 1)
    session.close()
    with Session.open(session.path) as again:
        assert (again.step, len(again.labels)) == (2, 13)


def test_a_checkpoint_that_does_not_fit_at_a_stop_is_told_and_saved_by_the_next_job(session):
    gate = Gate(session)
    session.train(1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_module, "save_file", no_space)
        with gate:
            session.stop()
        with pytest.raises(WorkspaceError, match="No space left"):
            session.wait(WAIT_S)
    assert session.step == 1
    session.score()
    session.wait(WAIT_S)
    assert session.scores_cycle == 1


def test_scores_that_do_not_fit_are_told_and_the_old_ones_stay(session):
    cycle(session)
    old = session.scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        session.score()
        with pytest.raises(WorkspaceError, match=r"scores of cycle 1 cannot be written.*Labels and earlier"):
            session.wait(WAIT_S)
    assert session.scores is old
    session.close()
    with Session.open(session.path) as again:
        np.testing.assert_array_equal(again.scores, old)
        again.score()
        again.wait(WAIT_S)
        np.testing.assert_array_equal(again.scores, old)


def test_a_label_that_does_not_fit_is_not_kept_and_the_next_one_is(session):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(JournalError, match="NOT kept"):
            session.label({SKY.ids[0]: "normal"})
    assert session.labels.get(SKY.ids[0]) is None
    session.label({SKY.ids[1]: "normal"})
    session.close()
    with Session.open(session.path) as again:
        assert again.labels.get(SKY.ids[0]) is None
        assert again.labels.get(SKY.ids[1]).label == "normal"


def test_a_full_disk_at_the_start_is_told_and_the_folder_is_free_again(make_session, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match=r"No space left on device. Free some space"):
            make_session()
    cycle(make_session(), 1)


def test_a_folder_that_cannot_be_written_is_told(make_session, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(WorkspaceError, match=r"Permission denied. Choose a folder that you can write to"):
        make_session()


def test_a_history_that_cannot_be_written_stops_no_training(session):
    session._workspace.history.mkdir()
    cycle(session)
    assert len(session.history.steps) == 2
    assert session.scores_cycle == 1


def test_a_model_of_images_that_were_prepared_otherwise_is_refused(make_session):
    with make_session() as session:
        cycle(session)
        path = session.path
    manifest = json.loads((path / "session.json").read_text())
    manifest["image"]["stretch"] = "asinh"
    (path / "session.json").write_text(json.dumps(manifest))
    with Session.open(path, source=SKY) as session:
        assert session.image.stretch == "asinh"
        session.score()
        with pytest.raises(
            WorkspaceError, match=r"trained on images prepared otherwise.*'linear'.*now.*asinh"
        ):
            session.wait(WAIT_S)
        assert labels_of(session)
