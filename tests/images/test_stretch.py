"""Limits and curves, of all channels together or each by itself."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.stretch import Stretch, limits_of, stretched


def grey(values, dtype=np.float32, **options):
    image = np.asarray(values, dtype)[None, :, None]
    how = Stretch(**options)
    return stretched(image, limits_of(image, how), how)[0, :, 0].tolist()


def test_fixed_limits_are_the_same_for_all_images():
    options = {"limits": "fixed", "low": 0, "high": 100}
    assert grey([-5, 0, 50, 100, 200], **options) == [0, 0, 128, 255, 255]
    assert grey([10, 20], **options) == [26, 51]
    assert grey([10, 20], np.uint8, **options) == [26, 51]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", 0.1),
        ("asinh", np.arcsinh(0.1 / 0.05) / np.arcsinh(1 / 0.05)),
        ("log", np.log(101) / np.log(1001)),
    ],
)
def test_the_curves_are_the_published_ones(curve, expected):
    levels = grey([0, 10, 100], stretch=curve, limits="fixed", low=0, high=100, softening=0.05)
    assert levels == [0, round(255 * expected), 255]


def test_auto_takes_its_percentiles_for_all_but_eight_bits():
    values = np.arange(1, 101)
    assert limits_of(values.astype(np.float32)[:, None, None], Stretch(black=5, white=90)) == ((5, 90),)
    assert limits_of(values.astype(np.uint8)[:, None, None], Stretch(black=5, white=90)) == ((0, 255),)
    assert limits_of(
        values.astype(np.uint8)[:, None, None], Stretch(limits="percentile", black=5, white=90)
    ) == ((5, 90),)


def test_each_channel_may_have_limits_of_its_own():
    image = np.stack([np.linspace(0, 1, 64), np.linspace(0, 1000, 64)], axis=-1).reshape(8, 8, 2)
    image = image.astype(np.float32)
    together = Preprocess(size=8, channels=2)(image)
    apart = Preprocess(size=8, channels=2, per_channel=True)(image)
    assert together[..., 0].max() == 0
    assert apart[..., 0].max() == apart[..., 1].max() == 255
    np.testing.assert_allclose(apart[..., 0].astype(int), apart[..., 1], atol=1)


def test_a_band_without_data_leaves_the_others_to_be_seen():
    image = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    whole = Preprocess(size=8, per_channel=True)(image)
    image[..., 1] = np.nan
    seen = Preprocess(size=8, per_channel=True)(image)
    np.testing.assert_array_equal(seen[..., [0, 2]], whole[..., [0, 2]])
    assert not seen[..., 1].any()
    image[:] = np.nan
    with pytest.raises(ValueError, match="no pixel is finite"):
        Preprocess(size=8, per_channel=True)(image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_blank_pixels_are_black_and_set_no_limit(dtype):
    image = np.random.default_rng(0).integers(100, 200, (16, 16, 1)).astype(dtype)
    holey = image.copy()
    holey[:8] = 7
    for options in ({}, {"limits": "percentile", "black": 1, "white": 99}, {"limits": "zscale"}):
        model = Preprocess(size=16, channels=1, **options)
        blank = Preprocess(size=16, channels=1, blank=7, **options)
        np.testing.assert_array_equal(blank(image), model(image))
        seen = blank(holey)
        assert not seen[:8].any()
        half = Preprocess(size=16, channels=1, **options)
        how = limits_of(image[8:], half)
        np.testing.assert_array_equal(seen[8:], stretched(image[8:], how, half))
