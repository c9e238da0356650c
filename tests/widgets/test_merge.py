"""Merging another annotator's labels, as the history panel offers it."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from amatch_widgets.events import LabelsChanged
from amatch_widgets.labels import LabelStore
from amatch_widgets.session import Session
from amatch_widgets.widgets.past import Past

WAIT_S = 20
HOSTILE = '<img src=x onerror="alert(1)">{{ 1 + 1 }}'


@pytest.fixture
def merge(session, desk, gallery):
    past = Past(session, desk, gallery)
    yield past.merge
    past.close()


@pytest.fixture
def theirs(session, tmp_path):
    """A copy of the session, in which somebody else goes on."""
    shutil.copytree(session.path, tmp_path / "of-ben")
    with Session(session.source, path=tmp_path / "of-ben", annotator="ben") as theirs:
        yield theirs


@pytest.fixture
def free(session):
    return [i for i in session.source.ids if i not in session.labels]


def done(merge):
    end = time.monotonic() + WAIT_S
    while merge.is_busy:
        assert time.monotonic() < end, "it did not end"
        threading.Event().wait(0.01)


def compare(merge, path):
    merge.vue_do_compare({"path": str(path)})
    done(merge)


def settle(merge, image_id, take):
    merge.vue_do_settle({"id": image_id, "take": take})
    done(merge)


def label(session, image_id):
    line = session.labels.get(image_id)
    return None if line is None else line.label


def states(merge):
    return {row["id"]: row["state"] for row in merge.rows}


@pytest.fixture
def differing(session, theirs, free, merge):
    """Four images of which the two say different things."""
    session.label(dict.fromkeys(free[:4], "normal"), by="ann")
    theirs.label(dict.fromkeys(free[:4], "anomaly"))
    compare(merge, theirs.path)
    return free[:4]


def test_the_form_hides_nothing_that_ipywidgets_needs_to_draw_it(merge):
    assert repr(merge).startswith("Merge(")


def test_a_comparison_changes_nothing_and_says_what_a_merge_would(session, theirs, free, merge):
    session.label({free[0]: "normal", free[1]: "normal", free[2]: "anomaly"}, by="ann")
    theirs.label({free[0]: "anomaly", free[1]: "normal", free[3]: "anomaly", free[4]: "normal"})
    theirs.annotate(free[1], star=True)
    theirs.label({next(iter(theirs.labels.current())): None})
    version = session.labels.version
    compare(merge, theirs.path)
    assert session.labels.version == version
    assert merge.problem == ""
    assert merge.words == [
        "To take over: 3 labels, 1 ◆ anomaly, 1 ● normal, 1 taken back.",
        "To join with yours: tags, notes or stars of 1 image.",
        "On 20 images you agree already.",
        "On 1 image you disagree: what you said stays until you settle it below.",
    ]
    assert (merge.n_changes, merge.total, merge.n_open) == (4, 1, 1)
    (row,) = merge.rows
    assert {key: row[key] for key in ("id", "mine", "mine_by", "theirs", "theirs_by", "state")} == {
        "id": free[0],
        "mine": "normal",
        "mine_by": "ann",
        "theirs": "anomaly",
        "theirs_by": "ben",
        "state": "",
    }
    assert row["mine_time"] == session.labels.get(free[0]).time
    assert row["theirs_time"] == theirs.labels.get(free[0]).time


def test_the_merge_takes_it_over_and_one_undo_takes_it_back(session, theirs, free, merge, gallery):
    theirs.label(dict.fromkeys(free[:3], "anomaly"))
    compare(merge, theirs.path)
    before = session.labels.current()
    merge.vue_do_merge({})
    done(merge)
    assert merge.words[:2] == ["Taken over: 3 labels, 3 ◆ anomaly.", "One undo takes all of it back."]
    assert {label(session, i) for i in free[:3]} == {"anomaly"}
    assert session.labels.get(free[0]).by == "ben"
    assert merge.n_changes == 0
    gallery.undo()
    assert session.labels.current() == before
    compare(merge, theirs.path)
    assert merge.n_changes == 3


def test_a_relative_path_and_the_journal_alone_are_read_too(theirs, free, merge, monkeypatch):
    theirs.label({free[0]: "anomaly"})
    merge._base = theirs.path.parent
    monkeypatch.chdir("/")
    for path in ("of-ben", " of-ben/labels.jsonl "):
        compare(merge, path)
        assert (merge.problem, merge.n_changes, merge.path) == ("", 1, path.strip())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "Type the folder"),
        ("nothing-there", "no labels to merge"),
        ("~no-such-user-here/run", "no such user"),
        ("bad\0name", "no labels to merge"),
        (HOSTILE, "no labels to merge"),
    ],
)
def test_a_wrong_path_is_told_beside_the_form_and_forgets_what_was_compared(
    differing, merge, desk, path, said
):
    version = merge.session.labels.version
    compare(merge, path)
    assert differing
    assert said in merge.problem
    assert "Unexpected" not in merge.problem
    if path:
        assert (merge.path, merge.rows, merge.words, merge.n_changes) == ("", [], [], 0)
        merge.vue_do_merge({})
        assert "Nothing was compared yet" in desk.said[-1][1]
    assert merge.session.labels.version == version


def test_ones_own_labels_and_those_of_other_images_are_told(session, merge, tmp_path):
    compare(merge, session.path)
    assert "this session's own labels" in merge.problem
    (tmp_path / "alone.jsonl").write_text('{"id": "elsewhere", "label": "normal"}\n')
    compare(merge, tmp_path / "alone.jsonl")
    assert "'elsewhere'" in merge.problem


def test_ids_of_no_image_and_a_torn_last_line_are_told(session, free, merge, tmp_path):
    store = LabelStore(tmp_path / "of-eve.jsonl", test_share=0)
    store.set({free[0]: "anomaly", HOSTILE: "normal"}, by=HOSTILE)
    store.close()
    with (tmp_path / "of-eve.jsonl").open("a") as file:
        file.write('{"id": "cut sh')
    compare(merge, tmp_path / "of-eve.jsonl")
    assert merge.words[1] == f"Left out, as they are of no image here: 1 id of theirs, {HOSTILE!r}."
    assert "cut short" in merge.words[-1]


def test_a_disagreement_is_settled_by_taking_theirs_with_who_said_it_and_undone(session, differing, merge):
    settle(merge, differing[1], "theirs")
    assert states(merge) == dict.fromkeys(differing, "") | {differing[1]: "theirs"}
    assert (label(session, differing[1]), session.labels.get(differing[1]).by) == ("anomaly", "ben")
    assert {label(session, i) for i in (differing[0], *differing[2:])} == {"normal"}
    assert (merge.n_open, merge.total) == (3, 4)
    session.undo()
    merge.apply([LabelsChanged((differing[1],))])
    assert label(session, differing[1]) == "normal"
    assert merge.n_open == 4


def test_keeping_ours_writes_nothing(session, differing, merge):
    version = session.labels.version
    settle(merge, differing[0], "mine")
    assert states(merge)[differing[0]] == "mine"
    assert session.labels.version == version
    settle(merge, differing[0], "theirs")
    assert states(merge)[differing[0]] == "theirs"


def test_ours_is_put_back_where_theirs_was_taken(session, differing, merge, gallery):
    settle(merge, differing[0], "theirs")
    settle(merge, differing[0], "mine")
    assert (states(merge)[differing[0]], label(session, differing[0])) == ("mine", "normal")
    gallery.undo()
    merge.apply([LabelsChanged((differing[0],))])
    assert (states(merge)[differing[0]], label(session, differing[0])) == ("theirs", "anomaly")


def test_labelling_settles_and_a_star_does_not(session, differing, merge):
    ours, other, cleared, starred = differing
    session.label({ours: "normal"})
    session.label({other: "anomaly"})
    session.label({cleared: None})
    session.annotate(starred, star=True)
    merge.apply([LabelsChanged(tuple(differing))])
    assert states(merge) == {ours: "mine", other: "theirs", cleared: "neither", starred: ""}


def test_each_can_be_opened_in_the_gallery_in_a_list_of_all(differing, merge, gallery):
    merge.vue_do_list({})
    assert set(gallery.image_ids) == set(differing)
    assert gallery.title == "Disagreements with of-ben"
    gallery.show_ranking()
    sent = []
    gallery.send = lambda content, buffers=None: sent.append(content)
    merge.vue_do_go({"id": differing[2]})
    place = gallery.image_ids.index(differing[2])
    assert [c["args"][1] for c in sent if c.get("method") == "look_at"] == [place]


def test_a_second_look_sees_of_no_disagreement_what_was_said(session, differing, merge, gallery):
    past = Past(session, merge.desk, gallery)
    past.vue_do_want({"view": "v"})
    past.merge.vue_do_compare({"path": merge.path})
    done(past.merge)
    gallery.choose(sort="second look")
    assert {(row["mine"], row["theirs"]) for row in past.merge.rows} == {("", "")}
    session.label({differing[0]: "normal"})
    past.apply([LabelsChanged((differing[0],))])
    assert {row["id"] for row in past.merge.rows if row["mine"]} == {differing[0]}
    gallery.choose(sort="highest")
    assert all(row["theirs"] == "anomaly" for row in past.merge.rows)
    past.close()


def test_what_makes_no_sense_is_told(session, differing, merge, desk):
    version = session.labels.version
    merge.vue_do_settle({"id": "gone", "take": "mine"})
    merge.vue_do_settle({"id": differing[0], "take": "newest"})
    merge.vue_do_go({})
    assert [level for level, _ in desk.said] == ["error"] * 3
    assert session.labels.version == version


def test_the_handler_comes_back_before_the_other_session_is_read(session, theirs, merge, monkeypatch):
    go_on, read = threading.Event(), session.merge_labels

    def slow(*args, **options):
        assert go_on.wait(WAIT_S)
        return read(*args, **options)

    monkeypatch.setattr(session, "merge_labels", slow)
    merge.vue_do_compare({"path": str(theirs.path)})
    assert merge.is_busy
    assert merge.words == []
    go_on.set()
    done(merge)
    assert merge.words[0] == "There is nothing to take over."


def test_of_very_many_disagreements_the_first_are_sent(session, theirs, free, merge, monkeypatch):
    monkeypatch.setattr("amatch_widgets.widgets.merge._ROWS_SHOWN", 5)
    session.label(dict.fromkeys(free[:9], "normal"))
    theirs.label(dict.fromkeys(free[:9], "anomaly"))
    compare(merge, theirs.path)
    assert (len(merge.rows), merge.total, merge.n_open) == (5, 9, 9)
