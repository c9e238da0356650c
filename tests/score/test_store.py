from __future__ import annotations

import errno
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from amatch_widgets.errors import ConfigError, StateError, WorkspaceError
from amatch_widgets.score import writer as writer_module
from amatch_widgets.score.store import ScoreStore

N = 50


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return ScoreStore(tmp_path if request.param == "disk" else None)


@pytest.fixture
def disk(tmp_path):
    return ScoreStore(tmp_path)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(writer_module, "_PART_ROWS", 16)


def _ids(indices):
    return [f"a/{i}.png" for i in indices]


def _write(store, cycle, *, n=N, offset=0.0, batch=7, finish=True):
    """Write n scores in batches, the last 3 images being unreadable, and return them."""
    scores = (np.arange(n, dtype=np.float32) + np.float32(offset)) / 1000
    scores[-3:] = np.nan
    writer = store.writer(cycle, n_images=n, model=f"model {cycle}")
    for start in range(0, n - 3, batch):
        indices = np.arange(start, min(start + batch, n - 3))
        writer.add(indices, _ids(indices), scores[indices])
    if finish:
        writer.finish()
    return scores


def _folder(tmp_path, cycle):
    return tmp_path / "scores" / f"cycle={cycle:04d}"


def _files(tmp_path, cycle):
    return sorted(path.name for path in _folder(tmp_path, cycle).iterdir())


# ---- on disk and in memory ------------------------------------------------------------------


def test_scores_come_back_by_index_and_are_nan_where_there_is_none(store):
    scores = _write(store, 3)
    loaded = store.load(3, N)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, scores)
    assert np.isnan(loaded[-3:]).all()


def test_a_store_without_scores_has_no_cycles(store):
    assert store.cycles() == []
    with pytest.raises(WorkspaceError, match=r"no complete scores of cycle 1; there are those of \[\]"):
        store.load(1, N)


def test_cycles_are_told_in_rising_order(store):
    for cycle in (10, 2, 0, 12345):
        _write(store, cycle)
    assert store.cycles() == [0, 2, 10, 12345]
    assert "[0, 2, 10, 12345]" in repr(store)


def test_a_cycle_knows_its_model_and_counts(store):
    _write(store, 1)
    info = store.info(1)
    assert (info.cycle, info.model, info.n_images, info.n_scored) == (1, "model 1", N, N - 3)
    assert info.time.endswith("+00:00")


def test_batches_may_come_in_any_order_and_as_lists(store):
    writer = store.writer(0, n_images=4, model="m")
    writer.add([3, 1], ["d", "b"], [0.5, 0.25])
    writer.add([], [], [])
    writer.add(np.array([0]), ("a",), np.array([1.0]))
    writer.finish()
    np.testing.assert_array_equal(store.load(0, 4), np.float32([1.0, 0.25, np.nan, 0.5]))


def test_a_cycle_in_which_no_image_could_be_read_is_complete_and_empty(store):
    store.writer(0, n_images=4, model="m").finish()
    assert np.isnan(store.load(0, 4)).all()


def test_an_unfinished_cycle_does_not_count(store):
    _write(store, 1)
    _write(store, 2, finish=False)
    assert store.cycles() == [1]


def test_an_abandoned_cycle_does_not_count_and_takes_no_more(store):
    writer = store.writer(1, n_images=N, model="m")
    writer.add([0], ["a"], [0.5])
    writer.abandon()
    for call in (writer.finish, lambda: writer.add([1], ["b"], [0.5])):
        with pytest.raises(StateError, match="finished or abandoned"):
            call()
    assert store.cycles() == []


def test_a_finished_writer_takes_no_more_and_cannot_be_abandoned_after_all(store):
    writer = store.writer(1, n_images=N, model="m")
    writer.finish()
    writer.abandon()
    assert store.cycles() == [1]
    with pytest.raises(StateError, match="Begin a new writer"):
        writer.finish()


def test_writing_a_cycle_again_replaces_it(store, small_parts):
    _write(store, 1, n=N)
    scores = _write(store, 1, n=20, offset=0.5)
    np.testing.assert_array_equal(store.load(1, 20), scores)


def test_complete_scores_count_until_new_ones_of_the_same_cycle_are_finished(store, small_parts):
    scores = _write(store, 1)
    _write(store, 1, offset=0.5, finish=False)
    assert store.cycles() == [1]
    np.testing.assert_array_equal(store.load(1, N), scores)


def test_a_loaded_array_is_the_callers_own(store):
    scores = _write(store, 1)
    store.load(1, N)[:] = 0
    np.testing.assert_array_equal(store.load(1, N), scores)


def test_scores_of_a_source_of_another_size_are_refused(store):
    _write(store, 1)
    with pytest.raises(WorkspaceError, match="are of 50 images, but the source has 51"):
        store.load(1, N + 1)


