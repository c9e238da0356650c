"""Scoring part by part: each image once, whatever stops it, and none lost without a word."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from amatch_widgets.archive.devices import Together
from amatch_widgets.archive.first import score_first
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.run import part_rows_for, score_missing, score_part
from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.preprocess import Preprocess
from tests.archive.helper import rows

PREPARE = Preprocess(size=8, channels=1)
N = 95


class Holey(ArraySource):
    """Images that hold their number; some of them cannot be read."""

    def __init__(self, n=N, bad=()):
        super().__init__(np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 8, 8)))
        self.bad = set(bad)

    def read(self, index, *, min_side=None):
        if index in self.bad:
            raise ImageReadError(self.ids[index], "the disk is gone")
        return super().read(index, min_side=min_side)


class Chunked(Holey):
    chunk = 16


def score(images):
    return images[:, 0, 0, 0].astype(np.float32) / 100


@pytest.fixture
def parts(tmp_path):
    return Parts.create(tmp_path / "x", fingerprint="ab", n_images=N, spec={}, part_rows=10)


def whole(parts, cycle, bad=()):
    """Whether each image is there once, with its score or its problem."""
    found = rows(parts, cycle)
    assert [row["index"] for row in found] == list(range(N))
    for i, row in enumerate(found):
        assert row["id"] == f"{i:02d}"
        assert row["score"] == (None if i in bad else np.float32(i) / np.float32(100))
        assert row["problem"] == ("the disk is gone" if i in bad else None)
    return True


@pytest.mark.parametrize("source", [Holey, Chunked])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_is_scored_once(parts, source, threads):
    cycle = parts.begin("k", "")
    events = list(score_missing(source(), PREPARE, score, parts, cycle, batch_size=7, threads=threads))
    assert whole(parts, cycle)
    assert [e.done for e in events] == sorted(e.done for e in events)
    assert (events[-1].done, events[-1].total) == (N, N)
    assert all(e.images_per_s > 0 for e in events)
    assert not list(score_missing(source(), PREPARE, score, parts, cycle))


@pytest.mark.parametrize("n_taken", [1, 4, 9])
def test_what_was_stopped_goes_on_and_repeats_no_part_that_is_there(parts, n_taken):
    cycle = parts.begin("k", "")
    run = score_missing(Holey(), PREPARE, score, parts, cycle, batch_size=10, threads=2)
    list(itertools.islice(run, n_taken))
    run.close()
    there = parts.done(cycle)
    assert len(there) < parts.n_parts
    source = Holey()
    read, n_read = source.read, []
    source.read = lambda index, **options: n_read.append(index) or read(index, **options)
    events = list(score_missing(source, PREPARE, score, parts, cycle, batch_size=10))
    assert not {i // 10 for i in n_read} & set(there)
    assert events[-1].done == N
    assert whole(parts, cycle)


def test_images_that_cannot_be_read_are_listed_and_stop_nothing(parts):
    bad = {0, 5, *range(30, 40), 94}  # one whole part among them
    cycle = parts.begin("k", "")
    list(score_missing(Holey(bad=bad), PREPARE, score, parts, cycle))
    assert whole(parts, cycle, bad)


def test_two_lost_parts_at_the_end_are_written_where_others_could_be_read(parts):
    bad = set(range(80, 95))
    cycle = parts.begin("k", "")
    list(score_missing(Holey(bad=bad), PREPARE, score, parts, cycle, threads=1))
    assert whole(parts, cycle, bad)


def test_a_volume_that_disappears_stops_the_run_and_the_next_one_goes_on(parts):
    cycle = parts.begin("k", "")
    with pytest.raises(SourceError, match=r"None of 30 images in a row.*'40'.*the disk is gone.*goes on"):
        list(score_missing(Holey(bad=range(40, N)), PREPARE, score, parts, cycle, threads=1))
    assert parts.done(cycle) == [0, 1, 2, 3]
    list(score_missing(Holey(), PREPARE, score, parts, cycle))
    assert whole(parts, cycle)


def test_what_fails_just_before_the_volume_is_gone_is_left_to_the_next_run_too(parts):
    """And not listed as unreadable for ever."""
    cycle = parts.begin("k", "")
    with pytest.raises(SourceError, match=r"None of 30 images in a row.*'50'"):
        list(score_missing(Holey(bad=range(43, N)), PREPARE, score, parts, cycle, batch_size=5, threads=1))
    assert parts.done(cycle) == [0, 1, 2, 3]
    list(score_missing(Holey(), PREPARE, score, parts, cycle))
    assert whole(parts, cycle)


def test_where_each_part_has_a_bad_image_no_more_than_three_parts_wait(parts):
    bad = set(range(3, N, 10))
    cycle = parts.begin("k", "")
    run = score_missing(Holey(bad=bad), PREPARE, score, parts, cycle, batch_size=10, threads=1)
    n_waiting = [event.done // 10 - len(parts.done(cycle)) for event in run]
    assert max(n_waiting) <= 4  # one of them is not whole yet
    assert whole(parts, cycle, bad)


def test_where_nothing_can_be_read_nothing_is_written(tmp_path):
    parts = Parts.create(tmp_path, fingerprint="ab", n_images=12, spec={}, part_rows=10)
    cycle = parts.begin("k", "")
    with pytest.raises(SourceError, match="None of 12 images"):
        list(score_missing(Holey(12, bad=range(12)), PREPARE, score, parts, cycle))
    assert parts.done(cycle) == []


def test_an_error_of_the_model_comes_out_and_keeps_what_is_there(parts):
    def fails_late(images):
        if images[0, 0, 0, 0] >= 60:
            raise RuntimeError("out of memory")
        return score(images)

    cycle = parts.begin("k", "")
    with pytest.raises(RuntimeError, match="out of memory"):
        list(score_missing(Holey(), PREPARE, fails_late, parts, cycle, batch_size=10, threads=1))
    assert parts.done(cycle) == [0, 1, 2, 3, 4, 5]
    list(score_missing(Holey(), PREPARE, score, parts, cycle))
    assert whole(parts, cycle)


def test_one_part_alone_is_as_in_the_whole():
    part = score_part(Chunked(bad=[33]), PREPARE, score, (30, 40), number=3, batch_size=4)
    assert (part.number, part.n_left, part.is_lost) == (3, 0, False)
    scores, problems = part.scores, part.problems
    np.testing.assert_array_equal(
        np.delete(scores, 3), np.delete(np.arange(30, 40), 3).astype(np.float32) / 100
    )
    assert np.isnan(scores[3])
    assert problems == {33: "the disk is gone"}


def test_parts_are_neither_many_nor_large_and_hold_whole_chunks():
    assert part_rows_for(100) == 2_000
    assert part_rows_for(10**6) == 2_000
    assert part_rows_for(10**7) == 20_000
    assert part_rows_for(10**9) == 100_000
    assert part_rows_for(10**7, 768) == 20_736
    assert part_rows_for(10**7, 768) % 768 == 0
    assert part_rows_for(10**7, 10**6) == 20_000


def test_the_highest_of_the_cycle_before_are_scored_first(parts, monkeypatch):
    monkeypatch.setattr("amatch_widgets.archive.first._LEAST", 12)
    source = Holey(bad=[94])
    first = parts.begin("k", "")
    assert not list(score_first(source, PREPARE, score, parts, first))  # there is no cycle before
    list(score_missing(Holey(), PREPARE, score, parts, first))
    second = parts.begin("k2", "")
    events = list(score_first(source, PREPARE, score, parts, second, batch_size=5))
    assert (events[-1].done, events[-1].total) == (12, N)
    found = pq.read_table(parts.first(second), partitioning=None).to_pylist()
    assert [row["index"] for row in found] == list(range(83, 94))  # the highest twelve, but for a bad one
    assert [row["id"] for row in found] == [f"{i}" for i in range(83, 94)]
    assert not list(score_first(source, PREPARE, score, parts, second))  # it has been done
    list(score_missing(source, PREPARE, score, parts, second))
    assert whole(parts, second, {94})


def test_what_is_stopped_while_the_highest_are_scored_leaves_nothing_half(parts, monkeypatch):
    monkeypatch.setattr("amatch_widgets.archive.first._LEAST", 12)
    list(score_missing(Holey(), PREPARE, score, parts, parts.begin("k", "")))
    second = parts.begin("k2", "")
    run = score_first(Holey(), PREPARE, score, parts, second, batch_size=2)
    next(run)
    run.close()
    assert parts.first(second) is None


KILLED = """
import sys
from pathlib import Path

