"""Pictures of images for people, and what is known of an image beside its pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import ImageReadError, LabelError, SourceError
from amatch_widgets.images.description import describe
from amatch_widgets.images.preprocess import encode_thumbnail, shrink
from amatch_widgets.images.render import Rendering, encode_picture, render
from amatch_widgets.images.source import read_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.session.archive import Archive

__all__ = ["Pictures", "position_of"]

_PLAIN = Rendering()
_TURN, _POLE = 360.0, 90.0


class Pictures:
    """Read and render the images of a source, one by one; from any thread.

    Parameters
    ----------
    source : ImageSource
    index : mapping of str to int
        Id to position in the source. All methods take an id that is in it.
    image : callable
        Returns the `Preprocess` of now: how the model sees the images; thumbnails have its crop.
    archive_of : callable
        Takes an id that is not in the index, and returns the archive whose image it is, or None.
    """

    def __init__(
        self,
        source: ImageSource,
        index: Mapping[str, int],
        image: Callable[[], Preprocess],
        archive_of: Callable[[str], Archive | None] = lambda _: None,
    ) -> None:
        self._source, self._index, self._image = source, index, image
        self._archive_of = archive_of

    @property
    def image(self) -> Preprocess:
        """How the model sees the images."""
        return self._image()

    def __contains__(self, image_id: str) -> bool:
        if image_id in self._index:
            return True
        archive = self._archive_of(image_id)
        return archive is not None and archive.knows(image_id)

    def place(self, image_id: str) -> tuple[ImageSource, int]:
        """Return the source of an image, and its position there.

        Raises
        ------
        ImageReadError
            If its archive cannot be opened.
        LabelError
            If there is no such image.
        """
        if image_id in self._index:
            return self._source, self._index[image_id]
        archive = self._archive_of(image_id)
        if archive is None:
            raise LabelError(f"There is no image {image_id!r}.")
        try:
            return archive.source, archive.index(image_id)
        except SourceError as error:
            raise ImageReadError(image_id, str(error)) from error

    def pixels(self, image_id: str) -> NDArray[Any]:
        """Read an image in full, as the source gives it; see `ImageSource.read`."""
        source, index = self.place(image_id)
        return source.read(index)

    def prepared(self, image_id: str) -> NDArray[np.uint8]:
        """Read an image as the model sees it, uint8 of shape (S, S, C); ImageReadError where it cannot be."""
        image = self.image
        source, index = self.place(image_id)
        pixels = source.read(index, min_side=image.min_side)
        try:
            return image(pixels)
        except ValueError as error:  # in plain words
            raise ImageReadError(image_id, str(error)) from error

    def whole(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Make an image, not cropped, ready to be rendered; see `Preprocess.cut`."""
        return replace(self.image, crop=None).cut(pixels)

    def thumbnail(self, image_id: str, side: int, rendering: Rendering = _PLAIN) -> bytes:
        """Make a small JPEG of what the model sees; see `Session.thumbnail`."""
        image = self.image
        hint = side if image.crop is None else None
        source, index = self.place(image_id)
        pixels = source.read(index, min_side=hint)
        try:
            return encode_thumbnail(shrink(render(image.cut(pixels), rendering, image), side))
        except ValueError as error:  # in plain words
            raise ImageReadError(image_id, str(error)) from error

    def cutout(self, image_id: str, rendering: Rendering = _PLAIN, side: int | None = None) -> bytes:
        """Make a picture of the whole image; see `Session.cutout`."""
        return encode_picture(self._draw(image_id, self.pixels(image_id), rendering, side))

    def cutouts(
        self, image_ids: Iterable[str], rendering: Rendering = _PLAIN, side: int | None = None
    ) -> Iterator[tuple[str, bytes | ImageReadError]]:
        """Make pictures of many whole images, as PNG, in the order that is best for the source.

        Yields
        ------
        str
            Each of the ids, once; no two may be the same.
        bytes or ImageReadError
            The PNG file, or why there is none.
        """
        for index, pixels in read_many(self._source, [self._index[i] for i in image_ids]):
            image_id = self._source.ids[index]
            try:
                if isinstance(pixels, ImageReadError):
                    raise pixels
                drawn = self._draw(image_id, pixels, rendering, side)
            except ImageReadError as error:
                yield image_id, error
            else:
                yield image_id, encode_picture(drawn, lossless=True)

    def _draw(
        self, image_id: str, pixels: NDArray[Any], rendering: Rendering, side: int | None
    ) -> NDArray[np.uint8]:
        try:
            picture = render(self.whole(pixels), rendering, self.image)
        except ValueError as error:  # in plain words
            raise ImageReadError(image_id, str(error)) from error
        return picture if side is None else shrink(picture, side)

    def n_bytes(self, image_id: str) -> int | None:
        """Return the size of the image's file, or None where it has none of its own."""
        source, index = self.place(image_id)
        path_of = getattr(source, "path_of", None)
        try:
            return None if path_of is None else int(path_of(index).stat().st_size)
        except OSError:  # reading it says why
            return None

    def describe(self, image_id: str) -> dict[str, str]:
        """Return what the source knows of an image beside its pixels; it raises nothing."""
        return describe(*self.place(image_id))

    def position(self, image_id: str) -> tuple[float, float] | None:
        """Return where on the sky an image is, if its source has ``position(index)``.

        Returns
        -------
        (float, float) or None
            Right ascension in [0, 360) and declination in [-90, 90], degrees (ICRS); None where the
            source gives none, or numbers that are no position.
        """
        return position_of(*self.place(image_id))


def position_of(source: ImageSource, index: int) -> tuple[float, float] | None:
    """Return where on the sky an image of a source is; see `Pictures.position`."""
    find = getattr(source, "position", None)
    try:
        found = None if find is None else find(index)
    except ImageReadError:  # the file that would tell is damaged: reading its pixels says so
        return None
    if found is None:
        return None
    ra, dec = map(float, found)
    if not (math.isfinite(ra) and abs(dec) <= _POLE):
        return None
    return ra % _TURN % _TURN, dec  # twice: -1e-20 % 360 is 360
