"""Images on the device: those that stay there and those that are copied make the same steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from amatch_widgets.demo import sky
from amatch_widgets.images.pixels import PixelPool
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn import trainer as trainer_module
from amatch_widgets.learn import transfer
from amatch_widgets.learn.feed import Feed
from amatch_widgets.learn.transfer import Resident, room_for_images, to_device

CPU = torch.device("cpu")
ONE = 8 * 8 * 3  # bytes of an image


@pytest.fixture
def pool():
    """Give 30 images of 8 px, ten of which have been read, in a mixed order."""
    pool = PixelPool(sky(30, size=16), Preprocess(size=8))
    for first in (20, 5):
        pool.batch(np.arange(first, first + 5))
    return pool


def put_together(resident, pool, wanted):
    rows = resident.rows(wanted)
    return resident.complete(to_device(pool.batch(wanted[rows < 0])[0], CPU), rows).numpy()


@pytest.mark.parametrize("room", [0, 3 * ONE, 7 * ONE + 1, 10 * ONE, 10**9])
def test_images_from_the_device_and_those_read_for_a_step_are_in_the_order_asked_for(pool, room):
    resident = Resident(pool, CPU, room)
    assert len(resident) == min(10, room // ONE)
    for asked in ([23, 0, 6, 29, 20], [5, 24, 7], [0, 1, 2], []):
        wanted = np.array(asked, np.int64)
        np.testing.assert_array_equal(put_together(resident, pool, wanted), pool.batch(wanted)[0])


def test_what_is_read_later_is_not_there(pool):
    resident = Resident(pool, CPU, 10**9)
    pool.batch(np.arange(30))
    assert sorted(np.flatnonzero(resident.rows(np.arange(30)) >= 0)) == [*range(5, 10), *range(20, 25)]


def test_a_pool_that_has_read_nothing_has_nothing_there():
    pool = PixelPool(sky(5, size=16), Preprocess(size=8))
    assert len(Resident(pool, CPU, 10**9)) == 0


def test_a_cpu_holds_no_second_copy_and_a_gpu_a_fourth_of_its_free_memory(monkeypatch):
    assert room_for_images(CPU) == 0
    monkeypatch.setattr(transfer.torch.cuda, "mem_get_info", lambda device: (80 * 2**30, 90 * 2**30))
    assert room_for_images(torch.device("cuda")) == 20 * 2**30


def test_a_step_reads_only_what_is_not_on_the_device(pool):
    def feed():
        labels = {0: 1, 1: 0}
        return Feed(pool, 30, lambda: (1, labels), batch=2, n_unlabelled=12, seed=0)

    asked = []
    with_all = feed()
    resident = Resident(pool, CPU, 10**9)
    pool_batch = pool.batch
    pool.batch = lambda indices: asked.append(len(indices)) or pool_batch(indices)
    steps = with_all.steps(0, resident)
    found = list(itertools.islice(steps, 4))
    steps.close()
    plain = feed().steps(0)
    for step, usual in zip(found, plain, strict=False):
        assert 0 < len(step.unlabelled) == (step.rows < 0).sum() < 12
        whole = resident.complete(torch.from_numpy(step.unlabelled), step.rows).numpy()
        np.testing.assert_array_equal(whole, usual.unlabelled)
        np.testing.assert_array_equal(step.labelled, usual.labelled)
    plain.close()
    assert max(asked[1:5]) < 12  # the first are the labelled ones


@pytest.mark.parametrize("room", [20 * 32 * 32 * 3, 10**9])
def test_a_training_from_images_on_the_device_is_the_same_to_the_bit(
    make_trainer, make_feed, monkeypatch, room
):
    def weights(room):
        monkeypatch.setattr(trainer_module, "room_for_images", lambda device: room)
        trainer = make_trainer()
        feed = make_feed(trainer.config)
        feed.pool.batch(np.arange(0, 40, 2))
        steps = trainer.steps(3, feed)
        sizes = [0 if trainer._resident is None else len(trainer._resident) for _ in steps]
        assert trainer._resident is None  # its memory is given back
        return trainer.model.state_dict(), sizes

    (streamed, none), (stayed, sizes) = weights(0), weights(room)
    assert none == [0, 0, 0]
    assert min(sizes) >= 20
    assert all(torch.equal(value, stayed[name]) for name, value in streamed.items())
