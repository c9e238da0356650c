"""Several sources as one, and a part of one."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

import amatch_widgets as am
from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.joined import JoinedSource, Subset
from amatch_widgets.images.joined_ids import JoinedIds
from amatch_widgets.images.source import open_source, read_many, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

RANDOM = np.random.default_rng(11)
IMAGES = RANDOM.integers(0, 256, (12, 9, 8, 3), np.uint8)


def write_hdf5(path, images, chunk=4, **attributes):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("images", data=images, chunks=(chunk, *images.shape[1:]))
        data.attrs.update(attributes)
    return path


def write_folder(path, images):
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i}.png")
    return path


@pytest.fixture
def joined(tmp_path):
    return JoinedSource(
        {
            "north": write_hdf5(tmp_path / "n.h5", IMAGES[:7]),
            "south": write_folder(tmp_path / "s", IMAGES[7:10]),
            "deep": ArraySource(IMAGES[10:], ids=["a", "b"]),
        }
    )


class TestJoined(SourceContract):
    @pytest.fixture
    def source(self, joined):
        return joined


class TestJoinedByTheirNames(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        paths = [write_hdf5(tmp_path / f"{k}.h5", IMAGES[k : k + 2], chunk=1) for k in (0, 2)]
        return JoinedSource(paths, ids=list("wxyz"), name="both")


class TestSubset(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return Subset(write_hdf5(tmp_path / "n.h5", IMAGES), [7, 3, 4, 0])


class TestSubsetOfJoined(SourceContract):
    @pytest.fixture
    def source(self, joined):
        return Subset(joined, range(5, 12, 2), name="few")


def damaged_folder(path):
    write_folder(path, IMAGES[:2])
    (path / "0.png").write_bytes(b"junk")
    return open_source(path)


class TestUnreadableInAJoinedSource(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        return JoinedSource([damaged_folder(tmp_path / "x")])


class TestUnreadableInASubset(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        return Subset(damaged_folder(tmp_path / "x"), [0, 1])


class Placed(ArraySource):
    """An array with places on the sky, which counts how it is read."""

    bands = ("R", "G", "B")
    chunk = 5
    calls: tuple = ()

    def position(self, index):
        return (10.0 + index, -5.0)

    def read_many(self, indices, *, min_side=None):
        self.calls += (tuple(indices),)
        for i in indices:
            yield i, self.read(i, min_side=min_side)


# ---- joined -----------------------------------------------------------------------------------------


def test_ids_begin_with_the_name_of_the_source(joined):
    assert list(joined.ids) == [
        *(f"north/{i}" for i in range(7)),
        *(f"south/{i}.png" for i in range(3)),
        "deep/a",
        "deep/b",
    ]
    assert isinstance(joined.ids, JoinedIds)
    assert joined.name == "north + south + deep"


def test_images_are_those_of_the_sources_in_their_order(joined):
    for i, image in read_many(joined, range(12)):
        np.testing.assert_array_equal(image, IMAGES[i])
        np.testing.assert_array_equal(joined.read(i), IMAGES[i])


def test_the_error_of_a_source_has_the_joined_id(tmp_path):
    joined = JoinedSource({"a": ArraySource(IMAGES), "x": damaged_folder(tmp_path / "x")})
    with pytest.raises(ImageReadError, match=r"'x/0\.png' cannot be read: its content is not") as caught:
        joined.read(12)
    found = dict(read_many(joined, [0, 12, 13]))
    assert found[12].image_id == "x/0.png"
    assert found[12].reason == caught.value.reason
    assert found[13].shape == (9, 8, 3)


def test_each_source_is_asked_once_for_all_of_its_images():
    one, two = Placed(IMAGES[:6], ids=list("abcdef")), Placed(IMAGES[6:])
    joined = JoinedSource({"one": one, "two": two, "three": Placed(IMAGES)})
    assert sorted(i for i, _ in joined.read_many([9, 0, 6, 5, 3])) == [0, 3, 5, 6, 9]
    assert one.calls == ((0, 3, 5),)
    assert two.calls == ((0, 3),)
    with pytest.raises(IndexError):
        list(joined.read_many([0, 24]))


def test_what_sources_say_more_is_passed_on(tmp_path):
    joined = JoinedSource({"a": Placed(IMAGES[:6]), "b": Placed(IMAGES)})
    assert joined.bands == ("R", "G", "B")
    assert joined.chunk == 5
    assert joined.position(7) == (11.0, -5.0)
    mixed = JoinedSource({"a": Placed(IMAGES), "b": ArraySource(IMAGES)})
    assert mixed.bands is None
    assert mixed.position(13) is None
    assert Subset(joined, [7, 1]).position(0) == (11.0, -5.0)
    folder = write_folder(tmp_path / "s", IMAGES)
    (folder / "gone.png").symlink_to("nowhere")
    assert list(JoinedSource({"s": folder}).skipped) == ["s/gone.png"]


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "There is no source to join"),
        ({}, {}, "There is no source to join"),
        ("a.h5", {}, "Cannot join 'str' alone"),
        (IMAGES, {}, "Cannot join 'ndarray' alone"),
        (ArraySource(IMAGES), {}, "Cannot join 'ArraySource' alone"),
        ([IMAGES, IMAGES], {}, "Two sources have the name 'array'.*Give each its own"),
        ({"": IMAGES}, {}, "The name '' of a source"),
        ({3: IMAGES}, {}, "The name 3 of a source"),
        ({"a": IMAGES, "b": IMAGES[..., 0]}, {}, "different channels: 'a' has 3, and 'b' has 1"),
        ({"a": IMAGES}, {"ids": ["x"]}, "1 ids were given for 12 images"),
        ({"a": IMAGES}, {"ids": ["x"] * 12}, "'x' is given more than once"),
        ({"a": IMAGES}, {"ids": "x"}, "1 ids were given for 12 images"),
        ({"a": "/no/such"}, {}, "There is no file or folder '/no/such'"),
        ({"a/b": IMAGES, "a": ArraySource(IMAGES[:1], ids=["b/00"])}, {}, "'a/b/00' is given more than once"),
    ],
)
def test_sources_that_cannot_be_joined_say_why(sources, options, message):
    with pytest.raises(SourceError, match=message):
        JoinedSource(sources, **options)


def test_different_bands_are_refused(tmp_path):
    one = write_hdf5(tmp_path / "a.h5", IMAGES, bands=["VIS", "Y", "J"])
    two = write_hdf5(tmp_path / "b.h5", IMAGES, bands=["VIS", "J", "Y"])
    assert JoinedSource([one]).bands == ("VIS", "Y", "J")
    with pytest.raises(SourceError, match="'a' has VIS, Y, J, and 'c' has VIS, J, Y"):
        JoinedSource({"a": one, "b": IMAGES, "c": two})


def test_the_fingerprint_is_of_names_order_sources_and_ids():
    a, b = IMAGES[:5], IMAGES[:6]
    seen = {
        JoinedSource({"a": a, "b": b}).fingerprint(),
        JoinedSource({"b": b, "a": a}).fingerprint(),
        JoinedSource({"a": b, "b": a}).fingerprint(),
        JoinedSource({"a": a, "c": b}).fingerprint(),
        JoinedSource({"a": a, "b": b}, ids=map(str, range(11))).fingerprint(),
        JoinedSource({"a": a, "b": b}, ids=map(str, range(1, 12))).fingerprint(),
    }
    assert len(seen) == 6


@pytest.mark.parametrize("indices", [[3, 1, 8], range(2, 9), range(9, 2, -3), [4]])
@pytest.mark.parametrize("ids", [None, [f"i{k}" for k in range(10)]])
def test_specs_open_them_again(tmp_path, indices, ids):
    joined = JoinedSource(
        {"b": write_hdf5(tmp_path / "n.h5", IMAGES[:7]), "a": write_folder(tmp_path / "s", IMAGES[7:10])},
        ids=ids,
    )
    source = Subset(joined, indices)
    again = source_from_spec(json.loads(json.dumps(source.spec(), sort_keys=True)))
    assert list(again.ids) == list(source.ids) == [joined.ids[i] for i in indices]
    assert again.fingerprint() == source.fingerprint()
    np.testing.assert_array_equal(again.read(0), IMAGES[indices[0]])


def test_a_source_in_memory_is_not_opened_again():
    with pytest.raises(SourceError, match="array in memory, which is not kept"):
        source_from_spec(JoinedSource({"a": IMAGES}).spec())


# ---- subset -----------------------------------------------------------------------------------------


def test_a_subset_has_the_ids_and_the_order_that_were_asked_for(joined):
    subset = Subset(joined, np.array([11, 0, 8], np.uint8))
    assert list(subset.ids) == ["deep/b", "north/0", "south/1.png"]
    found = dict(subset.read_many([2, 0]))
    np.testing.assert_array_equal(found[0], IMAGES[11])
    np.testing.assert_array_equal(found[2], IMAGES[8])
    assert subset.name == joined.name


def test_a_subset_does_not_change_with_the_array_it_was_made_of():
    indices = np.arange(3)
    subset = Subset(IMAGES, indices)
    indices[:] = 9
    np.testing.assert_array_equal(subset.read(0), IMAGES[0])


def test_chunks_of_a_subset_are_smaller_by_its_share():
    assert Subset(Placed(IMAGES), range(10)).chunk == 5
    assert Subset(Placed(IMAGES), range(0, 12, 2)).chunk == 2
    assert Subset(Placed(IMAGES), [0, 11]).chunk == 1


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], SourceError, r"shape \(0,\).*at least one"),
        ([0.5], SourceError, "dtype float64"),
        ([[1]], SourceError, r"shape \(1, 1\)"),
        ([True, False], SourceError, "dtype bool.*flatnonzero"),
        ([3, 1, 3], SourceError, "The index 3 is given more than once"),
        ([12], IndexError, "index 12 is out of range"),
        ([-1], IndexError, "index -1 is out of range"),
    ],
)
def test_indices_that_make_no_subset_say_why(indices, error, message):
    with pytest.raises(error, match=message):
        Subset(IMAGES, indices)


def test_the_fingerprint_of_a_subset_is_of_its_source_and_indices():
    seen = {
        Subset(IMAGES[:n], i).fingerprint() for n, i in ((12, [1, 2]), (12, [2, 1]), (12, [1]), (11, [1, 2]))
    }
    assert len(seen) == 4


def test_both_are_public():
    assert (am.JoinedSource, am.Subset) == (JoinedSource, Subset)
    assert repr(Subset(IMAGES, [1])) == "Subset(1 images of ArraySource('array', (12, 9, 8, 3), uint8))"
    assert repr(JoinedSource({"a": IMAGES})) == "JoinedSource(12 images of 1 sources, 'a': 12)"
