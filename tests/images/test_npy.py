"""Images in a .npy file, which may become shorter or go away while it is open."""

from __future__ import annotations

import gc
import os
import pickle

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.npy import NpySource
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract


def ramp(*shape, dtype=np.uint8):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def saved(path, images):
    np.save(path, images)
    return open_source(path)


class TestNpyFile(SourceContract, UnreadableImageContract):
    @pytest.fixture
    def source(self, tmp_path):
        return saved(tmp_path / "cube.npy", ramp(4, 6, 5, 2, dtype=">u2"))

    @pytest.fixture
    def damaged(self, tmp_path):
        """Give an array in Fortran's order whose last pixels of image 0 are on a broken disk."""
        source = saved(tmp_path / "cube.npy", np.asfortranarray(ramp(2, 6, 5)))
        return Broken(source._path)


class Broken(NpySource):
    """A file whose byte 58, the last of image 0, cannot be read."""

    def _bytes(self, n, at):
        if at <= 58 < at + n:
            raise OSError(5, "Input/output error")
        return super()._bytes(n, at)


class TestFortranOrder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return saved(tmp_path / "cube.npy", np.asfortranarray(ramp(4, 6, 5, 3)))


@pytest.mark.parametrize("arrange", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("dtype", ["?", ">u2", "f2", "f8", "i4"])
def test_each_image_is_that_of_the_array(tmp_path, arrange, dtype):
    images = arrange(ramp(5, 4, 7, 2, dtype=dtype))
    source = saved(tmp_path / "cube.npy", images)
    for k in range(5):
        expected = images[k].astype(np.uint8) * 255 if dtype == "?" else images[k]
        np.testing.assert_array_equal(source.read(k), expected)


def test_images_behind_the_end_of_a_file_that_was_cut_are_listed_and_the_process_lives(tmp_path):
    path = tmp_path / "cube.npy"
    source = saved(path, ramp(200, 64, 64))  # many pages: a map of them would end the process
    os.truncate(path, 128 + 100 * 4096 + 7)
    pool = PixelPool(source, Preprocess(size=64))
    _, found = pool.batch(range(200))
    assert found.tolist() == list(range(100))
    assert set(pool.problems) == set(source.ids[100:])
    assert set(pool.problems.values()) == {"the file has become shorter since it was opened"}
    np.testing.assert_array_equal(source.read(99)[..., 0], ramp(200, 64, 64)[99])


def test_a_file_that_is_gone_is_still_read_and_one_of_a_lost_volume_is_listed(tmp_path, monkeypatch):
    path = tmp_path / "cube.npy"
    source = saved(path, ramp(3, 4, 5))
    path.unlink()
    assert source.read(2).size == 20

    def stale(*_):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(ImageReadError, match="Image '1' cannot be read: Stale file handle"):
        source.read(1)


def test_a_call_that_brings_a_part_is_asked_again(tmp_path, monkeypatch):
    source = saved(tmp_path / "cube.npy", ramp(3, 4, 5))
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, n, at: whole(file, min(n, 7), at))
    np.testing.assert_array_equal(source.read(1)[..., 0], ramp(3, 4, 5)[1])


def test_a_system_that_reads_at_no_place_opens_the_file_each_time(tmp_path, monkeypatch):
    source = saved(tmp_path / "cube.npy", ramp(3, 4, 5))
    monkeypatch.delattr(os, "pread")
    np.testing.assert_array_equal(source.read(1)[..., 0], ramp(3, 4, 5)[1])


def test_the_file_is_closed_with_the_source(tmp_path):
    source = saved(tmp_path / "cube.npy", ramp(3, 4, 5))
    file = source._file
    del source
    gc.collect()
    assert file.closed


def test_it_is_pickled_by_its_path(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((100, 64, 64), np.uint8))
    assert len(pickle.dumps(open_source(tmp_path / "cube.npy"))) < 10_000


def test_a_npy_file_is_opened_again_from_its_spec(tmp_path, monkeypatch):
    np.save(tmp_path / "cube.npy", ramp(2, 4, 5))
    monkeypatch.chdir(tmp_path)
    source = open_source("cube.npy", ids=["a", "b"])
    assert source.name == "cube"
    monkeypatch.chdir("/")
    again = source_from_spec(source.spec())
    assert again.fingerprint() == source.fingerprint()
    assert list(again.ids) == ["a", "b"]


def write_text(path):
    path.write_text("not an array")


def write_pickle(path):
    path.write_bytes(pickle.dumps([1, 2]))


def write_objects(path):
    np.save(path, np.array([None, 1]), allow_pickle=True)


def write_archive(path):
    with path.open("wb") as file:
        np.savez(file, np.zeros(3))


def write_cut_off(path):
    np.save(path, np.zeros((10, 8, 8)))
    path.write_bytes(path.read_bytes()[:1000])


def write_damaged_archive(path):
    path.write_bytes(b"PK\x03\x04 and no more")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "cannot be opened as a .npy array"),
        (write_text, "cannot be opened as a .npy array"),
        (write_pickle, "cannot be opened as a .npy array"),
        (write_objects, "cannot be opened as a .npy array.*Python objects"),
        (write_cut_off, "cannot be opened as a .npy array.*It may be cut off.*numpy.save"),
        (write_archive, "cannot be opened as a .npy array.*several arrays; write one array"),
        (write_damaged_archive, "cannot be opened as a .npy array"),
        (lambda path: np.save(path, np.zeros((8, 8))), r"x.npy' has shape \(8, 8\).*Allowed is"),
        (lambda path: np.save(path, np.zeros((0, 8, 8))), "there is no image in it"),
    ],
)
def test_a_bad_npy_file_says_what_is_wrong(tmp_path, write, message):
    write(tmp_path / "x.npy")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "x.npy")
