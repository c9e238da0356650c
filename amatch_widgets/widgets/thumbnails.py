"""Thumbnails for the gallery: made in the background, kept, and fetched ahead of a page turn."""

from __future__ import annotations

import base64
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.render import Rendering

if TYPE_CHECKING:
    from amatch_widgets.images.preprocess import Preprocess

__all__ = ["Look", "Thumbnail", "ThumbnailLoader", "data_url"]

_log = logging.getLogger(__name__)

_KEPT = 2_000  # about 10 MB of data URLs at 128 px
_THREADS = 2
_BATCH = 12  # a page that is not cached appears in a few pieces, not image by image


class Look(NamedTuple):
    """How thumbnails are made.

    Attributes
    ----------
    side : int
        Length of the longer side, px.
    rendering : Rendering
        Its `pixels` part: the rest is the browser's.
    image : Preprocess, optional
        How the model sees the images.
    """

    side: int
    rendering: Rendering = Rendering()
    image: Preprocess | None = None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One image as the browser shows it.

    Attributes
    ----------
    url : str
        A data URL, or "" when the image cannot be read.
    problem : str
        Why it cannot be read; "" when it can.
    """

    url: str
    problem: str = ""


def data_url(data: bytes) -> str:
    """Write a PNG or JPEG as an address that a browser shows."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


Deliver = Callable[[int, Look, list[tuple[int, Thumbnail]]], None]


class ThumbnailLoader:
    """Make thumbnails on two threads: those of the page on screen first, then those ahead.

    Thread safety: all attributes are guarded by ``_changed``'s lock, which is held neither while
    an image is read nor while `deliver` runs.

    Parameters
    ----------
    make : callable
        ``make(image_id, look)`` gives the bytes of a JPEG or PNG, or raises `ImageReadError`.
    deliver : callable
        ``deliver(page, look, [(position, thumbnail), ...])`` takes what became ready; called on the
        loader's threads.
    """

    def __init__(self, make: Callable[[str, Look], bytes], deliver: Deliver) -> None:
        self._make = make
        self._deliver = deliver
        self._changed = threading.Condition()
        self._cache: OrderedDict[tuple[str, Look], Thumbnail] = OrderedDict()
        self._page: tuple[int, Look] | None = None
        self._wanted: deque[tuple[int, str, Look]] = deque()
        self._ahead: deque[tuple[str, Look]] = deque()
        self._ready: list[tuple[int, Thumbnail]] = []
        self._in_work = 0
        self._threads: list[threading.Thread] = []
        self._closed = False

    def show(self, page: int, image_ids: Sequence[str], look: Look) -> list[tuple[int, Thumbnail]]:
        """Begin with the page on screen; what is at hand comes back, the rest is delivered later.

        Parameters
        ----------
        page : int
            The page's serial number; it is given back on delivery.
        image_ids : sequence of str
            The page's images, in order.
        look : Look
            How they are made.

        Returns
        -------
        list of (int, Thumbnail)
            Positions on the page and the thumbnails that were cached.
        """
        found = []
        with self._changed:
            self._page = (page, look)
            self._wanted.clear()
            self._ahead.clear()
            self._ready.clear()
            for position, image_id in enumerate(image_ids):
                thumbnail = self._cache.get((image_id, look))
                if thumbnail is None:
                    self._wanted.append((position, image_id, look))
                else:
                    self._cache.move_to_end((image_id, look))
                    found.append((position, thumbnail))
            self._wake()
        return found

    def fetch_ahead(self, image_ids: Sequence[str], look: Look) -> None:
        """Make these once the page on screen is complete, in place of what was asked for before."""
        with self._changed:
            self._ahead = deque((i, look) for i in image_ids if (i, look) not in self._cache)
            self._wake()

    def forget(self) -> None:
        """Drop the cache and all that is waiting."""
        with self._changed:
            self._cache.clear()
            self._wanted.clear()
            self._ahead.clear()

    def close(self) -> None:
        """End the threads after the image in hand; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wake(self) -> None:
        """Start the threads when there is work for the first time; the lock is held."""
        if self._closed or not (self._wanted or self._ahead):
            return
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"amatch-thumbnails-{k}", daemon=True)
                for k in range(_THREADS)
            ]
            for thread in self._threads:
                thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted or self._ahead)
                if self._closed:
                    return
                page = self._page
                if self._wanted:
                    position, image_id, look = self._wanted.popleft()
                    self._in_work += 1
                else:
                    position = -1
                    image_id, look = self._ahead.popleft()
            thumbnail = self._read(image_id, look)
            with self._changed:
                self._cache[image_id, look] = thumbnail
                while len(self._cache) > _KEPT:
                    self._cache.popitem(last=False)
                if position >= 0:
                    self._in_work -= 1
                    if page == self._page:
                        self._ready.append((position, thumbnail))
                page, batch = self._page, self._take_ready()
            if page is not None and batch:
                try:
                    self._deliver(*page, batch)
                except Exception:  # noqa: BLE001 (a border: the loader outlives a page it cannot send)
                    _log.exception("Thumbnails could not be shown")

    def _take_ready(self) -> list[tuple[int, Thumbnail]]:
        """Take out what is to be delivered now, if there is enough of it; the lock is held."""
        is_last = not self._wanted and self._in_work == 0
        if not is_last and len(self._ready) < _BATCH:
            return []
        batch, self._ready = self._ready, []
        return batch

    def _read(self, image_id: str, look: Look) -> Thumbnail:
        try:
            data = self._make(image_id, look)
        except ImageReadError as error:
            return Thumbnail(url="", problem=error.reason)
        except Exception as error:  # noqa: BLE001 (a border: one bad image must not empty the page)
            _log.exception("No thumbnail of %r", image_id)
            return Thumbnail(url="", problem=f"unexpected {type(error).__name__}: {error}")
        return Thumbnail(url=data_url(data))
