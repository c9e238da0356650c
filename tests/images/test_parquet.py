"""Parquet: the layouts of images, ids, damaged and vanishing files, and what is read how often."""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images import kept, rowgroups
from amatch_widgets.images.column import _declared_shape
from amatch_widgets.images.files import FolderSource
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.parquet import ParquetSource
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

RAW = np.arange(5 * 4 * 6 * 3).reshape(5, 4, 6, 3) % 251
BYTE = pa.uint8()


def encoded(value, size=(40, 50), kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write(path, columns, *, rows=2, metadata=None, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path, row_group_size=rows, **options)
    return path


def structs(n=5, **changes):
    rows = [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(n)]
    return [changes.get(f"row{i}", row) for i, row in enumerate(rows)]


def flat(images, kind=BYTE, size=None):
    of = pa.list_(kind) if size is None else pa.list_(kind, size)
    return pa.array([image.ravel().tolist() for image in images], of)


def tensors(images, kind):
    storage = pa.array([image.ravel() for image in images], kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


class TestHuggingFaceColumn(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "set.parquet", {"label": [0] * 5, "image": structs()}))


class TestBinaryColumnOfAFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "data").mkdir()
        for k in range(3):
            images = [encoded(k * 3 + i, (100 + k, 90), "JPEG") for i in range(3)]
            write(
                tmp_path / "data" / f"part-{k}.parquet", {"img": images, "id": [k * 3 + i for i in range(3)]}
            )
        return open_source(tmp_path)


class TestFixedListsWithSizes(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        columns = {"pixels": flat(RAW, size=72), "height": [4] * 5, "width": [6] * 5, "channels": [3] * 5}
        return open_source(write(tmp_path / "set.parquet", columns))


class TestListsWithAGivenShape(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(
            write(tmp_path / "set.parquet", {"flux": flat(RAW, pa.float64())}), shape=(4, 6, 3)
        )


class TestSquareLists(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(
            write(tmp_path / "set.parquet", {"x": flat(np.arange(45).reshape(5, 9), pa.uint16())})
        )


class TestNestedLists(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "set.parquet", {"image": pa.array(RAW.tolist())}))


class TestTensors(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        kind = pa.fixed_shape_tensor(pa.float32(), (4, 6, 3))
        return open_source(write(tmp_path / "set.parquet", {"cutout": tensors(RAW.astype("f4"), kind)}))


class TestDamagedRow(UnreadableImageContract):
    @pytest.fixture(params=["null", "null bytes", "nonsense", "empty", "cut off"])
    def damaged(self, request, tmp_path):
        row = {
            "null": None,
            "null bytes": {"bytes": None, "path": "0.png"},
            "nonsense": {"bytes": b"no image at all", "path": "0.png"},
            "empty": {"bytes": b"", "path": "0.png"},
            "cut off": {"bytes": encoded(1)[:60], "path": "0.png"},
        }[request.param]
        return open_source(write(tmp_path / "set.parquet", {"image": structs(row0=row)}))


class TestDamagedList(UnreadableImageContract):
    @pytest.fixture(params=["null", "empty", "short", "ragged", "hole"])
    def damaged(self, request, tmp_path):
        good = [[1, 2], [3, 4]]
        row = {"null": None, "empty": [], "short": [[1]], "ragged": [[1, 2], [3]], "hole": [None, [1, 2]]}
        kind = pa.list_(pa.list_(pa.uint8()))
        column = pa.array([row[request.param], good], kind)
        if request.param == "short":
            column = pa.array([[1, 2, 3], [1, 2, 3, 4]], pa.list_(pa.uint8()))
        return open_source(write(tmp_path / "set.parquet", {"image": column}))


class TestDamagedRowGroup(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (2, 50, 50)).astype(np.uint8)
        path = write(tmp_path / "set.parquet", {"image": flat(noise)}, rows=1, compression="zstd")
        data = bytearray(path.read_bytes())
        chunk = pq.read_metadata(path).row_group(0).column(0)
        data[chunk.data_page_offset + 60 : chunk.data_page_offset + 400] = bytes(340)
        path.write_bytes(data)
        return open_source(path, shape=(50, 50))


def write_noise(path, n, *, rows, side=32, **options):
    images = np.random.default_rng(0).integers(0, 256, (n, side, side)).astype(np.uint8)
    return images, write(path, {"image": flat(images), "other": ["x" * 1000] * n}, rows=rows, **options)


def test_encoded_images_are_decoded_and_ids_are_their_paths(tmp_path):
    source = open_source(write(tmp_path / "set.parquet", {"image": structs()}))
    assert [source.read(i)[0, 0, 0] for i in range(5)] == [0, 1, 2, 3, 4]
    assert list(source.ids) == [f"{i}.png" for i in range(5)]
    assert (source.name, source.channels, source.chunk) == ("set", 3, 2)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int8(), pa.binary())])
