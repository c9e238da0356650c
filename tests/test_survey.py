"""The made-up survey: what is on its tiles, and that the catalogue says where."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

import amatch_widgets as am
from amatch_widgets import demo
from amatch_widgets.errors import ConfigError, ImageReadError, WorkspaceError
from amatch_widgets.images.source import read_many

N = 150  # six of them on a second tile
FILES = [
    *("NIR_H_T00.fits", "NIR_H_T01.fits", "NIR_J_T00.fits", "NIR_J_T01.fits", "NIR_Y_T00.fits"),
    *("NIR_Y_T01.fits", "VIS_T00.fits", "VIS_T01.fits", "catalogue.parquet", "survey.json"),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return demo.survey(tmp_path_factory.mktemp("made") / "up", n=N, prevalence=0.1)


@pytest.fixture(scope="module")
def cutouts(survey):
    """The cutouts that can be read, and why the others cannot, by id."""
    source = am.CatalogueSource(survey.catalogue, bands=survey.bands, size=64)
    return {source.ids[i]: found for i, found in read_many(source, range(len(source)))}


def test_the_folder_holds_a_tile_of_each_band_and_a_catalogue(survey):
    assert names(survey.folder) == FILES
    table = pd.read_parquet(survey.catalogue)
    assert list(table) == ["object_id", "ra", "dec", "tile", "mag_vis"]
    assert list(table["object_id"]) == list(survey.ids) == list(survey.truth)
    assert Counter(table["tile"]) == {"T00": 144, "T01": 6}
    assert table["mag_vis"].between(18, 25).all()


@pytest.mark.parametrize(("name", "arcsec"), [("VIS_T01.fits", 0.1), ("NIR_H_T01.fits", 0.3)])
def test_a_tile_holds_float32_with_a_wcs(survey, name, arcsec):
    with fits.open(survey.folder / name) as hdus:
        assert hdus[0].data.dtype == np.dtype(">f4")
        assert hdus[0].header["BUNIT"] == "nJy"
        assert proj_plane_pixel_scales(WCS(hdus[0].header)) * 3600 == pytest.approx([arcsec, arcsec])


def test_the_noise_of_the_sky_is_the_same_for_an_area_in_all_bands(survey):
    """Of the last tile all but the first six cells are empty."""
    fine, coarse = (fits.getdata(survey.folder / name)[-100:] for name in ("VIS_T01.fits", "NIR_Y_T01.fits"))
    assert np.nanmean(fine) == pytest.approx(0, abs=0.05)
    assert np.nanstd(fine) == pytest.approx(1.54, rel=0.02)
    assert np.nanstd(coarse) == pytest.approx(3 * 1.54, rel=0.02)


def test_all_but_the_first_object_of_each_tile_can_be_read(cutouts):
    assert [i for i, found in cutouts.items() if isinstance(found, ImageReadError)] == ["T00-000", "T01-000"]
    assert "missing in the band 'Y'" in str(cutouts["T00-000"])


def test_some_cutouts_have_columns_without_data(cutouts):
    gaps = [np.isnan(c[..., 0]).all(axis=0).sum() for c in cutouts.values() if isinstance(c, np.ndarray)]
    assert 5 < np.count_nonzero(gaps) < 75
    assert max(gaps) <= 3


def test_an_object_is_in_all_bands_where_the_catalogue_says(survey, cutouts):
    y, x = np.mgrid[:20, :20] - 9.5  # pixels of VIS from the middle of the cutout
    off = []
    for image_id, kind in survey.kinds.items():
        if kind == "elliptical" and isinstance(cutouts[image_id], np.ndarray):
            inner = np.nan_to_num(cutouts[image_id][22:42, 22:42])
            total = inner.sum(axis=(0, 1))
            off.append([(inner * axis[..., None]).sum(axis=(0, 1)) / total for axis in (x, y)])
    off = np.array(off)  # (objects, axes, bands)
    assert len(off) > 25
    assert np.abs(off).max() < 4
    assert np.abs(np.median(off, axis=0)).max() < 0.4
    assert np.median(np.abs(off - off[..., :1]), axis=0).max() < 0.2


def test_the_magnitude_is_that_of_the_flux(survey, cutouts):
    table = pd.read_parquet(survey.catalogue).set_index("object_id")["mag_vis"]
    measured = {
        i: 31.4 - 2.5 * np.log10(c[..., 0].sum())
        for i, c in cutouts.items()
        if isinstance(c, np.ndarray) and np.isfinite(c[..., 0]).all()
    }
    assert len(measured) > 50
    assert np.abs(table[list(measured)] - pd.Series(measured)).median() < 0.03


def test_an_elliptical_is_redder_than_a_spiral(survey, cutouts):
    colours = {kind: [] for kind in ("elliptical", "spiral")}
    for image_id, kind in survey.kinds.items():
        if kind in colours and isinstance(cutouts[image_id], np.ndarray):
            vis, *_, h = np.nansum(cutouts[image_id], axis=(0, 1))
            colours[kind].append(-2.5 * np.log10(vis / h))
    assert np.median(colours["elliptical"]) > np.median(colours["spiral"]) + 0.3


def test_the_truth_is_known_and_an_object_without_data_is_never_rare(survey):
    assert Counter(survey.truth.values()) == {"normal": 135, "anomaly": 15}
    assert {kind for i, kind in survey.kinds.items() if survey.truth[i] == "anomaly"} == {
        *("merger", "ring", "lens")
    }
    assert survey.truth["T00-000"] == survey.truth["T01-000"] == "normal"
    every = survey.first_labels(15, 133)
    assert set(survey.ids) - set(every) == {"T00-000", "T01-000"}
    assert all(survey.truth[i] == label for i, label in every.items())
    with pytest.raises(ConfigError, match="134 images of class 'normal' were asked for; this sky has 133"):
        survey.first_labels(15, 134)


def test_all_but_the_holes_can_be_rare(tmp_path):
    everything = demo.survey(tmp_path, n=3, prevalence=1)
    assert list(everything.truth.values()) == ["normal", "anomaly", "anomaly"]


def test_the_same_seed_makes_the_same_files(tmp_path):
    first, again = (demo.survey(tmp_path / name, n=4, seed=5) for name in ("a", "b"))
    for path in first.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()
    other = demo.survey(tmp_path / "c", n=4, seed=6)
    assert not pd.read_parquet(first.catalogue).equals(pd.read_parquet(other.catalogue))


def test_a_survey_that_is_there_is_used_as_it_is(survey):
    before = {path: path.stat().st_mtime_ns for path in survey.folder.iterdir()}
    again = demo.survey(survey.folder, n=N, prevalence=0.1)
    assert again.truth == survey.truth
    assert {path: path.stat().st_mtime_ns for path in survey.folder.iterdir()} == before


def test_a_survey_left_unfinished_is_finished(tmp_path):
    made = demo.survey(tmp_path / "made", n=4)
    whole = made.catalogue.read_bytes()
    made.catalogue.unlink()
    (made.folder / "VIS_T00.fits").write_bytes(b"half a")
    demo.survey(made.folder, n=4)
    assert made.catalogue.read_bytes() == whole
    assert fits.getdata(made.folder / "VIS_T00.fits").shape == (1024, 1024)


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "VIS_T00.fits").write_bytes(b"mine")
    with pytest.raises(WorkspaceError, match="holds something else, and nothing is written over"):
        demo.survey(tmp_path, n=4)
    assert names(tmp_path) == ["VIS_T00.fits"]
    made = demo.survey(tmp_path / "made", n=4)
    with pytest.raises(WorkspaceError, match=r'holds \{"n": 4, .*; wanted is the survey \{"n": 5,'):
        demo.survey(made.folder, n=5)


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"cannot be written to .*Choose a folder"):
        demo.survey(tmp_path / "file" / "below", n=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, r"survey\(n=0\): allowed is a whole number from 1 to 1000000"),
        ({"n": 4, "seed": -1}, r"survey\(seed=-1\): allowed"),
        ({"n": 4, "prevalence": 2}, r"survey\(prevalence=2\): allowed is a share from 0 to 1"),
    ],
)
def test_an_option_out_of_its_range_says_what_is_allowed(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        demo.survey(tmp_path / "new", **options)
    assert names(tmp_path) == []


def test_the_repr_says_where_it_is_and_how_many_are_rare(tmp_path):
    made = demo.survey(tmp_path / "made", n=4)
    assert repr(made) == f"Survey({str(made.folder)!r}, 4 objects in VIS, Y, J, H, 1 rare)"
