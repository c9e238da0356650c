"""FITS images whose bad pixels are in another HDU."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract

CUBE = np.random.default_rng(0).normal(100, 20, (20, 12, 10)).astype(np.float32)
BAD = np.random.default_rng(1).choice(np.array([0, 0, 0, 4, 2**30], np.int32), (20, 12, 10))


def write(path, *images):
    """Write (name, image) as HDUs."""
    hdus = [fits.ImageHDU(image, name=name) for name, image in images]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def expected(k, images=CUBE):
    return np.where(BAD[k] != 0, np.nan, images[k].astype(np.float32))[..., None]


def assert_masked(source):
    for k in range(len(source)):
        np.testing.assert_array_equal(source.read(k), expected(k))


class TestMaskedCube(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "cube.fits", ("SCI", CUBE), ("DQ", BAD)), mask="dq")


class TestMaskedFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        for k in range(3):
            write(tmp_path / f"{k}.fits", ("SCI", CUBE[k]), ("ERR", CUBE[k]), ("DQ", BAD[k]))
        return open_source(tmp_path, mask="DQ")


def test_pixels_whose_mask_is_not_0_are_nan(tmp_path):
    assert_masked(open_source(write(tmp_path / "cube.fits", ("SCI", CUBE), ("DQ", BAD)), mask=2))
    for k in range(3):
        (tmp_path / "all").mkdir(exist_ok=True)
        write(tmp_path / "all" / f"{k}.fits", ("SCI", CUBE[k]), ("ERR", CUBE[k]), ("DQ", BAD[k]))
    assert_masked(open_source(tmp_path / "all", mask="DQ"))


def test_images_in_hdus_of_their_own_have_masks_in_their_order(tmp_path):
    pairs = [("SCI", CUBE[0]), ("DQ", BAD[0]), ("SCI", CUBE[1]), ("DQ", BAD[1])]
    source = open_source(write(tmp_path / "many.fits", *pairs), mask="DQ")
    assert list(source.ids) == ["1", "3"]
    assert_masked(source)


def test_one_plane_is_the_mask_of_all_images_of_a_cube(tmp_path):
    source = open_source(write(tmp_path / "cube.fits", ("SCI", CUBE), ("DQ", BAD[0])), mask="DQ")
    np.testing.assert_array_equal(np.isnan(source.read(5)[..., 0]), BAD[0] != 0)


def test_a_compressed_cube_with_a_compressed_mask_is_masked_too(tmp_path):
    hdus = [
        fits.CompImageHDU(image, name=name, compression_type="GZIP_1", tile_shape=(2, 12, 10), **options)
        for name, image, options in (("SCI", CUBE, {"quantize_level": 0}), ("DQ", BAD, {}))
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "cube.fits.fz")
    assert_masked(open_source(tmp_path / "cube.fits.fz", mask="DQ"))


def test_one_mask_serves_all_channels(tmp_path):
    bands = np.stack([CUBE, CUBE + 1], axis=1)
    source = open_source(write(tmp_path / "cube.fits", ("SCI", bands), ("DQ", BAD)), mask="DQ")
    image = source.read(3)
    assert image.shape == (12, 10, 2)
    np.testing.assert_array_equal(np.isnan(image), np.repeat(BAD[3][..., None] != 0, 2, axis=2))


def test_bytes_stay_bytes_and_their_bad_pixels_are_black(tmp_path):
    images = CUBE.astype(np.uint8) | 1
    image = open_source(write(tmp_path / "cube.fits", ("SCI", images), ("DQ", BAD)), mask="DQ").read(0)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 0], np.where(BAD[0] != 0, 0, images[0]))


def test_the_mask_is_kept_in_the_spec_and_in_the_fingerprint(tmp_path):
    path = write(tmp_path / "cube.fits", ("SCI", CUBE), ("DQ", BAD))
    write(tmp_path / "one.fits", ("SCI", CUBE[0]), ("DQ", BAD[0]))
    for where, options in ((path, {"hdu": "SCI"}), (tmp_path, {})):
        source = open_source(where, mask="DQ", **options)
        assert source_from_spec(json.loads(json.dumps(source.spec()))).fingerprint() == source.fingerprint()
        assert open_source(where, **options).fingerprint() != source.fingerprint()


@pytest.mark.parametrize(
    ("images", "mask", "message"),
    [
        (
            [("SCI", CUBE), ("DQ", BAD)],
            "MASK",
            r"mask='MASK' is none of its HDUs with pixels: 1 'SCI', 2 'DQ'",
        ),
        ([("SCI", CUBE), ("DQ", BAD[:3])], "DQ", r"1 masks, the first of shape \(3, 12, 10\), for a cube"),
        ([("SCI", CUBE), ("DQ", BAD), ("DQ", BAD)], "DQ", "2 masks.*name it by its number"),
        ([("A", CUBE[0]), ("B", CUBE[1]), ("DQ", BAD[0])], "DQ", "1 masks named 'DQ' for 2 images"),
    ],
)
def test_a_mask_that_does_not_fit_is_told_at_once(tmp_path, images, mask, message):
    with pytest.raises(SourceError, match=message):
        open_source(write(tmp_path / "cube.fits", *images), mask=mask)


def test_an_image_whose_mask_is_missing_or_of_another_size_or_everywhere_is_listed(tmp_path):
    write(tmp_path / "a.fits", ("SCI", CUBE[0]))
    write(tmp_path / "b.fits", ("SCI", CUBE[0]), ("DQ", BAD[0, :5]))
    write(tmp_path / "c.fits", ("SCI", CUBE[0]), ("DQ", np.ones((12, 10), np.int16)))
    write(tmp_path / "d.fits", ("SCI", CUBE[0]), ("DQ", BAD[0]))
    source = open_source(tmp_path, mask="DQ")
    for k, reason in enumerate(("mask='DQ' is none of", r"its mask has shape \(5, 10\)", "all its pixels")):
        with pytest.raises(ImageReadError, match=reason):
            source.read(k)
    assert source.read(3).size


def test_a_mask_is_of_fits_files_alone(tmp_path):
    np.save(tmp_path / "a.npy", CUBE[0])
    with pytest.raises(SourceError, match="mask='DQ' is of FITS files, and there is none"):
        open_source(tmp_path, mask="DQ")
    with pytest.raises(SourceError, match="mask= does not apply to an array"):
        open_source(CUBE, mask="DQ")
