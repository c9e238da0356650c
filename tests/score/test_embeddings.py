"""Vectors on disk: there again after a kill, shared when complete, made anew when damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from amatch_widgets.errors import StateError, WorkspaceError
from amatch_widgets.score import embedding_files as files
from amatch_widgets.score import embeddings
from amatch_widgets.score.embeddings import EmbeddingStore, default_roots

N, D = 50, 8
KEY = {"source": "abc", "n_images": N, "backbone": "test_resnet", "views": [1, 2], "side": 64}
ARRAYS = {"mean": np.arange(6, dtype=np.float32), "late/axes": np.eye(3), "n": np.int64(7)}
WAIT_S = 60


def vectors_of(indices, dims=D):
    """Make vectors that are told by their index, and have no zeros."""
    rows = np.asarray(indices, np.int64)[:, None]
    return ((rows * 7 + np.arange(dims)) % 2039 + 1).astype(np.float16)


@pytest.fixture
def roots(tmp_path):
    return [tmp_path / "cache", tmp_path / "run" / "embeddings"]


@pytest.fixture
def opened(roots):
    """Open stores; all are closed in the end."""
    stores = []

    def make(*, key=KEY, n=N, roots=roots, **options):
        stores.append(EmbeddingStore.open(roots, key, n, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def begin(store, dims=D):
    store.set_projection(ARRAYS, dims)
    return store


def fill(store):
    """Write all that is missing."""
    missing = store.missing
    store.write(missing, vectors_of(missing, store.dims))
    return store


def made_before(opened, *, n_done=N):
    """Make a store, close it, and return its folder."""
    store = begin(opened())
    store.write(np.arange(n_done), vectors_of(np.arange(n_done)))
    store.close()
    return store.folder


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- what is written is there -----------------------------------------------------------------


def test_a_new_store_has_nothing(opened, roots):
    store = opened()
    assert (store.n_images, store.dims, store.n_done, store.n_unreadable) == (N, 0, 0, 0)
    assert store.projection is None
    assert not store.is_complete
    assert store.notice == ""
    np.testing.assert_array_equal(store.missing, np.arange(N))
    assert store.missing.dtype == np.int64
    assert store.folder.parent == roots[0]
    assert len(store.folder.name) == 16
    assert json.loads((store.folder / "key.json").read_text()) == KEY


def test_vectors_states_and_projection_come_back(opened):
    store = begin(opened())
    store.write([7, 3, 4, 5, 49], vectors_of([7, 3, 4, 5, 49]))
    store.mark_unreadable([0, 1])
    store.close()
    store = opened()
    done = [3, 4, 5, 7, 49]
    assert (store.dims, store.n_done, store.n_unreadable, store.is_complete) == (D, 5, 2, False)
    np.testing.assert_array_equal(np.flatnonzero(store.is_done), done)
    np.testing.assert_array_equal(store.missing, np.setdiff1d(np.arange(N), [0, 1, *done]))
    np.testing.assert_array_equal(store.vectors[done], vectors_of(done))
    assert not store.vectors[store.missing].any()
    assert store.projection.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(store.projection[name], array)
        assert store.projection[name].dtype == array.dtype
    assert store.notice == ""


def test_vectors_can_be_read_at_once_and_by_a_map_that_was_taken_before(opened):
    store = begin(opened())
    seen = store.vectors
    assert isinstance(seen, np.memmap)
    assert (seen.shape, seen.dtype) == ((N, D), np.float16)
    assert not seen.any()
    store.write([2, 40], vectors_of([2, 40]))
    np.testing.assert_array_equal(seen[[2, 40]], vectors_of([2, 40]))
    assert store.is_done[[2, 3, 40]].tolist() == [True, False, True]
    store.close()
    np.testing.assert_array_equal(seen[[2, 40]], vectors_of([2, 40]))


def test_the_file_holds_little_endian_rows_and_a_byte_for_each_image(opened):
    folder = fill(begin(opened())).folder
    assert (folder / "vectors.f16").read_bytes() == vectors_of(np.arange(N)).astype("<f2").tobytes()
    assert (folder / "state.u8").read_bytes() == b"\1" * N


def test_any_order_is_right_and_of_a_row_given_twice_the_last_counts(opened):
    store = begin(opened())
    rows = np.random.default_rng(0).permutation(N)
    values = vectors_of(rows)
    store.write(np.append(rows[0], rows), np.concatenate([values[:1] * 0 + 5, values]))
    np.testing.assert_array_equal(store.vectors, vectors_of(np.arange(N)))
    assert store.is_complete


def test_nothing_to_write_is_nothing(opened):
    store = begin(opened())
    store.write([], vectors_of([]))
    store.mark_unreadable([])
    assert (store.n_done, store.n_unreadable) == (0, 0)


def test_what_is_handed_out_cannot_be_written(opened):
    store = begin(opened())
    for array in (store.vectors, store.is_done, store.projection["mean"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    store.projection.clear()
    assert store.projection.keys() == ARRAYS.keys()


def test_the_projection_is_a_copy(opened):
    store = opened()
    mean = np.zeros(3)
    store.set_projection({"mean": mean}, 2)
    mean[0] = 1
    assert store.projection["mean"][0] == 0


def test_unreadable_images_found_before_the_projection_are_kept(opened):
    store = opened()
    store.mark_unreadable([4])
    store.close()
    store = opened()
    assert (store.n_unreadable, store.dims, store.notice) == (1, 0, "")
    fill(begin(store))
    assert (store.n_done, store.n_unreadable, store.is_complete) == (N - 1, 1, True)


def test_its_repr_is_one_line(opened):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    store.mark_unreadable([2, 3])
    assert repr(store) == f"EmbeddingStore('{store.folder}', 1 of 50 images, 2 unreadable, 8 dims)"
    store.close()
    assert repr(store).endswith("dims, closed)")


def test_half_a_million_rows_are_quick(opened):
    n = 500_000
    store = begin(opened(n=n))
    for start in range(0, n, 2000):
        rows = np.arange(start, start + 2000)
        store.write(rows, vectors_of(rows))
    assert store.is_complete
    store.close()
    again = opened(n=n)
    assert again.n_done == n
    np.testing.assert_array_equal(again.vectors[-1], vectors_of([n - 1])[0])


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_named(opened, bad):
    store = begin(opened())
    values = vectors_of([5, 6, 7])
    values[1, 3] = bad
    with pytest.raises(ValueError, match=r"images \[6\] are not finite"):
        store.write([5, 6, 7], values)
    assert store.n_done == 0
    assert not store.vectors.any()


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([1, 2], vectors_of([1]), r"float16 \(1, 8\); float16 \(2, 8\) is what fits"),
        ([1], vectors_of([1], 7), r"\(1, 7\); float16 \(1, 8\)"),
        ([1], vectors_of([1]).astype(np.float32), r"are float32 .*float16"),
        ([N], vectors_of([1]), r"\[50\] are no list of positions among 50 images"),
        ([-1], vectors_of([1]), r"\[-1\] are no list"),
        ([1.0], vectors_of([1]), "float64"),
        ([True], vectors_of([1]), "bool"),
        ([[1]], vectors_of([1]), r"\(1, 1\)"),
        (1, vectors_of([1]), "no list"),
    ],
)
def test_what_does_not_fit_is_refused(opened, indices, values, message):
    store = begin(opened())
    with pytest.raises(ValueError, match=message):
        store.write(indices, values)
    assert (store.n_done, store.vectors.any()) == (0, False)


def test_wrong_indices_cannot_be_unreadable(opened):
    with pytest.raises(ValueError, match="no list of positions"):
        opened().mark_unreadable([N])


def test_without_a_projection_there_is_no_room_for_vectors(opened):
    store = opened()
    with pytest.raises(StateError, match="call set_projection first"):
        store.write([1], vectors_of([1]))
    with pytest.raises(StateError, match="call set_projection first"):
        _ = store.vectors


def test_a_second_projection_is_refused(opened):
    store = begin(opened())
    with pytest.raises(StateError, match="would not fit another"):
        store.set_projection(ARRAYS, D)
    store.close()
    with pytest.raises(StateError, match="would not fit another"):
        opened().set_projection(ARRAYS, D + 1)


@pytest.mark.parametrize(
    ("arrays", "dims"),
    [({}, 0), ({"_sizes": np.zeros(1)}, 3), ({"a": np.array([{}], object)}, 3)],
)
def test_a_projection_that_makes_no_sense_is_refused(opened, arrays, dims):
    store = opened()
    with pytest.raises(ValueError, match="cannot be kept"):
        store.set_projection(arrays, dims)
    assert (store.dims, store.projection) == (0, None)


def test_a_closed_store_takes_nothing_and_closing_twice_does_no_harm(opened):
    store = begin(opened())
    store.close()
    store.close()
    store.flush()
    for call in (
        lambda: store.write([1], vectors_of([1])),
        lambda: store.mark_unreadable([1]),
        lambda: store.set_projection(ARRAYS, D),
    ):
        with pytest.raises(StateError, match="is closed: nothing can be written"):
            call()
    with pytest.raises(StateError, match="open it again"):
        _ = store.vectors


def test_a_store_of_no_images_is_refused(roots):
    with pytest.raises(ValueError, match="1 or more"):
        EmbeddingStore.open(roots, KEY, 0)


def test_a_key_that_is_not_json_is_refused(roots):
    with pytest.raises(TypeError):
        EmbeddingStore.open(roots, {"a": object()}, N)


# ---- when it reaches the disk -----------------------------------------------------------------


def states_on_disk(store):
    return np.fromfile(store.folder / "state.u8", np.uint8)


def test_states_reach_the_disk_with_a_flush_and_not_before(opened):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    assert not states_on_disk(store).any()
    store.flush()
    assert np.flatnonzero(states_on_disk(store)).tolist() == [1]


def test_states_reach_the_disk_after_some_rows_by_themselves(opened, monkeypatch):
    monkeypatch.setattr(embeddings, "_FLUSH_ROWS", 10)
    store = begin(opened())
    store.write(np.arange(9), vectors_of(np.arange(9)))
    assert not states_on_disk(store).any()
    store.mark_unreadable([9])
    assert states_on_disk(store)[:11].tolist() == [1] * 9 + [2, 0]


def test_states_reach_the_disk_after_some_seconds_of_writing_by_themselves(opened, monkeypatch):
    now = 100.0
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: now)
    store = begin(opened())
    store.write([0], vectors_of([0]))
    now += embeddings._FLUSH_S - 0.1
    store.write([1], vectors_of([1]))
    assert not states_on_disk(store).any()
    now += 0.1
    store.write([2], vectors_of([2]))
    assert np.flatnonzero(states_on_disk(store)).tolist() == [0, 1, 2]


def test_a_complete_store_is_on_disk_at_once(opened):
    store = fill(begin(opened()))
    assert (states_on_disk(store) == 1).all()


def test_vectors_reach_the_disk_before_the_states_that_say_so(opened, monkeypatch):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    synced = []

    names = {path.stat().st_ino: path.name for path in store.folder.iterdir()}

    def fsync(number):
        synced.append((names[os.fstat(number).st_ino], int(states_on_disk(store).any())))

    monkeypatch.setattr(os, "fsync", fsync)
    store.flush()
    store.flush()  # nothing new: nothing to do
    assert synced == [("vectors.f16", 0), ("state.u8", 1)]


def test_a_failed_flush_leaves_states_that_are_right_and_is_made_up_for(opened, monkeypatch):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match=r"cannot be kept in .*No space left.*AMATCH_CACHE"):
            store.flush()
    assert not states_on_disk(store).any()
    store.flush()
    assert states_on_disk(store).sum() == 1


def test_a_failed_write_leaves_the_images_missing(opened, monkeypatch):
    store = begin(opened())
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_at", no_space)
        with pytest.raises(WorkspaceError, match=r"No space left.*Labels and scores are safe"):
            store.write([1], vectors_of([1]))
    assert store.n_done == 0
    assert fill(store).is_complete


def test_a_failed_last_flush_still_gives_the_store_free(opened, monkeypatch):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(WorkspaceError, match="No space left"):
            store.close()
    again = opened()
    assert (again.folder, again.n_done) == (store.folder, 0)
    assert fill(again).is_complete


def test_writes_that_the_system_cuts_short_are_gone_on_with(tmp_path):
    class Slow:
        """Takes 5 bytes a call."""

        def __init__(self):
            self.data = bytearray(40)

        def seek(self, offset):
            self.place = offset

        def write(self, data):
            part = bytes(data[:5])
            self.data[self.place : self.place + len(part)] = part
            self.place += len(part)
            return len(part)

    slow = Slow()
    values = vectors_of([1, 2])
    files.write_at(slow, 4, values.view(np.uint8))
    assert bytes(slow.data) == b"\0" * 4 + values.tobytes() + b"\0" * 4


# ---- who uses it ------------------------------------------------------------------------------


def test_a_complete_store_is_shared_and_only_read(opened):
    first = fill(begin(opened()))
    second, third = opened(), opened()
    assert first.folder == second.folder == third.folder
    np.testing.assert_array_equal(second.vectors, first.vectors)
    assert second.missing.size == 0
    with pytest.raises(StateError, match="is shared: nothing can be written"):
        second.write([1], vectors_of([1]))
    first.close()
    assert third.vectors[1, 0] == vectors_of([1])[0, 0]


def test_while_one_fills_a_store_another_begins_the_next(opened, roots):
    first, second = begin(opened()), begin(opened())
    assert [first.folder.parent, second.folder.parent] == roots
    with pytest.raises(WorkspaceError) as info:
        opened()
    for root in roots:
        assert f"{str(root)!r} (another session is filling it)" in str(info.value)
    fill(first)
    assert opened().folder == first.folder  # complete: no matter that it is held
    fill(second)
    first.close()
    second.close()
    assert opened().folder == first.folder


def test_of_many_who_open_at_once_each_root_goes_to_one(opened, roots):
    barrier = threading.Barrier(8)
    outcomes = []

    def compete():
        barrier.wait(WAIT_S)
        try:
            outcomes.append(begin(opened()).folder.parent)
        except WorkspaceError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(o for o in outcomes if isinstance(o, Path)) == sorted(roots)
    assert sum("another session is filling it" in str(o) for o in outcomes) == 6


HOLDER = """
import sys
from pathlib import Path
from amatch_widgets.score.embeddings import EmbeddingStore
store = EmbeddingStore.open([Path(sys.argv[1])], {"a": 1}, 5)
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_that_fills_a_store_is_respected_until_it_dies(opened, roots):
    arguments = [sys.executable, "-c", HOLDER, str(roots[0])]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            assert opened(key={"a": 1}, n=5).folder.parent == roots[1]
        finally:
            process.kill()
        process.wait(WAIT_S)
    assert opened(key={"a": 1}, n=5).folder.parent == roots[0]


