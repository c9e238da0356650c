"""Cutouts around the objects of a catalogue, from the tiles of a survey."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import tracemalloc
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS

import amatch_widgets as am
from amatch_widgets.errors import ConfigError, ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images import server
from amatch_widgets.images import tile as tile_module
from amatch_widgets.images import tiles as tiles_module
from amatch_widgets.images.catalogue import CatalogueSource
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.source import open_source, read_many, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

RA, DEC = 150.0, 2.0
ARCSEC = 1 / 3600
NOISE = np.random.default_rng(8)


def wcs_at(ra=RA, dec=DEC, *, shape=(200, 300), scale=0.1, turn=0.0, frame=("RA---TAN", "DEC--TAN")):
    """Make the WCS of an image around a place; scale in arcsec a pixel, turn in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = frame
    wcs.wcs.crval = ra, dec
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale * ARCSEC * np.array([[-c, s], [s, c]])
    return wcs


def star(wcs, shape, ra, dec, *, fwhm=0.6, flux=100.0):
    """Draw a Gaussian at a place on the sky, of a width in arcsec."""
    x0, y0 = wcs.all_world2pix(ra, dec, 0)
    sigma = fwhm / 2.355 / (np.sqrt(abs(np.linalg.det(wcs.wcs.cd))) * 3600)
    y, x = np.mgrid[: shape[0], : shape[1]]
    return flux * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / sigma**2)


def write(path, pixels, wcs=None, **more):
    header = wcs.to_header() if wcs is not None else fits.Header()
    header.update(more)
    fits.PrimaryHDU(np.asarray(pixels), header).writeto(path)
    return path


def noise(shape=(200, 300), kind="f4"):
    return NOISE.normal(100, 20, shape).astype(kind)


def peak(band):
    """Return the centroid of one star."""
    y, x = np.mgrid[: band.shape[0], : band.shape[1]]
    return (band * x).sum() / band.sum(), (band * y).sum() / band.sum()


