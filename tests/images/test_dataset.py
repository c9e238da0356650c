"""Objects that give images by number, torch's Dataset among them."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.dataset import DatasetSource
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3), np.uint8)


class Pairs(Dataset):
    """Pairs of a tensor and a class, some of them broken."""

    def __init__(self, n=5, broken=(), make=lambda k: (torch.from_numpy(PIXELS[k]).permute(2, 0, 1), k % 2)):
        self.n, self.broken, self.make = n, broken, make

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if index in self.broken:
            raise RuntimeError("the archive is gone\nand more")
        return self.make(index)


class Plain:
    """An object that knows nothing of torch."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return PIXELS[index]


def tensors(index):
    return torch.from_numpy(PIXELS[index]).permute(2, 0, 1), 1


class TestPairsOfTensors(SourceContract, UnreadableImageContract):
    @pytest.fixture
    def source(self):
        return open_source(Pairs(make=tensors))

    @pytest.fixture
    def damaged(self):
        return open_source(Pairs(make=tensors, broken={0}))


class TestPlainObject(SourceContract):
    @pytest.fixture
    def source(self):
        return open_source(Plain(), ids=list("abcdé"), name="plain")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (torch.from_numpy(PIXELS[0]).permute(2, 0, 1), PIXELS[0]),
        (torch.from_numpy(PIXELS[0, ..., 0]), PIXELS[0, ..., :1]),
        (torch.full((2, 3, 4), 0.5, dtype=torch.bfloat16), np.full((3, 4, 2), 0.5, np.float32)),
        (torch.ones(1, 3, 4, requires_grad=True), np.ones((3, 4, 1), np.float32)),
        (PIXELS[0], PIXELS[0]),
        (PIXELS[0, ..., 0].astype(np.int64), PIXELS[0, ..., :1].astype(np.float32)),
        (Image.fromarray(PIXELS[0]), PIXELS[0]),
        (Image.fromarray(PIXELS[0, ..., 0]), PIXELS[0, ..., :1]),
        (
            Image.fromarray(PIXELS[0, ..., 0].astype(np.uint16) * 257),
            PIXELS[0, ..., :1].astype(np.uint16) * 257,
        ),
        (Image.fromarray(PIXELS[0, ..., 0].astype(np.float32)), PIXELS[0, ..., :1].astype(np.float32)),
        ((PIXELS[0], "cat", 7), PIXELS[0]),
        ([PIXELS[0], 1], PIXELS[0]),
    ],
)
def test_an_item_is_an_image_of_any_kind_or_begins_with_one(item, expected):
    image = open_source(Pairs(make=lambda _: item)).read(0)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("item", "channels"),
    [(Image.fromarray(PIXELS[0, ..., 0]), 3), (PIXELS[0, ..., 0], 1), (torch.zeros(5, 8, 8), 5)],
)
def test_pictures_become_colour_and_arrays_keep_their_channels(item, channels):
    assert open_source(Pairs(make=lambda _: (item, 0))).channels == channels


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"image": PIXELS[0]}, "it is of type 'dict'; wanted is a PIL image"),
        ((), "it is of type 'tuple'"),
        (np.zeros((2, 3, 4, 5)), r"its shape is \(2, 3, 4, 5\)"),
        (np.zeros((0, 5)), r"its shape is \(0, 5\)"),
        (np.zeros((4, 4), complex), "its pixels are no real numbers"),
        (torch.zeros(4), r"its shape is \(4,\)"),
    ],
)
def test_an_item_that_is_no_image_is_listed_with_its_reason(item, reason):
    source = open_source(Pairs(make=lambda k: item if k == 2 else PIXELS[k]))
    with pytest.raises(ImageReadError, match=reason) as caught:
        source.read(2)
    assert caught.value.image_id == "2"
    with pytest.raises(
        SourceError, match=f"None of the first items of the Pairs is an image; item 0: {reason}"
    ):
        open_source(Pairs(make=lambda _: item))


def test_what_the_dataset_raises_is_said_in_one_line():
    with pytest.raises(ImageReadError, match=r"the dataset says RuntimeError: the archive is gone$"):
        open_source(Pairs(broken={3})).read(3)


def test_ids_are_numbers_or_given_or_the_second_entries():
    def named(k):
        return PIXELS[k], f"galaxy {k}"

    assert list(open_source(Pairs(11, make=lambda _: PIXELS[0])).ids)[:2] == ["00", "01"]
    source = open_source(Pairs(make=named, broken={1}), ids_from="item")
    assert list(source.ids) == ["galaxy 0", "1", "galaxy 2", "galaxy 3", "galaxy 4"]
    with pytest.raises(SourceError, match="item 0 of the Pairs has no string"):
        open_source(Pairs(), ids_from="item")
    with pytest.raises(SourceError, match="'cat' is given more than once"):
        open_source(Pairs(make=lambda k: (PIXELS[k], "cat")), ids_from="item")
    with pytest.raises(SourceError, match="allowed is 'item', without ids="):
        open_source(Pairs(), ids_from="column")


def test_a_stream_without_access_by_number_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield PIXELS[0]

    with pytest.raises(SourceError, match="The Stream gives its images in an order of its own"):
        open_source(Stream())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [(Pairs(0), "The Pairs is empty"), (Pairs(-1), "does not say how many images it has")],
)
def test_a_dataset_without_images_is_refused(dataset, message):
    with pytest.raises(SourceError, match=message):
        open_source(dataset)


def test_items_are_asked_for_one_at_a_time():
    inside, most = threading.Semaphore(1), []

    def item(k):
        most.append(inside.acquire(blocking=False))
        try:
            return PIXELS[k].copy()
        finally:
            inside.release()

    source = open_source(Pairs(make=item))
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(source.read, [0, 1, 2, 3, 4] * 20))
    assert all(most)


def test_it_is_not_opened_again_from_what_a_session_keeps():
    assert isinstance(open_source(Plain()), DatasetSource)
    with pytest.raises(SourceError, match="Pass the dataset again as source="):
        source_from_spec(open_source(Plain()).spec())


def test_a_session_hunts_in_a_dataset_and_lists_what_cannot_be_read(make_session):
    dataset = Pairs(40, broken={1}, make=lambda k: (np.roll(PIXELS[k % 5], k, axis=0), k % 2))
    session = make_session(dataset, labels={"03": "anomaly", "04": "normal"})
    session.embed()
    session.wait(60)
    assert session.problems == {"01": "the dataset says RuntimeError: the archive is gone"}
    assert session.ranked_by == "instant"
    session.close()
    assert make_session(dataset, labels=None).labels.counts()["anomaly"] == 1


def test_torch_is_not_imported_for_other_items():
    code = """
import sys, numpy, amatch_widgets as am
class Plain:
    def __len__(self): return 2
    def __getitem__(self, k): return numpy.zeros((4, 4, 3), "u1")
assert am.open_source(Plain()).read(1).shape == (4, 4, 3)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
