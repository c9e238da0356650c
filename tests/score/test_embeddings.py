"""Vectors in a store: what is written is there, and what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from amatch_widgets.errors import StateError
from amatch_widgets.score.embeddings import EmbeddingStore
from tests.score.helper import ARRAYS, KEY, D, N, begin, fill, vectors_of

# ---- what is written is there -----------------------------------------------------------------


def test_a_new_store_has_nothing(opened, roots):
    store = opened()
    assert (store.n_images, store.dims, store.n_done, store.n_unreadable) == (N, 0, 0, 0)
    assert store.projection is None
    assert not store.is_complete
    assert store.notice == ""
    np.testing.assert_array_equal(store.missing, np.arange(N))
    assert store.missing.dtype == np.int64
    assert store.folder.parent == roots[0]
    assert len(store.folder.name) == 16
    assert json.loads((store.folder / "key.json").read_text()) == KEY


def test_vectors_states_and_projection_come_back(opened):
    store = begin(opened())
    store.write([7, 3, 4, 5, 49], vectors_of([7, 3, 4, 5, 49]))
    store.mark_unreadable([0, 1])
    store.close()
    store = opened()
    done = [3, 4, 5, 7, 49]
    assert (store.dims, store.n_done, store.n_unreadable, store.is_complete) == (D, 5, 2, False)
    np.testing.assert_array_equal(np.flatnonzero(store.is_done), done)
    np.testing.assert_array_equal(store.missing, np.setdiff1d(np.arange(N), [0, 1, *done]))
    np.testing.assert_array_equal(store.vectors[done], vectors_of(done))
    assert not store.vectors[store.missing].any()
    assert store.projection.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(store.projection[name], array)
        assert store.projection[name].dtype == array.dtype
    assert store.notice == ""


def test_vectors_can_be_read_at_once_and_by_a_map_that_was_taken_before(opened):
    store = begin(opened())
    seen = store.vectors
    assert isinstance(seen, np.memmap)
    assert (seen.shape, seen.dtype) == ((N, D), np.float16)
    assert not seen.any()
    store.write([2, 40], vectors_of([2, 40]))
    np.testing.assert_array_equal(seen[[2, 40]], vectors_of([2, 40]))
    assert store.is_done[[2, 3, 40]].tolist() == [True, False, True]
    store.close()
    np.testing.assert_array_equal(seen[[2, 40]], vectors_of([2, 40]))


def test_the_file_holds_little_endian_rows_and_a_byte_for_each_image(opened):
    folder = fill(begin(opened())).folder
    assert (folder / "vectors.f16").read_bytes() == vectors_of(np.arange(N)).astype("<f2").tobytes()
    assert (folder / "state.u8").read_bytes() == b"\1" * N


def test_any_order_is_right_and_of_a_row_given_twice_the_last_counts(opened):
    store = begin(opened())
    rows = np.random.default_rng(0).permutation(N)
    values = vectors_of(rows)
    store.write(np.append(rows[0], rows), np.concatenate([values[:1] * 0 + 5, values]))
    np.testing.assert_array_equal(store.vectors, vectors_of(np.arange(N)))
    assert store.is_complete


def test_nothing_to_write_is_nothing(opened):
    store = begin(opened())
    store.write([], vectors_of([]))
    store.mark_unreadable([])
    assert (store.n_done, store.n_unreadable) == (0, 0)


def test_what_is_handed_out_cannot_be_written(opened):
    store = begin(opened())
    for array in (store.vectors, store.is_done, store.projection["mean"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    store.projection.clear()
    assert store.projection.keys() == ARRAYS.keys()


def test_the_projection_is_a_copy(opened):
    store = opened()
    mean = np.zeros(3)
    store.set_projection({"mean": mean}, 2)
    mean[0] = 1
    assert store.projection["mean"][0] == 0


def test_unreadable_images_found_before_the_projection_are_kept(opened):
    store = opened()
    store.mark_unreadable([4])
    store.close()
    store = opened()
    assert (store.n_unreadable, store.dims, store.notice) == (1, 0, "")
    fill(begin(store))
    assert (store.n_done, store.n_unreadable, store.is_complete) == (N - 1, 1, True)


def test_its_repr_is_one_line(opened):
    store = begin(opened())
    store.write([1], vectors_of([1]))
    store.mark_unreadable([2, 3])
    assert repr(store) == f"EmbeddingStore('{store.folder}', 1 of 50 images, 2 unreadable, 8 dims)"
    store.close()
    assert repr(store).endswith("dims, closed)")


def test_half_a_million_rows_are_quick(opened):
    n = 500_000
    store = begin(opened(n=n))
    for start in range(0, n, 2000):
        rows = np.arange(start, start + 2000)
        store.write(rows, vectors_of(rows))
    assert store.is_complete
    store.close()
    again = opened(n=n)
    assert again.n_done == n
    np.testing.assert_array_equal(again.vectors[-1], vectors_of([n - 1])[0])


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_named(opened, bad):
    store = begin(opened())
    values = vectors_of([5, 6, 7])
    values[1, 3] = bad
    with pytest.raises(ValueError, match=r"images \[6\] are not finite"):
        store.write([5, 6, 7], values)
    assert store.n_done == 0
    assert not store.vectors.any()


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        ([1, 2], vectors_of([1]), r"float16 \(1, 8\); float16 \(2, 8\) is what fits"),
        ([1], vectors_of([1], 7), r"\(1, 7\); float16 \(1, 8\)"),
        ([1], vectors_of([1]).astype(np.float32), r"are float32 .*float16"),
        ([N], vectors_of([1]), r"\[50\] are no list of positions among 50 images"),
        ([-1], vectors_of([1]), r"\[-1\] are no list"),
        ([1.0], vectors_of([1]), "float64"),
        ([True], vectors_of([1]), "bool"),
        ([[1]], vectors_of([1]), r"\(1, 1\)"),
        (1, vectors_of([1]), "no list"),
    ],
)
def test_what_does_not_fit_is_refused(opened, indices, values, message):
    store = begin(opened())
    with pytest.raises(ValueError, match=message):
        store.write(indices, values)
    assert (store.n_done, store.vectors.any()) == (0, False)


def test_wrong_indices_cannot_be_unreadable(opened):
    with pytest.raises(ValueError, match="no list of positions"):
        opened().mark_unreadable([N])


def test_without_a_projection_there_is_no_room_for_vectors(opened):
    store = opened()
    with pytest.raises(StateError, match="call set_projection first"):
        store.write([1], vectors_of([1]))
    with pytest.raises(StateError, match="call set_projection first"):
        _ = store.vectors


def test_a_second_projection_is_refused(opened):
    store = begin(opened())
    with pytest.raises(StateError, match="would not fit another"):
        store.set_projection(ARRAYS, D)
    store.close()
    with pytest.raises(StateError, match="would not fit another"):
        opened().set_projection(ARRAYS, D + 1)


@pytest.mark.parametrize(
    ("arrays", "dims"),
    [({}, 0), ({"_sizes": np.zeros(1)}, 3), ({"a": np.array([{}], object)}, 3)],
)
def test_a_projection_that_makes_no_sense_is_refused(opened, arrays, dims):
    store = opened()
    with pytest.raises(ValueError, match="cannot be kept"):
        store.set_projection(arrays, dims)
    assert (store.dims, store.projection) == (0, None)


def test_a_closed_store_takes_nothing_and_closing_twice_does_no_harm(opened):
    store = begin(opened())
    store.close()
    store.close()
    store.flush()
    for call in (
        lambda: store.write([1], vectors_of([1])),
        lambda: store.mark_unreadable([1]),
        lambda: store.set_projection(ARRAYS, D),
    ):
        with pytest.raises(StateError, match="is closed: nothing can be written"):
            call()
    with pytest.raises(StateError, match="open it again"):
        _ = store.vectors


def test_a_store_of_no_images_is_refused(roots):
    with pytest.raises(ValueError, match="1 or more"):
        EmbeddingStore.open(roots, KEY, 0)


def test_a_key_that_is_not_json_is_refused(roots):
    with pytest.raises(TypeError):
        EmbeddingStore.open(roots, {"a": object()}, N)
