from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.preprocess import Preprocess, as_rgb
from amatch_widgets.images.render import Rendering, bounds_of, encode_picture, render
from amatch_widgets.images.stretch import zscale_limits

DTYPES = (np.uint8, np.uint16, np.float32)


def one_row(*values, dtype=np.float32):
    return np.array([[[v] for v in values]], dtype)


def grey(image, **options):
    """Render with limits from the smallest to the largest value, and give the grey levels of the one row."""
    options = {"limits": "percentile", "black": 0, "white": 100} | options
    picture = render(image, Rendering(**options))
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    return picture[0, :, 0].tolist()


def noise(dtype, channels=3, side=40):
    values = np.random.default_rng(0).normal(100, 30, (side, side, channels))
    return values.clip(0, 255).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_by_default_people_see_what_the_model_sees(dtype, channels):
    image = noise(dtype, channels)
    seen = Preprocess(size=40, channels=channels)(image)
    np.testing.assert_array_equal(render(image, Rendering()), as_rgb(seen))


def test_linear_goes_in_equal_steps_from_black_to_white():
    assert grey(one_row(10, 15, 20, dtype=np.uint16)) == [0, 128, 255]
    assert grey(one_row(-1, 0, 1)) == [0, 128, 255]


def test_asinh_lifts_what_is_faint():
    def expected(x, softening):
        return int(255 * math.asinh(x / softening) / math.asinh(1 / softening) + 0.5)

    assert grey(one_row(0, 0.1, 0.5, 1), stretch="asinh") == [0, expected(0.1, 0.1), expected(0.5, 0.1), 255]
    assert grey(one_row(0, 0.1, 1), stretch="asinh", softening=0.01) == [0, expected(0.1, 0.01), 255]


def test_log_is_that_of_ds9():
    expected = int(255 * math.log(1 + 1000 * 0.1) / math.log(1001) + 0.5)
    assert grey(one_row(0, 0.1, 1), stretch="log") == [0, expected, 255]


