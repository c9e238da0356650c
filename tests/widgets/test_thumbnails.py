from __future__ import annotations

import queue
import threading

import pytest

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.render import Rendering
from amatch_widgets.widgets.thumbnails import Look, ThumbnailLoader

WAIT_S = 20
SMALL = Look(128)


class Pictures:
    """Makes thumbnails of names, counts them, and can be held back."""

    def __init__(self):
        self.made = []
        self.gate = threading.Event()
        self.gate.set()
        self.delivered = queue.Queue()

    def make(self, image_id, look):
        assert self.gate.wait(WAIT_S)
        self.made.append(image_id)
        if image_id == "bad":
            raise ImageReadError(image_id, "the file is empty")
        if image_id == "bug":
            raise KeyError(3)
        return b"\x89PNG" if image_id == "png" else b"\xff\xd8"

    def deliver(self, page, look, thumbnails):
        self.delivered.put((page, dict(thumbnails)))

    def page(self, n):
        """All that is delivered until `n` images of one page are there."""
        images, pages = {}, set()
        while len(images) < n:
            page, thumbnails = self.delivered.get(timeout=WAIT_S)
            pages.add(page)
            images |= thumbnails
        assert len(pages) == 1
        return pages.pop(), images


@pytest.fixture
def pictures():
    return Pictures()


@pytest.fixture
def loader(pictures):
    loader = ThumbnailLoader(pictures.make, pictures.deliver)
    yield loader
    pictures.gate.set()
    loader.close()
    for thread in loader._threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_page_arrives_whole_with_its_number(loader, pictures):
    names = [str(k) for k in range(48)]
    assert loader.show(7, names, SMALL) == []
    page, images = pictures.page(48)
    assert page == 7
    assert sorted(images) == list(range(48))
    assert all(t.url.startswith("data:image/jpeg;base64,") for t in images.values())


def test_a_page_seen_before_is_at_hand(loader, pictures):
    loader.show(1, ["a", "b"], SMALL)
    pictures.page(2)
    assert [position for position, _ in loader.show(2, ["b", "c"], SMALL)] == [0]
    pictures.page(1)
    assert sorted(pictures.made) == ["a", "b", "c"]


def test_the_next_page_is_made_ahead(loader, pictures):
    pictures.gate.clear()
    loader.show(1, ["a"], SMALL)
    loader.fetch_ahead(["b", "c"], SMALL)
    pictures.gate.set()
    pictures.page(1)
    while len(loader.show(2, ["b", "c"], SMALL)) < 2:
        loader.fetch_ahead(["b", "c"], SMALL)
    assert sorted(pictures.made)[:2] == ["a", "b"]


def test_another_size_is_made_anew(loader, pictures):
    loader.show(1, ["a"], SMALL)
    pictures.page(1)
    assert loader.show(2, ["a"], Look(192)) == []
    pictures.page(1)


def test_another_rendering_is_made_anew_and_the_old_one_is_not_delivered_to_the_page(loader, pictures):
    inverted = Look(128, Rendering(stretch="asinh"))
    loader.show(1, ["a"], SMALL)
    pictures.page(1)
    pictures.gate.clear()
    loader.show(1, ["b", "png"], SMALL)
    loader.show(1, ["b", "png"], inverted)
    pictures.gate.set()
    assert pictures.page(2)[1].keys() == {0, 1}
    assert pictures.delivered.empty()
    assert len(loader.show(2, ["a"], SMALL)) == 1  # the old ones are kept too
    assert loader.show(3, ["a"], inverted) == []
    pictures.page(1)


def test_a_page_that_was_left_is_not_delivered_but_the_present_one_is(loader, pictures):
    pictures.gate.clear()
    loader.show(1, [f"old{k}" for k in range(40)], SMALL)
    loader.show(2, ["new"], SMALL)
    pictures.gate.set()
    assert pictures.page(1)[0] == 2
    assert len(pictures.made) <= 3  # the new one, and those that were in hand


def test_what_cannot_be_read_comes_with_the_reason(loader, pictures):
    loader.show(1, ["bad", "bug", "png"], SMALL)
    _, images = pictures.page(3)
    assert (images[0].url, images[0].problem) == ("", "the file is empty")
    assert "KeyError" in images[1].problem
    assert images[2].url.startswith("data:image/png;base64,")


def test_closing_twice_and_showing_afterwards_does_no_harm(loader, pictures):
    loader.close()
    loader.close()
    assert loader.show(1, ["a"], SMALL) == []
    assert pictures.made == []


def test_a_delivery_that_fails_does_not_end_the_loader(pictures):
    calls = []

    def deliver(page, look, thumbnails):
        calls.append(page)
        if len(calls) == 1:
            raise RuntimeError("the comm is closed")
        pictures.deliver(page, look, thumbnails)

    loader = ThumbnailLoader(pictures.make, deliver)
    pictures.gate.clear()
    loader.show(1, ["a"], SMALL)
    pictures.gate.set()
    while not calls:
        threading.Event().wait(0.01)
    loader.show(2, ["b"], SMALL)
    assert pictures.page(1)[0] == 2
    loader.close()
