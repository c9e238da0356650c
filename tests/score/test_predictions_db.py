"""The database that AnomalyMatch 2 keeps its scores in."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest

from amatch_widgets.errors import ScoreError
from amatch_widgets.score.elsewhere import read_scores

# As its source says, schema version 4.
TABLES = """
CREATE TABLE catalogues (idx INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, filename TEXT NOT NULL UNIQUE, score INTEGER NOT NULL,
    catalogue_idx INTEGER REFERENCES catalogues(idx)
);
CREATE INDEX idx_results_score ON results(score);
CREATE TABLE run_metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def bits(score):
    return struct.unpack("<I", struct.pack("<f", score))[0]


@pytest.fixture
def make(tmp_path):
    """Write a database in the way of AnomalyMatch: with a log, closed at the end."""

    def write(rows, *, version="4", path=None):
        path = tmp_path / "predictions.db" if path is None else path
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA page_size=8192")
            database.executescript(TABLES)
            if version is not None:
                database.execute("INSERT INTO run_metadata VALUES ('schema_version', ?)", (version,))
            database.execute("""INSERT INTO run_metadata VALUES ('model_sha256', '"abc"')""")
            database.executemany("INSERT OR REPLACE INTO results(filename, score) VALUES (?, ?)", rows)
            database.commit()
        return path

    return write


def test_scores_are_the_bits_of_float32(make, tmp_path):
    scores = [0.0, 0.1, 1 / 3, 0.9, 0.90005, 1.0, 1e-40]
    path = make([(f"/data/ü {k}.png", bits(s)) for k, s in enumerate(scores)])
    found = read_scores(path)
    assert found.names.to_pylist() == [f"/data/ü {k}.png" for k in range(7)]
    np.testing.assert_array_equal(found.scores, np.array(scores, np.float32).astype(np.float64))
    assert (found.origin, found.without_endings) == ("'predictions.db' (AnomalyMatch 2)", False)
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.db"]  # nothing was made beside it


def test_more_rows_than_one_block_and_none_at_all(make, tmp_path, monkeypatch):
    monkeypatch.setattr("amatch_widgets.score.predictions_db._ROWS", 3)
    assert read_scores(make([(str(k), bits(k / 7)) for k in range(8)])).names.to_pylist() == list("01234567")
    assert len(read_scores(make([], path=tmp_path / "empty.db")).names) == 0


def test_a_folder_that_cannot_be_written_is_no_hindrance(make, tmp_path):
    path = make([("a", bits(0.5))])
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert read_scores(path).scores.tolist() == [0.5]
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("version", ["3", "5", "true", "not json", '"4"', None])
def test_another_version_is_refused_as_its_numbers_would_mean_something_else(make, version):
    with pytest.raises(ScoreError, match=r"has the schema version .*; this program reads 4"):
        read_scores(make([("a", 0x3800)], version=version))


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("a", bits(1.5)),
        ("a", bits(-0.5)),
        ("a", -1),
        ("a", 2**32),
        ("a", bits(float("nan"))),
        ("a", "high"),
        (b"a", 0),
    ],
)
def test_what_is_no_name_or_no_score_is_damage(make, name, score):
    with pytest.raises(ScoreError, match=r"is damaged: the image b?'a' has the score"):
        read_scores(make([("fine", bits(0.5)), (name, score)]))


def test_a_run_that_is_not_over_is_refused(make, tmp_path):
    path = make([("a", bits(0.5))])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO results(filename, score) VALUES ('b', 0)")
        writer.commit()
        with pytest.raises(
            ScoreError, match=r"is being written, or its run was cut off: 'predictions\.db-wal'"
        ):
            read_scores(path)
    assert len(read_scores(path).names) == 2


def test_another_database_and_a_cut_one_are_refused(tmp_path, make):
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE t (x)")
        database.commit()
    with pytest.raises(
        ScoreError, match="cannot be read as scores of AnomalyMatch: no such table: run_metadata"
    ):
        read_scores(other)
    path = make([(f"{k:05d}" * 20, bits(0.5)) for k in range(2000)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ScoreError, match="cannot be read as scores of AnomalyMatch"):
        read_scores(path)
    path.write_bytes(data[:16] + b"\xff" * 5000)
    with pytest.raises(ScoreError, match="cannot be read as scores of AnomalyMatch"):
        read_scores(path)


def test_a_name_that_sqlite_would_take_for_an_option_is_a_name(make, tmp_path):
    path = make([("a", bits(0.25))], path=tmp_path / "a?mode=rwc&b#c%41.db")
    assert read_scores(path).scores.tolist() == [0.25]


def test_a_column_cannot_be_chosen(make):
    with pytest.raises(ScoreError, match="column= is for tables of text"):
        read_scores(make([]), column="score")