def test_a_complete_store_is_found_behind_one_that_is_not(opened):
    first, second = begin(opened()), begin(opened())
    first.close()
    fill(second)
    assert opened().folder == second.folder


def test_another_key_is_another_store(opened):
    folders = [opened(key=KEY | change).folder.name for change in ({}, {"side": 65}, {"x": None})]
    assert len(set(folders)) == 3


def test_the_order_of_a_key_does_not_matter_nor_whether_a_list_is_a_tuple(opened):
    folder = made_before(opened)
    assert opened(key=dict(reversed((KEY | {"views": (1, 2)}).items()))).folder == folder


def test_any_thread_may_give_the_store_free(opened):
    store = opened()
    thread = threading.Thread(target=store.close)
    thread.start()
    thread.join(10)
    assert opened().folder == store.folder


def test_readers_never_see_a_row_that_is_done_and_empty(opened):
    store = begin(opened(n=5000))
    wrong, has_ended = [], threading.Event()

    def read():
        while not has_ended.is_set():
            done = np.flatnonzero(store.is_done)
            if not np.array_equal(store.vectors[done], vectors_of(done)):
                wrong.append(done)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    rows = np.random.default_rng(0).permutation(5000)
    for start in range(0, 5000, 50):
        store.write(rows[start : start + 50], vectors_of(rows[start : start + 50]))
    has_ended.set()
    for reader in readers:
        reader.join(WAIT_S)
    assert wrong == []
    assert store.is_complete