import numpy as np

from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.run import score_missing
from amatch_widgets.images.npy import NpySource
from amatch_widgets.images.preprocess import Preprocess

root, n, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
source = NpySource(root / "images.npy")
parts = Parts.create(root / "scores", fingerprint="ab", n_images=n, spec={}, part_rows=rows)
cycle = parts.begin("k", "")
score = lambda images: images[:, 0, 0, 0].astype(np.float32) / 255
for event in score_missing(source, Preprocess(size=8, channels=1), score, parts, cycle, batch_size=64):
    print(event.done, flush=True)
"""


def test_what_is_killed_goes_on_with_no_row_doubled_or_missing(tmp_path):
    n, part_rows = 6_000, 200
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8), np.uint8)
    np.save(tmp_path / "images.npy", images)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(n), str(part_rows)]
    starts = []
    for stop_at in (1_000, 3_000):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            seen = [int(next(process.stdout))]
            while seen[-1] < stop_at:
                seen.append(int(next(process.stdout)))
            process.kill()
        starts.append(seen[0])
    assert starts[0] <= 64
    assert starts[1] > 64  # it went on
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, timeout=60)
    parts = Parts.open(tmp_path / "scores")
    found = rows(parts, parts.cycles()[0])
    assert [row["index"] for row in found] == list(range(n))
    wanted = images[:, 0, 0].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(np.array([row["score"] for row in found], np.float32), wanted)


def test_several_devices_score_at_once_and_every_image_once(parts):
    """Both wait until both are at work: one after the other would never end."""
    both = threading.Barrier(2)

    def on_a_device(images):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(60)
        both.abort()  # once is enough: the last batch may be alone
        return score(images)

    cycle = parts.begin("k", "")
    together = Together([on_a_device] * 2)
    events = list(score_missing(Holey(bad={5}), PREPARE, together, parts, cycle, batch_size=7))
    assert whole(parts, cycle, {5})
    assert events[-1].done == N


def test_an_error_on_one_of_several_devices_comes_out_and_keeps_what_is_there(parts):
    def fails_late(images):
        if images[0, 0, 0, 0] >= 60:
            raise RuntimeError("out of memory")
        return score(images)

    cycle = parts.begin("k", "")
    run = score_missing(Holey(), PREPARE, Together([fails_late] * 2), parts, cycle, batch_size=10, threads=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(run)
    assert parts.done(cycle) == [0, 1, 2, 3, 4, 5]
    assert not [t for t in threading.enumerate() if t.name.startswith(("amatch-device", "amatch-stream"))]