def test_every_kind_of_binary_column_is_read(tmp_path, kind):
    images = pa.array([encoded(1), None, encoded(2)], pa.binary()).cast(kind)
    source = open_source(write(tmp_path / "set.parquet", {"payload": images}))
    assert (source.read(0)[0, 0, 0], source.read(2)[0, 0, 0]) == (1, 2)
    with pytest.raises(ImageReadError, match="Image '1' cannot be read: its row is null"):
        source.read(1)


def test_files_of_a_folder_are_joined_in_the_order_of_their_names(tmp_path):
    for k, name in enumerate(["b", "a", "_hidden", ".c"]):
        write(tmp_path / f"{name}.parquet", {"x": flat(np.full((2, 4), k))})
    source = open_source(tmp_path)
    assert [int(source.read(i)[0, 0, 0]) for i in range(len(source))] == [1, 1, 0, 0]
    assert source.name == tmp_path.name


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.uint8(), np.uint8),
        (pa.uint16(), np.uint16),
        (pa.int64(), np.float32),
        (pa.float16(), np.float32),
        (pa.float64(), np.float32),
        (pa.bool_(), np.uint8),
    ],
)
def test_numbers_keep_their_values(tmp_path, kind, expected):
    images = np.arange(12).reshape(2, 6) % 2
    column = pa.array([[bool(v) if kind == pa.bool_() else np.float16(v) if kind == pa.float16() else int(v)
                        for v in image] for image in images], pa.list_(kind))  # fmt: skip
    source = open_source(write(tmp_path / "set.parquet", {"x": column}), shape=(2, 3))
    assert source.read(1).dtype == expected
    factor = 255 if kind == pa.bool_() else 1
    np.testing.assert_array_equal(source.read(1), images[1].reshape(2, 3, 1) * factor)


def test_a_null_among_real_numbers_is_nan(tmp_path):
    column = pa.array([[1.0, None, 3.0, 4.0]], pa.list_(pa.float32()))
    image = open_source(write(tmp_path / "set.parquet", {"x": column})).read(0)
    np.testing.assert_array_equal(image[..., 0], [[1, np.nan], [3, 4]])


@pytest.mark.parametrize("shape", [(4, 6, 3), (3, 4, 6)])
def test_bands_may_be_the_first_axis_or_the_last(tmp_path, shape):
    path = write(tmp_path / "set.parquet", {"x": flat(RAW)})
    source = open_source(path, shape=shape)
    expected = RAW[1].ravel().reshape(shape)
    expected = np.moveaxis(expected, 0, -1) if shape[0] == 3 else expected
    np.testing.assert_array_equal(source.read(1), expected.astype(np.uint8))
    assert source.channels == 3


@pytest.mark.parametrize("place", ["column", "hugging face", "file"])
def test_the_shape_is_taken_from_the_metadata(tmp_path, place):
    features = {"info": {"features": {"x": {"shape": [4, 6, 3], "dtype": "uint8", "_type": "Array3D"}}}}
    of_column = {"shape": "(4, 6, 3)"} if place == "column" else None
    metadata = {"column": {"no": "shape"}, "hugging face": {"huggingface": json.dumps(features)},
                "file": {"shape": "[4, 6, 3]"}}[place]  # fmt: skip
    field = pa.field("x", pa.list_(pa.int32()), metadata=of_column)
    table = pa.Table.from_arrays([flat(RAW, pa.int32())], schema=pa.schema([field], metadata))
    source = open_source(write(tmp_path / "set.parquet", table))
    np.testing.assert_array_equal(source.read(2), RAW[2])


