"""The pool of prepared images: cache, threads, streams and unreadable images."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, ImageReadError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess

TINY = Preprocess(size=8)
IMAGE_BYTES = 8 * 8 * 3


class CountingSource(ArraySource):
    """Forty images of 8 px; image i is all i. Some can be bad, and one can wait for permission."""

    def __init__(self, n=40, *, bad=()):
        super().__init__(np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 3)))
        self.bad = set(bad)
        self.reads = []
        self.hints = set()
        self.gate = None

    def read(self, index, *, min_side=None):
        self.reads.append(index)
        self.hints.add(min_side)
        if self.gate is not None:
            assert self.gate.wait(30)
        if index in self.bad:
            raise ImageReadError(self.ids[index], "it is damaged")
        return super().read(index)


def values(images):
    """Give the one value of each image, and check that it is one."""
    assert (images == images[:, :1, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


def our_threads():
    return [t for t in threading.enumerate() if t.name.startswith("amatch-pixels")]


def test_a_batch_keeps_the_order_asked_for_with_repeats():
    images, indices = PixelPool(CountingSource(), TINY).batch([7, 3, 7, 39, 0])
    assert values(images) == indices.tolist() == [7, 3, 7, 39, 0]
    assert (images.shape, images.dtype, indices.dtype) == ((5, 8, 8, 3), np.uint8, np.int64)


def test_an_empty_batch_is_empty():
    images, indices = PixelPool(CountingSource(), TINY).batch([])
    assert images.shape == (0, 8, 8, 3)
    assert indices.shape == (0,)


def test_what_fits_the_budget_is_read_once():
    source = CountingSource()
    pool = PixelPool(source, TINY)
    for _ in range(3):
        images, _ = pool.batch(np.arange(40))
        assert values(images) == list(range(40))
    assert sorted(source.reads) == list(range(40))
    assert pool.n_cached == 40


def test_what_is_beyond_the_budget_is_read_again():
    source = CountingSource()
    pool = PixelPool(source, TINY, budget_bytes=10 * IMAGE_BYTES + 5)
    pool.batch(np.arange(10))
    for _ in range(2):
        images, _ = pool.batch(np.arange(40))
        assert values(images) == list(range(40))
    assert pool.n_cached == 10
    assert sorted(source.reads) == sorted([*range(10), *range(10, 40), *range(10, 40)])


def test_a_pool_without_a_budget_reads_all_each_time():
    source = CountingSource()
    pool = PixelPool(source, TINY, budget_bytes=0)
    pool.batch([1, 2])
    assert values(pool.batch([1, 2])[0]) == [1, 2]
    assert len(source.reads) == 4


def test_unreadable_images_are_listed_with_their_reason_and_left_out():
    source = CountingSource(bad=(3, 5))
    told = []
    pool = PixelPool(source, TINY, on_problem=lambda image_id, reason: told.append((image_id, reason)))
    images, indices = pool.batch([2, 3, 4, 5])
    assert values(images) == indices.tolist() == [2, 4]
    assert pool.problems == {"03": "it is damaged", "05": "it is damaged"}
    assert sorted(told) == [("03", "it is damaged"), ("05", "it is damaged")]


def test_an_unreadable_image_is_tried_and_told_once():
    source = CountingSource(bad=(3,))
    told = []
    pool = PixelPool(source, TINY, on_problem=lambda *problem: told.append(problem))
    for _ in range(3):
        assert pool.batch([3])[1].tolist() == []
    assert source.reads == [3]
    assert len(told) == 1


def test_an_image_that_cannot_be_prepared_is_a_problem_too():
    images = np.zeros((2, 8, 8, 3), np.float32)
    images[0] = np.nan
    pool = PixelPool(ArraySource(images), TINY)
    assert pool.batch([0, 1])[1].tolist() == [1]
    assert pool.problems == {"0": "no pixel is finite: all are NaN or infinite"}


def test_an_image_with_other_channels_is_a_problem_and_not_a_wrong_image():
    pool = PixelPool(ArraySource(np.zeros((2, 8, 8, 5))), TINY)
    assert pool.batch([0])[1].tolist() == []
    assert "it has 5 channels where 3 are expected" in pool.problems["0"]


def test_a_fault_of_the_source_itself_is_not_hidden():
    class Broken(CountingSource):
        def read(self, index, *, min_side=None):
            raise ZeroDivisionError

    pool = PixelPool(Broken(), TINY)
    with pytest.raises(ZeroDivisionError):
        pool.batch([0])
    with pytest.raises(ZeroDivisionError):
        list(pool.stream())
    assert our_threads() == []


@pytest.mark.parametrize("indices", [[-1], [40], [0, 10**12], [[1]], [0.5], ["1"]])
def test_an_index_that_does_not_exist_is_an_index_error(indices):
    pool = PixelPool(CountingSource(), TINY)
    for read in (pool.batch, pool.stream):
        with pytest.raises(IndexError):
            read(indices)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
@pytest.mark.parametrize("budget_bytes", [0, 10 * IMAGE_BYTES, 2**20])
def test_a_stream_gives_all_images_in_order(batch_size, budget_bytes):
    pool = PixelPool(CountingSource(bad=(0, 20)), TINY, budget_bytes=budget_bytes)
    for _ in range(2):
        batches = list(pool.stream(batch_size=batch_size))
        assert np.concatenate([indices for _, indices in batches]).tolist() == [
            i for i in range(40) if i not in {0, 20}
        ]
        assert all(values(images) == indices.tolist() for images, indices in batches)
        assert all(0 < len(indices) <= batch_size for _, indices in batches)
    assert set(pool.problems) == {"00", "20"}


def test_a_stream_of_some_images_keeps_their_order():
    batches = list(PixelPool(CountingSource(), TINY).stream([9, 1, 30], batch_size=2))
    assert [indices.tolist() for _, indices in batches] == [[9, 1], [30]]


def test_a_stream_of_nothing_ends_at_once():
    assert list(PixelPool(CountingSource(), TINY).stream([])) == []


def test_a_stream_reads_ahead_but_not_far():
    source = CountingSource()
    stream = PixelPool(source, TINY).stream(batch_size=4)
    assert source.reads == []
    next(stream)
    stream.close()
    assert 4 <= len(source.reads) <= 12


def test_a_closed_stream_stops_its_threads():
    stream = PixelPool(CountingSource(), TINY).stream(batch_size=2)
    next(stream)
    assert our_threads()
    stream.close()
    assert our_threads() == []


def test_a_batch_leaves_no_thread_behind():
    PixelPool(CountingSource(), TINY).batch(np.arange(40))
    assert our_threads() == []


def test_images_are_decoded_by_as_many_threads_as_asked_for():
    source = CountingSource()
    source.gate = threading.Event()
    pool = PixelPool(source, TINY, threads=3)
    reader = threading.Thread(target=pool.batch, args=(np.arange(40),))
    reader.start()
    while len(source.reads) < 3:
        assert reader.is_alive()
    assert len(our_threads()) == 3
    source.gate.set()
    reader.join(30)
    assert pool.n_cached == 40


def test_several_threads_may_use_one_pool():
    source = CountingSource(bad=(11,))
    told = []
    pool = PixelPool(source, TINY, budget_bytes=20 * IMAGE_BYTES, on_problem=lambda *p: told.append(p))
    failures = []

    def read(seed):
        wanted = np.random.default_rng(seed).permutation(40)
        for _ in range(5):
            images, indices = pool.batch(wanted)
            if values(images) != indices.tolist() or indices.tolist() != [i for i in wanted if i != 11]:
                failures.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert pool.n_cached == 20
    assert told == [("11", "it is damaged")]


def test_the_hint_for_decoding_reaches_the_source():
    for preprocess, hint in ((TINY, 8), (Preprocess(size=8, crop=8), None)):
        source = CountingSource()
        PixelPool(source, preprocess).batch([0])
        assert source.hints == {hint}


def test_a_result_may_be_changed_without_harm_to_the_cache():
    pool = PixelPool(CountingSource(), TINY)
    for _ in range(2):
        images, _ = pool.batch([5])
        assert values(images) == [5]
        images[:] = 0


@pytest.mark.parametrize("options", [{"budget_bytes": -1}, {"threads": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="the budget must not be negative, and at least one thread"):
        PixelPool(CountingSource(), TINY, **options)


def test_a_stream_needs_a_batch_size():
    with pytest.raises(ConfigError, match=r"stream\(batch_size=0\): at least 1 is needed"):
        PixelPool(CountingSource(), TINY).stream(batch_size=0)


def test_the_repr_says_how_many_are_in_memory():
    pool = PixelPool(CountingSource(bad=(1,)), TINY)
    pool.batch([0, 1, 2])
    assert repr(pool) == "PixelPool('array', 40 images, 2 in memory, 1 unreadable)"
