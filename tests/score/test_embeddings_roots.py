"""Where vectors lie, and who fills them: one process at a time, shared when complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from amatch_widgets.errors import StateError, WorkspaceError
from amatch_widgets.score.embeddings import EmbeddingStore, default_roots
from tests.score.helper import KEY, WAIT_S, D, N, begin, fill, made_before, vectors_of

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


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


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
