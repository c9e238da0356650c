"""Scores of other programs in a session: what they rank, and what takes their place."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.errors import NotTrainedError, ScoreError, StateError, WorkspaceError
from tests.session.helper import SKY, WAIT_S, Gate, cycle, judged_better

SCORES = np.random.default_rng(0).random(60).astype(np.float32)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "all_scores.csv"
    pd.DataFrame({"filename": SKY.ids, "score": SCORES}).to_csv(path, index=False)
    return path


def embedded(session):
    session.embed()
    session.wait(WAIT_S)
    return session


def test_imported_scores_rank_at_once_and_say_where_they_come_from(session, table):
    found = session.import_scores(table)
    assert (found.n_scored, found.notice) == (60, "")
    np.testing.assert_array_equal(session.scores, SCORES)
    assert session.ranked_by == "deep"
    assert session.ranking_note == "Ranked by the model behind 'all_scores.csv'."
    assert session.scores_model == "model behind 'all_scores.csv'"
    assert session.top(1)["id"].tolist() == [SKY.ids[int(SCORES.argmax())]]
    assert (session.step, session.cycle) == (0, 0)


def test_they_are_there_again_when_the_session_is_opened(session, table, make_session):
    session.import_scores(table)
    note = session.ranking_note
    session.close()
    again = make_session(labels=None)
    np.testing.assert_array_equal(again.scores, SCORES)
    assert again.ranking_note == note


def test_images_without_a_score_come_last(session, table):
    table.write_text(f"id,score\n{SKY.ids[3]},0.5\n{SKY.ids[4]},0.75\n")
    assert session.import_scores(table).n_scored == 2
    assert session.ranking()[:2].tolist() == [4, 3]
    assert session.top(10)["id"].tolist() == [SKY.ids[4], SKY.ids[3]]


def test_the_labels_rank_and_imported_scores_take_part_once_they_are_judged_better(
    session, table, monkeypatch
):
    embedded(session).import_scores(table)
    assert session.ranked_by == "instant"
    assert "The model behind 'all_scores.csv' ranks nothing: " in session.ranking_note
    judged_better(monkeypatch)
    session.label({session.query(1)[0].image_id: "normal"})
    session.query(1)
    assert session.ranked_by == "both"
    assert "The model behind 'all_scores.csv' takes part: " in session.ranking_note
    with pytest.raises(NotTrainedError, match="only its scores are here"):
        session.score(SKY)


def test_labels_of_before_test_nothing_and_those_after_do(session, table):
    embedded(session).import_scores(table)
    assert not session._tiers.has_tested(0)
    session.import_scores(table)  # so others may still take their place
    session.label({session.query(1)[0].image_id: "normal"})
    session.query(1)
    assert session._tiers.has_tested(0)
    with pytest.raises(StateError, match=r"tested the scores of 'all_scores\.csv' already"):
        session.import_scores(table)


def test_the_first_training_takes_their_place(session, table):
    session.import_scores(table)
    cycle(session)
    assert session.scores_cycle == 1
    assert session.scores_model == "model of cycle 1"
    with pytest.raises(StateError, match="trained a model of its own"):
        session.import_scores(table)


def test_scores_that_come_while_a_training_runs_are_refused(session, table):
    session.train(3)
    with Gate(session), pytest.raises(StateError, match="trained a model of its own"):
        session.import_scores(table)
    session.wait(WAIT_S)
    assert session.scores_cycle == 1


def test_a_file_of_other_images_changes_nothing(session, table):
    table.write_text("id,score\nx,0.5\n")
    with pytest.raises(ScoreError, match="Is it of another set of images"):
        session.import_scores(table)
    assert session.ranked_by is None
    assert not (session.path / "scores").exists()


def test_the_file_is_never_written_over(session, table):
    session.import_scores(table)
    with pytest.raises(WorkspaceError, match="never written to"):
        session.export(table, n=3)


def test_an_export_says_that_the_scores_were_imported(session, table, tmp_path):
    session.import_scores(table)
    facts = session._provenance()
    assert (facts.ranked_by, facts.model) == ("deep", "")
    assert "all_scores.csv" in facts.ranking
    own = tmp_path / "own.csv"
    session.export(own, n=60)
    assert session.import_scores(own).n_scored == 60  # its own table is one of scores too
    np.testing.assert_array_equal(session.scores, SCORES)


def test_the_database_of_anomalymatch_ranks(session, tmp_path):
    path = tmp_path / "predictions.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE results (id INTEGER PRIMARY KEY, filename TEXT, score INTEGER)")
        database.execute("CREATE TABLE run_metadata (key TEXT, value TEXT)")
        database.execute("INSERT INTO run_metadata VALUES ('schema_version', '4')")
        rows = zip([f"/data/{i}" for i in SKY.ids], SCORES.view(np.uint32).tolist(), strict=True)
        database.executemany("INSERT INTO results(filename, score) VALUES (?, ?)", rows)
        database.commit()
    assert session.import_scores(path).n_scored == 60
    np.testing.assert_array_equal(session.scores, SCORES)
    assert session.ranking_note == "Ranked by the model behind 'predictions.db' (AnomalyMatch 2)."