@pytest.mark.parametrize(
    "metadata", [{"shape": "__import__('os')"}, {"huggingface": "[1]"}, {"shape": "(" * 999}]
)
def test_metadata_that_make_no_sense_are_passed_over(tmp_path, metadata):
    path = write(tmp_path / "set.parquet", {"x": flat(np.arange(18).reshape(2, 9))}, metadata=metadata)
    assert open_source(path).read(0).shape == (3, 3, 1)


def test_each_row_may_have_a_size_of_its_own(tmp_path):
    columns = {"x": flat([np.arange(6), np.arange(12)]), "height": [2, 3], "width": [3, 4]}
    source = open_source(write(tmp_path / "set.parquet", columns))
    assert [source.read(i).shape for i in range(2)] == [(2, 3, 1), (3, 4, 1)]


def test_a_size_that_does_not_fit_is_an_image_read_error(tmp_path):
    columns = {"x": flat([np.arange(6)] * 3), "height": [2, 10**9, None], "width": [3, 10**9, 3]}
    source = open_source(write(tmp_path / "set.parquet", columns))
    with pytest.raises(
        ImageReadError, match=r"6 numbers, which do not fill the shape \(1000000000, 1000000000\)"
    ):
        source.read(1)
    with pytest.raises(ImageReadError, match=r"height and width are \(None, 3\): no numbers above 0"):
        source.read(2)


@pytest.mark.parametrize(
    ("options", "axes"),
    [
        ({}, (0, 1, 2)),
        ({"dim_names": ["C", "H", "W"]}, (1, 2, 0)),
        ({"dim_names": ["width", "channel", "height"]}, (2, 0, 1)),
        ({"permutation": [2, 0, 1]}, (0, 1, 2)),
        ({"permutation": [1, 0, 2]}, (1, 0, 2)),
    ],
)
def test_the_axes_of_tensors_are_found(tmp_path, options, axes):
    images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    kind = pa.fixed_shape_tensor(pa.uint8(), (4, 6, 3), **options)
    source = open_source(write(tmp_path / "set.parquet", {"t": tensors(images, kind)}))
    np.testing.assert_array_equal(source.read(1), images[1].transpose(axes))
    assert source.channels == images[1].transpose(axes).shape[2]


def test_a_preferred_column_is_chosen_before_others(tmp_path):
    columns = {"thumb": [encoded(1)] * 2, "Image": structs(2), "embedding": flat(np.zeros((2, 512)))}
    source = open_source(write(tmp_path / "set.parquet", columns))
    assert source.spec()["column"] == "Image"
    assert open_source(tmp_path / "set.parquet", column="thumb").read(0)[0, 0, 0] == 1


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [b"x"], "b": [b"y"]}, {}, r"There are 2 columns that may be images.*column=...; the col"),
        ({"url": ["http"], "n": [1]}, {}, r"no column of images. Allowed.*'url' \(string\), 'n' \(int"),
        ({"a": [b"x"]}, {"column": "b"}, r"column 'b' does not exist.*The columns are 'a' \(binary\)"),
        ({"a": ["x"]}, {"column": "a"}, "column 'a' is of type string. Allowed are encoded images"),
        ({"image": ["x.png"]}, {}, "There is no column of images"),
        ({"a": [b"x"]}, {"shape": (4, 4)}, "shape= is for raw pixels"),
        ({"a": [[1, 2]]}, {"shape": (4,)}, r"shape=\(4,\): allowed is the shape of one image"),
        ({"a": [[1, 2]]}, {"shape": (4, -1)}, r"shape=\(4, -1\): allowed is"),
        ({"a": flat([np.arange(8)], size=8)}, {"shape": (3, 3)}, r"has 8 numbers in each row; the shape"),
        ({"a": flat([np.arange(8)], size=8)}, {}, "has no shape: 8 numbers make no square"),
        ({"a": flat([np.arange(12)], size=12)}, {}, r"e.g. \(2, 2, 3\), or \(3, 2, 2\)"),
        ({"a": flat([np.arange(8)])}, {}, "None of the first images.*8 numbers make no square.*Check"),
        ({"a": [[1.0]], "id": [1]}, {"ids_from": "key"}, "ids_from='key' is no column of text"),
        ({"a": [[1.0]] * 2, "id": [1, 1]}, {"ids_from": "id"}, "The id '1' is given more than once"),
        ({"a": [[1.0]], "id": [None]}, {"ids_from": "id"}, "is no column of text"),
        ({"a": [[1.0]], "id": [1.5]}, {"ids_from": "id"}, "is no column of text"),
        ({"a": pa.array([], pa.list_(pa.uint8()))}, {}, "has no row. At least one image"),
        ({"a": pa.array([], pa.binary())}, {}, "has no row"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_says_what_is_allowed(tmp_path, columns, options, message):
    path = write(tmp_path / "set.parquet", columns)
    with pytest.raises(SourceError, match=message):
        open_source(path, **options)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": ["b", "a"]}, ["b", "a"]),
        ({"ID": [7, 5], "name": ["x", "y"]}, ["7", "5"]),
        ({"id": ["same", "same"], "name": ["x", "y"]}, ["x", "y"]),
        ({"id": ["a", None], "object_id": pa.array([1, 2], pa.uint64())}, ["1", "2"]),
        ({"id": [0.5, 1.5]}, ["0", "1"]),
        ({"name": pa.array(["q", "r"]).dictionary_encode()}, ["q", "r"]),
        ({"filename": ["<b>", "two\nlines"]}, ["<b>", "two\nlines"]),
        ({}, ["0", "1"]),
    ],
)
def test_ids_are_the_first_column_of_unique_ones(tmp_path, columns, expected):
    path = write(tmp_path / "set.parquet", {**columns, "x": flat(np.zeros((2, 4)))})
    source = open_source(path)
    assert list(source.ids) == expected
    assert isinstance(source.ids, NumberedIds if expected == ["0", "1"] else PackedIds)


