"""What each step sees: both classes alike, no labelled image among the unlabelled, all by seed and step."""

from __future__ import annotations

import contextlib
import itertools
import threading

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError, TooFewLabelsError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.feed import Feed, LabelledImages

N = 40
LABELS = {3: 1, 7: 1, 0: 0, 1: 0, 2: 0, 20: 0, 21: 0}


class Holey(ArraySource):
    """An array of images that show their own number, some of which cannot be read."""

    def __init__(self, bad=()):
        super().__init__(np.arange(N, dtype=np.uint8).repeat(64).reshape(N, 8, 8))
        self._bad = set(bad)

    def read(self, index, *, min_side=None):
        if index in self._bad:
            raise ImageReadError(self.ids[index], "it has a hole")
        return super().read(index, min_side=min_side)


def make_feed(labels=LABELS, *, bad=(), batch=6, n_unlabelled=10, seed=0, **likely):
    pool = PixelPool(Holey(bad), Preprocess(size=8, channels=1))
    current = labels if callable(labels) else lambda: (1, labels)
    return Feed(pool, N, current, batch=batch, n_unlabelled=n_unlabelled, seed=seed, **likely)


def take(feed, n, first=0):
    steps = feed.steps(first)
    try:
        return list(itertools.islice(steps, n))
    finally:
        steps.close()


def numbers(images):
    """Tell which images these are."""
    return images[:, 0, 0, 0].tolist()


def test_each_labelled_batch_has_both_classes_alike():
    for step in take(make_feed(), 5):
        assert step.classes.tolist() == [1, 1, 1, 0, 0, 0]
        assert [LABELS[i] for i in numbers(step.labelled)] == step.classes.tolist()


def test_an_odd_batch_has_one_more_of_the_common_class():
    (step,) = take(make_feed(batch=5), 1)
    assert step.classes.tolist() == [1, 1, 0, 0, 0]


def test_few_images_of_a_class_are_used_alike():
    (step,) = take(make_feed(batch=12), 1)
    anomalies = numbers(step.labelled[:6])
    assert sorted(anomalies) == [3, 3, 3, 7, 7, 7]


def test_all_labelled_images_get_their_turn():
    seen = {i for step in take(make_feed(), 30) for i in numbers(step.labelled)}
    assert seen == set(LABELS)


def test_unlabelled_images_are_never_labelled_ones_nor_twice_in_a_step():
    steps = take(make_feed(), 30)
    for step in steps:
        found = numbers(step.unlabelled)
        assert len(set(found)) == len(found)
        assert not set(found) & set(LABELS)
    assert {i for step in steps for i in numbers(step.unlabelled)} == set(range(N)) - set(LABELS)


def test_each_step_has_as_many_unlabelled_images():
    assert {len(step.unlabelled) for step in take(make_feed(), 30)} == {10}


def test_each_unlabelled_image_is_as_likely_as_any_other():
    steps = take(make_feed(n_unlabelled=11), 300)
    counts = np.bincount([i for step in steps for i in numbers(step.unlabelled)], minlength=N)
    expected = 300 * 11 / (N - len(LABELS))  # 100, with a standard deviation of 8
    free = [i for i in range(N) if i not in LABELS]
    assert abs(counts[free] - expected).max() < 40


def test_a_share_of_the_unlabelled_images_is_drawn_from_the_likely_ones():
    likely = np.array([3, 30, 31, 32, 33, 34, 35])  # 3 has a label
    counts = np.zeros(N, int)
    for step in take(make_feed(likely=likely, likely_share=0.4), 60):
        found = numbers(step.unlabelled)
        assert len(set(found)) == 10
        assert not set(found) & set(LABELS)
        assert set(found[:4]) <= set(likely)
        counts[found] += 1
    # of 6 likely ones 4 are taken, and of the other 29 free ones (the two left included) 6
    assert counts[30:36].mean() == pytest.approx(60 * (4 / 6 + 2 / 6 * 6 / 29), rel=0.1)
    assert counts[[i for i in range(N) if i not in LABELS and i not in likely]].min() > 0


def test_few_likely_images_are_made_up_for_by_others():
    for step in take(make_feed(likely=np.array([30, 31]), likely_share=1), 5):
        assert sorted(numbers(step.unlabelled)[:2]) == [30, 31]
        assert len(set(numbers(step.unlabelled))) == 10


def test_likely_images_that_get_a_label_are_left_out():
    labels = dict(LABELS)
    feed = make_feed(lambda: (len(labels), dict(labels)), likely=np.arange(30, 36), likely_share=0.6)
    with contextlib.closing(feed.steps(0)) as steps:
        next(steps)
        labels.update(dict.fromkeys(range(30, 36), 1))
        next(steps)  # those of the step after were drawn before
        next(steps)
        later = [next(steps) for _ in range(3)]
    for step in later:
        assert not set(numbers(step.unlabelled)) & set(range(30, 36))
    assert set(feed.learnt) == set(labels)


