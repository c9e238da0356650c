"""Ids of very many images: each once, in order, and found again."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amatch_widgets.errors import SourceError
from amatch_widgets.images import packed
from amatch_widgets.images.ids import NumberedIds, hash_ids
from amatch_widgets.images.packed import IdIndex, PackedIds

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(TEXTS, unique=True, max_size=40), TEXTS)
def test_it_is_the_sequence_it_was_made_of(texts, other):
    ids = PackedIds(texts)
    assert list(ids) == texts == ids[:]
    assert len(ids) == len(texts)
    assert [ids.position(text) for text in texts] == list(range(len(texts)))
    assert (ids.position(other) is None) == (other not in texts)
    assert (other in ids) == (other in texts)
    assert dict(IdIndex(ids)) == {text: i for i, text in enumerate(texts)}
    wanted = [*texts[::-1], other, *texts]
    expected = [-1 if ids.position(text) is None else ids.position(text) for text in wanted]
    assert ids.positions(wanted).tolist() == expected


def test_slices_and_negative_indices_are_those_of_a_list():
    texts = [f"{i}.png" for i in range(10)]
    ids = PackedIds(texts)
    for part in (slice(2, 5), slice(None, None, 3), slice(8, 2, -2), slice(5, 2), slice(-3, None)):
        assert ids[part] == texts[part]
    assert ids[-1] == "9.png"
    with pytest.raises(IndexError):
        ids[10]


def test_blocks_make_no_difference(monkeypatch):
    texts = [f"stamp {i}" for i in range(1000)]
    whole = PackedIds(texts)
    monkeypatch.setattr(packed, "_BLOCK", 7)
    parts = PackedIds(texts)
    np.testing.assert_array_equal(whole._hashes, parts._hashes)
    assert list(parts) == texts
    assert parts.index("stamp 999") == 999
    assert parts.positions(texts[::-1]).tolist() == list(range(999, -1, -1))
    assert IdIndex(NumberedIds(20)).positions(pa.array(["07", "x", "20", "00"])).tolist() == [7, -1, -1, 0]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "b", "c"]),
        pa.chunked_array([["a"], ["b", "c"]]),
        pa.array(["a", "b", "c"]).dictionary_encode(),
        pa.array(["x", "a", "b", "c"]).slice(1),
    ],
    ids=["array", "chunked", "dictionary", "slice"],
)
def test_columns_of_a_table_are_taken_as_they_are(array):
    ids = PackedIds(array)
    assert list(ids) == ["a", "b", "c"]
    assert [ids.position(i) for i in "cab"] == [2, 0, 1]


def test_whole_numbers_become_text():
    assert list(PackedIds(pa.array([587722981742084096, 3]))) == ["587722981742084096", "3"]
    assert len(PackedIds(pa.chunked_array([], pa.string()))) == 0


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (["a", "b", "a"], "'a' is given more than once"),
        (["a", 3], "3 is no string"),
        (["a", None], "None is no string|Image 1 has no id"),
        (["\ud800"], "no valid text"),
        (pa.array(["a", None]), "Image 1 has no id"),
        (pa.array([0.5]), "type double"),
    ],
)
def test_ids_that_make_no_sense_are_refused(ids, why):
    with pytest.raises(SourceError, match=why):
        PackedIds(ids)


def test_two_ids_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(packed, "_hashes", lambda array: np.zeros(len(array), np.uint64))
    ids = PackedIds(["b", "a", "c"])
    assert [ids.position(i) for i in ("a", "b", "c", "d")] == [1, 0, 2, None]
    assert ids.positions(["a", "d", "b", "c", "a"]).tolist() == [1, -1, 0, 2, 1]
    with pytest.raises(SourceError, match="'a' is given more than once"):
        PackedIds(["c", "a", "b", "a"])


def test_hashes_of_similar_ids_differ():
    ids = PackedIds([f"tile{i // 1000}/{i % 1000:04d}.fits" for i in range(200_000)])
    assert (np.diff(ids._hashes) > 0).all()
    assert len(np.unique(ids._hashes & np.uint64(0xFFF))) == 4096


def test_a_text_is_found_in_upper_and_lower_case():
    ids = PackedIds(["Spiral.png", "ring.PNG", "Straße"])
    assert ids.contain("png").tolist() == [True, True, False]
    assert ids.contain("SPIR").tolist() == [True, False, False]
    assert ids.contain("(").tolist() == [False, False, False]


def test_a_copy_is_pickled_by_its_text():
    ids = PackedIds([f"{i}" for i in range(1000)])
    data = pickle.dumps(ids)
    assert len(data) < 15_000
    assert list(pickle.loads(data)) == list(ids)


def test_what_is_no_id_is_not_found():
    ids = PackedIds(["a", "b"])
    with pytest.raises(ValueError, match="no id"):
        ids.index("c")
    with pytest.raises(ValueError, match="no id"):
        ids.index("a", 1)
    assert 3 not in ids
    assert "\ud800" not in ids
    with pytest.raises(KeyError):
        IdIndex(ids)["c"]
    assert IdIndex(ids).get("\ud800") is None


@given(st.lists(TEXTS, unique=True, max_size=40))
def test_the_hash_of_all_is_that_of_the_same_strings(texts):
    assert hash_ids(PackedIds(texts), "more") == hash_ids(texts, "more")