def test_ids_are_taken_from_the_column_that_is_named(tmp_path):
    rows = [{"bytes": encoded(1), "path": "p"}, {"bytes": encoded(1), "path": "q"}]
    path = write(tmp_path / "set.parquet", {"id": [1, 2], "key": ["k", "l"], "image": rows})
    assert list(open_source(path, ids_from="key").ids) == ["k", "l"]
    assert list(open_source(path, ids_from="image.path").ids) == ["p", "q"]


def test_ids_that_are_no_text_are_never_given(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"a"]).buffers())
    path = write(tmp_path / "set.parquet", {"id": bad, "x": flat(np.zeros((2, 4)))})
    assert list(open_source(path).ids) == ["0", "1"]
    with pytest.raises(SourceError, match="UTF"):
        open_source(path, ids_from="id")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"y": [b""]}, "'x' is missing, in .*'x' is|column 'x' is missing"),
        ({"x": flat(np.zeros((1, 4)), pa.uint16())}, "column 'x' is list<.*uint16.*need the same column"),
        (None, "b.parquet' cannot be opened as a Parquet file: it is damaged or cut off.*take it out"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, second, message):
    write(tmp_path / "a.parquet", {"x": flat(np.zeros((1, 4)))})
    write(tmp_path / "b.parquet", second or {"x": [1]})
    if second is None:
        (tmp_path / "b.parquet").write_bytes((tmp_path / "b.parquet").read_bytes()[:-20])
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all" * 10, b"PAR1" + b"\xff" * 60 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_a_source_error(tmp_path, data):
    (tmp_path / "set.parquet").write_bytes(data)
    with pytest.raises(SourceError, match=r"set.parquet' cannot be opened as a Parquet file: it is damaged"):
        open_source(tmp_path / "set.parquet")


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", {"x": flat(np.zeros((1, 4)))})

    def walk(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "closed")))

    monkeypatch.setattr(rowgroups.os, "walk", walk)
    with pytest.raises(SourceError, match=r"closed' cannot be listed: Permission denied. Images would be"):
        open_source(tmp_path, column="x")


def test_images_in_a_folder_come_before_parquet_files(tmp_path):
    write(tmp_path / "catalogue.parquet", {"x": flat(np.zeros((1, 4)))})
    (tmp_path / "a.png").write_bytes(encoded(1))
    assert isinstance(open_source(tmp_path), FolderSource)
    assert isinstance(open_source(tmp_path, column="x"), ParquetSource)


