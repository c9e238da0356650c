"""Very many images: each once, in constant memory, and none lost to an error."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, ImageReadError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.stream import reading_threads, spans, stream

PREPARE = Preprocess(size=8, channels=1)


class Chunked(ArraySource):
    """An array in chunks, that notes which were read and has bad images."""

    chunk = 10

    def __init__(self, images, bad=()):
        super().__init__(images)
        self.bad, self.read_chunks, self.lock = set(bad), [], threading.Lock()

    def read_many(self, indices, *, min_side=None):
        last = None
        for i in sorted(indices):
            if i // self.chunk != last:
                last = i // self.chunk
                with self.lock:
                    self.read_chunks.append(last)
            if i in self.bad:
                yield i, ImageReadError(self.ids[i], "it is torn")
            else:
                yield i, self.read(i)


def numbered(n):
    """Images that hold their own number."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 8, 8))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("source", [ArraySource, Chunked])
def test_each_image_comes_once(source, threads):
    found = list(
        stream(source(numbered(200)), PREPARE, spans(np.arange(200)[::-1]), batch_size=7, threads=threads)
    )
    assert sorted(np.concatenate([b.indices for b in found]).tolist()) == list(range(200))
    for batch in found:
        assert batch.images.dtype == np.uint8
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.indices)
        assert not batch.problems
        assert 1 <= len(batch.images) <= 7


def test_each_chunk_is_read_once_and_only_what_is_wanted():
    source = Chunked(numbered(200))
    wanted = [3, 5, 12, 199, 198, 120]
    found = list(stream(source, PREPARE, spans(wanted, 10), batch_size=4, threads=3))
    assert sorted(np.concatenate([b.indices for b in found]).tolist()) == sorted(wanted)
    assert sorted(source.read_chunks) == [0, 1, 12, 19]


def test_images_that_cannot_be_read_or_prepared_are_named_with_the_reason():
    images = np.ones((30, 8, 8), np.float32) * np.arange(30)[:, None, None]
    images[4] = np.nan
    found = list(
        stream(Chunked(images, bad=[7, 29]), PREPARE, spans(range(30), 10), batch_size=16, threads=2)
    )
    problems = {i: why for batch in found for i, why in batch.problems.items()}
    assert problems[7] == problems[29] == "it is torn"
    assert "no pixel is finite" in problems[4]
    read = np.concatenate([b.indices for b in found]).tolist()
    assert sorted([*read, *problems]) == list(range(30))


def test_where_none_can_be_read_all_are_named():
    (batch,) = stream(Chunked(numbered(10), bad=range(10)), PREPARE, spans(range(10), 10), threads=1)
    assert (len(batch.images), sorted(batch.problems)) == (0, list(range(10)))


def test_another_error_comes_out_and_the_threads_end():
    class Broken(Chunked):
        def read_many(self, indices, *, min_side=None):
            if 199 in indices:
                raise RuntimeError("a bug")
            yield from super().read_many(indices, min_side=min_side)

    with pytest.raises(RuntimeError, match="a bug"):
        list(stream(Broken(numbered(200)), PREPARE, spans(range(200), 10), batch_size=8, threads=3))
    assert not threads_left()


def test_who_stops_early_leaves_no_thread_behind():
    batches = stream(Chunked(numbered(200)), PREPARE, spans(range(200), 10), batch_size=8, threads=3)
    next(batches)
    batches.close()
    assert not threads_left()


def threads_left():
    return [t for t in threading.enumerate() if t.name == "amatch-stream" and t.is_alive()]


def test_no_more_is_read_than_may_wait():
    source, n_read, more = Chunked(numbered(250)), [], threading.Event()
    read = source.read

    def note(index, **options):
        n_read.append(index)
        if len(n_read) > 60:
            more.set()
        return read(index, **options)

    source.read = note
    batches = stream(source, PREPARE, spans(range(250), 10), batch_size=10, threads=1, ahead=2)
    next(batches)
    # One was taken, two wait, one is in the thread's hands: the fifth is never begun.
    assert not more.wait(0.3)
    assert len(n_read) <= 41
    batches.close()


def test_spans_hold_whole_chunks():
    assert [s.tolist() for s in spans([5, 1, 300, 299], 150)] == [[1, 5], [299], [300]]
    assert [len(s) for s in spans(np.arange(1000), 100)] == [200] * 5
    assert [len(s) for s in spans(np.arange(1000), 700)] == [700, 300]
    assert [len(s) for s in spans(np.arange(600), 1)] == [256, 256, 88]
    assert spans([], 10) == []


def test_numbers_out_of_range_are_refused():
    for bad in ({"threads": 0}, {"batch_size": 0}, {"ahead": 0}):
        with pytest.raises(ConfigError, match="each is 1 or more"):
            stream(Chunked(numbered(3)), PREPARE, spans(range(3), 10), **bad)


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (2, 2), (6, 6), (64, 8)])
def test_as_many_threads_read_as_this_process_has_cores(monkeypatch, cores, threads):
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert reading_threads() == threads
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert reading_threads() == threads
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert reading_threads() == 3
