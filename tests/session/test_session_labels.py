"""The labels of a session: kept at once, imported, held out, and the metrics that follow them."""

from __future__ import annotations

import pandas as pd
import pytest

from amatch_widgets.errors import LabelError, TooFewLabelsError, WorkspaceError
from amatch_widgets.events import LabelsChanged
from amatch_widgets.session import Session
from amatch_widgets.worker import State
from tests.session.helper import SKY, WAIT_S, Gate, cycle, judged_better, labels_of, truth

# ---- labels -----------------------------------------------------------------------------------


def test_a_label_is_on_disk_and_told_when_the_call_returns(session):
    told = []
    session.hub.subscribe(told.append)
    i = SKY.ids[1]
    session.label({i: "normal"}, by="ann", tags=["ring"], note="faint", reason="top: rank 1")
    assert f'"{i}"' in (session.path / "labels.jsonl").read_text().splitlines()[-1]
    assert told == [LabelsChanged((i,))]
    line = session.labels.get(i)
    assert (line.by, line.tags, line.note, line.reason, line.score, line.step) == (
        "ann",
        ("ring",),
        "faint",
        "top: rank 1",
        None,
        None,
    )


def test_a_label_keeps_the_score_it_was_shown_with_and_the_step_of_that_score(session, monkeypatch):
    judged_better(monkeypatch)
    cycle(session)
    gate = Gate(session, at_step=3)
    session.train(2)
    with gate:  # at step 3, but the scores are of step 2
        session.label({SKY.ids[1]: "normal"})
    session.wait(WAIT_S)
    line = session.labels.history(SKY.ids[1])[-1]
    assert line.step == 2
    assert 0 <= line.score <= 1
    session.close()
    with Session.open(session.path) as again:
        again.label({SKY.ids[2]: "normal"})
        line = again.labels.get(SKY.ids[2])
        assert line.step == 4
        assert line.score == pytest.approx(float(again.scores[2]))


def test_the_annotator_is_written_beside_the_label(tmp_path, light):
    with Session(SKY, path=tmp_path / "run", train=light(), annotator="ann") as session:
        session.label({SKY.ids[0]: "normal"})
        session.label({SKY.ids[1]: "normal"}, by="ben")
        assert [session.labels.get(i).by for i in SKY.ids[:2]] == ["ann", "ben"]


def test_an_unknown_id_changes_nothing(session):
    before = labels_of(session)
    with pytest.raises(
        LabelError, match=r"Unknown image id 'x' and 1 more. The ids of 'sky-0' look like '00'"
    ):
        session.label({SKY.ids[0]: "normal", "x": "normal", "y": "anomaly"})
    with pytest.raises(LabelError, match=r"Unknown label 'anomly'.*Did you mean 'anomaly'"):
        session.label({SKY.ids[0]: "normal", SKY.ids[1]: "anomly"})
    assert labels_of(session) == before


def test_labelling_nothing_is_nothing(session):
    told = []
    session.hub.subscribe(told.append)
    session.label({})
    assert told == []


def test_labels_given_at_the_start_do_not_override_later_ones(make_session, tmp_path):
    table = tmp_path / "labels.csv"
    a, b, c = SKY.ids[:3]
    table.write_text(f"id,label\n{a},anomaly\n{b},anomaly\n{c},removed\n")
    with make_session(labels=table) as session:
        assert labels_of(session) == {a: "anomaly", b: "anomaly"}
        session.label({a: "normal", b: None})
    with make_session(labels=table) as session:
        assert labels_of(session) == {a: "normal"}
        assert len(session.labels.history()) == 4


def test_importing_a_table_again_changes_nothing(session, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\n{SKY.ids[1]},anomaly\nzz,normal\n")
    found = session.import_labels(table)
    assert found.unknown_ids == ("zz",)
    version = session.labels.version
    session.import_labels(table)
    assert session.labels.version == version
    session.label({SKY.ids[0]: None})
    session.import_labels(table)  # asked for by name: it does count
    assert session.labels.get(SKY.ids[0]).label == "normal"


@pytest.mark.parametrize("source", ["import", "start"])
def test_an_export_never_overwrites_the_imported_table(make_session, tmp_path, source):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n{SKY.ids[0]},normal\n")
    session = make_session(labels=table if source == "start" else None)
    session.import_labels(table)
    with pytest.raises(WorkspaceError, match="never written to"):
        session.export(table)
    session.close()
    with Session.open(session.path) as again, pytest.raises(WorkspaceError, match="never written to"):
        again.export(table)
    assert table.read_text() == f"id,label\n{SKY.ids[0]},normal\n"


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (None, "found 0 normal and 0 anomaly. Label at least one image as normal and one as anomaly"),
        (
            {"00": "normal", "01": "normal"},
            "found 2 normal and 0 anomaly. Label at least one image as anomaly",
        ),
        ({"00": "anomaly"}, "found 0 normal and 1 anomaly. Label at least one image as normal"),
    ],
)
def test_training_says_which_labels_are_still_needed(make_session, labels, text):
    session = make_session(labels=labels)
    with pytest.raises(TooFewLabelsError, match=text):
        session.train()
    assert session.state is State.IDLE


