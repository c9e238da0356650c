# ruff: noqa: D102 - the names of the tests are sentences
"""What every image source must do, as a test class to subclass: a new source inherits its tests.

class TestMySource(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return MySource(...)
"""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import pytest

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.source import ImageSource, index_of, read_many

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["SourceContract", "UnreadableImageContract"]


class SourceContract:
    """Tests for any source. A subclass defines the fixture `source`: at least two images, all readable."""

    @pytest.fixture
    def source(self) -> ImageSource:
        """Give the source under test."""
        raise NotImplementedError("define the fixture 'source'")

    def test_it_is_an_image_source(self, source: ImageSource) -> None:
        assert isinstance(source, ImageSource)
        assert source.name
        assert source.channels >= 1

    def test_there_is_one_unique_id_for_each_image(self, source: ImageSource) -> None:
        assert len(source.ids) == len(source) >= 2  # noqa: PLR2004 - of a contract with order in it
        assert len(set(source.ids)) == len(source)
        assert all(isinstance(image_id, str) and image_id.encode() for image_id in source.ids)

    def test_ids_are_found_by_index_and_back(self, source: ImageSource) -> None:
        assert [source.ids[i] for i in range(len(source))] == list(source.ids)
        assert list(index_of(source).items()) == [(image_id, i) for i, image_id in enumerate(source.ids)]

    def test_each_image_is_height_width_channels_of_a_plain_type(self, source: ImageSource) -> None:
        for image in _all(source):
            assert image.ndim == 3  # noqa: PLR2004 - (H, W, C)
            assert 0 not in image.shape
            assert image.dtype in (np.uint8, np.uint16, np.float32)

    def test_an_image_is_the_same_each_time(self, source: ImageSource) -> None:
        for first, second in zip(_all(source), _all(source), strict=True):
            np.testing.assert_array_equal(first, second)

    def test_a_numpy_integer_is_an_index(self, source: ImageSource) -> None:
        np.testing.assert_array_equal(source.read(int(np.int64(1))), source.read(np.int64(1)))  # type: ignore[arg-type]

    def test_an_index_out_of_range_is_an_index_error(self, source: ImageSource) -> None:
        for index in (-1, len(source), len(source) + 10**6):
            with pytest.raises(IndexError, match="out of range"):
                source.read(index)

    def test_min_side_is_a_floor_for_the_smaller_side(self, source: ImageSource) -> None:
        for i, whole in enumerate(_all(source)):
            reduced = source.read(i, min_side=8)
            assert min(reduced.shape[:2]) >= min(8, *whole.shape[:2])
            assert reduced.shape[2] == whole.shape[2]

    def test_many_together_are_those_read_one_by_one(self, source: ImageSource) -> None:
        indices = [*range(1, len(source)), 0]  # in no order
        found = dict(read_many(source, indices))
        assert sorted(found) == list(range(len(source)))
        for i, image in found.items():
            assert isinstance(image, np.ndarray)
            np.testing.assert_array_equal(image, source.read(i))
        assert not list(read_many(source, []))

    def test_a_process_that_is_forked_reads_the_same_images(self, source: ImageSource) -> None:
        source.read(0)  # what is open now is open there, too
        with ProcessPoolExecutor(1, get_context("fork")) as executor:
            theirs = executor.submit(_all, source).result(timeout=60)
        for ours, other in zip(_all(source), theirs, strict=True):
            np.testing.assert_array_equal(ours, other)

    def test_a_pickled_copy_reads_the_same_images(self, source: ImageSource) -> None:
        copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own bytes
        assert list(copy.ids) == list(source.ids)
        assert copy.name == source.name
        assert copy.fingerprint() == source.fingerprint()
        for ours, theirs in zip(_all(source), _all(copy), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_several_threads_read_what_one_reads(self, source: ImageSource) -> None:
        indices = list(range(len(source))) * 4
        with ThreadPoolExecutor(4) as executor:
            together = list(executor.map(source.read, indices))
        alone = _all(source)
        for i, image in zip(indices, together, strict=True):
            np.testing.assert_array_equal(image, alone[i])

    def test_the_fingerprint_is_short_and_stable(self, source: ImageSource) -> None:
        assert source.fingerprint() == source.fingerprint()
        assert 0 < len(source.fingerprint()) <= 64  # noqa: PLR2004 - of any usual hash
        int(source.fingerprint(), 16)

    def test_the_spec_survives_json(self, source: ImageSource) -> None:
        assert json.loads(json.dumps(source.spec())) == source.spec()
        assert isinstance(source.spec()["kind"], str)

    def test_the_repr_is_one_line(self, source: ImageSource) -> None:
        assert "\n" not in repr(source)


class UnreadableImageContract:
    """Tests for sources whose images can be damaged; fixture `damaged`: a source with a bad image 0."""

    @pytest.fixture
    def damaged(self) -> ImageSource:
        """Give a source whose image 0 cannot be read, and whose image 1 can."""
        raise NotImplementedError("define the fixture 'damaged'")

    def test_an_unreadable_image_is_named_with_a_reason(self, damaged: ImageSource) -> None:
        with pytest.raises(ImageReadError) as caught:
            damaged.read(0)
        assert caught.value.image_id == damaged.ids[0]
        assert len(caught.value.reason) > len("bad")

    def test_the_others_can_still_be_read(self, damaged: ImageSource) -> None:
        assert damaged.read(1).size

    def test_among_many_it_is_given_as_the_error(self, damaged: ImageSource) -> None:
        found = dict(read_many(damaged, [0, 1]))
        assert isinstance(found[0], ImageReadError)
        assert found[0].image_id == damaged.ids[0]
        assert isinstance(found[1], np.ndarray)


def _all(source: ImageSource) -> list[NDArray[Any]]:
    return [source.read(i) for i in range(len(source))]