def test_pixels_come_in_the_shape_that_is_promised():
    (step,) = take(make_feed(), 1)
    assert step.labelled.shape == (6, 8, 8, 1)
    assert step.labelled.dtype == step.unlabelled.dtype == np.uint8
    assert step.classes.dtype == np.int64


def test_the_same_seed_gives_the_same_steps_and_another_one_others():
    first, again, other = (take(make_feed(seed=s), 3) for s in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.labelled, b.labelled)
        np.testing.assert_array_equal(a.unlabelled, b.unlabelled)
    assert numbers(first[0].unlabelled) != numbers(other[0].unlabelled)


def test_a_later_start_goes_on_as_if_there_had_been_no_stop():
    whole = take(make_feed(), 6)
    for a, b in zip(whole[3:], take(make_feed(), 3, first=3), strict=True):
        np.testing.assert_array_equal(a.labelled, b.labelled)
        np.testing.assert_array_equal(a.unlabelled, b.unlabelled)


def test_new_labels_enter_at_the_next_step():
    now = [(1, dict(LABELS))]
    steps = make_feed(lambda: now[0]).steps(0)
    next(steps)
    now[0] = (2, {**LABELS, 30: 1, 31: 1, 32: 1} | dict.fromkeys((3, 7), 0))
    step = next(steps)
    assert sorted(numbers(step.labelled[:3])) == [30, 31, 32]
    seen = [numbers(step.unlabelled) for step in itertools.islice(steps, 1, 10)]  # one was read ahead
    assert not {30, 31, 32} & {i for found in seen for i in found}
    steps.close()


def test_labels_that_do_not_change_are_read_once():
    asked = []

    def labels():
        asked.append(1)
        return 1, LABELS

    feed = make_feed(labels)
    assert feed.labelled() is feed.labelled()
    assert len(asked) == 2


def test_unreadable_images_are_left_out_and_not_replaced():
    feed = make_feed(bad=(7, 20, *range(22, 36)))
    for step in take(feed, 5):
        assert set(numbers(step.labelled[:3])) == {3}
        assert not set(numbers(step.labelled) + numbers(step.unlabelled)) & {7, 20, *range(22, 36)}


@pytest.mark.parametrize(
    ("labels", "bad", "text"),
    [
        ({}, (), "found 0 normal and 0 anomaly. Label at least one image as normal and one as anomaly"),
        ({1: 0}, (), "found 1 normal and 0 anomaly. Label at least one image as anomaly"),
        (
            {3: 1, 1: 0},
            (3,),
            "1 readable image of each class.*found 1 normal and 0 anomaly \\(1 more cannot be read, see",
        ),
    ],
)
def test_a_class_without_a_readable_image_is_asked_for(labels, bad, text):
    with pytest.raises(TooFewLabelsError, match=text):
        make_feed(labels, bad=bad).labelled()


def test_without_unlabelled_images_the_steps_go_on():
    (step,) = take(make_feed(n_unlabelled=0), 1)
    assert step.unlabelled.shape == (0, 8, 8, 1)
    everything = {i: i % 2 for i in range(N)}
    (step,) = take(make_feed(everything), 1)
    assert step.unlabelled.shape == (0, 8, 8, 1)


def test_more_unlabelled_images_than_there_are_means_all():
    (step,) = take(make_feed(n_unlabelled=1000), 1)
    assert sorted(numbers(step.unlabelled)) == sorted(set(range(N)) - set(LABELS))


def test_a_closed_feed_leaves_no_thread():
    before = set(threading.enumerate())
    take(make_feed(), 2)
    assert set(threading.enumerate()) <= before


def test_labelled_images_from_elsewhere_are_learnt_from_as_soon_as_they_are_there():
    images = np.arange(200, 203, dtype=np.uint8).repeat(64).reshape(3, 8, 8, 1)
    now = [(0, None)]
    pool = PixelPool(Holey(), Preprocess(size=8, channels=1))
    labels = (1, {0: 0, 1: 0})
    feed = Feed(pool, N, lambda: labels, batch=8, n_unlabelled=4, seed=0, elsewhere=lambda: now[0])
    with pytest.raises(TooFewLabelsError, match="found 2 normal and 0 anomaly"):
        feed.labelled()
    now[0] = (1, LabelledImages(images, np.array([1, 1, 0])))
    (step,) = take(feed, 1)
    assert sorted(set(numbers(step.labelled[:4]))) == [200, 201]
    assert sorted(set(numbers(step.labelled[4:]))) == [0, 1, 202]
    assert feed.learnt == {0: 0, 1: 0}
    now[0] = (2, LabelledImages(images[:1], np.array([1])))
    (step,) = take(feed, 1)
    assert set(numbers(step.labelled)) == {200, 0, 1}
