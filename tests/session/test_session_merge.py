"""Two sessions on the same images, and what one takes over from the other."""

from __future__ import annotations

import json
import shutil

import pytest

from amatch_widgets.errors import JournalError, LabelError
from amatch_widgets.events import LabelsChanged
from amatch_widgets.session import Session
from tests.session.helper import SKY, WAIT_S, cycle, labels_of


@pytest.fixture
def two(make_session, tmp_path):
    """A session, and a copy of it in which somebody else went on."""
    mine = make_session()
    shutil.copytree(mine.path, tmp_path / "copy")
    theirs = Session.open(tmp_path / "copy", annotator="ben")
    yield mine, theirs
    theirs.close()


def free(session):
    return [i for i in SKY.ids if i not in session.labels]


def test_what_was_labelled_in_a_copy_is_taken_over_and_told_and_undone_at_once(two):
    mine, theirs = two
    before, told = labels_of(mine), []
    mine.hub.subscribe(told.append)
    new = free(mine)[:5]
    theirs.label(dict.fromkeys(new, "anomaly"), tags=["odd"])
    journal = (theirs.path / "labels.jsonl").read_bytes()
    plan = mine.merge_labels(theirs.path, dry_run=True)
    assert (plan.n_labels, labels_of(mine), told) == (5, before, [])
    result = mine.merge_labels(theirs.path)  # which is open
    assert repr(result) == "MergeResult('copy': 5 labels taken, 0 joined, 0 disagreements)"
    assert LabelsChanged(tuple(new)) in told
    assert {(mine.labels.get(i).by, mine.labels.get(i).tags) for i in new} == {("ben", ("odd",))}
    assert (theirs.path / "labels.jsonl").read_bytes() == journal
    assert mine.merge_labels(theirs.path / "labels.jsonl").lines == ()
    assert mine.undo() == tuple(new)
    assert labels_of(mine) == before


def test_merged_labels_are_no_looks_and_no_test_of_the_trained_model(two):
    mine, theirs = two
    cycle(mine)
    new = free(mine)
    theirs.label(dict.fromkeys(new[:5], "anomaly"))
    mine.merge_labels(theirs.path)
    mine.label(dict.fromkeys(new[5:8], "normal"))
    mine.query(0)
    mine.close()
    assert mine.discovery.n_looks == 3
    assert mine.discovery.n_given_anomalies == 4 + 5
    asked = [json.loads(x) for x in (mine.path / "evidence.jsonl").read_text().splitlines()]
    asked = {line["id"] for line in asked if "instant" in line}
    trained = mine.labels.for_split("train")
    assert asked == {i for i in new[5:8] if i in trained}


def test_a_session_of_its_own_on_the_same_images_can_be_merged(make_session, tmp_path):
    mine, other = make_session(), make_session(path=tmp_path / "other")
    (one, two) = free(mine)[:2]
    mine.label({one: "normal"})
    other.label({one: "anomaly", two: "normal"}, by="ben")
    result = mine.merge_labels(other.path)
    assert ([i.image_id for i in result.disagreements], result.n_labels) == ([one], 1)
    assert labels_of(mine)[one] == "normal"
    assert mine.merge_labels(other.path, take="theirs", only=[two]).lines == ()
    assert mine.merge_labels(other.path, take="theirs", only=[one]).n_labels == 1
    assert (mine.labels.get(one).label, mine.labels.get(one).by) == ("anomaly", "ben")


def test_a_torn_last_line_is_left_out_and_told(two):
    mine, theirs = two
    theirs.label({free(mine)[0]: "anomaly"})
    path = theirs.path / "labels.jsonl"
    with path.open("a") as file:
        file.write('{"id": "cut sh')
    torn = path.read_bytes()
    result = mine.merge_labels(theirs.path)
    assert result.n_labels == 1
    assert "cut short" in result.notice
    assert path.read_bytes() == torn


def _missing(_, tmp_path):
    return tmp_path / "nothing"


def _no_session(_, tmp_path):
    return tmp_path


def _same(mine, _):
    return mine.path


def _other_images(mine, tmp_path):
    shutil.copytree(mine.path, tmp_path / "other")
    manifest = json.loads((tmp_path / "other" / "session.json").read_text())
    (tmp_path / "other" / "session.json").write_text(json.dumps(manifest | {"fingerprint": "another"}))
    return tmp_path / "other"


def _other_ids(_, tmp_path):
    (tmp_path / "alone.jsonl").write_text('{"id": "elsewhere", "label": "normal"}\n')
    return tmp_path / "alone.jsonl"


def _damaged(_, tmp_path):
    (tmp_path / "alone.jsonl").write_text(f'{{"id": "{SKY.ids[0]}", "label": "odd"}}\n' * 2)
    return tmp_path / "alone.jsonl"


def _nobody(_, _tmp_path):
    return "~no-such-user-here/run"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (_nobody, LabelError, "no such user as in '~no-such-user-here/run'"),
        (_missing, LabelError, "no labels to merge"),
        (_no_session, LabelError, "'labels.jsonl' is not there"),
        (_same, LabelError, "this session's own labels"),
        (_other_images, LabelError, "is of other images"),
        (_other_ids, LabelError, "the first is of 'elsewhere'"),
        (_damaged, JournalError, "Line 1"),
    ],
)
def test_what_cannot_be_merged_is_told_and_nothing_is_changed(session, tmp_path, make, error, words):
    journal = (session.path / "labels.jsonl").read_bytes()
    path = make(session, tmp_path)
    with pytest.raises(error, match=words):
        session.merge_labels(path)
    assert (session.path / "labels.jsonl").read_bytes() == journal


def test_training_goes_on_with_merged_labels(two):
    mine, theirs = two
    theirs.label(dict.fromkeys(free(mine)[:3], "anomaly"))
    mine.merge_labels(theirs.path)
    cycle(mine)
    mine.wait(WAIT_S)
    assert mine.step == 2
