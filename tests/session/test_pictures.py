"""Pictures for people: thumbnails and cutouts rendered as wanted, files and positions."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from amatch_widgets.demo import DemoSource, sky
from amatch_widgets.errors import ImageReadError, LabelError
from amatch_widgets.images.files import FolderSource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.render import Rendering, render
from amatch_widgets.images.source import index_of
from amatch_widgets.session.pictures import Pictures
from tests.session.helper import SKY, holey


def pictures(source, **options):
    return Pictures(source, index_of(source), lambda: Preprocess(**options).fitted(source))


def decoded(data):
    return np.asarray(Image.open(io.BytesIO(data)))


PLACES = ((10.5, -41.25), None, (370, 0), (math.nan, 0), (0, 91), (-1e-20, 90))


class Catalogue(DemoSource):
    """A sky that knows where its images are."""

    def position(self, index):
        return PLACES[index]


def test_a_cutout_is_the_whole_image_to_the_pixel(session):
    image = SKY.read(3)
    np.testing.assert_array_equal(decoded(session.cutout(SKY.ids[3])), image)
    rendering = Rendering(stretch="asinh", channel=1, invert=True)
    np.testing.assert_array_equal(
        decoded(session.cutout(SKY.ids[3], rendering=rendering)), render(image, rendering)
    )
    assert decoded(session.cutout(SKY.ids[3], side=16)).shape == (16, 16, 3)
    with pytest.raises(LabelError, match="Unknown image id 'x'"):
        session.cutout("x")


def test_a_thumbnail_has_the_crop_of_the_model_and_a_cutout_has_not():
    source = sky(4, size=64)
    cropped = pictures(source, crop=32)
    assert decoded(cropped.thumbnail("0", 128)).shape == (32, 32, 3)
    assert decoded(cropped.cutout("0")).shape == (64, 64, 3)
    dark = decoded(cropped.thumbnail("0", 128)).mean()
    assert decoded(cropped.thumbnail("0", 128, Rendering(invert=True))).mean() > dark + 50


def test_what_cannot_be_read_or_rendered_says_why():
    for make in (Pictures.thumbnail, Pictures.cutout):
        with pytest.raises(ImageReadError, match="'03' cannot be read: it has a hole"):
            make(pictures(holey([3])), "03", 16)
    with pytest.raises(ImageReadError, match="'0' cannot be read: it has 3 channels, and channel 5"):
        pictures(sky(4)).cutout("0", Rendering(channel=4))
    with pytest.raises(ImageReadError, match="channel 5"):
        pictures(sky(4)).thumbnail("0", 16, Rendering(channel=4))


def test_alpha_is_laid_on_black_in_both(tmp_path):
    half = np.full((8, 8, 4), 255, np.uint8)
    half[:, :4, 3] = 0
    Image.fromarray(half).save(tmp_path / "a.png")
    folder = pictures(FolderSource(tmp_path))
    assert decoded(folder.cutout("a.png"))[0, :, 0].tolist() == [0] * 4 + [255] * 4
    assert decoded(folder.thumbnail("a.png", 8))[0, 0, 0] < 10


def test_only_files_have_a_size(tmp_path):
    Image.fromarray(SKY.read(0)).save(tmp_path / "a.png")
    folder = pictures(FolderSource(tmp_path))
    assert folder.n_bytes("a.png") == (tmp_path / "a.png").stat().st_size
    (tmp_path / "a.png").unlink()
    assert folder.n_bytes("a.png") is None
    assert pictures(SKY).n_bytes(SKY.ids[0]) is None


def test_a_position_is_one_on_the_sky_or_none():
    source = pictures(Catalogue(6))
    assert [source.position(str(i)) for i in range(6)] == [(10.5, -41.25), None, (10, 0), None, None, (0, 90)]
    assert pictures(SKY).position(SKY.ids[0]) is None