@pytest.mark.parametrize(
    ("indices", "ids", "scores"),
    [([0, 1], ["a"], [0.5, 0.5]), ([0, 1], ["a", "b"], [0.5]), ([[0]], ["a"], [[0.5]])],
)
def test_lengths_that_differ_are_refused(store, indices, ids, scores):
    with pytest.raises(ValueError, match=r"indices, \d ids and"):
        store.writer(0, n_images=N, model="m").add(indices, ids, scores)


@pytest.mark.parametrize("index", [-1, N])
def test_an_index_that_is_not_in_the_source_is_refused(store, index):
    with pytest.raises(ValueError, match="do not fit 50 images"):
        store.writer(0, n_images=N, model="m").add([index], ["a"], [0.5])


def test_a_negative_cycle_is_refused(store):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        store.writer(-1, n_images=N, model="m")


def test_prune_keeps_the_latest(store):
    for cycle in (1, 2, 3, 4):
        _write(store, cycle)
    store.prune(2)
    assert store.cycles() == [3, 4]
    store.prune(5)
    assert store.cycles() == [3, 4]


def test_prune_keeps_at_least_one(store):
    with pytest.raises(ConfigError, match="at least 1"):
        store.prune(0)


def test_prune_of_an_empty_store_does_nothing(store):
    store.prune(1)
    assert store.cycles() == []


# ---- on disk --------------------------------------------------------------------------------


def test_making_a_store_writes_nothing(tmp_path):
    assert ScoreStore(tmp_path / "run").cycles() == []
    assert not (tmp_path / "run").exists()


def test_scores_survive_the_process(disk, tmp_path, small_parts):
    scores = _write(disk, 1)
    np.testing.assert_array_equal(ScoreStore(tmp_path).load(1, N), scores)
    assert ScoreStore(tmp_path).info(1) == disk.info(1)


def test_the_parts_have_the_columns_and_names_of_the_design(disk, tmp_path, small_parts):
    _write(disk, 3)
    parts = [f"part-{i:05d}.parquet" for i in range(3)]
    assert _files(tmp_path, 3) == ["complete.json", *parts]
    table = pq.read_table(_folder(tmp_path, 3) / parts[1], partitioning=None)
    assert {f.name: str(f.type) for f in table.schema} == {"id": "string", "index": "int64", "score": "float"}
    assert table["id"].to_pylist() == _ids(range(16, 32))
    assert [pq.read_metadata(_folder(tmp_path, 3) / part).num_rows for part in parts] == [16, 16, 15]


def test_a_batch_larger_than_a_part_is_split(disk, tmp_path, small_parts):
    scores = _write(disk, 0, batch=N)
    assert len(_files(tmp_path, 0)) == 4
    np.testing.assert_array_equal(disk.load(0, N), scores)


def test_hostile_ids_are_written(disk, tmp_path):
    ids = ["<img onerror>", "a\nb", "odd-\udce9", "\U0001f600", "'\"{{ }}"]
    writer = disk.writer(0, n_images=5, model="<b>&")
    writer.add(range(5), ids, [0.1] * 5)
    writer.finish()
    written = pq.read_table(_folder(tmp_path, 0) / "part-00000.parquet", partitioning=None)["id"].to_pylist()
    assert written == ["<img onerror>", "a\nb", "odd-\\udce9", "\U0001f600", "'\"{{ }}"]
    assert disk.info(0).model == "<b>&"
    assert not np.isnan(disk.load(0, 5)).any()


def test_an_interrupted_cycle_is_ignored_and_written_anew(disk, tmp_path, small_parts):
    _write(disk, 1)
    _write(disk, 2, n=N, finish=False)
    (_folder(tmp_path, 2) / ".part-00002.parquet.tmp").write_bytes(b"half a part")
    again = ScoreStore(tmp_path)
    assert again.cycles() == [1]
    scores = _write(again, 2, n=20)
    assert again.cycles() == [1, 2]
    assert _files(tmp_path, 2) == ["complete.json", "part-00000.parquet", "part-00001.parquet"]
    np.testing.assert_array_equal(again.load(2, 20), scores)


def test_parts_of_a_cycle_that_was_written_again_are_removed_when_the_new_ones_count(
    disk, tmp_path, small_parts
):
    _write(disk, 1)
    _write(disk, 1, n=20)
    assert _files(tmp_path, 1) == ["complete.json", "part-00003.parquet", "part-00004.parquet"]


def test_a_rewrite_that_was_cut_off_leaves_nothing_behind_the_next_one(disk, tmp_path, small_parts):
    _write(disk, 1)
    _write(disk, 1, offset=0.5, finish=False)
    assert len(_files(tmp_path, 1)) == 6
    scores = _write(disk, 1, n=20, offset=0.25)
    assert _files(tmp_path, 1) == ["complete.json", "part-00003.parquet", "part-00004.parquet"]
    np.testing.assert_array_equal(disk.load(1, 20), scores)


