"""Labels that a ranking which was not shown them contradicts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from amatch_widgets.query.head import InstantHead
from amatch_widgets.query.second_look import contradiction
from tests.query.test_head import COMMON, RARE, SPACES, everywhere, labels, made_up


def test_a_usual_label_has_0_and_one_as_usual_in_the_other_class_1():
    margins = np.array([4.0, 6.0, 2.0, 0.0, 1.0, 5.0])
    is_anomaly = np.array([True, True, True, False, False, False])
    # The means are 4 and 2.
    assert_allclose(contradiction(margins, is_anomaly), [0, -1, 1, -1, -0.5, 1.5])


def test_what_is_not_known_stays_unknown_and_changes_no_mean():
    found = contradiction(np.array([4.0, np.nan, 0.0, 4.0]), np.array([True, True, False, False]))
    assert_allclose(found, [0, np.nan, -1, 1])


def test_with_one_class_images_are_held_against_the_bulk():
    assert_allclose(contradiction(np.array([1.0, 3.0]), np.array([True, True])), [0.5, -0.5])
    assert contradiction(np.zeros(0), np.zeros(0, bool)).shape == (0,)


def test_a_ranking_that_knows_nothing_gives_its_order():
    found = contradiction(np.array([0.0, -1.0, 5.0]), np.array([True, True, False]))
    assert_allclose(found, [-0.5, 0.5, 0])


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_found_by_fits_that_were_not_shown_them(seed):
    vectors = made_up([0, 1], shift=4.0, seed=seed)
    head = InstantHead(vectors, SPACES, everywhere(vectors))
    given = labels(RARE[:20], COMMON[:60])
    wrong = {int(RARE[3]): 0, int(RARE[11]): 0, int(COMMON[7]): 1}
    given |= wrong
    margins = head.held_out(given)
    assert margins.keys() == given.keys()
    doubts = contradiction(np.array(list(margins.values())), np.array([given[i] == 1 for i in margins]))
    worst = [i for i, _ in sorted(zip(margins, doubts, strict=True), key=lambda pair: -pair[1])]
    assert set(worst[:4]) >= wrong.keys()
    # The head itself has learnt them: it hides at least one of them better.
    scores = head.fit(given).scores
    learnt = contradiction(scores[list(given)], np.array(list(given.values())) == 1)
    at = [list(given).index(i) for i in wrong]
    assert learnt[at].mean() < doubts[[list(margins).index(i) for i in wrong]].mean()


def test_the_order_of_the_labels_does_not_matter_and_one_anomaly_cannot_be_left_out():
    vectors = made_up([0, 1])
    head = InstantHead(vectors, SPACES, everywhere(vectors))
    fewer = labels(RARE[:5], COMMON[:20])
    assert head.held_out(fewer) == head.held_out(dict(reversed(fewer.items())))
    assert head.held_out(labels(RARE[:1], COMMON[:20])) == {}
    assert head.held_out({}) == {}
