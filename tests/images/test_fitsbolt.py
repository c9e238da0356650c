"""Images as AnomalyMatch 2 prepares them; the numbers are those of fitsbolt 0.3.1 where its name is said."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.visualization import AsinhStretch, ImageNormalize, LogStretch, ZScaleInterval

from amatch_widgets.images.fitsbolt import FitsboltInput

SKY = (np.random.default_rng(0).lognormal(3, 1, (32, 32, 3)) - 5).astype(np.float32)
BYTES = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)


def levels(shares):
    return np.rint(np.asarray(shares, np.float64) * 255).astype(np.uint8)


def differ(ours, theirs):
    return np.abs(ours.astype(int) - theirs).max()


def test_bytes_of_the_right_size_are_taken_as_they_are():
    np.testing.assert_array_equal(FitsboltInput(size=32, channels=3)(BYTES), BYTES)


def test_sixteen_bits_are_taken_by_their_range():
    image = np.array([0, 257, 65535, 32768], np.uint16).reshape(2, 2, 1)
    assert FitsboltInput(size=2, channels=1)(image).ravel().tolist() == [0, 1, 255, 128]


def test_real_numbers_go_from_the_lowest_to_the_highest_of_all_channels():
    expected = levels((SKY - SKY.min()) / (SKY.max() - SKY.min()))
    for method in ("CONVERSION_ONLY", "LINEAR"):
        assert differ(FitsboltInput(size=32, channels=3, method=method)(SKY), expected) <= 1


def test_limits_that_are_given_as_floats_make_floats_of_bytes():
    ours = FitsboltInput(size=32, channels=3, low=20.0, high=200.0)(BYTES)
    np.testing.assert_array_equal(ours, levels((np.clip(BYTES.astype(float), 20, 200) - 20) / 180))


def test_log_and_zscale_are_those_of_astropy():
    norm = ImageNormalize(vmin=0, vmax=float(SKY.max()), stretch=LogStretch(), clip=True)
    assert differ(FitsboltInput(size=32, channels=3, method="LOG")(SKY), levels(norm(SKY))) <= 1
    norm = ImageNormalize(SKY, interval=ZScaleInterval(), clip=True)
    assert differ(FitsboltInput(size=32, channels=3, method="ZSCALE")(SKY), levels(norm(SKY))) <= 1


@pytest.mark.parametrize("is_together", [True, False])
def test_asinh_takes_the_channels_together_or_each_by_itself(is_together):
    one, n = (1, slice(None)) if is_together else (3, 0)
    prepare = FitsboltInput(size=32, channels=3, method="ASINH", softening=(0.2,) * one, width=(98.0,) * one)
    ours = prepare(SKY)
    flat = np.sort(SKY.reshape(-1, 3), axis=0)
    low, high = flat[int(0.01 * 1023)], flat[int(0.99 * 1023)]
    if is_together:
        low, high = low.min(), high.max()
    shares = np.clip((SKY - low) / (high - low), 0, 1)
    assert differ(ours, levels(AsinhStretch(0.2)(shares))) <= 1
    assert ours[..., n].max() == 255


def test_the_highest_pixel_may_be_looked_for_in_the_centre():
    image = np.full((32, 32, 1), 10, np.float32)
    image[0, 0], image[16, 16], image[0, 1] = 1000, 20, 0
    ours = FitsboltInput(size=32, channels=1, method="LINEAR", crop=(4, 4))(image)
    assert (ours[0, 0, 0], ours[16, 16, 0], ours[1, 1, 0]) == (255, 255, 128)


def test_larger_images_are_reduced_by_the_mean_over_an_area_which_is_cut_off():
    image = np.array([[0, 1, 5, 5], [1, 1, 5, 6]], np.uint8)[..., None].repeat(2, axis=0)
    ours = FitsboltInput(size=2, channels=1)(image)
    assert ours[..., 0].tolist() == [[0, 5], [1, 5]]  # 0.5, 5, 1 and 5.5


def test_smaller_images_are_enlarged_between_the_centres_of_pixels():
    image = np.array([[0, 100], [0, 100]], np.uint8)[..., None]
    assert FitsboltInput(size=4, channels=1)(image)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_limits_may_be_found_from_pixels_at_a_distance_without_a_factor_of_the_row():
    image = np.arange(32 * 32, dtype=np.float32).reshape(32, 32, 1)
    image[0, 0], image[0, 9] = 5000, 4000  # at a distance of 9 = 1024 // 128 + 1 both are seen
    image[0, 8] = 9000  # and this one is not
    whole = FitsboltInput(size=32, channels=1, method="ASINH", width=(100.0,))
    few = FitsboltInput(size=32, channels=1, method="ASINH", width=(100.0,), n_percentiles=128)
    assert whole(image).ravel()[[0, 8, 9]].tolist() != [255, 255, 255]
    assert few(image).ravel()[[0, 8]].tolist() == [255, 255]
    assert few(image)[0, 9, 0] < 255


def test_grey_is_repeated_and_alpha_left_out():
    assert (FitsboltInput(size=32, channels=3)(BYTES[..., :1]) == BYTES[..., :1]).all()
    four = np.concatenate([BYTES, BYTES[..., :1]], axis=2)
    np.testing.assert_array_equal(FitsboltInput(size=32, channels=3)(four), BYTES)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (BYTES[..., :2], "it has 2 channels where the model was trained on 3"),
        (np.zeros((16, 64, 3), np.uint8), "64 px wide and 16 px high"),
        (np.full((32, 32, 3), np.nan, np.float32), "no pixel is finite"),
    ],
)
def test_what_cannot_be_prepared_is_said_in_plain_words(image, message):
    with pytest.raises(ValueError, match=message):
        FitsboltInput(size=32, channels=3)(image)


@pytest.mark.parametrize("method", ["CONVERSION_ONLY", "LINEAR", "LOG", "ASINH", "ZSCALE"])
def test_constant_images_and_some_missing_pixels_are_no_obstacle(method):
    prepare = FitsboltInput(size=32, channels=3, method=method)
    assert prepare(np.full((32, 32, 3), 7, np.float32)).max() == 0
    holed = SKY.copy()
    holed[3, 4] = np.nan
    assert prepare(holed)[3, 4].tolist() == [0, 0, 0]