def test_a_cycle_with_a_damaged_record_is_written_anew(disk, tmp_path):
    _write(disk, 1)
    (_folder(tmp_path, 1) / "complete.json").write_text("{")
    scores = _write(disk, 1)
    np.testing.assert_array_equal(disk.load(1, N), scores)


def test_other_files_in_the_folder_are_left_alone(disk, tmp_path):
    _write(disk, 1)
    (tmp_path / "scores" / "notes.txt").write_text("mine")
    (tmp_path / "scores" / "cycle=x").mkdir()
    _write(disk, 2)
    disk.prune(1)
    assert disk.cycles() == [2]
    assert sorted(p.name for p in (tmp_path / "scores").iterdir()) == ["cycle=0002", "cycle=x", "notes.txt"]


def test_prune_removes_interrupted_cycles_of_the_past_but_not_one_that_is_being_written(disk, tmp_path):
    _write(disk, 1, finish=False)
    _write(disk, 2)
    _write(disk, 3, finish=False)
    disk.prune(1)
    assert sorted(p.name for p in (tmp_path / "scores").iterdir()) == ["cycle=0002", "cycle=0003"]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign", "other columns"])
def test_a_damaged_part_is_an_error_that_names_the_file(disk, tmp_path, small_parts, damage):
    _write(disk, 1)
    part = _folder(tmp_path, 1) / "part-00001.parquet"
    whole = part.read_bytes()
    part.unlink()
    if damage == "other columns":
        pq.write_table(
            pq.read_table(part.with_name("part-00000.parquet"), columns=["id"], partitioning=None), part
        )
    elif damage != "missing":
        part.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "foreign": b"x" * len(whole)}[damage]
        )
    with pytest.raises(
        WorkspaceError, match=r"part-00001.parquet' are damaged: .*Score again to replace them"
    ):
        disk.load(1, N)
    _write(disk, 1)
    disk.load(1, N)


def test_a_part_of_another_cycle_is_noticed(disk, tmp_path, small_parts):
    _write(disk, 1)
    _write(disk, 2, n=200)
    folder = _folder(tmp_path, 1)
    (_folder(tmp_path, 2) / "part-00010.parquet").replace(folder / "part-00001.parquet")
    with pytest.raises(
        WorkspaceError, match=r"part-00001.parquet.* index out of range: 160 to 175 of 50 images"
    ):
        disk.load(1, N)


def test_a_part_with_too_few_rows_is_noticed(disk, tmp_path, small_parts):
    _write(disk, 1)
    folder = _folder(tmp_path, 1)
    (folder / "part-00002.parquet").replace(folder / "part-00001.parquet")
    _write(disk, 2)
    (_folder(tmp_path, 2) / "part-00002.parquet").replace(folder / "part-00002.parquet")
    with pytest.raises(WorkspaceError, match=r"cycle=0001' are damaged: 46 rows instead of 47"):
        disk.load(1, N)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cycle": 1}', "\udc80"])
def test_a_damaged_record_is_an_error_that_names_the_file(disk, tmp_path, text):
    _write(disk, 1)
    (_folder(tmp_path, 1) / "complete.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WorkspaceError, match=r"complete.json' are damaged"):
        disk.load(1, N)


def test_a_full_disk_is_an_error_and_the_cycle_does_not_count(disk, tmp_path, monkeypatch, small_parts):
    _write(disk, 1)

    class Full:
        def __getattr__(self, name):
            return getattr(os, name)

        def fsync(self, file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer_module, "os", Full())
    with pytest.raises(
        WorkspaceError, match=r"scores of cycle 2 cannot be written to .*: No space left on device"
    ):
        _write(disk, 2)
    assert disk.cycles() == [1]
    assert not [name for name in _files(tmp_path, 2) if name.endswith(".parquet")]
    monkeypatch.undo()
    _write(disk, 2)
    assert disk.cycles() == [1, 2]


def test_a_disk_that_fills_up_at_the_very_end_leaves_no_complete_cycle(disk, monkeypatch):
    writer = disk.writer(1, n_images=N, model="m")
    writer.add([0], ["a"], [0.5])

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(WorkspaceError, match="Labels and earlier scores are safe"):
        writer.finish()
    assert disk.cycles() == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = ScoreStore(tmp_path / "file")
    with pytest.raises(WorkspaceError):
        store.writer(1, n_images=N, model="m")


def test_a_folder_that_cannot_be_removed_is_an_error(disk, monkeypatch):
    _write(disk, 1)
    _write(disk, 2)

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(WorkspaceError, match=r"cycle=0001' cannot be removed"):
        disk.prune(1)
    assert disk.cycles() == [2], "half a folder must not look complete"


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    (tmp_path / "scores").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        ScoreStore(tmp_path).cycles()
