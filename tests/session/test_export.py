"""The shortlist: a table of what was chosen, written whole and over nothing that is precious."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amatch_widgets.errors import WorkspaceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.labels import Label
from amatch_widgets.session.export import shortlist, write_shortlist

IDS = ["a", "007", "c,d", 'e"f\ng', "ü\u2028"]


@pytest.fixture
def table():
    source = ArraySource(np.zeros((5, 4, 4), np.uint8), ids=IDS)
    scores = np.array([0.5, 0.25, np.nan, 0.75, 0.125], np.float32)
    ranks = np.array([2, 3, 0, 1, 4])
    labels = {"007": Label(image_id="007", label="anomaly", tags=("ring", "blue"), note="see\nthere, too")}
    return shortlist(source, scores, ranks, labels, np.array([3, 0, 1, 2]))


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_table_has_a_row_per_image_in_the_order_wanted(table):
    assert list(table.columns) == ["id", "score", "rank", "label", "tags", "note", "starred"]
    assert table["id"].tolist() == ['e"f\ng', "a", "007", "c,d"]
    assert table["rank"].tolist() == [1, 2, 3, 0]
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
    labels = {"b": Label(image_id="b", label="normal", tags=("\ud800",), note="\ud83d")}
    table = shortlist(source, np.zeros(2, np.float32), np.array([1, 2]), labels, np.arange(2))
    found = read(write_shortlist(table, tmp_path / "shortlist.csv", protected=()))
    assert found["id"].tolist() == ["\\udcff.png", "b"]
    assert (found["tags"][1], found["note"][1]) == ("\\ud800", "\\ud83d")


def test_an_older_shortlist_and_any_other_file_are_replaced(table, tmp_path):
    path = tmp_path / "shortlist.csv"
    path.write_text("anything")
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
    with pytest.raises(WorkspaceError, match="cannot be written"):
        write_shortlist(table, tmp_path, protected=())
    assert list(tmp_path.iterdir()) == []
