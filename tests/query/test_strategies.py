from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amatch_widgets.errors import ConfigError
from amatch_widgets.query.strategies import ORDERS, STRATEGIES, Candidate, order, pick, ranks, rising

SCORES = np.float32([0.2, 0.9, np.nan, 0.5, 0.9, 0.45, 0.1])
ALL = np.arange(len(SCORES))
SORTED = [how for how in ORDERS if how not in {"random", "recent"}]


def _seconds(call):
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def _indices(picked):
    return [index for index, _ in picked]


@pytest.fixture(scope="module")
def million():
    return np.random.default_rng(0).random(1_000_000, dtype=np.float32)


# ---- order ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("highest", [1, 4, 3, 5, 0, 6, 2]),
        ("lowest", [6, 0, 5, 3, 1, 4, 2]),
        ("uncertain", [3, 5, 0, 1, 4, 6, 2]),
    ],
)
def test_scores_are_sorted_with_ties_by_index_and_the_unscored_last(how, expected):
    got = order(SCORES, how)
    assert got.tolist() == expected
    assert got.dtype == np.int64


@pytest.mark.parametrize("how", SORTED)
def test_a_subset_is_sorted_like_the_whole(how):
    whole = order(SCORES, how)
    subset = np.array([5, 2, 1, 4])  # its own order does not matter
    assert order(SCORES, how, subset=subset).tolist() == [i for i in whole if i in subset]


@pytest.mark.parametrize("how", ORDERS)
def test_an_empty_subset_gives_nothing(how):
    got = order(SCORES, how, subset=np.array([], np.int64))
    assert got.tolist() == []
    assert got.dtype == np.int64


@pytest.mark.parametrize("how", [*SORTED, "random"])
def test_no_images_give_no_order(how):
    assert order(np.array([], np.float32), how).tolist() == []


@pytest.mark.parametrize("how", [*SORTED, "random"])
def test_before_any_scoring_every_image_has_its_place(how):
    assert sorted(order(np.full(9, np.nan, np.float32), how)) == list(range(9))


def test_recent_keeps_the_order_it_is_given():
    subset = np.array([5, 2, 1, 4])
    got = order(SCORES, "recent", subset=subset)
    assert got.tolist() == [5, 2, 1, 4]
    got[:] = 0
    assert subset.tolist() == [5, 2, 1, 4]


def test_recent_needs_to_be_told_what_is_recent():
    with pytest.raises(ConfigError, match="needs a subset"):
        order(SCORES, "recent")


def test_random_is_the_same_for_a_seed_and_another_for_another():
    scores = np.zeros(1000, np.float32)
    one = order(scores, "random", seed=1)
    assert sorted(one) == list(range(1000))
    assert order(scores, "random", seed=1).tolist() == one.tolist()
    assert order(scores, "random", seed=2).tolist() != one.tolist()


def test_random_does_not_depend_on_the_scores():
    assert order(SCORES, "random").tolist() == order(1 - SCORES, "random").tolist()


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 99)), st.integers(0, 2**64))
def test_random_keeps_its_order_while_the_subset_changes(subset, seed):
    scores = np.zeros(100, np.float32)
    whole = order(scores, "random", seed=seed)
    part = order(scores, "random", subset=np.array(list(subset), np.int64), seed=seed)
    assert part.tolist() == [i for i in whole if i in subset]


def test_random_puts_every_image_anywhere():
    ranks = np.array([np.argsort(order(np.zeros(20, np.float32), "random", seed=s)) for s in range(500)])
    assert np.abs(ranks.mean(0) - 9.5).max() < 6 * np.sqrt(399 / 12 / 500)
    assert abs(np.corrcoef(ranks[:-1, 0], ranks[1:, 0])[0, 1]) < 0.2


@pytest.mark.parametrize("how", ORDERS)
def test_a_million_scores_are_ordered_in_under_a_second(million, how):
    everything = np.arange(len(million))
    assert _seconds(lambda: order(million, how, subset=everything)) < 1


def test_odd_floats_are_sorted_as_numpy_does():
    # Both zeros are a tie, a NaN of either sign comes last, and infinities have their place.
    odd = np.array([0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, -np.nan, 0.5, 0.5, -1.0], np.float32)
    scores = np.random.default_rng(0).permutation(np.tile(odd, 20))
    assert order(scores, "lowest").tolist() == np.argsort(scores, kind="stable").tolist()
    assert order(scores, "highest").tolist() == np.argsort(-scores, kind="stable").tolist()


def test_an_unknown_order_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"Unknown order 'higest'.*'lowest'.*Did you mean 'highest'\?"):
        order(SCORES, "higest")


# ---- pick -----------------------------------------------------------------------------------


def test_top_picks_the_highest_scores_and_says_their_rank():
    assert pick(SCORES, ALL, 3) == [
        (1, "top: rank 1 of 6 unlabelled"),
        (4, "top: rank 2 of 6 unlabelled"),
        (3, "top: rank 3 of 6 unlabelled"),
    ]


