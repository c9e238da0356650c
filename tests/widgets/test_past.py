"""The history of the labels, as the dashboard lists it."""

from __future__ import annotations

import json
import time

import pytest

from amatch_widgets.events import LabelsChanged
from amatch_widgets.labels import LabelStore
from amatch_widgets.widgets.past import Past

HOSTILE = "<img src=x onerror=alert(1)>{{ 1 + 1 }}"


@pytest.fixture
def past(session, desk, gallery):
    return Past(session, desk, gallery)


@pytest.fixture
def free(session):
    return [i for i in session.source.ids if i not in session.labels]


def want(past, **data):
    past.vue_do_want({"view": "v", **data})
    return past.rows


def test_nothing_is_sent_until_somebody_looks_and_after_they_left(session, past, free):
    past.apply([LabelsChanged(())])
    assert past.rows == []
    assert len(want(past)) == 20  # given at the start
    past.vue_do_want({"view": "w"})
    past.vue_do_leave({"view": "v"})
    session.label({free[0]: "normal"})
    past.apply([LabelsChanged((free[0],))])
    assert past.rows[0]["id"] == free[0]
    past.vue_do_leave({"view": "w"})
    assert past.rows == []


def test_each_line_says_what_was_new_the_latest_first(session, past, free):
    i = free[0]
    session.label({i: "anomaly"}, by="ann", reason="top: rank 1")
    session.annotate(i, by="ben", star=True, add=["ring"], note=HOSTILE)
    session.annotate(i, by="ben", star=False, remove=["ring"], note="")
    session.undo()
    session.label({i: None}, by="ann")
    session.label({i: None}, by="ann")  # said again
    rows = want(past)[:6]
    minus = "\N{MINUS SIGN}"
    assert [(row["mark"], row["more"], row["undoes"]) for row in rows] == [
        ("clear", [], False),
        ("clear", [], False),
        ("", ["★ star", "+ ring", f"note: {HOSTILE}"], True),
        ("", ["star taken away", f"{minus} ring", "note taken away"], False),
        ("", ["★ star", "+ ring", f"note: {HOSTILE}"], False),
        ("anomaly", [], False),
    ]
    assert (rows[-1]["by"], rows[-1]["reason"], rows[-1]["id"], rows[-1]["now"]) == (
        "ann",
        "top: rank 1",
        i,
        "clear",
    )
    assert rows[-1]["time"] == session.labels.history(i)[0].time


def test_a_long_note_is_cut(session, past, free):
    session.annotate(free[0], note="x" * 3000)
    assert len(want(past)[0]["more"][0]) < 300


def test_lines_are_filtered_by_annotator_and_text(session, past, free):
    session.label({free[0]: "anomaly"}, by="ann")
    session.label({free[1]: "normal"}, by="ben", note="Two CORES")
    session.annotate(free[1], by="ann", add=["ring"])
    want(past)
    assert past.annotators == ["", "ann", "ben"]
    assert [row["id"] for row in want(past, by="ann", text="")] == [free[1], free[0]]
    assert [row["id"] for row in want(past, by="ben", text=" cores ")] == [free[1]]
    assert [row["id"] for row in want(past, by=None, text=free[0].upper())] == [free[0]]
    assert (want(past, by="", text="ring"), past.total) == ([], 0)
    assert len(want(past, by=None, text="")) == 23


def test_a_label_is_changed_by_the_gallery_and_undone_as_always(session, past, gallery, free):
    session.label({free[0]: "anomaly"})
    number = want(past)[0]["number"]
    past.vue_do_label({"number": number, "label": "normal"})
    assert session.labels.get(free[0]).label == "normal"
    assert past.rows[0]["id"] == free[0]
    assert {row["now"] for row in past.rows[:2]} == {"normal"}
    past.vue_do_label({"number": number, "label": "clear"})
    assert session.labels.get(free[0]) is None
    gallery.undo()
    assert session.labels.get(free[0]).label == "normal"


def test_a_second_look_hides_what_was_said_in_the_history_too(session, past, gallery, free):
    first, other = list(session.labels.current())[:2]
    session.label({first: "anomaly"}, note=HOSTILE, reason="top: rank 1", by="ann")
    want(past)
    gallery.choose(sort="second look")
    said = [row for row in past.rows if row["id"] in (first, other)]
    hidden = {
        "mark": "",
        "more": ["hidden until it is labelled again"],
        "reason": "",
        "now": "",
        "undoes": False,
    }
    assert all({key: row[key] for key in hidden} == hidden for row in said)
    assert len(said) == 3
    assert HOSTILE not in repr(past.rows)
    for text in ("anomaly", "onerror", "top: rank"):
        assert want(past, by=None, text=text) == []
    assert len(want(past, by="ann", text=first)) == 1

    want(past, by=None, text="")
    session.label({free[0]: "anomaly"})
    gallery.label(first, "normal")
    past.apply([LabelsChanged((first,))])
    assert [row["mark"] for row in past.rows if row["id"] == first] == ["normal", "", "anomaly"]
    assert [row["now"] for row in past.rows if row["id"] == other] == [""]
    gallery.choose(sort="recent")
    assert "" not in {row["now"] for row in past.rows}


def test_a_line_leads_to_its_image_in_the_list_or_else_among_all_images(session, past, gallery, free):
    last = free[-1]
    session.annotate(last, star=True)
    want(past)
    gallery.choose(sort="random")
    past.vue_do_go({"number": past.rows[0]["number"]})
    assert last in gallery.image_ids
    assert gallery.show == "unlabelled"
    labelled = past.rows[1]["id"]
    gallery.choose(sort="recent")
    gallery.choose(show="anomaly")
    normal = next(row for row in past.rows if row["mark"] == "normal")
    past.vue_do_go({"number": normal["number"]})
    assert normal["id"] in gallery.image_ids
    assert (gallery.show, gallery.sort) == ("all", "highest")
    past.go(labelled)
    assert labelled in gallery.image_ids


def test_what_makes_no_sense_is_told(session, past, desk):
    want(past)
    n = session.labels.version
    past.vue_do_go({"number": 99})
    past.vue_do_go({})
    past.vue_do_label({"number": 0, "label": "odd"})
    assert [level for level, _ in desk.said] == ["error"] * 3
    assert session.labels.version == n


def test_an_image_that_is_gone_is_told(past, desk):
    with pytest.raises(Exception, match="no image 'gone'"):
        past.go("gone")


def test_a_hundred_lines_are_sent_at_a_time_and_20000_are_quick(session, past, tmp_path):
    ids = session.source.ids
    with (tmp_path / "long.jsonl").open("w") as file:
        for k in range(20_000):
            record = {
                "id": ids[k % 150],
                "label": "normal",
                "by": f"a{k % 7}",
                "time": "t",
                "note": f"note {k}",
            }
            file.write(json.dumps(record) + "\n")
    session.labels = LabelStore(tmp_path / "long.jsonl")
    assert len(want(past)) == 100
    start = time.perf_counter()
    assert len(want(past, more=True)) == 200
    assert len(want(past, by="a3", text="note 19")) == 100
    past.apply([LabelsChanged(())])
    assert time.perf_counter() - start < 2  # 0.1 s on a quiet machine
    assert past.total == sum(k % 7 == 3 and str(k).startswith("19") for k in range(20_000))
