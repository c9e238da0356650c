from __future__ import annotations

import numpy as np

from amatch_widgets.query.diverse import diverse

# directions in the plane, in degrees; lengths must not matter
ANGLES = np.array([0, 5, 90, 95, 180, 2])
VECTORS = (
    np.stack([np.cos(np.radians(ANGLES)), np.sin(np.radians(ANGLES))], 1) * np.array([[1, 9, 1, 3, 1, 2]]).T
).astype(np.float16)
ALL = np.arange(6)
NONE = np.array([], np.int64)


def test_each_is_the_farthest_from_those_before_and_the_first_the_most_promising():
    assert diverse(VECTORS, ALL, NONE, 3).tolist() == [0, 4, 2]


def test_what_is_known_is_kept_away_from():
    assert diverse(VECTORS, np.array([1, 5, 2, 3]), np.array([0]), 1).tolist() == [3]


def test_all_are_given_once_where_there_are_fewer():
    assert sorted(diverse(VECTORS, ALL, NONE, 99)) == ALL.tolist()
    assert diverse(VECTORS, ALL, NONE, 0).tolist() == []
    assert diverse(VECTORS, NONE, ALL, 2).tolist() == []


def test_a_vector_of_zeros_has_no_direction_and_does_no_harm():
    vectors = VECTORS.copy()
    vectors[3] = 0
    assert len(set(diverse(vectors, ALL, np.array([0]), 6).tolist())) == 6