def read_rows(monkeypatch):
    """Note each row group that Arrow is asked for."""
    asked = []
    original = pq.ParquetFile.iter_batches

    def note(self, size, row_groups, columns, **options):
        asked.append((row_groups[0], tuple(columns)))
        return original(self, size, row_groups=row_groups, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", note)
    return asked


def test_many_images_read_each_row_group_once_and_the_image_column_alone(tmp_path, monkeypatch):
    images, path = write_noise(tmp_path / "set.parquet", 20, rows=4)
    source = open_source(path)
    asked = read_rows(monkeypatch)
    wanted = np.random.default_rng(1).permutation(20)
    for i, image in source.read_many(wanted):
        np.testing.assert_array_equal(image[..., 0], images[i])
        wanted = wanted[wanted != i]
    assert len(wanted) == 0
    assert asked == [(k, ("image",)) for k in range(5)]


def test_row_groups_without_a_wanted_image_are_not_read(tmp_path, monkeypatch):
    _, path = write_noise(tmp_path / "set.parquet", 20, rows=4)
    source = open_source(path)
    asked = read_rows(monkeypatch)
    assert [i for i, _ in source.read_many([17, 5])] == [5, 17]
    assert [group for group, _ in asked] == [1, 4]


def test_single_images_of_one_row_group_are_read_from_memory(tmp_path, monkeypatch):
    images, path = write_noise(tmp_path / "set.parquet", 20, rows=4)
    source = open_source(path)
    asked = read_rows(monkeypatch)
    for i in (8, 9, 11, 4, 10):
        np.testing.assert_array_equal(source.read(i)[..., 0], images[i])
    assert [group for group, _ in asked] == [2, 1]


def test_a_row_group_beyond_the_memory_is_read_bit_by_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "_BLOCK_BYTES", 2**20)
    monkeypatch.setattr(kept.Kept.__init__, "__defaults__", (2**21,))
    images, path = write_noise(tmp_path / "set.parquet", 3000, rows=3000, side=64)
    source = open_source(path)
    assert source.chunk == 3000
    asked = read_rows(monkeypatch)
    before, most = pa.total_allocated_bytes(), 0
    for n, (i, image) in enumerate(source.read_many(range(3000))):
        most = max(most, pa.total_allocated_bytes() - before)
        if n % 500 == 0:
            np.testing.assert_array_equal(image[..., 0], images[i])
    assert n == 2999
    assert len(asked) == 1
    assert most < images.nbytes / 2
    for i in (2999, 0, 1500):
        np.testing.assert_array_equal(source.read(i)[..., 0], images[i])


def test_a_dictionary_does_not_hide_how_large_rows_are(tmp_path, monkeypatch):
    monkeypatch.setattr(rowgroups, "_BLOCK_ROWS", 8)
    big = encoded(3) + bytes(500_000)
    path = write(tmp_path / "set.parquet", {"image": [big] * 200}, rows=200)
    assert path.stat().st_size < 2 * len(big)
    source = open_source(path)
    before, most = pa.total_allocated_bytes(), 0
    for _, image in source.read_many(range(200)):
        most = max(most, pa.total_allocated_bytes() - before)
        assert image.shape == (40, 50, 3)
    assert most < 50 * len(big)


def test_what_is_read_is_memory_of_its_own(tmp_path):
    source = open_source(write(tmp_path / "set.parquet", {"x": flat(np.arange(8).reshape(2, 4))}))
    source.read(0)[:] = 99
    assert source.read(0)[0, 0, 0] == 0


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_file_that_disappears_is_an_image_read_error_for_each_image(tmp_path, when):
    for k in range(3):
        write_noise(tmp_path / f"{k}.parquet", 4, rows=2)
    source = open_source(tmp_path)
    if when == "before":
        (tmp_path / "1.parquet").unlink()
    found = {}
    for i, image in source.read_many(range(12)):
        (tmp_path / "1.parquet").unlink(missing_ok=True)
        found[i] = image
    assert sorted(found) == list(range(12))
    for i in range(4, 8):
        assert found[i].reason == "the file is gone since it was opened"
    assert all(isinstance(found[i], np.ndarray) for i in (0, 1, 2, 3, 8, 9, 10, 11))
    with pytest.raises(ImageReadError, match="is gone since"):
        source.read(5)


