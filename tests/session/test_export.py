"""The shortlist: a table of what was chosen, written whole and over nothing that is precious."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.errors import ConfigError, ImageReadError, WorkspaceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.labels import Label
from amatch_widgets.session.export import shortlist
from amatch_widgets.session.export import write_shortlist as write
from amatch_widgets.session.provenance import Provenance

PROVENANCE = Provenance(
    software="amatch-widgets 0.1.0",
    date="2026-07-30T12:00:00+00:00",
    session="run",
    source="cutouts",
    fingerprint="f00",
    n_images=5,
    ranked_by="instant",
    ranking="Ranked by the instant tier.",
    model="ab" * 16,
)
IDS = ["a", "007", "c,d", 'e"f\ng', "ü\u2028"]
COLUMNS = [
    "id",
    "score",
    "rank",
    "label",
    "tags",
    "note",
    "starred",
    "ra",
    "dec",
    "labelled_by",
    "labelled_at",
    "rank_instant",
    "rank_deep",
]
NOTE = "see\nthere, too"
CHOSEN = np.array([3, 0, 1, 2])


@pytest.fixture
def table():
    source = ArraySource(np.zeros((5, 4, 4), np.uint8), ids=IDS)
    scores = np.array([0.5, 0.25, np.nan, 0.75, 0.125], np.float32)
    ranks = np.array([2, 3, 0, 1, 4])
    return shortlist(
        source,
        scores,
        ranks,
        [said("007", "anomaly", tags=("ring", "blue"), note=NOTE)],
        CHOSEN,
        instant=np.array([0.5, 0.5, np.nan, 0.75, 0.5], np.float32),
    )


def said(image_id, label, **more):
    return Label(image_id=image_id, label=label, **more)


def write_shortlist(table, path, *, protected):
    return write(table, path, PROVENANCE, protected=protected)


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_table_has_a_row_per_image_in_the_order_wanted(table):
    assert list(table.columns) == COLUMNS
    assert table["id"].tolist() == ['e"f\ng', "a", "007", "c,d"]
    assert table["rank"].tolist() == [1, 2, 3, 0]
    assert table["rank_instant"].tolist() == [1, 2, 2, 0]  # equal scores share one
    assert table["rank_deep"].tolist() == [0, 0, 0, 0]
    assert table["label"].tolist() == ["", "", "anomaly", ""]
    assert table["tags"].tolist() == ["", "", "ring;blue", ""]


def test_ids_notes_and_scores_survive_the_file(table, tmp_path):
    path = write_shortlist(table, tmp_path / "new" / "shortlist.csv", protected=())
    found = read(path)
    assert found["id"].tolist() == table["id"].tolist()
    assert found["note"].tolist() == table["note"].tolist()
    assert found["score"].tolist() == ["0.75", "0.5", "0.25", ""]
    assert [p.name for p in path.parent.iterdir()] == ["shortlist.csv"]


def test_half_a_character_does_not_lose_the_export(tmp_path):
    source = ArraySource(np.zeros((2, 4, 4), np.uint8))
    source.ids = ["\udcff.png", "b"]
    history = [said("b", "normal", tags=("\ud800",), note="\ud83d", by="\udfff")]
    table = shortlist(source, np.zeros(2, np.float32), np.array([1, 2]), history, np.arange(2))
    found = read(write_shortlist(table, tmp_path / "shortlist.csv", protected=()))
    assert found["id"].tolist() == ["\\udcff.png", "b"]
    assert found.loc[1, ["tags", "note", "labelled_by"]].tolist() == ["\\ud800", "\\ud83d", "\\udfff"]


def test_who_gave_a_label_is_not_who_starred_or_noted_it():
    source = ArraySource(np.zeros((3, 4, 4), np.uint8), ids=["a", "b", "c"])
    first, again = {"score": 0.5, "reason": "top: rank 1"}, {"score": 0.7, "reason": "top: rank 3"}
    history = [
        said("a", "anomaly", by="ann", time="1", **first),
        said("a", "anomaly", by="ben", time="2", star=True, note="!", **first),
        said("b", "anomaly", by="ann", time="3", **first),
        said("b", "normal", by="ben", time="4", **first),
        said("b", "normal", by="eve", time="5", **again),  # looked again, and said the same
        said("c", "normal", by="ann", time="6", **first),
        said("c", None, by="ben", time="7", star=True, **first),
    ]
    table = shortlist(source, np.full(3, np.nan, np.float32), np.zeros(3, np.int64), history, np.arange(3))
    assert table["labelled_by"].tolist() == ["ann", "eve", ""]
    assert table["labelled_at"].tolist() == ["1", "5", ""]
    assert table["label"].tolist() == ["anomaly", "normal", ""]
    assert table["starred"].tolist() == [True, False, True]


def test_positions_are_there_where_the_source_knows_them():
    class Catalogue(ArraySource):
        def position(self, index):
            if index == 1:
                raise ImageReadError("b", "it is cut off")
            return [(370.5, -41.25), None, None, (10.0, 91.0)][index]

    source = Catalogue(np.zeros((4, 4, 4), np.uint8))
    table = shortlist(source, np.zeros(4, np.float32), np.arange(1, 5), [], np.arange(4))
    np.testing.assert_array_equal(table[["ra", "dec"]], [[10.5, -41.25]] + [[np.nan, np.nan]] * 3)


def test_an_older_shortlist_and_any_other_file_are_replaced(table, tmp_path):
    path = tmp_path / "shortlist.csv"
    path.write_text("anything")
    table = table.assign(model="ab" * 16)  # as a session writes it
    write_shortlist(table, path, protected=())
    write_shortlist(table[:1], path, protected=())
    assert len(read(path)) == 1


@pytest.mark.parametrize("name", ["labels.csv", "link.csv", "sub/../labels.csv"])
def test_a_table_that_was_imported_is_never_written_to(table, tmp_path, name):
    path = tmp_path / "labels.csv"
    path.write_text("id,score,rank,label,tags,note\n")
    (tmp_path / "link.csv").symlink_to(path)
    (tmp_path / "sub").mkdir()
    with pytest.raises(WorkspaceError, match=r"never written to. Choose another name"):
        write_shortlist(table, tmp_path / name, protected={path.resolve()})
    assert path.read_text() == "id,score,rank,label,tags,note\n"


@pytest.mark.parametrize(
    "header",
    [
        "id,label",
        "filename;label",
        "\ufeffID,Label,ra",
        '"filename"\t"label"',
        "id,score,rank,label,tags,note,x",
    ],
)
def test_no_other_table_of_labels_is_written_over_either(table, tmp_path, header):
    path = tmp_path / "labels.csv"
    path.write_text(f"{header}\na,anomaly\n", encoding="utf-8")
    with pytest.raises(WorkspaceError, match="never written to"):
        write_shortlist(table, path, protected=())
    assert path.read_text(encoding="utf-8").endswith("a,anomaly\n")


def test_a_full_disk_is_an_error_and_leaves_the_older_file(table, tmp_path, monkeypatch):
    path = tmp_path / "shortlist.csv"
    path.write_text("older")

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkspaceError, match=r"No space left on device. Choose a file in a folder"):
        write_shortlist(table, path, protected=())
    assert path.read_text() == "older"


def test_a_folder_in_the_place_of_the_file_is_an_error(table, tmp_path):
    folder = tmp_path / "a.csv"
    folder.mkdir()
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_shortlist(table, folder, protected=())
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_an_older_shortlist_of_other_columns_is_replaced_too(table, tmp_path):
    path = tmp_path / "shortlist.csv"
    path.write_text("id,score,rank,label,tags,note,starred\na,1,1,anomaly,,,False\n")
    assert len(read(write_shortlist(table, path, protected=()))) == 4


@pytest.mark.parametrize("name", ["shortlist", "shortlist.txt", ".csv", "a.fits.gz", "\0"])
def test_a_format_that_is_not_known_names_those_that_are(table, tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.csv, \.parquet, \.vot, \.xml, \.fits, \.reg"):
        write_shortlist(table, tmp_path / name, protected=())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".parquet", ".vot", ".xml", ".fits", ".reg", ".FITS"])
def test_a_file_of_another_program_is_never_replaced_but_an_own_one_is(table, tmp_path, ending):
    table["ra"] = table["dec"] = 1.0
    path = tmp_path / f"catalogue{ending}"
    path.write_bytes(b"somebody's " * 50_000)
    with pytest.raises(WorkspaceError, match="was not written by amatch-widgets, so it is not replaced"):
        write_shortlist(table, path, protected=())
    assert path.read_bytes() == b"somebody's " * 50_000
    path.unlink()
    write_shortlist(pd.concat([table] * 5000), path, protected=())  # too long to be read whole
    n_bytes = path.stat().st_size
    write_shortlist(table, path, protected=())
    assert path.stat().st_size < n_bytes