def test_uncertain_picks_the_scores_closest_to_a_half():
    assert pick(SCORES, ALL, 2, "uncertain") == [(3, "uncertain: score 0.50"), (5, "uncertain: score 0.45")]


def test_random_picks_as_the_random_order_has_it():
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    everything = np.arange(100)
    expected = order(scores, "random", seed=3)[:10].tolist()
    assert _indices(pick(scores, everything, 10, "random", 3)) == expected
    assert _indices(pick(scores, everything, 10, "random", 4)) != expected


def test_only_unlabelled_images_are_picked():
    unlabelled = np.array([0, 3, 6])
    for strategy in STRATEGIES:
        assert set(_indices(pick(SCORES, unlabelled, 99, strategy))) == {0, 3, 6}
    assert _indices(pick(SCORES, unlabelled, 2)) == [3, 0]


def test_the_order_in_which_unlabelled_images_come_does_not_matter():
    for strategy in STRATEGIES:
        assert pick(SCORES, ALL[::-1], 4, strategy) == pick(SCORES, ALL, 4, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_before_any_scoring_all_are_drawn_at_random_and_say_so(strategy):
    scores = np.full(50, np.nan, np.float32)
    picked = pick(scores, np.arange(50), 8, strategy, 7)
    assert {reason for _, reason in picked} == {"random: nothing is scored yet"}
    assert _indices(picked) == order(scores, "random", seed=7)[:8].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_images_without_a_score_only_fill_up(strategy):
    assert 2 not in _indices(pick(SCORES, ALL, 6, strategy))
    picked = pick(SCORES, ALL, 7, strategy)
    assert picked[-1] == (2, "random: not scored yet")
    assert sorted(_indices(picked)) == ALL.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asking_for_more_than_there_is_gives_all_of_them(strategy):
    assert sorted(_indices(pick(SCORES, ALL, 100, strategy))) == ALL.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("unlabelled", [[], [2]])
def test_asking_for_none_or_from_none_gives_none(strategy, unlabelled):
    assert pick(SCORES, ALL, 0, strategy) == []
    assert len(pick(SCORES, np.array(unlabelled, np.int64), 5, strategy)) == len(unlabelled)


def test_indices_are_plain_integers():
    assert all(type(i) is int for i in _indices(pick(SCORES, ALL, 7, "uncertain")))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]), max_size=40),
    st.integers(0, 45),
    st.sampled_from(["top", "uncertain"]),
)
def test_a_pick_is_the_head_of_the_order_whatever_the_ties(values, n, strategy):
    scores = np.array(values, np.float32)
    scored = np.flatnonzero(~np.isnan(scores))
    how = {"top": "highest", "uncertain": "uncertain"}[strategy]
    assert _indices(pick(scores, scored, n, strategy)) == order(scores, how, subset=scored)[:n].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["spread", "all alike"])
def test_picking_from_a_million_takes_less_than_50_ms(million, strategy, kind):
    scores = million if kind == "spread" else np.full(len(million), 0.5, np.float32)
    everything = np.arange(len(scores))
    assert _seconds(lambda: pick(scores, everything, 24, strategy)) < 0.05


def test_an_unknown_strategy_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"Unknown strategy 'randon'.*Did you mean 'random'\?"):
        pick(SCORES, ALL, 3, "randon")


def test_a_negative_number_is_refused():
    with pytest.raises(ConfigError, match="n is -1"):
        pick(SCORES, ALL, -1)


def test_a_candidate_is_a_plain_value():
    assert Candidate("a", None, "r") == Candidate("a", None, "r")


# ---- what has risen -------------------------------------------------------------------------


def risen(now, before, **options):
    return rising(ranks(now), ranks(before), **options)


def test_ranks_begin_with_the_highest_score_and_leave_out_what_has_none():
    assert ranks(np.array([0.1, np.nan, 0.9, 0.1], np.float32)).tolist() == [2, 0, 1, 3]


def test_what_has_risen_by_the_largest_factor_comes_first():
    before = np.linspace(1, 0, 100, dtype=np.float32)
    now = before.copy()
    now[[99, 9]] = [0.9, 1.1]  # from rank 100 to 12, and from rank 10 to the first
    found = risen(now, before)
    assert found[:2].tolist() == [9, 99]
    assert sorted(found) == list(range(100))


def test_where_nothing_has_changed_the_highest_score_comes_first():
    scores = np.array([0.1, 0.9, np.nan, 0.5], np.float32)
    assert risen(scores, scores).tolist() == [1, 3, 0, 2]
    assert risen(scores, scores, subset=np.array([3, 2, 0])).tolist() == [3, 0, 2]


def test_two_kinds_of_scores_are_compared_by_their_ranks():
    before = np.array([-5, -1, -3], np.float32)  # such as logits
    # from rank 3 to 1, from 1 to 2, from 2 to 3
    assert risen(np.array([0.9, 0.5, 0.2], np.float32), before).tolist() == [0, 2, 1]


def test_an_image_that_had_no_score_before_has_not_risen():
    before = np.array([np.nan, 0.5, 0.6], np.float32)
    assert risen(np.array([0.9, 0.7, 0.6], np.float32), before).tolist()[-1] == 0
