"""Parts of an archive's scores: whole or not there, each image once, whoever writes them."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

from amatch_widgets.archive.parts import Parts
from amatch_widgets.errors import ConfigError, WorkspaceError
from amatch_widgets.images import local_copy

N = 25


@pytest.fixture
def parts(tmp_path):
    return Parts.create(tmp_path / "x", fingerprint="ab", n_images=N, spec={"kind": "npy"}, part_rows=10)


def fill(parts, cycle, part, value=0.5, bad=()):
    start, stop = parts.bounds(part)
    scores = np.full(stop - start, value, np.float32)
    scores[[i - start for i in bad]] = np.nan
    ids = [f"image {i}" for i in range(start, stop)]
    parts.write(cycle, part, ids=ids, scores=scores, problems=dict.fromkeys(bad, "it is torn"))


def rows(parts, cycle):
    return [row for file in parts.files(cycle) for row in pq.read_table(file, partitioning=None).to_pylist()]


def test_what_is_written_is_there_once_and_in_order(parts):
    cycle = parts.begin("k1", "the model of cycle 3")
    assert (parts.n_parts, parts.missing(cycle), parts.done(cycle)) == (3, [0, 1, 2], [])
    for part in (2, 0, 1):
        fill(parts, cycle, part, part / 4, bad=[12] if part == 1 else ())
    assert (parts.missing(cycle), parts.done(cycle)) == ([], [0, 1, 2])
    found = rows(parts, cycle)
    assert [row["index"] for row in found] == list(range(N))
    assert [row["id"] for row in found] == [f"image {i}" for i in range(N)]
    assert found[12] == {"index": 12, "id": "image 12", "score": None, "problem": "it is torn"}
    assert parts.n_problems(cycle) == 1
    assert found[24] == {"index": 24, "id": "image 24", "score": 0.5, "problem": None}


def test_a_run_that_is_begun_again_goes_on_and_another_model_begins_another_cycle(parts):
    first = parts.begin("k1", "one")
    fill(parts, first, 1)
    again = Parts.create(parts.root, fingerprint="ab", n_images=N, spec={"kind": "npy"}, part_rows=999)
    assert again.part_rows == 10
    assert again.begin("k1", "one") == first
    assert again.missing(first) == [0, 2]
    second = again.begin("k2", "two")
    assert (second.number, again.missing(second)) == (2, [0, 1, 2])
    assert [c.note for c in Parts.open(parts.root).cycles()] == ["one", "two"]
    assert again.done(first) == [1]  # scores of every cycle are kept
    assert again.begin("k1", "one, once more").number == 3


def test_a_part_is_whole_or_not_there(parts, monkeypatch):
    cycle = parts.begin("k", "")

    def fails(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local_copy.os, "fsync", fails)
    with pytest.raises(WorkspaceError, match="No space left"):
        fill(parts, cycle, 0)
    monkeypatch.undo()
    assert parts.missing(cycle) == [0, 1, 2]
    assert [path.name for path in (parts.root / cycle.folder).iterdir()] == ["model.json"]
    (parts.root / cycle.folder / ".part-00001.parquet.1f.tmp").write_bytes(b"half")  # of a process that died
    assert parts.done(cycle) == []


def test_many_writers_of_the_same_part_leave_one(parts):
    cycle = parts.begin("k", "")
    copy = pickle.loads(pickle.dumps(parts))
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda k: fill(copy, cycle, k % 3), range(24)))
    assert [row["index"] for row in rows(parts, cycle)] == list(range(N))


def test_an_image_with_neither_score_nor_problem_is_refused(parts):
    cycle = parts.begin("k", "")
    scores = np.full(10, np.nan, np.float32)
    with pytest.raises(ValueError, match="either a score or a problem"):
        parts.write(cycle, 0, ids=["a"] * 10, scores=scores, problems={3: "torn"})
    with pytest.raises(ValueError, match="either a score or a problem"):
        parts.write(cycle, 0, ids=["a"] * 10, scores=np.zeros(10, np.float32), problems={3: "torn"})
    with pytest.raises(ValueError, match="5 images, not 10 ids"):
        parts.write(cycle, 2, ids=["a"] * 10, scores=scores, problems={})
    with pytest.raises(ConfigError, match="there are 3, from 0"):
        parts.bounds(3)


def test_the_folder_of_other_images_is_refused(parts):
    with pytest.raises(WorkspaceError, match="other images: 25"):
        Parts.create(parts.root, fingerprint="cd", n_images=N, spec={})
    with pytest.raises(WorkspaceError, match="where there are 26"):
        Parts.create(parts.root, fingerprint="ab", n_images=26, spec={})
    with pytest.raises(ConfigError, match="at least 1"):
        Parts.create(parts.root, fingerprint="ab", n_images=N, spec={}, part_rows=0)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1}', '{"format": 1, "n_images": "x", "part_rows": 2}']
)
def test_a_damaged_manifest_says_so(parts, text):
    (parts.root / "archive.json").write_text(text)
    with pytest.raises(WorkspaceError, match=r"archive\.json' is damaged"):
        Parts.open(parts.root)


def test_a_newer_format_and_a_missing_folder_say_so(parts, tmp_path):
    manifest = json.loads((parts.root / "archive.json").read_text())
    (parts.root / "archive.json").write_text(json.dumps(manifest | {"format": 9}))
    with pytest.raises(WorkspaceError, match="format 9"):
        Parts.open(parts.root)
    with pytest.raises(WorkspaceError, match="no scores are kept there"):
        Parts.open(tmp_path / "nothing")


def test_ids_and_indices_take_next_to_nothing(tmp_path):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=100_000, spec={})
    cycle = parts.begin("k", "")
    scores = np.random.default_rng(0).random(100_000, np.float32)
    ids = [f"tile_0123/cutout_{i:09d}" for i in range(100_000)]
    parts.write(cycle, 0, ids=ids, scores=scores, problems={})
    (file,) = parts.files(cycle)
    size = (parts.root / cycle.folder / "part-00000.parquet").stat().st_size
    assert size < 6 * 100_000  # 4 bytes of it are the score
    np.testing.assert_array_equal(pq.read_table(file, partitioning=None)["score"].to_numpy(), scores)


def test_a_cycle_keeps_the_precision_that_it_was_begun_with(tmp_path):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=3, spec={})
    assert parts.begun("k") is None
    cycle = parts.begin("k", "", "bfloat16")
    assert parts.begun("k") == parts.begin("k", "", "float32") == cycle
    assert Parts.open(tmp_path).cycles()[0].precision == "bfloat16"
    assert parts.begun("other") is None


def test_a_cycle_of_an_earlier_version_chooses_as_it_did(tmp_path):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=3, spec={})
    (tmp_path / "cycle=0001").mkdir()
    (tmp_path / "cycle=0001" / "model.json").write_text('{"number": 1, "key": "k", "note": ""}')
    assert parts.begin("k", "", "float32").precision == "auto"
