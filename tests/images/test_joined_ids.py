"""Ids of several sources as one sequence: what a list of them would say, without one being made."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from amatch_widgets.errors import SourceError
from amatch_widgets.images import joined_ids
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.ids import NumberedIds
from amatch_widgets.images.joined import JoinedSource
from amatch_widgets.images.joined_ids import JoinedIds, are_told_apart
from amatch_widgets.images.packed import IdIndex, PackedIds
from amatch_widgets.images.source import index_of

PARTS = {
    "north": NumberedIds(12),
    "empty": (),
    "south": PackedIds(["Tile_1/a.png", "tile_1/b.png", "c", "northern"]),
    "deep/er": ["x", "c", "Ärger"],
}
ALL = [f"{name}/{i}" for name, ids in PARTS.items() for i in ids]


@pytest.fixture(params=["in one block", "in many"])
def ids(request, monkeypatch):
    if request.param == "in many":
        monkeypatch.setattr(joined_ids, "_BLOCK", 2)
    return JoinedIds(PARTS)


def test_they_are_those_of_the_sources_one_after_the_other(ids):
    assert list(ids) == ALL
    assert len(ids) == len(ALL)
    assert [ids[i] for i in range(-len(ALL), len(ALL))] == ALL + ALL
    with pytest.raises(IndexError):
        ids[len(ALL)]


@pytest.mark.parametrize(
    "part", [slice(None), slice(3, 15), slice(11, 13), slice(-4, None), slice(5, 2), slice(0, 99, 3)]
)
def test_a_slice_may_go_over_several_sources(ids, part):
    assert ids[part] == ALL[part]


def test_each_knows_its_position_and_others_have_none(ids):
    assert [ids.position(i) for i in ALL] == list(range(len(ALL)))
    assert [ids.index(i) for i in ALL] == list(range(len(ALL)))
    for other in ("north/12", "north", "north/", "south/Tile_1", "c", "deep/x", "empty/0", ""):
        assert other not in ids
        with pytest.raises(ValueError, match="is no id here"):
            ids.index(other)
    assert 3 not in ids


@pytest.mark.parametrize("make", [list, pa.array, lambda ids: pa.array(ids, pa.large_string())])
def test_many_are_found_at_once(ids, make):
    wanted = ["north/12", *reversed(ALL), "nobody", "deep/x", "south/Tile_1", ALL[3], ""]
    expected = [ALL.index(i) if i in ALL else -1 for i in wanted]
    np.testing.assert_array_equal(ids.positions(make(wanted)), expected)
    np.testing.assert_array_equal(IdIndex(ids).positions(pa.array(wanted)), expected)
    assert len(ids.positions([])) == 0


@pytest.mark.parametrize(
    "text", ["", "1", "th/1", "th/t", "NORTH", "north", "/c", "er/", "ärg", "er/ä", "%", "nobody"]
)
def test_a_text_is_found_in_whole_ids_in_any_case(ids, text):
    np.testing.assert_array_equal(ids.contain(text), [text.casefold() in i.casefold() for i in ALL])


def test_they_are_the_same_after_pickling(ids):
    again = pickle.loads(pickle.dumps(ids))
    assert list(again) == ALL
    assert again.position(ALL[7]) == 7


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["north", "south"], True),
        (["a", "ab", "b/a"], True),
        (["a", "b", "a/b"], False),
        (["a/b", "a-c", "a"], False),
        (["only"], True),
    ],
)
def test_names_that_might_give_two_images_one_id_are_seen(names, expected):
    assert are_told_apart(names) is expected


def test_ids_that_might_be_the_same_are_looked_through():
    images = np.zeros((2, 8, 8), np.uint8)
    joined = JoinedSource(
        {"a": ArraySource(images, ids=["x", "y"]), "a/b": ArraySource(images, ids=["c", "d"])}
    )
    assert list(joined.ids) == ["a/x", "a/y", "a/b/c", "a/b/d"]
    assert [index_of(joined)[i] for i in joined.ids] == [0, 1, 2, 3]
    with pytest.raises(SourceError, match="'a/b/c' is given more than once"):
        JoinedSource({"a": ArraySource(images, ids=["x", "b/c"]), "a/b": ArraySource(images, ids=["c", "d"])})
