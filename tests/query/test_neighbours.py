from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amatch_widgets.query.neighbours import near, similar

# Angles in degrees, and lengths that must not matter.
ANGLES = np.array([0, 90, 10, 180, 20, 10, 350])
LENGTHS = np.array([1, 1, 7, 1, 0.5, 2, 1])
VECTORS = (np.stack([np.cos(np.deg2rad(ANGLES)), np.sin(np.deg2rad(ANGLES))], 1) * LENGTHS[:, None]).astype(
    np.float16
)
ALL = np.ones(len(VECTORS), np.bool_)


def test_the_smallest_angle_comes_first_and_ties_go_by_index():
    indices, cosines = similar(VECTORS, [0], 10, is_usable=ALL)
    # 10 degrees either way; in float16 those are equal only to 1e-3.
    assert set(indices[:3].tolist()) == {2, 5, 6}
    assert_array_equal(indices[3:], [4, 1, 3])
    assert_allclose(cosines, np.cos(np.deg2rad([10, 10, 10, 20, 90, 180])), atol=1e-3)
    assert (indices.dtype, cosines.dtype) == (np.int64, np.float32)


def test_ties_go_by_index():
    vectors = np.ones((9, 3), np.float16)
    for k in (3, 100):
        indices, cosines = similar(vectors, [4], k, is_usable=np.ones(9, np.bool_))
        assert_array_equal(indices, [0, 1, 2, 3, 5, 6, 7, 8][:k])
        assert_allclose(cosines, 1)


def test_several_images_count_alike_whatever_their_length():
    vectors = np.array([[100, 0], [0, 1], [1, 1], [1, 0.2], [0.2, 1]], np.float16)
    indices, cosines = similar(vectors, [0, 1], 3, is_usable=np.ones(5, np.bool_))
    assert indices[0] == 2
    assert cosines[0] == pytest.approx(1, abs=1e-6)
    assert cosines[1] == pytest.approx(cosines[2], abs=1e-3)


def test_only_so_many_come():
    assert_array_equal(similar(VECTORS, [3], 2, is_usable=ALL)[0], [1, 4])
    assert [len(part) for part in similar(VECTORS, [1], 0, is_usable=ALL)] == [0, 0]


def test_images_left_out_and_without_a_vector_never_come():
    is_usable = ALL.copy()
    is_usable[2] = False
    indices, _ = similar(VECTORS, [0], 10, exclude=[4, 0], is_usable=is_usable)
    assert sorted(indices.tolist()) == [1, 3, 5, 6]


def test_a_vector_of_zeros_is_like_nothing():
    vectors = np.array([[1, 0], [0, 0], [-1, 0]], np.float16)
    indices, cosines = similar(vectors, [0], 3, is_usable=np.ones(3, np.bool_))
    assert_array_equal(indices, [1, 2])
    assert_allclose(cosines, [0, -1])
    assert_allclose(similar(vectors, [1], 3, is_usable=np.ones(3, np.bool_))[1], 0)


def test_blocks_give_what_one_block_gives(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 16)).astype(np.float16)
    is_usable = rng.random(500) > 0.1
    is_usable[[3, 8]] = True
    whole = similar(vectors, [3, 8], 40, is_usable=is_usable)
    monkeypatch.setattr("amatch_widgets.query._blocks._ROWS", 64)
    parts = similar(vectors, np.array([3, 8]), 40, is_usable=is_usable)
    assert_array_equal(whole[0], parts[0])
    assert_allclose(whole[1], parts[1], atol=1e-6)
    assert (np.diff(whole[1]) <= 0).all()


@pytest.mark.parametrize(
    ("indices", "k", "text"),
    [
        ([], 3, "nothing to compare with"),
        ([7], 3, "outside 0 to 6"),
        ([-1], 3, "outside 0 to 6"),
        ([2, 0], 3, r"without a vector.*\[2\]"),
        ([0], -1, "k is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(indices, k, text):
    with pytest.raises(ValueError, match=text):
        similar(VECTORS, indices, k, is_usable=np.arange(7) != 2)


# ---- twins ----------------------------------------------------------------------------------


def test_images_near_each_are_found_and_none_is_near_itself():
    angles = np.radians([0, 10, 90, 95, 180, 0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16) * np.float16(3)
    found = near(vectors, [0, 2, 4], is_usable=np.ones(6, bool), least=0.98)
    assert [images.tolist() for images in found] == [[1, 5], [3], []]
    is_usable = np.array([True, False, False, True, True, True])
    found = near(vectors, [0, 2], is_usable=is_usable, least=0.98)
    assert [images.tolist() for images in found] == [[5], []]
    assert near(vectors, [], is_usable=is_usable, least=0.98) == []


def test_twins_are_found_across_blocks():
    vectors = np.random.default_rng(0).normal(size=(9000, 8)).astype(np.float16)
    vectors[8999] = vectors[5] * 2
    (found,) = near(vectors, [5], is_usable=np.ones(9000, bool), least=0.9999)
    assert found.tolist() == [8999]