# ---- roots ------------------------------------------------------------------------------------


def test_a_root_that_cannot_be_made_is_passed_over(opened, roots, tmp_path):
    (tmp_path / "file").touch()
    store = begin(opened(roots=[tmp_path / "file" / "cache", *roots]))
    assert store.folder.parent == roots[0]


def test_without_a_root_the_error_names_all_and_why(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(WorkspaceError) as info:
        EmbeddingStore.open([tmp_path / "file" / "cache", tmp_path / "run"], KEY, N)
    assert "file/cache' (Not a directory), " in str(info.value)
    assert "run' (Permission denied)." in str(info.value)
    assert "AMATCH_CACHE" in str(info.value)
    with pytest.raises(WorkspaceError, match="no folder was given"):
        EmbeddingStore.open([], KEY, N)


def test_a_complete_store_is_used_where_nothing_can_be_written(opened, monkeypatch):
    folder = made_before(opened)
    before = files_in(folder)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert opened().folder == folder
    assert files_in(folder) == before


@pytest.fixture
def nearly_full(monkeypatch):
    def make(free):
        usage = namedtuple("usage", "total used free")(10**9, 10**9 - free, free)  # noqa: PYI024
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    return make


def test_a_disk_without_room_is_told_before_anything_is_written(opened, nearly_full):
    store = opened()
    nearly_full(N * D * 2)  # room for the vectors, none for the projection
    with pytest.raises(WorkspaceError, match=r"[\d,]+ bytes are needed and 800 are free") as info:
        begin(store)
    assert repr(str(store.folder)) in str(info.value)
    assert (store.dims, files_in(store.folder)) == (0, ["key.json", "lock", "state.u8"])
    nearly_full(10**6)
    assert fill(begin(store)).is_complete


def test_a_root_without_room_is_passed_over_when_the_size_is_told(opened, roots, monkeypatch):
    usage = namedtuple("usage", "free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(799 if p.parent == roots[0] else 800))
    assert opened(max_dims=D).folder.parent == roots[1]
    with pytest.raises(WorkspaceError, match=r"cache' \(800 bytes are needed and 799 are free\)"):
        opened(roots=roots[:1], max_dims=D)
    assert opened(roots=roots[:1]).folder.parent == roots[0]  # and the lock was given back


def test_only_what_is_missing_needs_room(opened, roots, nearly_full):
    folder = made_before(opened, n_done=N - 2)
    nearly_full(2 * D * 2 - 1)
    with pytest.raises(WorkspaceError, match="32 bytes are needed"):
        opened(roots=roots[:1])
    nearly_full(2 * D * 2)
    assert opened().folder == folder


def test_a_relative_root_is_where_it_was_when_the_folder_changes(opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = opened(roots=["here"])
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert fill(begin(store)).folder.parent == tmp_path / "here"


@pytest.mark.parametrize(
    ("platform", "environment", "cache"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "/xdg", "AMATCH_CACHE": "/big"}, "/big"),
        ("linux", {"AMATCH_CACHE": "~/big"}, "home/big"),
        ("linux", {"AMATCH_CACHE": ""}, "home/.cache"),
        ("darwin", {}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {}, "home/AppData/Local"),
    ],
)
def test_the_cache_of_the_user_comes_first_then_the_session(
    platform, environment, cache, tmp_path, monkeypatch
):
    for name in ("AMATCH_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path / "home"), **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    session = tmp_path / "run"
    assert default_roots(session) == [
        tmp_path / cache / "amatch_widgets" / "embeddings",
        session / "embeddings",
    ]


def test_a_user_without_a_home_keeps_vectors_in_the_session(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AMATCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert default_roots(tmp_path) == [tmp_path / "embeddings"]


# ---- damage -----------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


DAMAGES = [
    (name, damage)
    for name in ("key.json", "projection.npz", "vectors.f16", "state.u8")
    for damage in (cut, lengthen, empty, garble, Path.unlink)
    # Other numbers are vectors too, and behind its end a zip file may have anything.
    if (name, damage) not in {("vectors.f16", garble), ("projection.npz", lengthen)}
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
@pytest.mark.parametrize("n_done", [20, N])
def test_a_damaged_store_is_made_anew_with_a_notice(opened, name, damage, n_done):
    folder = made_before(opened, n_done=n_done)
    damage(folder / name)
    store = opened()
    assert store.folder == folder
    assert f"{str(folder)!r} were damaged (" in store.notice
    assert "made anew" in store.notice
    assert "\n" not in store.notice
    assert (store.n_done, store.dims, store.projection) == (0, 0, None)
    fill(begin(store, D + 1))
    store.close()
    again = opened()
    assert (again.notice, again.is_complete, again.dims) == ("", True, D + 1)
    np.testing.assert_array_equal(again.vectors, vectors_of(np.arange(N), D + 1))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[1]", b"null", b"{}", b"\xff", b"[" * 100_000])
def test_a_key_that_does_not_match_is_damage(opened, content):
    folder = made_before(opened)
    (folder / "key.json").write_bytes(content)
    store = opened()
    assert "key.json" in store.notice
    assert store.n_done == 0


def test_each_flipped_bit_of_a_projection_is_found_or_harmless(opened):
    store = opened()
    store.set_projection({"axes": ARRAYS["mean"]}, D)
    store.close()
    path = store.folder / "projection.npz"
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    n_found = 0
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            contents = files.read(store.folder, files.canonical(KEY), N)
        except files.DAMAGE:
            n_found += 1
            continue
        assert contents.dims == D
        assert list(contents.projection) == ["axes"]
        np.testing.assert_array_equal(contents.projection["axes"], ARRAYS["mean"])
    assert n_found > len(sound) / 2


def test_a_state_that_nobody_wrote_is_damage(opened):
    folder = made_before(opened)
    (folder / "state.u8").write_bytes(b"\1" * (N - 1) + b"\3")
    assert "state.u8" in opened().notice


def test_what_reads_a_damaged_store_goes_on_reading(opened):
    fill(begin(opened())).close()
    reader = opened()
    seen = reader.vectors
    empty(reader.folder / "state.u8")
    anew = begin(opened())
    assert anew.notice
    assert not anew.vectors.any()
    np.testing.assert_array_equal(seen, vectors_of(np.arange(N)))  # of the file that was


@pytest.mark.parametrize("left", [[], ["state.u8"], ["key.json"], ["state.u8", ".key.json.tmp"]])
def test_a_store_that_was_cut_off_at_its_beginning_is_no_loss(opened, left):
    store = opened()
    store.close()
    for path in store.folder.iterdir():
        if path.name not in left:
            path.unlink()
    for name in left:
        (store.folder / name).touch()
    store = opened()
    assert store.notice == ""
    assert fill(begin(store)).is_complete


def test_room_without_a_projection_is_made_again(opened):
    store = opened()
    store.mark_unreadable([3])
    store.close()
    (store.folder / "vectors.f16").write_bytes(b"xyz")  # killed before the projection had its name
    (store.folder / ".projection.npz.tmp").write_bytes(b"xyz")
    store = opened()
    assert (store.notice, store.n_unreadable) == ("", 1)
    fill(begin(store))
    assert not store.vectors[3].any()
    assert store.is_complete


# ---- a kill -----------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
import numpy as np
from amatch_widgets.score import embeddings

N, D = 200_000, 64
embeddings._FLUSH_ROWS = 500
store = embeddings.EmbeddingStore.open([Path(sys.argv[1])], {"n_images": N}, N)
if store.projection is None:
    store.set_projection({"a": np.arange(3)}, D)
rows = np.random.default_rng(store.n_done).permutation(store.missing)
for start in range(0, len(rows), 33):
    some = rows[start : start + 33]
    values = ((some[:, None] * 7 + np.arange(D)) % 2039 + 1).astype(np.float16)
    store.mark_unreadable(some[:1])
    store.write(some[1:], values[1:])
    print(start, flush=True)
"""


def kill_a_writer(root, n_lines):
    """Let a process fill the store, and kill it in the middle; return how many images it told of."""
    arguments = [sys.executable, "-c", CHILD, str(root)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(n_lines):
                assert process.stdout.readline().strip().isdigit()
        finally:
            process.send_signal(signal.SIGKILL)
        n_more = sum(line.endswith("\n") for line in process.stdout)
        assert process.wait(WAIT_S) == -signal.SIGKILL
    return (n_lines + n_more) * 33


def test_a_killed_writer_leaves_whole_rows_and_is_taken_up(tmp_path):
    n, dims = 200_000, 64
    told = 0
    for n_lines in (100, 1, 300):
        told += kill_a_writer(tmp_path, n_lines)
        with EmbeddingStore.open([tmp_path], {"n_images": n}, n) as store:
            done = np.flatnonzero(store.is_done)
            np.testing.assert_array_equal(store.vectors[done], vectors_of(done, dims))
            n_kept = store.n_done + store.n_unreadable
            # What was told since the last flush is done again, and one batch may not have been told.
            assert told - 533 <= n_kept <= told + 33
            assert store.n_unreadable == pytest.approx(n_kept / 33, abs=3)
            assert (store.notice, len(store.missing)) == ("", n - n_kept)
            assert store.projection["a"].tolist() == [0, 1, 2]
        told = n_kept
    with EmbeddingStore.open([tmp_path], {"n_images": n}, n) as store:
        fill(store)
    with EmbeddingStore.open([tmp_path], {"n_images": n}, n) as store:
        assert store.is_complete
        done = np.flatnonzero(store.is_done)
        np.testing.assert_array_equal(store.vectors[done], vectors_of(done, dims))
