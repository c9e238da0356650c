"""How images lie in an array, and how each of its chunks is read once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amatch_widgets.errors import SourceError
from amatch_widgets.images.decode import UnreadableError
from amatch_widgets.images.stack import bands_of, encoded_stack, pixel_stack, read_rows, runs

U1 = np.dtype("u1")


@pytest.mark.parametrize(
    ("shape", "axes", "channels"),
    [
        ((9, 20, 30), "NHW", 1),
        ((9, 20, 30, 3), "NHWC", 3),
        ((9, 20, 30, 1), "NHWC", 1),
        ((9, 17, 18, 16), "NHWC", 16),
        ((9, 3, 20, 30), "NCHW", 3),
        ((9, 16, 17, 18), "NCHW", 16),
        ((9, 1, 2, 2), "NCHW", 1),
    ],
)
def test_the_shape_says_which_axis_holds_the_channels(shape, axes, channels):
    stack = pixel_stack(shape, U1, what="it")
    assert (stack.axes, stack.channels, stack.n) == (axes, channels, 9)


@pytest.mark.parametrize("shape", [(9, 3, 8, 3), (9, 64, 64, 64), (9, 17, 18, 17), (9, 4, 4, 4)])
def test_axes_that_are_ambiguous_are_refused_with_the_option(shape):
    with pytest.raises(
        SourceError, match=r"ambiguous which axis holds the channels.*axes='NHWC' or axes='NCHW'"
    ):
        pixel_stack(shape, U1, what="it")
    assert pixel_stack(shape, U1, what="it", axes="NCHW").channels == shape[1]
    assert pixel_stack(shape, U1, what="it", axes="NHWC").channels == shape[3]


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "message"),
    [
        ((9, 20, 30), "c8", None, "no real number per pixel"),
        ((9, 20, 30), "S3", None, "no real number per pixel"),
        ((9,), "u1", None, r"Allowed is \(N, H, W\), \(N, H, W, C\) or \(N, C, H, W\)"),
        ((9, 1, 2, 3, 4), "u1", None, r"Allowed is \(N, H, W\)"),
        ((20, 30, 3), "u1", None, "looks like one single image.*axes='NHW'"),
        ((0, 20, 30), "u1", None, "there is no image in it"),
        ((9, 20, 0, 3), "u1", "NHWC", "there is no image in it"),
        ((9, 20, 30), "u1", "NHWC", "axes='NHWC' was given. Give as many axes"),
        ((9, 20, 30), "u1", "HWN", "axes='HWN' is unknown. Allowed are 'NHW', 'NHWC', 'NCHW'"),
        ((9, 10**5, 10**5), "u1", None, "more than 200 million pixels for one image"),
    ],
)
def test_an_array_of_no_images_is_refused(shape, dtype, axes, message):
    with pytest.raises(SourceError, match=message):
        pixel_stack(shape, np.dtype(dtype), what="it", axes=axes)


def test_what_looks_like_one_image_is_taken_if_its_axes_are_given():
    assert pixel_stack((20, 30, 3), U1, what="it", axes="NHW").n == 20


def test_chunks_and_shards_say_how_many_images_lie_together():
    shape = (10**6, 64, 64, 3)
    whole = pixel_stack(shape, U1, what="it")
    assert (whole.chunk, whole.shard) == (1, 1)
    assert whole.batch * 64 * 64 * 3 <= 2**25 < (whole.batch + 1) * 64 * 64 * 3
    sharded = pixel_stack(shape, U1, what="it", chunks=(10, 64, 64, 3), shards=(500, 64, 64, 3))
    assert (sharded.chunk, sharded.shard) == (10, 500)
    assert sharded.batch % 500 == 0
    large = pixel_stack(shape, U1, what="it", chunks=(10, 64, 64, 3), shards=(10**5, 64, 64, 3))
    assert (large.chunk, large.shard) == (10, 10)


def test_chunks_that_cut_images_up_do_not_fill_the_memory():
    stack = pixel_stack((10**7, 64, 64, 3), U1, what="it", chunks=(10**6, 8, 8, 1))
    assert stack.batch * 64 * 64 * 3 <= 2**30


def test_a_huge_chunk_of_whole_images_is_not_decompressed_twice():
    stack = pixel_stack((10**6, 64, 64, 3), U1, what="it", chunks=(150_000, 64, 64, 3))
    assert stack.chunk == stack.batch == 150_000


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sets(st.integers(0, 400)), st.integers(1, 30), st.integers(1, 5))
def test_runs_hold_each_index_once_and_share_no_chunk(indices, chunk, factor):
    found = list(runs(list(indices), chunk, chunk * factor))
    assert [i for run in found for i in run.tolist()] == sorted(indices)
    chunks = [{int(i) // chunk for i in run} for run in found]
    assert sum(map(len, chunks)) == len(set().union(*chunks)) if chunks else not indices
    for touched in chunks:  # no chunk in between is read for nothing
        assert touched == set(range(min(touched), max(touched) + 1))
        assert len(touched) <= factor


def test_a_bad_chunk_costs_its_own_images_alone():
    stack = pixel_stack((12, 4, 5), U1, what="it", chunks=(3, 4, 5))
    images = np.arange(240, dtype="u1").reshape(12, 4, 5)
    asked = []

    def rows(start, stop):
        asked.append((start, stop))
        if start < 6 and stop > 3:
            raise UnreadableError("bad")
        return images[start:stop]

    found = dict(read_rows(stack, rows, [11, 0, 3, 5, 6]))
    assert sorted(found) == [0, 3, 5, 6, 11]
    assert asked == [(0, 12), (0, 1), (3, 6), (6, 7), (11, 12)]
    assert {i for i, image in found.items() if isinstance(image, UnreadableError)} == {3, 5}
    np.testing.assert_array_equal(found[11][..., 0], images[11])


def test_an_image_does_not_keep_its_batch_in_memory():
    stack = pixel_stack((12, 4, 5), U1, what="it")
    slab = np.zeros((3, 4, 5), "u1")
    for _, image in read_rows(stack, lambda *_: slab, [3, 4, 5]):
        assert not np.shares_memory(image, slab)
        assert image.base is None or image.base.size == image.size


@pytest.mark.parametrize("indices", [[-1], [0, 9], [3, -2]])
def test_an_index_out_of_range_is_refused_before_anything_is_read(indices):
    with pytest.raises(IndexError, match="out of range"):
        list(read_rows(encoded_stack(9), lambda *_: pytest.fail("was read"), indices))


def test_encoded_files_of_one_length_are_read_by_their_chunks():
    assert encoded_stack(10**6, chunk=50, row_bytes=10**4).batch % 50 == 0
    assert encoded_stack(10**6).batch == 256


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"bands": ["VIS", "Y", "J"]}, ("VIS", "Y", "J")),
        ({"filters": np.array([b"g", b"r", b"i"])}, ("g", "r", "i")),
        ({"channels": 3}, None),
        ({"bands": ["VIS"]}, None),
        ({"bands": [1, 2, 3]}, None),
        ({}, None),
    ],
)
def test_bands_are_taken_from_attributes_that_name_each_channel(attributes, expected):
    assert bands_of(attributes, 3) == expected