def test_a_file_that_was_replaced_gives_no_image_under_a_wrong_id(tmp_path):
    _, path = write_noise(tmp_path / "set.parquet", 4, rows=2)
    source = open_source(path)
    write_noise(path, 5, rows=2)
    with pytest.raises(ImageReadError, match="the file has changed since it was opened"):
        source.read(3)
    assert all("has changed" in error.reason for _, error in source.read_many(range(4)))


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.9])
def test_a_file_cut_off_while_it_is_open_is_an_image_read_error(tmp_path, keep):
    _, path = write_noise(tmp_path / "set.parquet", 4, rows=2)
    source = open_source(path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    found = dict(source.read_many(range(4)))
    assert len(found) == 4
    assert all(isinstance(error, ImageReadError) for error in found.values())


def test_any_damaged_byte_is_a_read_error_or_nothing(tmp_path):
    _, path = write_noise(tmp_path / "set.parquet", 6, rows=2, side=8, write_page_checksum=True)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            source = open_source(path)
        except SourceError:
            outcomes.add("refused")
            continue
        found = dict(source.read_many(range(len(source)))) if len(source) < 100 else {}
        outcomes |= {type(image) for image in found.values()}
    assert outcomes == {"refused", np.ndarray, ImageReadError}


def test_an_index_out_of_range_among_many_is_an_index_error(tmp_path):
    source = open_source(write(tmp_path / "set.parquet", {"x": flat(np.zeros((2, 4)))}))
    with pytest.raises(IndexError, match="out of range"):
        list(source.read_many([0, 2]))


def test_it_is_opened_again_from_its_spec(tmp_path, monkeypatch):
    write(tmp_path / "set.parquet", {"a": flat(RAW), "b": flat(RAW), "key": list("abcde"), "id": range(5)})
    monkeypatch.chdir(tmp_path)
    source = open_source("set.parquet", column="b", shape=(4, 6, 3), ids_from="key")
    monkeypatch.chdir("/")
    again = source_from_spec(json.loads(json.dumps(source.spec())))
    assert again.spec() == source.spec()
    assert again.fingerprint() == source.fingerprint()
    assert list(again.ids) == list("abcde")
    np.testing.assert_array_equal(again.read(3), RAW[3].astype(np.uint8))


def test_the_fingerprint_changes_with_ids_number_type_and_shape(tmp_path):
    tables = [
        {"x": flat(np.zeros((2, 36)))},
        {"x": flat(np.zeros((3, 36)))},
        {"x": flat(np.zeros((2, 36)), pa.uint16())},
        {"x": flat(np.zeros((2, 36))), "id": ["a", "b"]},
        {"x": flat(np.zeros((2, 36))), "id": ["b", "a"]},
        {"y": flat(np.zeros((2, 36)))},
    ]
    sources = [open_source(write(tmp_path / f"{i}.parquet", table)) for i, table in enumerate(tables)]
    sources.append(open_source(tmp_path / "0.parquet", shape=(4, 9)))
    assert len({source.fingerprint() for source in sources}) == len(sources)


def test_it_is_pickled_by_its_path(tmp_path):
    _, path = write_noise(tmp_path / "set.parquet", 50, rows=10)
    assert len(pickle.dumps(open_source(path))) < 1000


def test_a_path_that_is_no_text_can_be_opened(tmp_path):
    folder = tmp_path / os.fsdecode(b"set \xff")
    folder.mkdir()
    write(tmp_path / "set.parquet", {"x": flat(np.zeros((2, 4)))}).rename(folder / "a.parquet")
    source = open_source(folder)
    assert source.read(0).shape == (2, 2, 1)


def test_very_many_ids_are_read_without_python_objects(tmp_path):
    n = 300_000
    columns = {
        "id": pa.array(np.arange(n)),
        "x": pa.array(np.zeros((n, 1), np.uint8).tolist(), pa.list_(pa.uint8(), 1)),
    }
    path = write(tmp_path / "set.parquet", columns, rows=100_000)
    tracemalloc.start()
    source = open_source(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert source.ids[-1] == "299999"
    assert most < 30e6


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (b"[6, 5]", (6, 5)),
        (b"(6, 5, 3)", (6, 5, 3)),
        (b"6", None),
        (b"(6, 'x')", None),
        (b"__import__('os')", None),
        (b"(" * 100_000, None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_a_shape_in_the_metadata_is_data_and_nothing_else(text, shape):
    schema = pa.schema([pa.field("image", pa.list_(pa.uint8()))], metadata={b"shape": text})
    assert _declared_shape(schema, "image") == shape
