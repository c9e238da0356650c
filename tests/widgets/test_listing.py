from __future__ import annotations

import numpy as np

from amatch_widgets.widgets.listing import Listing

VALUES = np.linspace(0, 0.9, 10).astype(np.float32)


def indices(*numbers):
    return np.array(numbers, np.int64)


def listing(*order):
    return Listing(indices(*order), VALUES, is_live=True)


def test_what_was_seen_stays_and_a_newer_ranking_follows_without_it():
    seen = listing(*range(10))
    seen.see(0, 3)
    newer = VALUES[::-1].copy()
    seen.splice(indices(9, 0, 8, 1, 7), newer)
    assert seen.page(0, 3)[0].tolist() == [0, 1, 2]
    assert seen.page(0, 3)[1].tolist() == VALUES[:3].tolist()
    assert seen.page(1, 3)[0].tolist() == [9, 8, 7]
    assert seen.page(1, 3)[1].tolist() == newer[[9, 8, 7]].tolist()
    assert len(seen) == 6


def test_a_page_is_unseen_until_all_of_it_was_on_the_screen():
    seen = listing(*range(10))
    assert seen.is_unseen(0, 4)
    seen.see(0, 4)
    assert not seen.is_unseen(0, 4)
    assert seen.is_unseen(1, 4)
    assert seen.is_unseen(0, 6)  # larger pages begin with what was seen and go beyond it
    seen.see(0, 2)  # going back to smaller pages forgets nothing
    assert not seen.is_unseen(0, 4)


def test_the_last_page_counts_up_to_its_end():
    seen = listing(*range(10))
    seen.see(2, 4)
    seen.splice(indices(3, 5), VALUES)
    assert len(seen) == 10
    assert seen.n_pages(4) == 3


def test_an_empty_list_has_one_empty_page():
    empty = listing()
    assert empty.n_pages(24) == 1
    assert empty.page(0, 24)[0].tolist() == []
    empty.see(0, 24)
    empty.splice(indices(1), VALUES)
    assert empty.page(0, 24)[0].tolist() == [1]
