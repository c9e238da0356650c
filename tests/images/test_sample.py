"""A sample of a source: at random, repeatable, in whole chunks, with the images asked for."""

from __future__ import annotations

import numpy as np
import pytest

import amatch_widgets as am
from amatch_widgets.errors import SourceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.joined import Subset
from amatch_widgets.images.source import source_from_spec
from tests.images.test_joined import Placed

PIXELS = np.arange(100, dtype=np.uint8).repeat(64).reshape(100, 8, 8)


def numbers(source):
    return [int(source.read(i)[0, 0, 0]) for i in range(len(source))]


@pytest.fixture
def chunked():
    """Give 98 images in chunks of 5, the last of which is short."""
    return Placed(PIXELS[:98])


def test_images_are_drawn_at_random_once_each_and_the_seed_tells_which():
    source = ArraySource(PIXELS)
    drawn = numbers(am.sample(source, 30))
    assert len(set(drawn)) == 30
    assert drawn == sorted(drawn) == numbers(am.sample(source, 30))
    assert drawn != numbers(am.sample(source, 30, seed=1))
    assert drawn != list(range(30))


def test_images_keep_their_ids():
    source = ArraySource(PIXELS)
    part = am.sample(source, 7)
    assert [source.ids[k] for k in numbers(part)] == list(part.ids)


def test_where_images_lie_in_chunks_whole_chunks_are_drawn(chunked):
    part = am.sample(chunked, 20)
    starts = numbers(part)[::5]
    assert all(start % 5 == 0 for start in starts)
    assert numbers(part) == [start + k for start in starts for k in range(5)]
    assert len(starts) == len(set(starts)) == 4
    assert part.chunk == 5


@pytest.mark.parametrize("seed", range(8))
def test_a_short_chunk_and_a_broken_number_give_as_many_as_were_asked_for(chunked, seed):
    assert len(am.sample(chunked, 93, seed=seed)) == 93
    assert len(am.sample(chunked, 13, seed=seed)) == 13


def test_images_that_are_asked_for_are_among_them_once(chunked):
    wanted = [chunked.ids[k] for k in (3, 50, 97, 3)]
    part = am.sample(chunked, 23, ids=wanted)
    assert set(wanted) <= set(part.ids)
    assert len(set(part.ids)) == len(part) == 23
    assert part.chunk == 5
    assert set(am.sample(chunked, 1, ids=wanted).ids) == set(wanted)  # never fewer than those


def test_more_than_there_are_is_all(chunked):
    assert numbers(am.sample(chunked, 1000)) == list(range(98))


def test_a_sample_is_opened_again_from_what_it_says_of_itself(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    part = am.sample(tmp_path / "x.npy", 9)
    again = source_from_spec(part.spec())
    assert isinstance(again, Subset)
    assert again.fingerprint() == part.fingerprint()
    assert numbers(again) == numbers(part)


@pytest.mark.parametrize("n", [0, -3, 1.5, True, "10"])
def test_a_wrong_number_is_named(n):
    with pytest.raises(SourceError, match=r"sample\(n=.*whole number from 1"):
        am.sample(ArraySource(PIXELS), n)


def test_an_id_that_is_not_there_is_named():
    with pytest.raises(SourceError, match=r"1 of the 2 ids are of no image.*'nobody'"):
        am.sample(ArraySource(PIXELS), 5, ids=["01", "nobody"])
