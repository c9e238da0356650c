"""Sources that are one array: in memory and in a .npy file."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import ArraySource, plain_pixels
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.source import open_source
from amatch_widgets.images.testing import SourceContract


def ramp(*shape, dtype=np.uint8):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


class TestColourArray(SourceContract):
    @pytest.fixture
    def source(self):
        return ArraySource(ramp(12, 5, 7, 3))


class TestGreyFloatArray(SourceContract):
    @pytest.fixture
    def source(self):
        return ArraySource(ramp(3, 5, 7, dtype=np.float64), ids=["a", "ü/<b>", "c\n"], name="grey")


def test_an_array_of_four_axes_keeps_its_channels():
    images = ramp(2, 4, 5, 6)
    source = ArraySource(images)
    assert source.channels == 6
    np.testing.assert_array_equal(source.read(1), images[1])


def test_an_array_of_three_axes_is_grey():
    images = ramp(9, 4, 5)
    source = ArraySource(images)
    assert source.channels == 1
    np.testing.assert_array_equal(source.read(8)[..., 0], images[8])


def test_what_is_read_is_a_copy():
    images = ramp(2, 4, 5)
    ArraySource(images).read(0)[:] = 99
    assert images[0, 0, 0] == 0


def test_default_ids_are_padded_so_that_they_sort():
    assert ArraySource(ramp(101, 2, 5)).ids[7] == "007"
    assert list(NumberedIds(11)) == sorted(NumberedIds(11))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 2000))
def test_numbered_ids_behave_like_the_tuple_of_them(n):
    ids, expected = NumberedIds(n), tuple(f"{i:0{len(str(n - 1))}d}" for i in range(n))
    assert tuple(ids) == expected
    assert ids[-1] == expected[-1]
    assert ids[1:5] == list(expected[1:5])
    assert all(image_id in ids for image_id in expected[:20])
    assert not any(other in ids for other in ("", "x", f"{n}", "-1", "0" * 12, "²", 0, None))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("?", np.uint8),
        ("u1", np.uint8),
        (">u2", np.uint16),
        ("i2", np.float32),
        ("i8", np.float32),
        ("f2", np.float32),
        (">f4", np.float32),
        ("f8", np.float32),
    ],
)
def test_every_numeric_type_becomes_one_of_three(dtype, expected):
    pixels = plain_pixels(np.array([0, 1], dtype=dtype))
    assert pixels.dtype == expected
    assert pixels.dtype.isnative
    assert pixels.tolist() == ([0, 255] if dtype == "?" else [0, 1])


def test_a_double_beyond_single_precision_becomes_infinite_without_a_warning():
    assert np.isinf(plain_pixels(np.array([1e300]))).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            ramp(64, 64, 3),
            r"\(64, 64, 3\) and dtype uint8, which looks like one single image.*images\[None\]",
        ),
        (ramp(64, 64), r"\(64, 64\).*Allowed is \(N, H, W\) or \(N, H, W, C\)"),
        (ramp(2, 2, 2, 2, 2), r"Allowed is \(N, H, W\) or \(N, H, W, C\)"),
        (np.zeros((0, 8, 8)), r"\(0, 8, 8\).*there is no image in it"),
        (np.zeros((3, 8, 8, 0)), "there is no image in it"),
        (np.zeros((3, 8, 8), complex), "complex128: that is no real number per pixel. Convert it"),
        (np.full((3, 8, 8), "x"), "no real number per pixel"),
        (np.full((3, 8, 8), None), "dtype object: that is no real number"),
        (np.zeros((3, 8, 8), "M8[s]"), "no real number per pixel"),
        (np.zeros((3, 8, 8), "u1,u1"), "no real number per pixel"),
    ],
)
def test_an_array_that_is_no_set_of_images_says_what_is_allowed(images, message):
    with pytest.raises(SourceError, match=message):
        open_source(images)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a"], "1 ids were given for 2 images"),
        ("ab", "1 ids were given for 2 images"),
        (["a", "a"], "The id 'a' is given more than once"),
        (["a", 7], "The id 7 is no string.*str"),
        (["a", "\udcff"], r"The id '\\udcff' is no valid text"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids, message):
    with pytest.raises(SourceError, match=message):
        ArraySource(ramp(2, 4, 5), ids=ids)


def test_ids_may_come_from_any_iterable():
    assert ArraySource(ramp(2, 4, 5), ids=(c for c in "ab")).ids == ("a", "b")


def test_the_fingerprint_changes_with_shape_dtype_and_ids():
    sources = [
        ArraySource(ramp(2, 4, 5)),
        ArraySource(ramp(3, 4, 5)),
        ArraySource(ramp(2, 4, 5, dtype=np.uint16)),
        ArraySource(ramp(2, 4, 5), ids=["a", "b"]),
        ArraySource(ramp(2, 4, 5), ids=["b", "a"]),
        ArraySource(ramp(2, 4, 5), ids=["ab", ""]),
    ]
    assert len({source.fingerprint() for source in sources}) == len(sources)


@pytest.mark.parametrize("text", ["", "0", "7", "07", "00", "12", "113", "0112", "00112", "x", "1.", "²"])
def test_numbered_ids_are_searched_without_making_them(text):
    ids = NumberedIds(1_130)
    assert ids.contain(text).tolist() == [text in i for i in ids]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("u1", np.uint8), ("?", np.uint8), ("u2", np.float32), ("f8", np.float32)]
)
def test_masked_pixels_are_no_data(dtype, expected):
    images = np.ma.array((ramp(3, 4, 5) + 1).astype(dtype))
    images[1, 2, 3] = np.ma.masked
    source = open_source(images)
    image = source.read(1)
    assert image.dtype == expected
    hole = image[2, 3, 0]
    assert np.isnan(hole) if expected == np.float32 else hole == 0
    assert np.isnan(image).sum() == (expected == np.float32)
    np.testing.assert_array_equal(source.read(0), plain_pixels(images.data[0])[..., None])
    assert images.mask.sum() == 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(1), image)


def test_an_image_that_is_masked_all_over_is_listed():
    images = np.ma.zeros((2, 4, 5), np.uint8)
    images[0] = np.ma.masked
    with pytest.raises(ImageReadError, match="Image '0' cannot be read: all its pixels are masked"):
        open_source(images).read(0)
    assert open_source(images).read(1).max() == 0
