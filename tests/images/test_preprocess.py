"""Crop, stretch, channels and size: what the model and a person see of an image."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.preprocess import Preprocess, encode_thumbnail, shrink
from amatch_widgets.images.render import Rendering, render

reproducible = settings(derandomize=True, deadline=None, max_examples=60)
SAME_SIZE = Preprocess(size=8)
GREY = Preprocess(size=8, channels=1)


def thumbnail(preprocess, image, side):
    """What people see of an image by default."""
    return shrink(render(preprocess.cut(image), Rendering()), side)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


def test_eight_bits_of_the_right_size_stay_as_they_are():
    image = noise(8, 8, 3)
    np.testing.assert_array_equal(SAME_SIZE(image), image)


def test_the_result_is_memory_of_its_own():
    image = noise(8, 8, 3)
    image.flags.writeable = False
    result = SAME_SIZE(image)
    result[:] = 0
    assert image.any()


@reproducible
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20).map(lambda s: (*s, 3)),
    ),
    st.integers(8, 16),
    st.none() | st.integers(1, 25),
)
def test_any_image_with_a_finite_pixel_becomes_a_square_of_eight_bits(image, size, crop):
    preprocess = Preprocess(size=size, crop=crop)
    if not np.isfinite(image).any():
        image[0, 0, 0] = 0
    result = preprocess(image)
    assert (result.shape, result.dtype) == ((size, size, 3), np.uint8)
    small = thumbnail(preprocess, image, 6)
    assert small.shape[2] == 3
    assert max(small.shape[:2]) <= 6
    assert small.dtype == np.uint8


def test_the_crop_is_the_centre():
    image = np.zeros((20, 30, 3), np.uint8)
    image[6:14, 11:19] = 200
    assert (Preprocess(size=8, crop=8)(image) == 200).all()


def test_a_crop_larger_than_the_image_leaves_that_direction_whole():
    image = noise(8, 40, 3)
    np.testing.assert_array_equal(Preprocess(size=8, crop=8)(image), image[:, 16:24])
    np.testing.assert_array_equal(Preprocess(size=8, crop=99)(noise(8, 8, 3)), noise(8, 8, 3))


def test_an_image_that_is_not_square_is_squashed():
    image = np.zeros((8, 32, 3), np.uint8)
    image[:, 16:] = 255
    result = SAME_SIZE(image)
    assert (result[:, :3] == 0).all()
    assert (result[:, 5:] == 255).all()


def test_reducing_averages_instead_of_dropping_pixels():
    chess = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.abs(GREY(chess).astype(int) - 127).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_types_are_stretched_between_two_percentiles(dtype):
    image = np.arange(1000, 2000, dtype=dtype)[:, None, None]
    stretched = thumbnail(Preprocess(size=8, channels=1), image, 1000)[:, 0, 0]
    black, white = 1000 + 4, 1000 + 997  # nearest ranks of 0.5 % and 99.8 % of 1000 pixels
    expected = np.clip((np.arange(1000, 2000) - black) / (white - black), 0, 1) * 255
    np.testing.assert_allclose(stretched, expected, atol=0.51)


@reproducible
@given(hnp.arrays(np.uint16, (6, 7, 3)))
def test_sixteen_bits_and_the_same_numbers_as_floats_look_alike(image):
    np.testing.assert_array_equal(SAME_SIZE(image), SAME_SIZE(image.astype(np.float32)))


def test_all_channels_share_one_stretch_so_that_colours_stay():
    image = np.zeros((8, 8, 3), np.float32)
    image[..., 0], image[..., 1] = 1000, 500
    assert SAME_SIZE(image)[0, 0].tolist() == [255, 128, 0]


def test_missing_pixels_are_black_and_infinite_ones_black_or_white():
    image = np.linspace(5, 6, 64, dtype=np.float32).reshape(8, 8, 1)
    image[0, :3, 0] = np.nan, -np.inf, np.inf
    assert GREY(image)[0, :3, 0].tolist() == [0, 0, 255]
    assert GREY(image)[7, 7, 0] == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_without_a_finite_pixel_is_refused(value):
    with pytest.raises(ValueError, match="no pixel is finite: all are NaN or infinite"):
        GREY(np.full((8, 8, 1), value, np.float32))


def test_a_constant_image_is_black():
    assert not GREY(np.full((8, 8, 1), 7, np.uint16)).any()


def test_a_few_bright_pixels_on_nothing_are_white():
    image = np.zeros((100, 100, 1), np.float32)
    image[3, 4] = 9
    assert np.argwhere(thumbnail(GREY, image, 100)[..., 0]).tolist() == [[3, 4]]


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1, 1e30, 3e38])
def test_the_ends_of_single_precision_are_stretched_too(scale):
    image = (np.linspace(-1, 1, 64).reshape(8, 8, 1) * scale).astype(np.float32)
    result = GREY(image).ravel()
    assert result[0] == 0
    assert result[-1] == 255
    assert (np.diff(result.astype(int)) >= 0).all()


def test_grey_is_repeated_to_three_channels():
    image = noise(20, 20, 1)
    result = SAME_SIZE(image)
    np.testing.assert_array_equal(result[..., 0], GREY(image)[..., 0])
    np.testing.assert_array_equal(result[..., 1], result[..., 2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_laid_on_black(dtype):
    white = np.iinfo(dtype).max
    image = np.full((8, 8, 4), white, dtype)
    image[4:, :, 3] = 0
    image[0, 0, 3] = white // 2
    result = SAME_SIZE(image)
    assert result.shape == (8, 8, 3)
    assert (result[1:4] == 255).all()
    assert (result[4:] == 0).all()
    assert 126 <= result[0, 0, 0] <= 128


def test_colour_under_an_opaque_alpha_is_untouched():
    image = noise(8, 8, 4)
    image[..., 3] = 255
    np.testing.assert_array_equal(SAME_SIZE(image), image[..., :3])


@pytest.mark.parametrize(
    ("channels_found", "channels", "dtype"),
    [(2, 3, np.uint8), (5, 3, np.uint8), (3, 1, np.uint8), (3, 4, np.uint8), (4, 3, np.float32)],
)
def test_other_numbers_of_channels_are_refused(channels_found, channels, dtype):
    image = np.ones((8, 8, channels_found), dtype)
    message = f"it has {channels_found} channels where {channels} are expected"
    with pytest.raises(ValueError, match=message):
        Preprocess(size=8, channels=channels)(image)


def test_many_channels_are_kept_and_resized_each():
    image = noise(20, 20, 5)
    result = Preprocess(size=8, channels=5)(image)
    assert result.shape == (8, 8, 5)
    np.testing.assert_array_equal(result[..., 4:], GREY(image[..., 4:]))


@pytest.mark.parametrize("shape", [(8, 8), (0, 8, 3), (8, 8, 0)])
def test_an_image_without_pixels_is_refused(shape):
    with pytest.raises(ValueError, match="height, width and channels are needed"):
        SAME_SIZE(np.zeros(shape, np.uint8))


def test_a_thumbnail_keeps_the_aspect_ratio_and_is_never_enlarged():
    preprocess = Preprocess(size=64)
    assert thumbnail(preprocess, noise(300, 100, 3), 60).shape == (60, 20, 3)
    assert thumbnail(preprocess, noise(1, 5000, 3), 60).shape == (1, 60, 3)
    assert thumbnail(preprocess, noise(30, 20, 3), 60).shape == (30, 20, 3)


def test_a_thumbnail_shows_the_same_crop_and_stretch():
    preprocess = Preprocess(size=16, crop=16)
    image = noise(40, 40, 3, dtype=np.uint16)
    np.testing.assert_array_equal(thumbnail(preprocess, image, 16), preprocess(image))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_thumbnail_is_rgb_for_any_number_of_channels(channels):
    image = noise(8, 8, channels)
    small = thumbnail(Preprocess(size=8, channels=channels), image, 8)
    assert small.shape == (8, 8, 3)
    np.testing.assert_array_equal(small[..., 0], image[..., 0])
    np.testing.assert_array_equal(small[..., 2], image[..., min(2, channels - 1)])


def test_the_middle_colour_of_two_channels_is_their_mean():
    image = np.zeros((8, 8, 2), np.uint8)
    image[..., 1] = 200
    assert thumbnail(Preprocess(size=8, channels=2), image, 8)[0, 0].tolist() == [0, 100, 200]


def test_an_encoded_thumbnail_is_a_jpeg_that_looks_the_same():
    image = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (1, 48, 3))
    data = encode_thumbnail(image)
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.format == "JPEG"
        assert np.abs(np.asarray(decoded).astype(int) - image).max() < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 7}, r"Preprocess\(size=7\): allowed is a whole number from 8 to 1024"),
        ({"size": 5000}, "from 8 to 1024"),
        ({"size": 64.0}, "size=64.0"),
        ({"size": True}, "size=True"),
        ({"crop": 0}, r"Preprocess\(crop=0\)"),
        ({"crop": "256"}, "crop='256'"),
        ({"channels": -1}, r"Preprocess\(channels=-1\)"),
        ({"stretch": "auto"}, "stretch='auto'.: allowed are 'linear', 'asinh', 'log'"),
        ({"limits": "minmax"}, "allowed are 'auto', 'percentile', 'zscale', 'fixed'"),
        ({"limits": "fixed", "low": 3}, "give the pixel values that become black and white"),
        ({"limits": "fixed", "low": 3, "high": 3}, "low below high"),
        ({"black": 99.9}, "has to be below the white one"),
        ({"softening": 0}, "from 0.001 to 1"),
        ({"per_channel": 1}, "allowed are True and False"),
        ({"blank": float("nan")}, "blank=nan.: allowed is a finite number"),
        ({"bands": ("g", "g")}, "names, each once"),
        ({"bands": "gri"}, "names, each once"),
        ({"mix": "gri"}, "for each channel of the result, allowed are a name"),
        ({"mix": []}, "for each channel of the result"),
        ({"mix": [3]}, "weights by name"),
        ({"mix": [{"r": "1"}]}, "weights are finite numbers"),
        ({"mix": [[0, 0.0]]}, "at least one weight has to differ from 0"),
        ({"mix": ["r", "i"], "channels": 3}, "each channel needs a row. Leave channels= out"),
    ],
)
def test_an_option_out_of_its_range_says_what_is_allowed(options, message):
    with pytest.raises(ConfigError, match=message):
        Preprocess(**options)


def test_options_survive_a_dictionary():
    for preprocess in (
        Preprocess(size=128, crop=256, channels=1),
        Preprocess(stretch="asinh", limits="fixed", low=-1, high=30.5, per_channel=True, blank=-99),
        Preprocess(mix=["i", {"r": 0.5, "g": 0.5}], bands=["g", "r", "i"]),
        Preprocess(mix=np.eye(3)[::-1]),
    ):
        kept = json.loads(json.dumps(preprocess.to_dict()))
        assert Preprocess.from_dict(kept) == preprocess
        assert Preprocess.from_dict(kept).to_dict() == preprocess.to_dict()
        assert hash(Preprocess.from_dict(kept)) == hash(preprocess)


def test_folders_of_older_versions_say_less():
    assert Preprocess.from_dict({"size": 128, "crop": None, "channels": 1}) == Preprocess(
        size=128, channels=1
    )


def test_the_repr_is_what_differs():
    assert repr(Preprocess()) == "Preprocess(size=64, channels=3)"
    assert repr(Preprocess(stretch="log", crop=9)) == (
        "Preprocess(stretch='log', size=64, crop=9, channels=3)"
    )


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"Unknown options of Preprocess: \['sise'\]. Known are"):
        Preprocess.from_dict({"sise": 64})


def test_files_may_be_decoded_smaller_unless_there_is_a_crop():
    assert Preprocess(size=64).min_side == 64
    assert Preprocess(size=64, crop=256).min_side is None
