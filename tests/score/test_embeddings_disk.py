"""When vectors reach the disk: vectors before states, and whole rows after a kill."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from amatch_widgets.errors import WorkspaceError
from amatch_widgets.score import embedding_files as files
from amatch_widgets.score import embeddings
from amatch_widgets.score.embeddings import EmbeddingStore
from tests.score.helper import WAIT_S, begin, fill, vectors_of

# ---- when it reaches the disk -----------------------------------------------------------------


def no_space(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


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