@pytest.mark.parametrize("stretch", ["linear", "asinh", "log"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_table_gives_what_the_formula_gives(stretch, dtype):
    image = noise(dtype, 3, side=160)  # more pixels than there are values
    rendering = Rendering(stretch=stretch, limits="percentile")
    exact = image.astype(np.float32)
    np.testing.assert_array_equal(
        render(image, rendering), render(exact, rendering, bounds=bounds_of(image, rendering))
    )


def test_percentiles_are_values_of_the_image():
    values = one_row(*range(1, 101))
    assert bounds_of(values, Rendering(limits="percentile", black=5, white=90)) == ((5, 90),)
    assert bounds_of(values, Rendering()) == ((1, 100),)
    assert bounds_of(values.astype(np.uint8), Rendering()) == ((0, 255),)


def test_zscale_follows_the_bulk_and_not_the_outliers():
    # 980 pixels rise by 0.01 each, 20 are far away. The fit to those left has the slope 0.01, made
    # four times as steep: up from the median, 4.995, by 501 * 0.04; down to the lowest pixel.
    values = np.r_[np.arange(980) * 0.01, np.full(20, 1e4)].astype(np.float32)
    low, high = zscale_limits(np.random.default_rng(0).permutation(values).reshape(20, 50))
    assert low == 0
    assert high == pytest.approx(4.995 + 501 * 0.04, rel=1e-4)


def test_zscale_of_a_mess_is_its_whole_range():
    values = np.array([0, 0, 0, 100], np.float32)
    assert zscale_limits(values) == (0, 100)


def test_zscale_looks_at_a_sample_of_a_large_image():
    image = np.random.default_rng(0).normal(100, 5, (1200, 1200)).astype(np.float32)
    low, high = zscale_limits(image)
    assert 70 < low < 95
    assert 105 < high < 140


@pytest.mark.parametrize("limits", ["auto", "percentile", "zscale"])
@pytest.mark.parametrize("stretch", ["linear", "asinh", "log"])
def test_missing_pixels_are_black_and_infinite_ones_white(stretch, limits):
    image = one_row(*range(100), np.nan, np.inf, -np.inf)
    row = render(image, Rendering(stretch=stretch, limits=limits))[0, :, 0].tolist()
    assert row[-3:] == [0, 255, 0]
    assert row[:100] == sorted(row[:100])
    assert row[99] > row[1]


@pytest.mark.parametrize("limits", ["auto", "percentile", "zscale"])
def test_an_image_without_a_finite_pixel_is_refused(limits):
    with pytest.raises(ValueError, match="no pixel is finite"):
        render(np.full((4, 4, 1), np.nan, np.float32), Rendering(limits=limits))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limits", ["auto", "percentile", "zscale"])
@pytest.mark.parametrize("stretch", ["linear", "asinh", "log"])
def test_a_constant_image_has_one_grey(dtype, limits, stretch):
    picture = render(np.full((9, 9, 3), 7, dtype), Rendering(limits=limits, stretch=stretch))
    assert picture.shape == (9, 9, 3)
    assert len(np.unique(picture)) == 1


def test_one_channel_is_shown_in_grey_within_its_own_limits():
    image = np.stack([noise(np.float32, 1)[..., 0] * k for k in (1, 10, 100, 1000, 1e4)], axis=2)
    first = render(image, Rendering(channel=0))
    assert first.std() > 20
    np.testing.assert_array_equal(first, render(image, Rendering(channel=4)))
    np.testing.assert_array_equal(first[..., 0], first[..., 2])
    together = render(image, Rendering())  # the brightest of all five sets the limits
    assert together.shape == (40, 40, 3)
    assert together.max() <= 10


def test_of_two_channels_the_mean_is_green():
    assert render(np.array([[[0, 200]]], np.uint8), Rendering()).tolist() == [[[0, 100, 200]]]


def test_a_grey_image_is_the_same_in_each_channel_but_others_have_only_theirs():
    image = noise(np.uint8, 1)
    np.testing.assert_array_equal(render(image, Rendering(channel=2)), render(image, Rendering()))
    with pytest.raises(ValueError, match="it has 3 channels, and channel 4 was chosen"):
        render(noise(np.uint8, 3), Rendering(channel=3))


def test_brightness_contrast_and_inversion_do_what_the_css_filters_do():
    levels = np.array([[[v] * 3 for v in (0, 51, 102, 204, 255)]], np.uint8)

    def filtered(**options):
        return render(levels, Rendering(**options))[0, :, 0].tolist()

    assert filtered(brightness=2.0) == [0, 102, 204, 255, 255]
    assert filtered(contrast=2.0) == [0, 0, 77, 255, 255]  # 2 * (0.4 - 0.5) + 0.5 = 0.3
    assert filtered(invert=True) == [255, 204, 153, 51, 0]
    assert filtered(brightness=2.0, invert=True) == [255, 153, 51, 0, 0]
    assert Rendering(brightness=1.5, contrast=0.8, invert=True).css_filter == (
        "brightness(1.5) contrast(0.8) invert(1)"
    )
    assert Rendering(stretch="log").css_filter == ""


def test_what_the_browser_adds_needs_no_other_pixels():
    rendering = Rendering(stretch="asinh", brightness=1.5, contrast=0.8, invert=True)
    assert rendering.pixels == Rendering(stretch="asinh")
    assert hash(rendering.pixels) == hash(Rendering(stretch="asinh"))


def test_the_summary_names_what_is_not_as_usual():
    assert Rendering().summary == ""
    assert Rendering(limits="zscale", stretch="asinh", channel=1, invert=True).summary == (
        "zscale, asinh, channel 2, inverted"
    )
    assert Rendering(limits="percentile", white=99, contrast=2.0).summary == "0.5-99 %, contrast 2"


def test_parts_of_an_image_are_shown_within_the_limits_of_the_whole():
    image = noise(np.float32)
    rendering = Rendering(stretch="asinh")
    part = render(image[:10, :20], rendering, bounds=bounds_of(image, rendering))
    np.testing.assert_array_equal(part, render(image, rendering)[:10, :20])


def test_the_image_itself_is_not_changed():
    for dtype in DTYPES:
        image = noise(dtype)
        image.setflags(write=False)
        before = image.copy()
        for rendering in (Rendering(), Rendering(stretch="log", channel=1, invert=True)):
            render(image, rendering)
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stretch": "sqrt"}, r"stretch='sqrt'\): allowed are 'auto', 'linear', 'asinh', 'log'"),
        ({"limits": None}, "allowed are 'auto', 'percentile', 'zscale'"),
        ({"white": 101}, "allowed is a number from 0 to 100"),
        ({"black": math.nan}, "allowed is a number"),
        ({"black": 60, "white": 40}, "has to be below"),
        ({"softening": 0}, "from 0.001 to 1"),
        ({"brightness": "2"}, "allowed is a number"),
        ({"contrast": True}, "allowed is a number"),
        ({"channel": -1}, "whole number from 0, or None"),
        ({"channel": 1.0}, "whole number from 0, or None"),
        ({"invert": 1}, "allowed are True and False"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Rendering(**options)


def test_options_survive_a_dictionary_and_unknown_ones_are_refused():
    rendering = Rendering(stretch="log", limits="percentile", black=1, white=99.5, channel=2, invert=True)
    assert Rendering.from_dict(rendering.to_dict()) == rendering
    with pytest.raises(ConfigError, match=r"Unknown options of Rendering: \['gamma'\]"):
        Rendering.from_dict({"gamma": 2})


def test_a_picture_keeps_each_pixel_up_to_a_million_and_is_small_above():
    picture = np.random.default_rng(0).integers(0, 255, (64, 50, 3), dtype=np.uint8)
    data = encode_picture(picture)
    assert data.startswith(b"\x89PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
    assert encode_picture(np.zeros((1025, 1024, 3), np.uint8)).startswith(b"\xff\xd8")
