"""Images in HDF5 files."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from PIL import Image

from amatch_widgets.errors import ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images import hdf5_file
from amatch_widgets.images.hdf5 import HDF5Source
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.source import open_source, read_many, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (12, 9, 8, 3), np.uint8)


def encoded(image, kind="png"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write(path, images=IMAGES, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **options)
    return path


def write_encoded(path, files):
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("images", len(files), h5py.vlen_dtype(np.uint8))
        for i, content in enumerate(files):
            rows[i] = np.frombuffer(content, np.uint8)
        file["filenames"] = [f"{i}.png" for i in range(len(files))]
    return path


def damage(path, content, at=8):
    """Invert a byte of the place in a file that holds `content`."""
    everything = path.read_bytes()
    assert everything.count(content) == 1
    place = everything.index(content) + at
    path.write_bytes(everything[:place] + bytes([everything[place] ^ 255]) + everything[place + 1 :])


def raw_chunk(path, row):
    with h5py.File(path) as file:
        return file["images"].id.read_direct_chunk((row, 0, 0, 0))[1]


class TestColourImages(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.h5", chunks=(5, 9, 8, 3), compression="gzip"))


class TestImagesInOnePiece(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.hdf5", IMAGES[..., 0].astype(">u2")))


class TestChannelsFirst(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        images = np.moveaxis(IMAGES, 3, 1).astype("f8")
        return open_source(write(tmp_path / "a.h5", images, chunks=(2, 1, 4, 4)))


class TestAnomalyMatchFile(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write_encoded(tmp_path / "a.h5", [encoded(image) for image in IMAGES]))


class TestOpaqueFiles(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        files = [encoded(image) for image in IMAGES]
        width = max(map(len, files))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            kind = h5py.opaque_dtype(np.dtype(f"V{width}"))
            rows = file.create_dataset("stamps", len(files), kind, chunks=(4,), compression="gzip")
            for i, content in enumerate(files):
                rows[i] = np.void(content.ljust(width, b"\0"))
        return open_source(tmp_path / "a.h5")


class TestOneDatasetForEach(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            group = file.create_group("cutouts")
            group["ngc 1"], group["ngc/2"] = IMAGES[0], IMAGES[1][:5]
            group["é"] = np.frombuffer(encoded(IMAGES[2]), np.uint8)
            group["deep"] = np.moveaxis(IMAGES[3], 2, 0)
            del group["ngc"]
        return open_source(tmp_path / "a.h5")


class TestDamagedChunk(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        path = write(tmp_path / "a.h5", chunks=(1, 9, 8, 3), compression="gzip")
        damage(path, raw_chunk(path, 0))
        return open_source(path)


class TestDamagedFileInARow(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        good = encoded(IMAGES[1], "jpeg")
        return open_source(write_encoded(tmp_path / "a.h5", [b"\xff\xd8\xff" + b"junk" * 9, good]))


class TestDamagedDataset(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["a"], file["b"] = np.frombuffer(encoded(IMAGES[0])[:99], np.uint8), IMAGES[1]
        return open_source(tmp_path / "a.h5", dataset="/")


@pytest.mark.parametrize("options", [{}, {"chunks": (5, 9, 8, 3)}, {"chunks": (5, 3, 3, 1)}])
def test_pixels_are_those_that_were_written(tmp_path, options):
    source = open_source(write(tmp_path / "a.h5", **options))
    for i, image in read_many(source, range(12)):
        np.testing.assert_array_equal(image, IMAGES[i])
        np.testing.assert_array_equal(source.read(i), IMAGES[i])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("?", "u1"), ("u1", "u1"), (">u2", "u2"), ("i4", "f4"), ("f2", "f4"), (">f8", "f4")],
)
def test_every_number_is_brought_to_a_plain_type(tmp_path, dtype, expected):
    image = open_source(write(tmp_path / "a.h5", IMAGES.astype(dtype))).read(3)
    assert image.dtype == expected
    assert image.dtype.isnative


def test_the_order_of_axes_can_be_given(tmp_path):
    cube = RANDOM.integers(0, 99, (4, 6, 6, 6), np.uint8)
    write(tmp_path / "a.h5", cube)
    with pytest.raises(SourceError, match=r"'/images' of .*a.h5.* has shape \(4, 6, 6, 6\).*ambiguous"):
        open_source(tmp_path / "a.h5")
    np.testing.assert_array_equal(open_source(tmp_path / "a.h5", axes="NHWC").read(2), cube[2])
    first = open_source(tmp_path / "a.h5", axes="NCHW")
    np.testing.assert_array_equal(first.read(2), np.moveaxis(cube[2], 0, 2))
    assert first.channels == 6


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("filenames", [f"ü{i}.jpg" for i in range(12)], "ü3.jpg"),
        ("ids", np.array([f"g{i}" for i in range(12)], "S4"), "g3"),
        ("object_id", np.arange(12) - 2**62, str(3 - 2**62)),
        ("id", np.arange(12, dtype=">u4"), "3"),
    ],
)
def test_ids_are_those_beside_the_images(tmp_path, name, values, expected):
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file[name] = values
    source = open_source(tmp_path / "a.h5")
    assert source.ids[3] == expected
    assert f"ids from {name!r}" in repr(source)
    numbered = open_source(tmp_path / "a.h5", ids_from="position")
    assert numbered.ids[3] == "03"
    assert numbered.fingerprint() != source.fingerprint()


def test_ids_are_taken_in_the_order_of_preference_or_as_asked_for(tmp_path):
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file["filenames"] = ["short"]  # not one for each
        file["names"] = [f"n{i}" for i in range(12)]
        file["ids"] = [f"i{i}" for i in range(12)]
        file["other"] = [f"o{i}" for i in range(12)]
        file["position"] = np.zeros(12)
    assert open_source(tmp_path / "a.h5").ids[0] == "i0"
    assert open_source(tmp_path / "a.h5", ids_from="other").ids[0] == "o0"
    with pytest.raises(
        SourceError, match=r"ids_from='nothing' is no dataset of 12 texts.*Found are .*'/other'"
    ):
        open_source(tmp_path / "a.h5", ids_from="nothing")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ["same"] * 12,
            "'/ids' of .* cannot be used as ids: The id 'same' is given more than once.*ids_from=",
        ),
        (
            np.array([b"\xff%d" % i for i in range(12)], "S4"),
            "cannot be used as ids: Invalid UTF8.*'position'",
        ),
    ],
)
def test_ids_that_cannot_be_used_are_refused_with_the_option(tmp_path, values, message):
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file["ids"] = values
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.h5")
    assert isinstance(open_source(tmp_path / "a.h5", ids_from="position").ids, NumberedIds)


def test_without_ids_the_images_are_numbered(tmp_path):
    source = open_source(write(tmp_path / "a.h5"))
    assert isinstance(source.ids, NumberedIds)
    assert "numbered" in repr(source)


def test_the_dataset_that_fits_is_found_in_a_group(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/stamps"], file["train/labels"] = IMAGES, np.arange(12)
        file["train/ids"], file["ids"] = np.arange(12) + 100, np.arange(12)
        file["table"] = np.zeros(12, [("x", "f4")])
    source = open_source(tmp_path / "a.h5")
    assert source.ids[0] == "100"  # of its own group
    np.testing.assert_array_equal(source.read(1), IMAGES[1])


def test_several_that_fit_are_listed_and_one_is_chosen_by_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"], file["deep/b"] = IMAGES, IMAGES[:5]
    with pytest.raises(SourceError, match=r"'/a' \(12, 9, 8, 3\) uint8, '/deep/b'.*Several.*dataset='NAME'"):
        open_source(tmp_path / "a.h5")
    assert len(open_source(tmp_path / "a.h5", dataset="deep/b")) == 5
    with pytest.raises(SourceError, match=r"There is no dataset 'c' in .*Found are '/a'"):
        open_source(tmp_path / "a.h5", dataset="c")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"] = IMAGES[:3]
    assert len(open_source(tmp_path / "a.h5")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no dataset: there is no image in it"),
        ({"x": np.arange(9), "y": np.zeros((9, 9))}, "None of them holds images: say which"),
        ({"images": np.zeros((9, 8, 7), "c8")}, "no real number per pixel"),
        ({"images": np.zeros((9, 8))}, r"has shape \(9, 8\).*Allowed is \(N, H, W\)"),
        ({"images": ["a", "b"]}, "no real number per pixel"),
        ({"images": np.zeros((0, 8, 7))}, "there is no image in it"),
        ({"images": np.zeros((80, 90, 3), "u1")}, "looks like one single image"),
        ({"images": h5py.Empty("u1")}, "null dataspace"),
        ({"images": np.zeros((2, 2), "V7")}, r"has shape \(2, 2\). Encoded files have to be of shape \(N,\)"),
    ],
)
def test_a_file_without_images_says_what_it_holds(tmp_path, content, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.h5")


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = write(tmp_path / "a.h5")
    os.truncate(path, 3000)
    with pytest.raises(SourceError, match=r"cannot be opened as HDF5: .*truncated file.*copy it again"):
        open_source(path)


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all" * 99])
def test_what_is_no_hdf5_is_refused(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot be opened as HDF5: .*signature not found"):
        open_source(tmp_path / "a.h5")


def test_a_file_of_another_ending_is_known_by_its_content(tmp_path):
    assert len(open_source(write(tmp_path / "stamps.dat"))) == 12


def test_a_file_that_another_process_writes_says_so(tmp_path):
    path = write(tmp_path / "a.h5")
    code = f"import h5py; file = h5py.File({str(path)!r}, 'a'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SourceError, match=r"is being written by another process. Wait until"):
            open_source(path)
        other.communicate("\n")
    assert len(open_source(path)) == 12


def test_a_volume_without_locks_is_read_without(tmp_path, monkeypatch):
    path, real, tries = write(tmp_path / "a.h5"), h5py.File, []

    def without_locks(name, mode, **options):
        tries.append(options)
        if options.get("locking", True):
            raise OSError(37, "Unable to open file (unable to lock file, errno = 37, 'No locks available')")
        return real(name, mode, **options)

    monkeypatch.setattr(h5py, "File", without_locks)
    assert open_source(path).read(1).size
    assert tries == [{}, {"locking": False}]


def test_a_file_that_the_user_has_open_is_opened_all_the_same(tmp_path):
    with h5py.File(write(tmp_path / "a.h5")) as file:
        np.testing.assert_array_equal(open_source(tmp_path / "a.h5").read(2), file["images"][2])


def test_a_damaged_chunk_costs_all_of_its_images_and_no_other(tmp_path):
    path = write(tmp_path / "a.h5", chunks=(5, 9, 8, 3), compression="gzip")
    damage(path, raw_chunk(path, 5))
    found = dict(open_source(path).read_many(range(12)))
    bad = {i for i, image in found.items() if isinstance(image, ImageReadError)}
    assert bad == {5, 6, 7, 8, 9}
    assert "damaged or cut off" in found[5].reason
    assert found[5].image_id == "05"


def test_a_damaged_file_among_encoded_ones_keeps_the_reason_of_the_decoder(tmp_path):
    files = [encoded(IMAGES[0]), b"", b"text" * 9, encoded(IMAGES[3])[:60]]
    found = dict(open_source(write_encoded(tmp_path / "a.h5", files)).read_many([3, 2, 1, 0]))
    np.testing.assert_array_equal(found[0], IMAGES[0])
    assert "empty" in found[1].reason
    assert "not JPEG, PNG, TIFF" in found[2].reason
    assert "damaged or cut off" in found[3].reason


def test_a_reduced_size_is_passed_on_to_the_decoder(tmp_path):
    source = open_source(write_encoded(tmp_path / "a.h5", [encoded(np.zeros((64, 80, 3), "u1"), "jpeg")] * 2))
    assert source.read(0, min_side=16).shape == (16, 20, 3)
    assert {image.shape for _, image in source.read_many([0, 1], min_side=16)} == {(16, 20, 3)}


def test_what_a_file_has_lost_since_it_was_opened_is_not_read_as_zeros(tmp_path):
    images = RANDOM.integers(1, 255, (200, 64, 64), np.uint8)
    source = open_source(write(tmp_path / "a.h5", images))
    os.truncate(tmp_path / "a.h5", 300_000)
    found = dict(source.read_many([0, 199]))
    assert all(isinstance(image, ImageReadError) for image in found.values())
    with pytest.raises(
        ImageReadError, match="'199' cannot be read: the file was cut off since it was opened"
    ):
        source.read(199)


def test_a_file_that_disappears_is_an_error_of_each_image(tmp_path):
    source = open_source(write(tmp_path / "a.h5", chunks=(1, 9, 8, 3)))
    reading = source.read_many(range(12))
    (tmp_path / "a.h5").unlink()
    found = dict(reading)
    assert sorted(found) == list(range(12))
    assert {image.reason for image in found.values()} == {"the file is gone since it was opened"}


def test_a_file_that_is_gone_when_a_process_opens_it_is_an_error_of_each_image(tmp_path):
    source = open_source(write(tmp_path / "a.h5"))
    pid, *opened = source._handle._opened
    source._handle._opened = (pid - 1, *opened)  # as if this process had been forked
    (tmp_path / "a.h5").unlink()
    with pytest.raises(ImageReadError, match="the file is gone"):
        source.read(0)


def test_a_process_that_was_forked_opens_the_file_for_itself(tmp_path):
    source = open_source(write(tmp_path / "a.h5"))
    pid, file, images = source._handle._opened
    source._handle._opened = (pid - 1, file, images)  # as if this process had been forked
    np.testing.assert_array_equal(source.read(1), IMAGES[1])
    assert source._handle._opened[0] == pid
    assert not file  # closed: with it open HDF5 would share its place in the file with the parent


class Counting:
    """A dataset that notes which of its chunks are read."""

    def __init__(self, dataset):
        self._dataset, self.read = dataset, []

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def __getitem__(self, rows):
        assert rows.step is None
        each = (self._dataset.chunks or (1,))[0]
        self.read += range(rows.start // each, (rows.stop - 1) // each + 1)
        return self._dataset[rows]


def counting(source):
    pid, file, dataset = source._handle._opened
    counted = Counting(dataset)
    source._handle._opened = (pid, file, counted)
    return counted


@pytest.mark.parametrize("wanted", [range(12), [11, 3, 4, 0], [7], list(range(12))[::-1], []])
@pytest.mark.parametrize("chunks", [(1, 9, 8, 3), (5, 9, 8, 3), (12, 3, 3, 1)])
def test_each_chunk_is_read_once_and_no_other(tmp_path, wanted, chunks):
    source = open_source(write(tmp_path / "a.h5", chunks=chunks))
    counted = counting(source)
    found = list(source.read_many(wanted))
    assert sorted(i for i, _ in found) == sorted(wanted)
    assert counted.read == sorted({i // chunks[0] for i in wanted})
    assert source.chunk == chunks[0]


def test_memory_stays_that_of_one_batch(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:  # nothing is written: 2.5 GB of zeros
        file.create_dataset("images", (200_000, 64, 64, 3), "u1", chunks=(500, 64, 64, 3))
    source = open_source(tmp_path / "a.h5")
    list(source.read_many([0]))  # modules
    tracemalloc.start()
    count = sum(image.shape == (64, 64, 3) for _, image in source.read_many(range(0, 200_000, 50)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < 3 * 2**25


def test_a_million_images_are_opened_by_their_shape_alone(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (10**6, 64, 64, 3), "u1", chunks=(100, 64, 64, 3))
        file.create_dataset("ids", data=np.arange(10**6), chunks=True)
    assert (tmp_path / "a.h5").stat().st_size < 10**8
    source = open_source(tmp_path / "a.h5")
    assert source.ids[999_999] == "999999"
    assert source.read(10**6 - 1).max() == 0
    assert len(pickle.dumps(source)) < 1000


def test_a_group_of_single_images_says_which_is_none(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/a"], file["g/b"], file["g/c/d"] = IMAGES[0], np.zeros(3), IMAGES[0]
        file.create_group("empty")
    with pytest.raises(SourceError, match="None of them holds images"):
        open_source(tmp_path / "a.h5")
    source = open_source(tmp_path / "a.h5", dataset="g")
    assert list(source.ids) == ["a", "b", "c"]
    found = dict(source.read_many([0, 1, 2]))
    np.testing.assert_array_equal(found[0], IMAGES[0])
    assert "it is no image" in found[1].reason
    assert "it is no image" in found[2].reason
    with pytest.raises(SourceError, match=r"'/empty' of .* is empty"):
        open_source(tmp_path / "a.h5", dataset="empty")
    with pytest.raises(SourceError, match="one dataset for each image: ids_from= and axes= do not apply"):
        open_source(tmp_path / "a.h5", dataset="g", ids_from="x")


def test_a_virtual_dataset_is_refused_as_its_gaps_would_be_read_as_empty(tmp_path):
    layout = h5py.VirtualLayout((12, 9, 8, 3), "u1")
    layout[:] = h5py.VirtualSource(str(tmp_path / "gone.h5"), "images", (12, 9, 8, 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
    with pytest.raises(SourceError, match="is virtual: what is missing in its source files"):
        open_source(tmp_path / "a.h5")


def test_a_filter_that_is_not_there_is_named_when_the_file_is_opened(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", compression="gzip", chunks=(5, 9, 8, 3))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code != h5py.h5z.FILTER_DEFLATE)
    with pytest.raises(SourceError, match=r"is compressed by filter 1 \('deflate'\).*pip install hdf5plugin"):
        open_source(tmp_path / "a.h5")


def test_links_to_other_files_and_loops_are_not_followed(tmp_path):
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file["gone"] = h5py.ExternalLink("nothing.h5", "/x")
        file["again"] = h5py.SoftLink("/images")
        file["g/loop"] = file["/"]
    assert len(open_source(tmp_path / "a.h5")) == 12


def test_bands_are_those_of_the_attributes(tmp_path):
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file["images"].attrs["bands"] = ["VIS", "Y", "J"]
    assert open_source(tmp_path / "a.h5").bands == ("VIS", "Y", "J")
    assert open_source(write(tmp_path / "b.h5")).bands is None


def test_a_file_is_opened_again_from_its_spec_with_its_options(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"], file["tag"] = np.zeros((4, 6, 6, 6)), IMAGES, np.arange(4)
    monkeypatch.chdir(tmp_path)
    source = open_source("a.h5", dataset="x", axes="NCHW", ids_from="tag", name="mine")
    monkeypatch.chdir("/")
    for again in (
        source_from_spec(json.loads(json.dumps(source.spec()))),
        pickle.loads(pickle.dumps(source)),
    ):
        assert again.fingerprint() == source.fingerprint()
        assert again.spec() == source.spec()
        assert again.read(1).shape == (6, 6, 6)
    assert pickle.loads(pickle.dumps(source)).name == "mine"


def test_the_fingerprint_follows_shape_type_and_ids_but_not_pixels(tmp_path):
    first = open_source(write(tmp_path / "a.h5")).fingerprint()
    assert open_source(write(tmp_path / "b.h5", IMAGES + 1)).fingerprint() == first
    assert open_source(write(tmp_path / "c.h5", IMAGES[:11])).fingerprint() != first
    assert open_source(write(tmp_path / "d.h5", IMAGES.astype("u2"))).fingerprint() != first


def test_ids_given_by_hand_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"ids= does not apply to HDF5; allowed are .*ids_from="):
        open_source(write(tmp_path / "a.h5"), ids=["a"])


def test_without_h5py_the_message_is_the_line_to_type(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[hdf5\]'"):
        HDF5Source(path)


def test_too_little_memory_is_an_error_of_the_image(tmp_path, monkeypatch):
    source = open_source(write(tmp_path / "a.h5"))

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(hdf5_file.Handle, "images", fail)
    with pytest.raises(ImageReadError, match="not enough memory"):
        source.read(0)
