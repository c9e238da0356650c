"""Opening anything as a set of images, and what is said when that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from amatch_widgets import demo
from amatch_widgets.errors import SourceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.files import FolderSource
from amatch_widgets.images.source import index_of, open_source, source_from_spec


def test_an_open_source_is_returned_as_it_is():
    source = demo.sky(3)
    assert open_source(source) is source


def test_an_open_source_cannot_be_given_other_ids_or_another_name():
    for options, what in (
        ({"ids": ["a", "b", "c"]}, "ids"),
        ({"name": "x", "column": "y"}, "column and name"),
    ):
        with pytest.raises(SourceError, match=f"is open already: {what} cannot be changed"):
            open_source(demo.sky(3), **options)


def test_a_source_takes_the_name_it_is_given():
    assert open_source(np.zeros((2, 8, 9)), name="plates").name == "plates"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (None, "object of type 'NoneType'. Pass a folder of JPEG, PNG, TIFF"),
        (7, "object of type 'int'"),
        (b"cutouts", "object of type 'bytes'"),
        ([np.zeros((8, 8))], "object of type 'list'.*numpy.stack"),
    ],
)
def test_an_object_without_images_is_refused_by_its_type(what, message):
    with pytest.raises(SourceError, match=message):
        open_source(what)


def test_a_missing_path_says_how_far_it_exists(tmp_path):
    with pytest.raises(
        SourceError, match=r"no file or folder .*nope.*exists up to .*; |exists up to"
    ) as caught:
        open_source(tmp_path / "nope" / "cutouts")
    assert f"up to {str(tmp_path)!r}" in str(caught.value)
    assert "Check the spelling. Allowed is a folder of JPEG, PNG, TIFF" in str(caught.value)


@pytest.mark.parametrize("what", ["a\0b", "x" * 5000])
def test_an_impossible_path_is_a_source_error(what):
    with pytest.raises(SourceError, match="Cannot look at"):
        open_source(what)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "cube.npy", np.zeros((2, 8, 9)))
    assert len(open_source("~/cube.npy")) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.PNG", "is a single image. Open the folder that holds it"),
        ("table.csv", "is a file of type '.csv'. Allowed is a folder"),
        ("README", "is a file without an ending. Allowed is a folder"),
        ("cube.npz", "is a file of type '.npz'"),
    ],
)
def test_a_file_of_another_type_says_what_is_allowed(tmp_path, name, message):
    (tmp_path / name).touch()
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("cube.npy", {"column": "image"}, "column= does not apply to a .npy file; allowed are ids=, name="),
        ("cube.npy", {"shape": (8, 9)}, "shape= does not apply"),
        (
            "set.parquet",
            {"ids": ["a"]},
            "ids= does not apply to Parquet; allowed are column=, ids_from=, shape=",
        ),
        ("cube.fits", {"shape": (8, 9)}, "shape= does not apply to FITS; allowed are hdu=, mask=, name="),
        (".", {"ids_from": "id"}, "holds no .parquet file"),
        (".", {"hdu": 1}, "hdu= does not apply to a folder"),
        (".", {"hdu": 1, "column": "x"}, "hdu= does not apply to a folder of Parquet files"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(tmp_path, name, option, message):
    (tmp_path / "cube.npy").touch()
    if name != ".":
        (tmp_path / name).touch()
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name, **option)


def test_an_option_that_does_not_apply_to_an_array_is_refused():
    with pytest.raises(
        SourceError, match=r"shape= does not apply to an array; allowed are ids=, name=. Leave"
    ):
        open_source(np.zeros((2, 8, 9)), shape=(8, 9))


def test_ids_for_a_folder_are_refused(tmp_path):
    with pytest.raises(SourceError, match="The ids of a folder are its file names"):
        open_source(tmp_path, ids=["a"])


@pytest.mark.parametrize("option", ["dataset", "axes"])
def test_options_of_hdf5_and_zarr_are_refused_for_others(tmp_path, option):
    (tmp_path / "a.png").touch()
    np.save(tmp_path / "cube.npy", np.zeros((2, 8, 9)))
    for what in (tmp_path, tmp_path / "cube.npy", np.zeros((2, 8, 9))):
        with pytest.raises(SourceError, match=rf"{option}= does not apply to .*; allowed are .*Leave it out"):
            open_source(what, **{option: "NHW"})
    with pytest.raises(SourceError, match=f"{option} cannot be changed"):
        open_source(demo.sky(3), **{option: "NHW"})


def test_a_path_as_text_and_a_path_object_open_the_same(tmp_path):
    (tmp_path / "a.png").touch()
    assert isinstance(open_source(str(tmp_path)), FolderSource)
    assert open_source(str(tmp_path)).fingerprint() == open_source(tmp_path).fingerprint()


def test_index_of_finds_each_id():
    assert index_of(ArraySource(np.zeros((2, 8, 9)), ids=["b", "a"])) == {"b": 0, "a": 1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "array"}, "array in memory, which is not kept. Pass the array again as source="),
        ({"kind": "slides"}, "Unknown kind of source 'slides'. Known are"),
        ({}, "Unknown kind of source None"),
        ({"kind": "folder", "path": "/no/such/folder"}, "There is no file or folder '/no/such/folder'"),
    ],
)
def test_a_spec_that_cannot_be_opened_says_what_to_do(spec, message):
    with pytest.raises(SourceError, match=message):
        source_from_spec(spec)


def test_an_array_in_memory_has_a_spec_that_says_so():
    assert open_source(np.zeros((2, 8, 9))).spec() == {"kind": "array"}
