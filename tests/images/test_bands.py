"""Bands become channels: chosen by name, weighted, and checked against the source."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets.errors import ConfigError, SourceError
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.render import Rendering, render
from amatch_widgets.images.source import open_source

rng = np.random.default_rng(0)
NAMES = ("VIS", "Y", "J", "H")


def source(dtype=np.float32, bands=NAMES, n=3):
    images = rng.normal(100, 20, (n, 16, 16, len(NAMES)))
    found = open_source(images.astype(dtype))
    found.bands = bands
    return found


def prepared(image, **options):
    return Preprocess(size=16, **options).fitted(source())(image)


def test_bands_are_chosen_by_name_in_any_order():
    images = source()
    image = images.read(0)
    fitted = Preprocess(size=16, mix=["H", "J", "VIS"]).fitted(images)
    assert (fitted.channels, fitted.n_bands, fitted.bands) == (3, 4, NAMES)
    np.testing.assert_array_equal(fitted(image), Preprocess(size=16)(image[..., [3, 2, 0]]))
    np.testing.assert_array_equal(fitted.mixed(image), image[..., [3, 2, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bands_that_are_only_chosen_keep_their_depth(dtype):
    image = source(dtype).read(0)
    mixed = Preprocess(mix=["Y", "Y"]).fitted(source()).mixed(image)
    assert mixed.dtype == dtype
    np.testing.assert_array_equal(mixed, image[..., [1, 1]])


def test_weights_by_name_and_a_matrix_are_the_same():
    by_name = Preprocess(mix=[{"VIS": 1}, {"Y": 0.5, "J": 0.25}, {"H": 2, "J": -1}]).fitted(source())
    by_number = Preprocess(mix=np.array([[1, 0, 0, 0], [0, 0.5, 0.25, 0], [0, 0, -1, 2]])).fitted(source())
    assert by_name == by_number
    image = source(np.uint16).read(1)
    expected = image.astype(np.float64) @ np.array(by_number.mix).T
    np.testing.assert_allclose(by_name.mixed(image), expected, rtol=1e-6)
    assert by_name.mixed(image).dtype == np.float32


def test_a_pixel_without_data_in_a_band_that_takes_part_is_black():
    image = source().read(0).copy()
    image[2, 3, 0] = np.nan
    image[5, 6, 1] = np.nan
    mixed = Preprocess(mix=[{"VIS": 0.5, "J": 0.5}]).fitted(source()).mixed(image)
    assert np.isnan(mixed[2, 3, 0])
    assert np.isnan(mixed).sum() == 1  # Y takes no part
    assert prepared(image, mix=[{"VIS": 0.5, "J": 0.5}])[2, 3, 0] == 0


def test_the_screen_shows_what_the_model_sees():
    image = source().read(2)
    for options in (
        {"mix": ["H", "Y", "VIS"], "stretch": "asinh", "limits": "zscale"},
        {"mix": [{"J": 1, "H": 1}] * 3, "stretch": "log", "limits": "percentile", "black": 5},
        {"mix": [[0, 0, 1, 1]], "limits": "fixed", "low": 150, "high": 300},
        {"mix": ["VIS", "VIS", "H"], "per_channel": True},
        {"stretch": "asinh", "softening": 0.02, "blank": float(image[0, 0, 0])},
    ):
        model = Preprocess(size=16, **options).fitted(source())
        seen = model(image)
        picture = render(model.cut(image), Rendering(), model)
        np.testing.assert_array_equal(picture, np.broadcast_to(seen[..., :3], picture.shape))


def test_a_single_band_can_be_looked_at_beside_a_mix():
    image = source().read(0)
    model = Preprocess(size=16, mix=["H", "Y", "VIS"]).fitted(source())
    np.testing.assert_array_equal(
        render(image, Rendering(channel=2), model), render(image[..., 2:3], Rendering())
    )


def test_other_bands_are_refused():
    model = Preprocess(mix=["H", "J", "VIS"]).fitted(source())
    with pytest.raises(SourceError, match="bands Y, VIS, J, H; images with VIS, Y, J, H, in this order"):
        model.fitted(source(bands=("Y", "VIS", "J", "H")))
    with pytest.raises(SourceError, match="bands Y, VIS, J, H, and the model has learnt from VIS, Y, J, H"):
        model.check(source(bands=("Y", "VIS", "J", "H")))
    with pytest.raises(SourceError, match="have 3 channels, and the model has learnt from 4"):
        model.check(open_source(np.zeros((2, 8, 8, 3), np.uint8)))
    model.check(source(bands=None))  # who gives no names is taken by the number of channels
    assert model.fitted(source(bands=None)) == model


def test_a_mix_that_does_not_fit_the_images_says_what_they_have():
    with pytest.raises(ConfigError, match="names the band 'K'; the images have VIS, Y, J, H"):
        Preprocess(mix=["K"]).fitted(source())
    with pytest.raises(ConfigError, match=r"names the band 'Y'; the images give no names.*each of the 4"):
        Preprocess(mix=["Y"]).fitted(source(bands=None))
    with pytest.raises(ConfigError, match="has 3 numbers in a row; the images have 4 bands"):
        Preprocess(mix=np.eye(3)).fitted(source())
    with pytest.raises(ConfigError, match="it is not known yet which places they have"):
        Preprocess(mix=["Y"])(source().read(0))


def test_an_image_of_other_bands_is_no_image_for_a_mix():
    model = Preprocess(mix=["H"]).fitted(source())
    with pytest.raises(ValueError, match="it has 2 channels where 4 are expected"):
        model(np.zeros((8, 8, 2), np.float32))


def test_grey_and_transparent_pictures_go_with_a_mix_of_colours():
    model = Preprocess(size=8, mix=[[0, 0, 1], [0, 1, 0], [1, 0, 0]])
    colours = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(model(colours), colours[..., ::-1])
    np.testing.assert_array_equal(model(colours[..., :1]), np.repeat(colours[..., :1], 3, axis=2))
    opaque = np.concatenate([colours, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(model(opaque), colours[..., ::-1])


def test_the_summary_names_bands_and_stretch():
    assert Preprocess(size=128).summary == ""
    model = Preprocess(mix=["H", {"Y": 0.5, "J": 0.5}], stretch="asinh", black=1, crop=40, per_channel=True)
    assert model.fitted(source()).summary == (
        "H, 0.5 Y + 0.5 J, asinh 0.1, 1-99.8 %, each channel by itself, the central 40 px"
    )
    assert Preprocess(limits="fixed", low=0, high=2.5, stretch="log").summary == "log, 0 to 2.5"
    assert Preprocess(limits="zscale", mix=[[0, 2]]).summary == "2 2, zscale"
