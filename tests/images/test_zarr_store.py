"""Images in Zarr stores of both formats, in folders and in zip files."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tracemalloc
import warnings
import zipfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from numcodecs import Blosc

from amatch_widgets.errors import ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images import zarr_store
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.source import FolderSource, open_source, read_many, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract
from amatch_widgets.images.zarr_store import ZarrSource

RANDOM = np.random.default_rng(7)
IMAGES = RANDOM.integers(1, 256, (12, 9, 8, 3), np.uint8)


def write(path, images=IMAGES, *, ids=None, fmt=3, chunks=(5, 9, 8, 3), name="images", attrs=None, **options):
    """Write a store: a group with the images, and perhaps arrays of ids."""
    zipped = str(path).endswith(".zip")
    store = zarr.storage.ZipStore(path, mode="w") if zipped else zarr.storage.LocalStore(path)
    group = zarr.open_group(store, mode="w", zarr_format=fmt)
    chunks = chunks[: images.ndim]
    array = group.create_array(name, data=images, chunks=chunks, **options)
    array.attrs.update(attrs or {})
    for key, values in (ids or {}).items():
        is_text = isinstance(values, list)
        group.create_array(key, data=np.array(values, "T") if is_text else values)
    store.close()
    return path


def sidecar(path, n=12, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"filename": [f"{path.stem}{i}.fits" for i in range(n)]}), path)
    return path


def chunk_file(store, row, name="images"):
    (found,) = [
        p for p in (*store.glob(f"{name}/c/{row}/0/0/0"), *store.glob(f"{name}/{row}.0.0.0")) if p.is_file()
    ]
    return found


def damage(file, at=1):
    content = bytearray(file.read_bytes())
    content[at] ^= 255
    file.write_bytes(bytes(content))


class TestFormat3(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.zarr"))


class TestFormat2(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.zarr", IMAGES[..., 0].astype(">u2"), fmt=2))


class TestChannelsFirst(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        images = np.moveaxis(IMAGES, 3, 1).astype("f8")
        return open_source(write(tmp_path / "a.zarr", images, chunks=(2, 1, 4, 4)))


class TestSharded(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.zarr", chunks=(2, 9, 8, 3), shards=(4, 9, 8, 3)))


class TestOneArray(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        zarr.create_array(tmp_path / "a.zarr", data=IMAGES, chunks=(5, 9, 8, 3))
        return open_source(tmp_path / "a.zarr")


class TestZipFile(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "a.zarr.zip", ids={"ids": [f"z{i}" for i in range(12)]}))


class TestFolderOfStores(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        write(tmp_path / "set" / "b.zarr", IMAGES[:3])
        write(tmp_path / "set" / "a.zarr", IMAGES[3:, :7], fmt=2)
        write(tmp_path / "set" / "c.zarr.zip", IMAGES[:2], ids={"ids": ["x", "y"]})
        return open_source(tmp_path / "set")


class TestBatches(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        for k in range(3):
            write(tmp_path / f"batch_{k}" / "images.zarr", IMAGES[k : k + 4], chunks=(4, 9, 8, 3))
            sidecar(tmp_path / f"batch_{k}" / "images_metadata.parquet", 4)
        return open_source(tmp_path)


class TestDamagedChunk(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        damage(chunk_file(write(tmp_path / "a.zarr", chunks=(1, 9, 8, 3)), 0))
        return open_source(tmp_path / "a.zarr")


class TestDamagedZip(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        path = write(tmp_path / "a.zip", chunks=(1, 9, 8, 3))
        with zipfile.ZipFile(path) as file:
            content = file.read("images/c/0/0/0/0")
        whole = path.read_bytes()
        path.write_bytes(whole.replace(content, content[:-1] + bytes([content[-1] ^ 255])))
        return open_source(path)


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize("chunks", [(1, 9, 8, 3), (5, 3, 3, 1), (12, 9, 8, 3)])
def test_pixels_are_those_that_were_written(tmp_path, fmt, chunks):
    source = open_source(write(tmp_path / "a.zarr", fmt=fmt, chunks=chunks))
    for i, image in read_many(source, range(12)):
        np.testing.assert_array_equal(image, IMAGES[i])
        np.testing.assert_array_equal(source.read(i), IMAGES[i])


def test_several_stores_are_joined_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "b.zarr", IMAGES[:3])
    write(tmp_path / "a.zarr", IMAGES[3:], ids={"names": [f"n{i}" for i in range(9)]})
    source = open_source(tmp_path)
    assert list(source.ids) == [*(f"a/n{i}" for i in range(9)), "b/0", "b/1", "b/2"]
    for (i, image), expected in zip(source.read_many(range(12)), [*IMAGES[3:], *IMAGES[:3]], strict=True):
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(source.read(i), expected)
    assert repr(source) == f"ZarrSource({str(tmp_path)!r}, 2 stores, 12 images, ids from 'names')"


def test_batches_take_the_name_of_their_folder(tmp_path):
    for k in "ab":
        write(tmp_path / f"batch_{k}" / "images.zarr", IMAGES[:2])
        sidecar(tmp_path / f"batch_{k}" / "images_metadata.parquet", source_id=[f"{k}1", f"{k}2"])
    source = open_source(tmp_path)
    assert list(source.ids) == ["batch_a/a1", "batch_a/a2", "batch_b/b1", "batch_b/b2"]
    alone = open_source(tmp_path / "batch_a")
    assert list(alone.ids) == ["a1", "a2"]
    assert list(open_source(tmp_path / "batch_a" / "images.zarr").ids) == ["a1", "a2"]
    assert open_source(tmp_path / "batch_a" / "images.zarr").name == "batch_a"


def test_stores_of_one_name_keep_their_endings(tmp_path):
    write(tmp_path / "a.zarr", IMAGES[:1])
    write(tmp_path / "a.zarr.zip", IMAGES[:1])
    assert list(open_source(tmp_path).ids) == ["a.zarr/0", "a.zarr.zip/0"]


@pytest.mark.parametrize("fmt", [2, 3])
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("filenames", np.array([f"ü{i}.jpg" for i in range(12)], object), "ü3.jpg"),
        ("ids", np.array([f"g{i}" for i in range(12)]), "g3"),
        ("id", np.array([f"g{i}" for i in range(12)], "S4"), "g3"),
        ("object_id", np.arange(12) - 2**62, str(3 - 2**62)),
    ],
)
def test_ids_are_those_in_the_store(tmp_path, fmt, name, values, expected):
    with warnings.catch_warnings():  # of fixed texts in format 3
        warnings.simplefilter("ignore")
        if values.dtype == object:
            values = values.astype("T")
        write(tmp_path / "a.zarr", ids={name: values}, fmt=fmt)
    source = open_source(tmp_path / "a.zarr")
    assert source.ids[3] == expected
    assert f"ids from {name!r}" in repr(source)
    assert open_source(tmp_path / "a.zarr", ids_from="position").ids[3] == "03"


def test_ids_in_the_store_come_before_those_beside_it(tmp_path):
    write(tmp_path / "a.zarr", ids={"object_id": np.arange(12), "ids": np.zeros(3)})
    sidecar(
        tmp_path / "any.parquet", filenames=[f"f{i}" for i in range(12)], other=[f"o{i}" for i in range(12)]
    )
    assert open_source(tmp_path / "a.zarr").ids[0] == "0"
    assert open_source(tmp_path / "a.zarr", ids_from="filenames").ids[0] == "f0"
    assert open_source(tmp_path / "a.zarr", ids_from="other").ids[0] == "o0"
    with pytest.raises(
        SourceError, match=r"'x' is neither an array.*\['ids', 'object_id'\].*\['filenames', 'other'\]"
    ):
        open_source(tmp_path / "a.zarr", ids_from="x")


def test_a_table_beside_has_to_have_a_row_for_each_image(tmp_path):
    write(tmp_path / "a.zarr")
    sidecar(tmp_path / "a_metadata.parquet", 11)
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    assert isinstance(open_source(tmp_path / "a.zarr").ids, NumberedIds)


def test_a_table_belongs_to_the_store_of_its_name(tmp_path):
    for name in ("a", "a2", "c"):
        write(tmp_path / f"{name}.zarr", IMAGES[:2])
    sidecar(tmp_path / "a_metadata.parquet", 2)
    sidecar(tmp_path / "a2_metadata.parquet", 2)
    assert list(open_source(tmp_path).ids) == [
        "a/a_metadata0.fits",
        "a/a_metadata1.fits",
        "a2/a2_metadata0.fits",
        "a2/a2_metadata1.fits",
        "c/0",
        "c/1",
    ]


def test_several_tables_that_fit_are_listed(tmp_path):
    write(tmp_path / "a.zarr")
    sidecar(tmp_path / "x.parquet")
    sidecar(tmp_path / "y.parquet")
    with pytest.raises(SourceError, match=r"several Parquet files with 12 rows.*'x.parquet', 'y.parquet'"):
        open_source(tmp_path / "a.zarr")
    assert open_source(tmp_path / "a.zarr", ids_from="position").ids[0] == "00"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["same"] * 12, "'same' is given more than once.*ids_from='position'"),
        ([*"abcdefghijk", None], "1 of its rows are empty.*ids_from='position'"),
        ([[1]] * 12, "'filename' of .*m.parquet.* cannot be used as ids"),
    ],
)
def test_a_column_that_cannot_be_used_is_refused_with_the_option(tmp_path, column, message):
    write(tmp_path / "a.zarr")
    sidecar(tmp_path / "m.parquet", filename=column)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.zarr")


def test_an_image_without_an_id_is_not_named_none_among_several_stores(tmp_path):
    for k in "ab":
        write(tmp_path / k / "images.zarr", IMAGES[:2])
        sidecar(tmp_path / k / "images_metadata.parquet", filename=["x", None])
    with pytest.raises(SourceError, match="1 of its rows are empty"):
        open_source(tmp_path)


def test_a_damaged_array_of_ids_is_a_source_error(tmp_path):
    write(tmp_path / "a.zarr", ids={"ids": np.arange(12) + 10**9})
    damage(tmp_path / "a.zarr/ids/c/0")
    with pytest.raises(SourceError, match=r"'ids' of .*a.zarr.* cannot be read.*ids_from="):
        open_source(tmp_path / "a.zarr")


def test_several_arrays_that_fit_are_listed_and_one_is_chosen(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("a", data=IMAGES)
    group.create_array("deep/er/b", data=IMAGES[:5])
    with pytest.raises(SourceError, match=r"'a' \(12, 9, 8, 3\) uint8, 'deep/er/b'.*Several.*dataset='NAME'"):
        open_source(tmp_path / "a.zarr")
    assert len(open_source(tmp_path / "a.zarr", dataset="deep/er/b")) == 5
    with pytest.raises(SourceError, match=r"There is no array 'c' in .*Found are 'a'"):
        open_source(tmp_path / "a.zarr", dataset="c")
    group.create_array("images", data=IMAGES[:3])
    assert len(open_source(tmp_path / "a.zarr")) == 3


def test_the_order_of_axes_can_be_given(tmp_path):
    cube = RANDOM.integers(0, 99, (4, 6, 6, 6), np.uint8)
    write(tmp_path / "a.zarr", cube, chunks=(2, 6, 6, 6))
    with pytest.raises(SourceError, match=r"'images' of .*a.zarr.* has shape \(4, 6, 6, 6\).*ambiguous"):
        open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr", axes="NHWC").read(2), cube[2])
    first = open_source(tmp_path / "a.zarr", axes="NCHW")
    np.testing.assert_array_equal(first.read(2), np.moveaxis(cube[2], 0, 2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((9, 8, 7), "c8"), "no real number per pixel"),
        (np.array(["a", "b"], "T"), "no real number per pixel"),
        (np.zeros((9, 8)), r"has shape \(9, 8\).*Allowed is \(N, H, W\)"),
        (np.zeros((80, 90, 3), "u1"), "looks like one single image"),
        (np.zeros((0, 8, 7)), "there is no image in it"),
    ],
)
def test_an_array_that_holds_no_images_is_refused(tmp_path, images, message):
    shape = [max(1, n) for n in images.shape]
    write(tmp_path / "a.zarr", images, chunks=tuple(shape))
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a.zarr")


def test_a_store_without_arrays_is_refused(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(SourceError, match="holds no array"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_a_store_that_is_damaged_is_refused(tmp_path, content):
    (tmp_path / "a.zarr").mkdir()
    if content is not None:
        (tmp_path / "a.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot be opened as a Zarr store: .*It needs a zarr.json"):
        open_source(tmp_path / "a.zarr")


@pytest.mark.parametrize("cut", [0, 100, -30])
def test_a_zip_file_that_is_cut_off_is_refused(tmp_path, cut):
    path = write(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match="cannot be opened as a Zarr store"):
        open_source(path)


def test_a_store_of_a_folder_that_cannot_be_opened_is_set_aside_with_its_reason(tmp_path):
    write(tmp_path / "good.zarr")
    (tmp_path / "bad.zarr").mkdir()
    source = open_source(tmp_path)
    assert len(source) == 12
    assert list(source.skipped) == ["bad"]
    assert "cannot be opened" in source.skipped["bad"]
    assert "1 skipped" in repr(source)
    shutil.rmtree(tmp_path / "good.zarr")
    (tmp_path / "worse.zarr").mkdir()
    with pytest.raises(SourceError, match=r"None of the 2 stores in .* can be opened. .*bad.zarr"):
        open_source(tmp_path)


def test_stores_of_different_channels_are_refused(tmp_path):
    write(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr", IMAGES[..., 0])
    with pytest.raises(SourceError, match=r"differ: 'a' has 3 channels, 'b' 1. Open them one by one"):
        open_source(tmp_path)


def test_a_folder_of_images_stays_one_whatever_store_lies_deeper(tmp_path):
    write(tmp_path / "deep" / "er" / "a.zarr")
    (tmp_path / "a.png").touch()
    assert isinstance(open_source(tmp_path), FolderSource)


def test_a_damaged_chunk_costs_all_of_its_images_and_no_other(tmp_path):
    damage(chunk_file(write(tmp_path / "a.zarr"), 1))
    found = dict(open_source(tmp_path / "a.zarr").read_many(range(12)))
    assert {i for i, image in found.items() if isinstance(image, ImageReadError)} == {5, 6, 7, 8, 9}
    assert "its chunk is damaged or cut off" in found[5].reason
    assert found[5].image_id == "05"


CODECS = {
    "zstd": {},
    "raw": {"compressors": None},
    "blosc 2": {"fmt": 2, "compressors": Blosc("lz4", shuffle=0)},
    "blosc 3": {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="noshuffle")},
    "shards": {"chunks": (2, 9, 8, 3), "shards": (12, 9, 8, 3)},
    "blosc shards": {
        "chunks": (2, 9, 8, 3),
        "shards": (12, 9, 8, 3),
        "compressors": zarr.codecs.BloscCodec(cname="lz4"),
    },
}


@pytest.mark.parametrize("keep", [0, 3, 200, -100, -1])
@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_that_is_cut_off_is_never_read_as_pixels(tmp_path, codec, keep):
    path = write(tmp_path / "a.zarr", **{"chunks": (12, 9, 8, 3), **CODECS[codec]})
    file = chunk_file(path, 0)
    assert len(file.read_bytes()) > 300
    file.write_bytes(file.read_bytes()[:keep])
    source = open_source(path)
    for _, image in source.read_many(range(12)):
        assert isinstance(image, ImageReadError)
    with pytest.raises(ImageReadError):
        source.read(0)


@pytest.mark.parametrize("at", range(16))
def test_a_damaged_header_of_a_blosc_chunk_ends_no_process(tmp_path, at):
    path = write(tmp_path / "a.zarr", **{"chunks": (12, 9, 8, 3), **CODECS["blosc 2"]})
    damage(chunk_file(path, 0), at)
    for i, image in open_source(path).read_many(range(12)):  # a byte that has no meaning does no harm
        assert isinstance(image, ImageReadError) or np.array_equal(image, IMAGES[i])


def test_a_missing_chunk_is_what_the_store_says_of_it(tmp_path):
    path = write(tmp_path / "a.zarr", fill_value=7)
    chunk_file(path, 1).unlink()
    source = open_source(path)
    assert (source.read(5) == 7).all()
    np.testing.assert_array_equal(source.read(4), IMAGES[4])


def test_a_store_that_disappears_is_not_read_as_missing_chunks(tmp_path):
    write(tmp_path / "a.zarr")
    write(tmp_path / "b.zarr")
    source = open_source(tmp_path)
    reading = source.read_many(range(24))
    assert isinstance(next(reading)[1], np.ndarray)
    shutil.rmtree(tmp_path / "b.zarr")
    found = dict(reading)
    assert {i for i, image in found.items() if isinstance(image, ImageReadError)} == set(range(12, 24))
    assert found[12].reason == "the store is gone since it was opened"
    with pytest.raises(ImageReadError, match="'b/03' cannot be read: the store is gone"):
        source.read(15)


def test_a_store_that_is_gone_when_a_process_opens_it_is_an_error_of_each_image(tmp_path):
    source = open_source(write(tmp_path / "a.zarr"))
    source._open.cache_clear()  # as a process that was forked has none open
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(ImageReadError, match="its store cannot be opened again"):
        source.read(0)


class Counting:
    """A local store that notes which chunks are read."""

    def __init__(self, monkeypatch):
        self.read = Counter()
        real = zarr.storage.LocalStore.get

        async def get(store, key, prototype, byte_range=None):
            if "/c/" in key:
                self.read[key] += 1
            return await real(store, key, prototype, byte_range)

        monkeypatch.setattr(zarr.storage.LocalStore, "get", get)


@pytest.mark.parametrize("wanted", [range(12), [11, 3, 4, 0], [7], list(range(12))[::-1], []])
@pytest.mark.parametrize("chunks", [(1, 9, 8, 3), (5, 9, 8, 3), (12, 3, 3, 1)])
def test_each_chunk_is_read_once_and_no_other(tmp_path, monkeypatch, wanted, chunks):
    source = open_source(write(tmp_path / "a.zarr", chunks=chunks))
    count = Counting(monkeypatch)
    found = list(source.read_many(wanted))
    assert sorted(i for i, _ in found) == sorted(wanted)
    assert {int(key.split("/")[2]) for key in count.read} == {i // chunks[0] for i in wanted}
    assert set(count.read.values()) <= {1}
    assert source.chunk == chunks[0]


def test_a_shard_is_read_at_once_when_all_of_it_is_wanted(tmp_path, monkeypatch):
    source = open_source(write(tmp_path / "a.zarr", chunks=(2, 9, 8, 3), shards=(4, 9, 8, 3)))
    assert source.chunk == 4
    count = Counting(monkeypatch)
    assert len(dict(source.read_many(range(12)))) == 12
    assert sorted(count.read.items()) == [(f"images/c/{k}/0/0/0", 1) for k in range(3)]


def test_memory_stays_that_of_one_batch(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("images", shape=(200_000, 64, 64, 3), dtype="u1", chunks=(500, 64, 64, 3))
    source = open_source(tmp_path / "a.zarr")
    list(source.read_many([0]))  # modules
    tracemalloc.start()
    count = sum(image.shape == (64, 64, 3) for _, image in source.read_many(range(0, 200_000, 50)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < 3 * 2**25


def test_a_million_images_are_opened_by_their_shape_alone(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("images", shape=(10**6, 64, 64, 3), dtype="u1", chunks=(100, 64, 64, 3))
    group.create_array("ids", data=np.arange(10**6), chunks=(10**5,))
    source = open_source(tmp_path / "a.zarr")
    assert source.ids[999_999] == "999999"
    assert source.read(10**6 - 1).max() == 0
    assert len(pickle.dumps(source)) < 1000


def test_no_more_stores_are_open_than_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_store, "_KEPT_OPEN", 2)
    for k in range(5):
        write(tmp_path / f"{k}.zarr.zip", IMAGES[k : k + 2])
    source = open_source(tmp_path)
    for i, image in source.read_many(range(10)):
        np.testing.assert_array_equal(image, IMAGES[i // 2 + i % 2])
    assert source._open.cache_info().currsize == 2


def test_bands_are_those_of_the_attributes(tmp_path):
    assert open_source(write(tmp_path / "a.zarr", attrs={"bands": ["VIS", "Y", "J"]})).bands == (
        "VIS",
        "Y",
        "J",
    )
    assert open_source(write(tmp_path / "b.zarr")).bands is None


def test_a_store_is_opened_again_from_its_spec_with_its_options(tmp_path, monkeypatch):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name, values in {"x": np.zeros((4, 6, 6, 6)), "y": IMAGES, "tag": np.arange(4)}.items():
        group.create_array(name, data=values)
    monkeypatch.chdir(tmp_path)
    source = open_source("a.zarr", dataset="x", axes="NCHW", ids_from="tag", name="mine")
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
    first = open_source(write(tmp_path / "a" / "x.zarr")).fingerprint()
    assert open_source(write(tmp_path / "b" / "x.zarr", IMAGES + 1)).fingerprint() == first
    assert open_source(write(tmp_path / "c" / "x.zarr", IMAGES[:11])).fingerprint() != first
    assert open_source(write(tmp_path / "d" / "x.zarr", IMAGES.astype("u2"))).fingerprint() != first
    with_ids = write(tmp_path / "e" / "x.zarr", ids={"ids": np.arange(12)})
    assert open_source(with_ids).fingerprint() != first


def test_ids_given_by_hand_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"ids= does not apply to Zarr; allowed are .*ids_from="):
        open_source(write(tmp_path / "a.zarr"), ids=["a"])


def test_one_array_has_no_name_to_choose(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=IMAGES)
    with pytest.raises(SourceError, match=r"is one array, without names. Leave dataset= out"):
        open_source(tmp_path / "a.zarr", dataset="images")


def test_without_zarr_the_message_is_the_line_to_type(tmp_path, monkeypatch):
    path = write(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amatch-widgets\[zarr\]'"):
        ZarrSource(path)


def test_files_of_another_kind_in_a_store_do_no_harm(tmp_path):
    path = write(tmp_path / "a.zarr")
    sidecar(path / "notes.parquet")
    assert len(open_source(path)) == 12