@pytest.fixture
def survey(tmp_path):
    """Write two tiles of two bands with a table of four objects, two on each tile."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    rows = []
    for k, ra in enumerate((RA, RA + 0.05)):
        vis, nisp = wcs_at(ra), wcs_at(ra, shape=(80, 120), scale=0.3, turn=25)
        write(folder / f"VIS_{k}.fits", noise(), vis)
        write(folder / f"NISP_{k}.fits", noise((80, 120)), nisp)
        for x, y in ((100, 90), (190, 110)):
            sky = vis.all_pix2world(x, y, 0)
            rows.append((f"00{len(rows)}", float(sky[0]), float(sky[1]), k))
    table = pd.DataFrame(rows, columns=["object_id", "RA", "DEC", "tile"])
    table.to_csv(tmp_path / "objects.csv", index=False)
    return tmp_path


BANDS = {"VIS": "VIS_{tile}.fits", "Y": "NISP_{tile}.fits"}


def opened(survey, **options):
    options = {"tiles": survey / "tiles", "bands": BANDS, "size": 32} | options
    return CatalogueSource(options.pop("table", survey / "objects.csv"), **options)


class TestTwoBands(SourceContract):
    @pytest.fixture
    def source(self, survey):
        return opened(survey)


class TestTilesByFootprint(SourceContract):
    @pytest.fixture
    def source(self, survey):
        return opened(survey, tile_from="footprint", name="wide")


class TestPixelPositionsOfATableInMemory(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        write(tmp_path / "a.fits", noise())
        table = pd.DataFrame({"x": [20.0, 60.5], "y": [30.0, 40.0], "tile": ["a.fits"] * 2})
        return CatalogueSource(table, tiles=tmp_path, size=16)


class TestCompressedTiles(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        hdu = fits.CompImageHDU(noise(), wcs_at().to_header(), tile_shape=(50, 50))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
        table = Table({"ra": [RA, RA + 0.001], "dec": [DEC, DEC]})
        return CatalogueSource(table, tiles=tmp_path, size=16)


class TestTilesOnAServer(SourceContract):
    @pytest.fixture(params=["by name", "by pattern", "by footprint"])
    def source(self, request, survey, serve):
        more = {"by footprint": {"tile_from": "footprint"}}.get(request.param, {})
        bands = {"VIS": "VIS*{tile}.fits", "Y": "NI*_{tile}.fits"} if request.param == "by pattern" else BANDS
        return opened(survey, tiles=f"{serve(survey).url}/tiles", bands=bands, **more)


class TestCompressedTilesOnAServer(SourceContract):
    @pytest.fixture
    def source(self, tmp_path, serve):
        hdu = fits.CompImageHDU(noise(), wcs_at().to_header(), tile_shape=(50, 50))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
        table = Table({"ra": [RA, RA + 0.001], "dec": [DEC, DEC]})
        return CatalogueSource(table, tiles=serve(tmp_path).url, size=16)


class TestMissingFileOnAServer(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, survey, serve):
        (survey / "tiles" / "NISP_0.fits").unlink()
        table = pd.read_csv(survey / "objects.csv").iloc[[0, 2]]
        return CatalogueSource(table, tiles=f"{serve(survey).url}/tiles", bands=BANDS, size=32)


class TestMissingFile(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, survey):
        (survey / "tiles" / "NISP_0.fits").unlink()
        return CatalogueSource(
            pd.read_csv(survey / "objects.csv").iloc[[0, 2]], tiles=survey / "tiles", bands=BANDS, size=32
        )


class TestTileCutOff(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, survey):
        path = survey / "tiles" / "NISP_0.fits"
        os.truncate(path, path.stat().st_size - 2880 * 5)
        return CatalogueSource(
            pd.read_csv(survey / "objects.csv").iloc[[0, 2]], tiles=survey / "tiles", bands=BANDS, size=32
        )


# ---- what is in a cutout ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [31, 32])
@pytest.mark.parametrize("turn", [0, 33, 180])
@pytest.mark.parametrize("scale", [0.3, 0.1, 0.04])
def test_an_object_is_in_the_middle_of_all_bands(tmp_path, size, turn, scale):
    ra, dec = RA + 4 * ARCSEC, DEC - 3 * ARCSEC
    side = int(40 / scale)
    for name, wcs, shape in (
        ("V", wcs_at(shape=(400, 400)), (400, 400)),
        ("Y", wcs_at(RA + ARCSEC, shape=(side, side), scale=scale, turn=turn), (side, side)),
    ):
        write(tmp_path / f"{name}_7.fits", star(wcs, shape, ra, dec).astype("f4"), wcs)
    table = pd.DataFrame({"ra": [ra], "dec": [dec], "tile": ["7"]})
    source = CatalogueSource(
        table, tiles=tmp_path, bands={"V": "V_{tile}.fits", "Y": "Y_{tile}.fits"}, size=size
    )
    image = source.read(0)
    assert image.shape == (size, size, 2)
    assert np.isfinite(image).all()
    places = [peak(image[..., band]) for band in (0, 1)]
    assert np.abs(np.array(places) - (size - 1) / 2).max() <= 0.501  # of a pixel
    assert np.abs(np.subtract(*places)).max() < 0.01


def test_another_band_is_turned_as_the_first(tmp_path):
    """Two objects beside each other are so in both bands, though one tile is turned by 60 degrees."""
    beside = (RA, DEC + 1 * ARCSEC)  # to the north
    for name, turn in (("V", 0), ("Y", 60)):
        wcs = wcs_at(shape=(200, 200), turn=turn)
        pixels = star(wcs, (200, 200), RA, DEC) + star(wcs, (200, 200), *beside, flux=200)
        write(tmp_path / f"{name}_7.fits", pixels.astype("f4"), wcs)
    table = pd.DataFrame({"ra": [RA], "dec": [DEC], "tile": [7]})
    bands = {"V": "V_{tile}.fits", "Y": "Y_{tile}.fits"}
    image = CatalogueSource(table, tiles=tmp_path, bands=bands, size=41).read(0)
    np.testing.assert_allclose(image[..., 0], image[..., 1], atol=8)  # of 200: interpolated
    y, x = np.unravel_index(image[..., 1].argmax(), (41, 41))
    assert (x, y) == (20, 30)


def test_pixels_of_the_first_band_and_of_those_on_its_grid_are_as_they_are(tmp_path):
    wcs = wcs_at()
    pixels = [noise(), noise()]
    for name, data in zip("ab", pixels, strict=True):
        write(tmp_path / f"{name}1.fits", data, wcs)
    table = pd.DataFrame({"ra": [RA, RA + 2 * ARCSEC], "dec": [DEC, DEC + ARCSEC / 2], "tile": [1, 1]})
    source = CatalogueSource(table, tiles=tmp_path, bands={"a": "a{tile}.fits", "b": "b{tile}.fits"}, size=11)
    for i, row in table.iterrows():
        x, y = np.round(wcs.all_world2pix(row.ra, row.dec, 0)).astype(int)
        for band in (0, 1):
            expected = pixels[band][y - 5 : y + 6, x - 5 : x + 6]
            np.testing.assert_array_equal(source.read(i)[..., band], expected)


def test_smaller_pixels_are_averaged_and_surface_brightness_stays(tmp_path):
    coarse, fine = wcs_at(shape=(50, 50), scale=0.3), wcs_at(shape=(150, 150), scale=0.1)
    pixels = noise((150, 150))
    write(tmp_path / "a_1.fits", noise((50, 50)), coarse)
    write(tmp_path / "b_1.fits", pixels, fine)
    table = pd.DataFrame({"ra": [RA], "dec": [DEC], "tile": [1]})
    source = CatalogueSource(
        table, tiles=tmp_path, bands={"a": "a_{tile}.fits", "b": "b_{tile}.fits"}, size=20
    )
    x, y = coarse.all_world2pix(RA, DEC, 0)
    left, top = (int(np.floor(v - 9.5 + 0.5)) for v in (x, y))
    expected = pixels.reshape(50, 3, 50, 3).mean(axis=(1, 3))[top : top + 20, left : left + 20]
    np.testing.assert_allclose(source.read(0)[..., 1], expected, rtol=1e-4)


def test_pixel_positions_count_from_0(tmp_path):
    pixels = np.arange(200 * 300, dtype=">i4").reshape(200, 300)
    write(tmp_path / "a.fits", pixels)
    table = pd.DataFrame({"X": [0, 40.4, 299], "Y": [0, 50.6, 199], "tile": "a.fits"})
    source = CatalogueSource(table, tiles=tmp_path, size=1)
    assert [source.read(i).item() for i in range(3)] == [0, 51 * 300 + 40, 199 * 300 + 299]


@pytest.mark.parametrize(
    ("stored", "more", "expected"),
    [
        (np.array([[1, 2], [3, 4]], ">i2"), {"BSCALE": 0.5, "BZERO": 10.0}, [[10.5, 11], [11.5, 12]]),
        (np.array([[1, 2], [-9, 4]], ">i4"), {"BLANK": -9}, [[1, 2], [np.nan, 4]]),
        (np.array([[1, 2], [3, 4]], ">f8"), {}, [[1, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]], "u1"), {}, [[1, 2], [3, 4]]),
    ],
)
def test_numbers_are_in_the_unit_of_the_file(tmp_path, stored, more, expected):
    hdu = fits.PrimaryHDU(stored)
    content = bytearray(hdu.header.tostring().encode())
    for key, value in more.items():  # astropy would scale the pixels when it writes
        header = fits.Header.fromstring(bytes(content))
        header[key] = value
        content = bytearray(header.tostring().encode())
    data = stored.tobytes()
    (tmp_path / "a.fits").write_bytes(bytes(content) + data + bytes(2880 - len(data)))
    table = pd.DataFrame({"x": [0.5], "y": [0.5], "tile": "a.fits"})
    image = CatalogueSource(table, tiles=tmp_path, size=2).read(0)
    np.testing.assert_array_equal(image[..., 0], np.array(expected, "f4"))


def test_an_edge_is_filled_with_nan_up_to_a_share(tmp_path):
    pixels = noise()
    write(tmp_path / "a.fits", pixels)
    table = pd.DataFrame({"x": [3.0, -1.0, 0.0, 297.0], "y": [100, 100, 0, 100], "tile": "a.fits"})
    source = CatalogueSource(table, tiles=tmp_path, size=11)
    left = source.read(0)[..., 0]
    assert np.isnan(left[:, :2]).all()
    np.testing.assert_array_equal(left[:, 2:], pixels[95:106, :9])
    right = source.read(3)[..., 0]
    np.testing.assert_array_equal(right[:, :8], pixels[95:106, 292:])
    assert np.isnan(right[:, 8:]).all()
    for index, share in ((1, 55), (2, 70)):
        with pytest.raises(ImageReadError, match=rf"{share}% of its pixels are missing: it lies at the edge"):
            source.read(index)
    assert CatalogueSource(table, tiles=tmp_path, size=11, max_missing=0.8).read(2).shape == (11, 11, 1)
    with pytest.raises(ImageReadError, match="18% of its pixels"):
        CatalogueSource(table, tiles=tmp_path, size=11, max_missing=0).read(0)


def test_a_band_without_data_is_named(survey):
    path = survey / "tiles" / "NISP_0.fits"
    wcs = WCS(fits.getheader(path))
    path.unlink()
    write(path, np.full((80, 120), np.nan, "f4"), wcs)
    with pytest.raises(ImageReadError, match="100% of its pixels are missing in the band 'Y'"):
        opened(survey).read(0)


def test_one_dead_pixel_of_another_band_does_not_grow(tmp_path):
    for name, turn in (("a", 0), ("b", 30)):
        pixels = np.ones((200, 300), "f4")
        if name == "b":
            pixels[100, 150] = np.nan
        write(tmp_path / f"{name}1.fits", pixels, wcs_at(turn=turn))
    table = pd.DataFrame({"ra": [RA], "dec": [DEC], "tile": [1]})
    source = CatalogueSource(table, tiles=tmp_path, bands={"a": "a{tile}.fits", "b": "b{tile}.fits"}, size=21)
    second = source.read(0)[..., 1]
    assert np.isnan(second).sum() in (1, 2)
    np.testing.assert_allclose(second[np.isfinite(second)], 1, rtol=1e-6)


@pytest.mark.parametrize("frame", [("GLON-TAN", "GLAT-TAN"), ("DEC--TAN", "RA---TAN")])
def test_other_frames_and_orders_of_axes_find_the_same_place(tmp_path, frame):
    sky = SkyCoord(RA, DEC, unit="deg")
    at = (sky.galactic.l.deg, sky.galactic.b.deg) if "G" in frame[0] else (DEC, RA)
    wcs = wcs_at(*at, frame=frame)
    pixels = np.zeros((200, 300), "f4")
    pixels[99:101, 149:151] = 1
    write(tmp_path / "a.fits", pixels, wcs)
    source = CatalogueSource(pd.DataFrame({"ra": [RA], "dec": [DEC]}), tiles=tmp_path, size=2)
    assert source.read(0).sum() >= 1


def test_distortion_is_taken_into_account(tmp_path):
    wcs = wcs_at()
    header = wcs.to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-3, "B_0_2": 1e-3})
    pixels = np.arange(60000, dtype="f4").reshape(200, 300)
    fits.PrimaryHDU(pixels, header).writeto(tmp_path / "a.fits")
    bent = WCS(fits.getheader(tmp_path / "a.fits"))
    ra, dec = (float(v) for v in bent.all_pix2world(250, 180, 0))
    assert np.hypot(*(np.array(wcs.all_world2pix(ra, dec, 0)) - (250, 180))) > 5
    for options in ({"tile_from": None}, {"tile_from": "footprint"}):
        table = pd.DataFrame({"ra": [ra], "dec": [dec], "tile": "a.fits"})
        source = CatalogueSource(table, tiles=tmp_path, size=1, **options)
        assert source.read(0).item() == 180 * 300 + 250


# ---- which tile -------------------------------------------------------------------------------------


def test_of_several_tiles_the_object_lies_deepest_in_one(tmp_path):
    for k in range(3):
        write(tmp_path / f"{k}.fits", np.full((200, 300), k, "f4"), wcs_at(RA + k * 15 * ARCSEC))
    ra = RA + np.array([0, 6, 9, 15, 22, 24, 30]) * ARCSEC
    source = CatalogueSource(pd.DataFrame({"ra": ra, "dec": DEC}), tiles=tmp_path, size=4)
    assert [int(source.read(i).flat[0]) for i in range(7)] == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9999, -60), (12.0, 89.999), (200.0, -90.0)])
def test_footprints_are_found_all_over_the_sky(tmp_path, ra, dec):
    wcs = wcs_at(ra, dec, shape=(40, 40), scale=5)
    write(tmp_path / "a.fits", np.arange(1600, dtype="f4").reshape(40, 40), wcs)
    far = (ra + 90) % 360, -dec if abs(dec) > 10 else 50
    x, y = np.meshgrid(range(1, 39), range(1, 39))
    sky = wcs.all_pix2world(x.ravel(), y.ravel(), 0)
    table = {"ra": np.append(sky[0], far[0]), "dec": np.append(sky[1], far[1])}
    source = CatalogueSource(pd.DataFrame(table), tiles=tmp_path, size=1)
    found = dict(read_many(source, range(len(source))))
    lost = found.pop(len(source) - 1)
    assert [image.item() for _, image in sorted(found.items())] == (y * 40 + x).ravel().tolist()
    assert "lies on none of the 1 tiles" in str(lost)


def test_an_image_of_the_whole_sky_is_a_tile(tmp_path):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt = ("RA---CAR", "DEC--CAR"), (-1, 1)
    wcs.wcs.crval, wcs.wcs.crpix = (180, 0), (180.5, 90.5)
    write(tmp_path / "a.fits", np.arange(64800, dtype="f4").reshape(180, 360), wcs)
    ra, dec = np.array([0.6, 90.5, 359.4, 180]), np.array([10.5, -89.5, 0.5, 89.4])
    source = CatalogueSource(pd.DataFrame({"ra": ra, "dec": dec}), tiles=tmp_path, size=1)
    x, y = wcs.all_world2pix(ra, dec, 0)
    expected = np.round(y) * 360 + np.round(x)
    assert [source.read(i).item() for i in range(4)] == expected.tolist()


def test_tiles_whose_footprint_cannot_be_told_are_listed(survey):
    write(survey / "tiles" / "VIS_blind.fits", noise())
    (survey / "tiles" / "VIS_junk.fits").write_bytes(b"junk" * 999)
    source = opened(survey, tile_from="footprint")
    assert sorted(source.skipped) == ["blind", "junk"]
    assert "no celestial WCS" in source.skipped["blind"]
    assert "'VIS_junk.fits' cannot be read: its content is not FITS" in source.skipped["junk"]
    assert "2 skipped" in repr(source)
    assert source.read(3).shape == (32, 32, 2)


def test_tiles_by_footprint_are_those_of_the_column(survey):
    by_column, by_footprint = opened(survey), opened(survey, tile_from="footprint")
    for i in range(4):
        np.testing.assert_array_equal(by_column.read(i), by_footprint.read(i))


def test_an_asterisk_stands_for_what_differs(survey):
    folder = survey / "tiles"
    for k in (0, 1):
        (folder / f"VIS_{k}.fits").rename(folder / f"VIS_{k}-A{k}-2024[x].fits")
    bands = {"VIS": "VIS_{tile}-*-*.fits", "Y": "NISP_{tile}.fits"}
    for options in ({}, {"tile_from": "footprint"}):
        assert opened(survey, bands=bands, **options).read(3).shape == (32, 32, 2)
    (folder / "VIS_0-B-2025.fits").write_bytes(b"")
    with pytest.raises(ImageReadError, match="there are 2 such files, among them 'VIS_0-A0-2024"):
        opened(survey, bands=bands).read(0)


@pytest.mark.parametrize("hdu", ["SCI", "sci", 2])
def test_an_hdu_is_named_in_brackets(tmp_path, hdu):
    science, other = (fits.ImageHDU(noise(), wcs_at().to_header(), name=name) for name in ("SCI", "RMS"))
    fits.HDUList([fits.PrimaryHDU(), other, science]).writeto(tmp_path / "t.fits")
    table = pd.DataFrame({"ra": [RA], "dec": [DEC], "tile": "t"})
    bands = {"I": f"{{tile}}.fits[{hdu}]", "rms": "{tile}.fits"}
    image = CatalogueSource(table, tiles=tmp_path, bands=bands, size=2).read(0)
    x, y = (int(np.floor(v - 0.5 + 0.5)) for v in wcs_at().all_world2pix(RA, DEC, 0))
    np.testing.assert_array_equal(image[..., 0], science.data[y : y + 2, x : x + 2])
    np.testing.assert_array_equal(image[..., 1], other.data[y : y + 2, x : x + 2])
    with pytest.raises(ImageReadError, match="no image in an HDU 'DQ' in it, but in 1 RMS, 2 SCI"):
        CatalogueSource(table, tiles=tmp_path, bands={"I": "{tile}.fits[DQ]"}).read(0)


# ---- the table --------------------------------------------------------------------------------------


def as_csv(table, path):
    table.to_csv(path / "t.csv", index=False)
    return path / "t.csv"


def as_parquet(table, path):
    table.to_parquet(path / "t.parquet")
    return path / "t.parquet"


def as_fits(table, path):
    Table.from_pandas(table).write(path / "t.fits")
    return path / "t.fits"


def as_votable(table, path):
    Table.from_pandas(table).write(path / "t.vot", format="votable")
    return path / "t.vot"


@pytest.mark.parametrize(
    "kind",
    [
        as_csv,
        as_parquet,
        as_fits,
        as_votable,
        lambda table, path: table,
        lambda table, path: Table.from_pandas(table),
        lambda table, path: pa.Table.from_pandas(table),
    ],
)
def test_all_kinds_of_tables_give_the_same(survey, kind):
    table = pd.read_csv(survey / "objects.csv", dtype={"object_id": str, "tile": str})
    table["magnitude"] = 20.5
    given = opened(survey)
    source = opened(survey, table=kind(table, survey))
    assert list(source.ids) == ["000", "001", "002", "003"]
    assert isinstance(source.ids, PackedIds)
    assert source.fingerprint() == given.fingerprint()
    for i in range(4):
        np.testing.assert_array_equal(source.read(i), given.read(i))
        assert source.position(i) == given.position(i) == (table.RA[i], table.DEC[i])


@pytest.mark.parametrize(
    "kind", [as_parquet, as_fits, as_votable, lambda table, path: Table.from_pandas(table)]
)
def test_ids_and_tiles_may_be_whole_numbers(survey, kind):
    table = pd.read_csv(survey / "objects.csv")
    table["object_id"] = [2**62 + 1, 7, 8, -9]
    source = opened(survey, table=kind(table, survey))
    assert list(source.ids) == ["4611686018427387905", "7", "8", "-9"]
    assert source.read(3).shape == (32, 32, 2)


@pytest.mark.parametrize(
    "names", [("right_ascension", "Declination"), ("ALPHA_J2000", "DELTA_J2000"), ("RAJ2000", "DEJ2000")]
)
def test_the_usual_names_of_positions_are_known(survey, names):
    table = pd.read_csv(survey / "objects.csv").rename(columns=dict(zip(["RA", "DEC"], names, strict=True)))
    assert opened(survey, table=table).position(0) == opened(survey).position(0)


def test_columns_can_be_named(survey):
    table = pd.read_csv(survey / "objects.csv").add_prefix("my_")
    table["ra"] = table["dec"] = 1.0
    table["label"] = list("abcd")
    source = opened(
        survey, table=table, radec_from=("my_RA", "my_DEC"), tile_from="my_tile", ids_from="label"
    )
    assert list(source.ids) == list("abcd")
    np.testing.assert_array_equal(source.read(2), opened(survey).read(2))
    assert isinstance(opened(survey, ids_from="position").ids, NumberedIds)


def test_rows_without_position_or_tile_are_unreadable_and_stop_nothing(survey):
    table = pd.read_csv(survey / "objects.csv", dtype={"tile": str})
    table.loc[0, "RA"] = np.nan
    table.loc[1, "tile"] = None
    table.loc[2, "DEC"] = 95
    for kind in (lambda t, p: t, as_csv, as_parquet):
        found = dict(read_many(opened(survey, table=kind(table, survey)), range(4)))
        assert "gives no position for it" in found[0].reason
        assert "names no tile for it" in found[1].reason
        assert isinstance(found[2], ImageReadError)
        assert found[3].shape == (32, 32, 2)
    source = opened(survey, table=table, tile_from="footprint")
    found = dict(read_many(source, range(4)))
    assert "gives no position for it" in found[0].reason
    assert found[1].shape == (32, 32, 2)
    assert source.position(0) is None
    assert source.position(2) is None


def test_masked_values_are_missing(survey):
    table = pd.read_csv(survey / "objects.csv")
    masked = Table.from_pandas(table)
    masked["tile"] = MaskedColumn(["0", "0", "1", "1"], mask=[True, False, False, False])
    masked["RA"] = MaskedColumn(table["RA"], mask=[False, True, False, False])
    found = dict(read_many(opened(survey, table=masked), range(4)))
    assert "names no tile" in found[0].reason
    assert "no position" in found[1].reason
    assert found[2].shape == (32, 32, 2)


def test_the_order_of_ids_is_that_of_the_table_and_each_tile_is_opened_once(survey, monkeypatch):
    table = pd.read_csv(survey / "objects.csv", dtype={"object_id": str}).iloc[[2, 0, 3, 1]]
    source = opened(survey, table=table)
    assert list(source.ids) == ["002", "000", "003", "001"]
    made = []
    monkeypatch.setattr(tiles_module, "Tile", lambda *a: made.append(a[0]) or tile_module.Tile(*a))
    assert len(dict(source.read_many([3, 2, 1, 0]))) == 4
    assert len(made) == len(set(made)) == 4  # two tiles of two bands


def test_a_cutout_at_an_edge_leaves_the_tile_open(tmp_path, monkeypatch):
    write(tmp_path / "a.fits", noise())
    table = pd.DataFrame({"x": [150.0, -1.0], "y": [100.0, 100.0], "tile": "a.fits"})
    source = CatalogueSource(table, tiles=tmp_path, size=11)
    made = []
    monkeypatch.setattr(tiles_module, "Tile", lambda *a: made.append(a[0]) or tile_module.Tile(*a))
    for index in (0, 1, 0, 1):
        if index:
            with pytest.raises(ImageReadError, match="of its pixels are missing"):
                source.read(index)
        else:
            source.read(index)
    assert len(made) == 1


def test_many_tiles_in_no_order_are_read_in_larger_pieces(tmp_path):
    write(tmp_path / "a.fits", noise())
    n = 40_000
    shuffled = {"x": np.zeros(n), "y": np.zeros(n), "tile": ["a.fits", "b.fits"] * (n // 2)}
    assert CatalogueSource(pd.DataFrame(shuffled), tiles=tmp_path).chunk == 2500
    ordered = shuffled | {"tile": sorted(shuffled["tile"])}
    assert CatalogueSource(pd.DataFrame(ordered), tiles=tmp_path).chunk == 1


# ---- being kept and opened again --------------------------------------------------------------------


def test_a_spec_opens_it_again(survey):
    source = opened(survey, max_missing=0.4)
    again = source_from_spec(json.loads(json.dumps(source.spec(), sort_keys=True)))
    assert again.fingerprint() == source.fingerprint()
    assert again.bands == ("VIS", "Y")
    assert again.spec() == source.spec()
    np.testing.assert_array_equal(again.read(3), source.read(3))


def test_a_table_in_memory_is_not_opened_again_but_pickled(survey):
    source = opened(survey, table=pd.read_csv(survey / "objects.csv"))
    assert source.spec() == {"kind": "catalogue"}
    with pytest.raises(SourceError, match=r"table of the objects was in memory.*pass that as source="):
        source_from_spec(source.spec())
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read(3), source.read(3))


def test_a_file_is_pickled_by_its_path(survey):
    assert len(pickle.dumps(opened(survey))) < 1000


def test_the_fingerprint_changes_with_ids_positions_bands_and_size(survey):
    table = pd.read_csv(survey / "objects.csv")
    moved, renamed = table.copy(), table.copy()
    moved.loc[3, "RA"] += 1e-9
    renamed.loc[3, "object_id"] = 9
    seen = {
        opened(survey, table=t, **options).fingerprint()
        for t, options in [
            (table, {}),
            (moved, {}),
            (renamed, {}),
            (table, {"size": 33}),
            (table, {"bands": dict(reversed(BANDS.items()))}),
        ]
    }
    assert len(seen) == 5


def test_it_is_public(survey):
    assert am.CatalogueSource is CatalogueSource
    with pytest.raises(SourceError, match=r"opened with its tiles by am.CatalogueSource"):
        open_source(survey / "objects.csv")
    assert isinstance(open_source(opened(survey)), CatalogueSource)


def test_the_position_of_pixels_is_by_the_wcs_of_the_tile(tmp_path):
    write(tmp_path / "a.fits", noise(), wcs_at())
    write(tmp_path / "b.fits", noise())
    table = pd.DataFrame({"x": 10.0, "y": 20.0, "tile": ["a.fits", "b.fits", "c.fits"]})
    source = CatalogueSource(table, tiles=tmp_path)
    np.testing.assert_allclose(source.position(0), wcs_at().all_pix2world(10, 20, 0))
    assert source.position(1) is None
    assert source.position(2) is None


# ---- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"junk" * 2000, "its content is not FITS"),
        (b"SIMPLE  =                    T".ljust(2880), "a header of it has no end"),
        (gzip.compress(bytes(9999)), "packed by gzip.*gunzip"),
        (fits.PrimaryHDU().header.tostring().encode(), "there is no image in it"),
        (fits.PrimaryHDU(np.zeros((3, 9, 9), "f4")), "it is a stack of images"),
        (fits.PrimaryHDU(np.zeros((9, 9), "f4")), "no celestial WCS in its header"),
    ],
)
def test_a_damaged_tile_is_said_in_plain_words(survey, content, reason):
    path = survey / "tiles" / "NISP_0.fits"
    path.unlink()
    path.write_bytes(content) if isinstance(content, bytes) else content.writeto(path)
    found = dict(read_many(opened(survey), range(4)))
    for i in (0, 1):
        assert isinstance(found[i], ImageReadError)
        assert "NISP_0.fits" in found[i].reason
        with pytest.raises(ImageReadError, match=reason):
            opened(survey).read(i)
    assert found[2].shape == found[3].shape == (32, 32, 2)


@pytest.mark.parametrize("changes", [{"NAXIS1": 10**7}, {"NAXIS1": -3}, {"NAXIS1": "x"}, {"BITPIX": 7}])
def test_a_hostile_header_is_a_reason(survey, changes):
    path = survey / "tiles" / "NISP_0.fits"
    content = path.read_bytes()
    header = fits.Header.fromstring(content[:2880])
    header.update(changes)
    path.write_bytes(header.tostring().encode() + content[2880:])
    with pytest.raises(ImageReadError, match="NISP_0"):
        opened(survey).read(0)


def test_a_pipe_is_no_tile(survey):
    path = survey / "tiles" / "VIS_0.fits"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ImageReadError, match="no ordinary file"):
        opened(survey).read(0)


def test_a_tile_that_is_cut_off_while_it_is_open_does_not_end_the_process(survey):
    source = opened(survey)
    source.read(0)
    path = survey / "tiles" / "VIS_0.fits"
    os.truncate(path, 2880 * 2)
    found = dict(read_many(source, range(4)))
    for i in (0, 1):
        assert isinstance(found[i], ImageReadError)
        assert "cut off" in found[i].reason
    assert found[3].shape == (32, 32, 2)


def test_tiles_that_go_away_and_come_back_are_read_again(survey):
    source = opened(survey)
    (survey / "tiles").rename(survey / "gone")
    assert all(isinstance(found, ImageReadError) for _, found in read_many(source, range(4)))
    (survey / "gone").rename(survey / "tiles")
    assert all(isinstance(found, np.ndarray) for _, found in read_many(source, range(4)))


def test_pixels_that_are_far_too_small_are_refused(survey):
    path = survey / "tiles" / "NISP_0.fits"
    path.unlink()
    write(path, noise(), wcs_at(scale=0.001))
    with pytest.raises(
        ImageReadError, match=r"100 times smaller than those of the first band; the limit is 16"
    ):
        opened(survey).read(0)


def test_names_of_tiles_are_only_names(survey):
    table = pd.read_csv(survey / "objects.csv", dtype={"tile": str})
    table["tile"] = ["{0}", "\0", "*", "1"]
    found = dict(read_many(opened(survey, table=table), range(4)))
    assert "there is no such file" in found[0].reason
    assert all(isinstance(found[i], ImageReadError) for i in (0, 1, 2))
    assert found[3].shape == (32, 32, 2)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"RA": None}, {}, "no columns of positions by a name that is known.*columns are 'object_id', 'DEC'"),
        ({}, {"radec_from": ("ra1", "DEC")}, "radec_from='ra1': the DataFrame has no such column"),
        ({}, {"radec_from": "ra"}, "two names of columns are wanted"),
        ({}, {"radec_from": ("RA", "DEC"), "xy_from": ("x", "y")}, "both given"),
        ({}, {"tile_from": "no"}, "tile_from='no'"),
        ({}, {"ids_from": "no"}, "ids_from='no'"),
        ({"object_id": "same"}, {}, "'same' is given more than once.*Choose others with ids_from="),
        ({"RA": "10:00:00"}, {}, "'RA' of the DataFrame does not hold numbers"),
        ({"tile": 0.5}, {}, "'tile' of the DataFrame does not hold text or whole numbers"),
        ({"tile": "7"}, {}, "None of the tiles that the table names.*for the first, 'VIS_7.fits'"),
        ({}, {"bands": {"VIS": "VIS.fits"}}, "Wanted is one with '{tile}'"),
        ({}, {"bands": {}}, "does not say where the bands are"),
        ({}, {"bands": "VIS_{tile}.fits"}, "does not say where the bands are"),
        ({}, {"bands": {"V": "none_{tile}.fits"}, "tile_from": "footprint"}, "There is no tile in"),
        ({"RA": 10.0}, {"tile_from": "footprint"}, "No object of the DataFrame lies on any of the 2 tiles"),
        ({}, {"tiles": "/no/such"}, "There is no folder '/no/such'"),
        ({}, {"tiles": None}, "Where are the tiles"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_to_do(survey, change, options, message):
    table = pd.read_csv(survey / "objects.csv").assign(**change).dropna(axis=1)
    with pytest.raises(SourceError, match=message):
        opened(survey, table=table, **options)


def test_pixel_positions_need_a_tile(tmp_path):
    with pytest.raises(SourceError, match="does not say on which tile"):
        CatalogueSource(pd.DataFrame({"x": [1.0], "y": [2.0]}), tiles=tmp_path)


def test_an_empty_table_is_refused(survey):
    with pytest.raises(SourceError, match="has no row"):
        opened(survey, table=pd.read_csv(survey / "objects.csv").iloc[:0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "cannot be opened"),
        ("a.csv", b"ra,dec,tile\n1,2\n3,4,5\n", "cannot be (read|opened)"),
        ("a.parquet", b"junk", "cannot be opened"),
        ("a.fits", b"junk", "cannot be opened"),
        ("a.vot", b"<junk", "cannot be opened"),
        ("a.xlsx", b"", "is no table, by its ending"),
    ],
)
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
def test_a_damaged_table_is_a_source_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        CatalogueSource(tmp_path / name)


def test_an_image_is_no_table(survey):
    with pytest.raises(SourceError, match="holds no table, at most images"):
        CatalogueSource(survey / "tiles" / "VIS_0.fits")


def test_a_column_in_other_units_is_refused(survey):
    table = Table.from_pandas(pd.read_csv(survey / "objects.csv"))
    table["RA"].unit = "hourangle"
    with pytest.raises(SourceError, match=r"'RA' of the table is in 'hourangle'\. Wanted are degrees"):
        opened(survey, table=table)


@pytest.mark.parametrize("option", [{"size": 0}, {"size": 2.5}, {"size": True}, {"max_missing": 2}])
def test_options_out_of_range_are_refused(survey, option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))}="):
        opened(survey, **option)


def test_without_astropy_the_line_to_type_is_said(survey, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "astropy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[fits\]'"):
        opened(survey)


def test_memory_does_not_grow_with_the_images_asked_for(tmp_path):
    write(tmp_path / "a.fits", noise((1000, 1000)))
    table = pd.DataFrame({"x": np.full(3000, 500.0), "y": np.full(3000, 500.0), "tile": "a.fits"})
    source = CatalogueSource(table, tiles=tmp_path, size=64)
    source.read(0)
    tracemalloc.start()
    n = sum(isinstance(image, np.ndarray) for _, image in source.read_many(range(3000)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 3000
    assert most < 2**20  # all cutouts would be 49 MB, the tile 4 MB


# ---- tiles on a server ------------------------------------------------------------------------------


def test_tiles_on_a_server_give_the_same_cutouts_and_are_read_once(survey, serve):
    web = serve(survey)
    here, there = opened(survey), opened(survey, tiles=f"{web.url}/tiles")
    assert there.fingerprint() == here.fingerprint()
    assert there.spec()["tiles"] == {"path": f"{web.url}/tiles"}
    again = source_from_spec(there.spec())
    for source in (there, again):
        for i in range(len(here)):
            np.testing.assert_array_equal(source.read(i), here.read(i))
    data = Counter(path for method, path in web.requests.elements() if method == "GET" and "fits" in path)
    assert max(data.values()) == 1


def test_tiles_on_a_server_that_fails_are_listed_with_the_reason(survey, serve, monkeypatch):
    monkeypatch.setattr(server, "_WAITS_S", (0.0, 0.0))
    web = serve(survey)
    source = opened(survey, tiles=f"{web.url}/tiles")
    web.answer = {"/tiles/NISP_1.fits": 503}.get
    assert source.read(0).size
    with pytest.raises(
        ImageReadError, match=r"'NISP_1.fits' cannot be read: the server failed \(status 503\)"
    ):
        source.read(2)


def test_tiles_on_a_server_that_cannot_be_listed_are_told(survey, serve, monkeypatch):
    monkeypatch.setattr(server, "_WAITS_S", (0.0, 0.0))
    web = serve(survey)
    web.answer = lambda path: 503
    with pytest.raises(
        SourceError, match=r"cannot be listed: the server failed \(status 503\). Name it by tiles="
    ):
        opened(survey, tiles=f"{web.url}/tiles", bands=None, tile_from="footprint")


def test_options_of_urls_are_refused_for_tiles_on_a_disk(survey):
    with pytest.raises(SourceError, match="are for a table or tiles= behind a URL"):
        opened(survey, storage_options={"anon": True})


def test_a_table_on_a_server_beside_its_tiles_gives_the_same_and_is_fetched_once(survey, serve):
    web = serve(survey)
    here = opened(survey)
    there = opened(survey, table=f"{web.url}/objects.csv", tiles=f"{web.url}/tiles")
    assert (there.name, there.fingerprint()) == (here.name, here.fingerprint())
    assert there.spec()["path"] == {"path": f"{web.url}/objects.csv"}
    assert f"{web.url}/objects.csv" in repr(there)
    for again in (source_from_spec(there.spec()), pickle.loads(pickle.dumps(there))):
        assert again.describe(0) == here.describe(0)
        np.testing.assert_array_equal(again.read(0), here.read(0))
    assert web.requests["GET", "/objects.csv"] == 1


def test_a_table_on_a_server_lies_with_its_tiles(survey, serve, tmp_path):
    shutil.copytree(survey / "tiles", tmp_path / "all")
    shutil.copy(survey / "objects.csv", tmp_path / "all")
    source = opened(survey, table=f"{serve(tmp_path).url}/all/objects.csv", tiles=None)
    np.testing.assert_array_equal(source.read(0), opened(survey).read(0))


def test_a_table_that_a_server_has_not_is_told(survey, serve):
    url = f"{serve(survey).url}/nothing.csv"
    with pytest.raises(SourceError, match=r"no file or folder 'http://.*/nothing.csv'. Check the spelling"):
        CatalogueSource(url, tiles=survey / "tiles")