# ---- metrics ----------------------------------------------------------------------------------


def test_metrics_are_too_few_to_say_before_and_with_few_held_out(session):
    assert "too few to say: 0 anomalies of 0 held out" in repr(session.metrics.auroc)
    cycle(session)
    assert session.metrics.auroc.value is None
    assert "too few to say" in repr(session.history.cycles[0].metrics.auprc)


def test_metrics_follow_the_labels_that_are_held_out(session):
    cycle(session)
    session.label(truth(60))
    held_out = session.labels.for_split("test")
    metrics = session.metrics
    assert metrics.auroc.n_total == len(held_out) > 8
    assert metrics.auroc.n_anomalies == sum(label == "anomaly" for label in held_out.values()) >= 2
    assert metrics.auroc.low <= metrics.auroc.value <= metrics.auroc.high
    assert session.metrics is metrics  # kept while nothing changes


def test_held_out_labels_are_not_learnt_from(session):
    session.label(truth(60))
    known = session._learnable()[1]
    held_out = {SKY.ids.index(i) for i in session.labels.for_split("test")}
    assert held_out
    assert not held_out & set(known)
    assert len(held_out) + len(known) == 60


# ---- undo, stars, tags ------------------------------------------------------------------------


def test_undo_takes_back_one_call_tells_it_and_survives_a_restart(session):
    a, b = SKY.ids[:2]
    before = labels_of(session)
    session.label({a: "anomaly", b: "normal"})
    session.annotate(a, star=True)
    told = []
    session.hub.subscribe(told.append)
    assert session.undo() == (a,)
    assert told == [LabelsChanged((a,))]
    assert not session.labels.get(a).star
    session.close()
    with Session.open(session.path) as again:
        assert again.undo() == (a, b)
        assert labels_of(again) == before
        assert again.redo() == (a, b)
        assert labels_of(again) == before | {a: "anomaly", b: "normal"}


def test_the_first_labels_and_tables_are_not_undone(session, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"id,label\n{SKY.ids[-1]},anomaly\n")
    session.import_labels(table)
    before = labels_of(session)
    assert session.undo() == ()
    assert labels_of(session) == before


def test_an_unknown_id_is_not_starred(session):
    with pytest.raises(LabelError, match="Nothing was changed"):
        session.annotate([SKY.ids[0], "nowhere.png"], star=True)
    assert session.labels.unlabelled() == {}


def test_the_shortlist_tells_what_is_starred_whether_it_is_labelled_or_not(session):
    session.embed()
    session.wait(WAIT_S)
    free = session.ranking("highest", show="unlabelled")[0]
    session.annotate(SKY.ids[free], star=True, add=["lens"], note="odd")
    row = session.top(len(SKY)).set_index("id").loc[SKY.ids[free]]
    assert (row["label"], row["tags"], row["note"], bool(row["starred"])) == ("", "lens", "odd", True)


# ---- from elsewhere ---------------------------------------------------------------------------


def test_stars_from_a_list_are_kept_and_one_undo_takes_them_back(session, tmp_path):
    first, second = session.source.ids[:2]
    session.annotate(first, star=True)
    path = tmp_path / "remembered_files.csv"
    path.write_text(f"filename,timestamp\n{first},2026\n{second},2026\nnone,2026\n")
    found = session.import_stars(path)
    assert (found.image_ids, found.unknown_ids) == ((first, second), ("none",))
    assert [session.labels.get(i).star for i in (first, second)] == [True, True]
    assert session.undo() == (second,)
    with pytest.raises(WorkspaceError, match="never written to"):
        session.export(path)


def test_labels_of_astronomaly_are_taken_from_the_number_on_that_one_says(session, tmp_path):
    ids = [i for i in session.source.ids if session.labels.get(i) is None][:3]
    path = tmp_path / "ml_scores.csv"
    pd.DataFrame({"score": [1, 2, 3], "human_label": [5, 2, -1]}, index=ids).to_csv(path)
    session.import_labels(path, anomaly_from=5)
    assert [labels_of(session).get(i) for i in ids] == ["anomaly", "normal", None]
