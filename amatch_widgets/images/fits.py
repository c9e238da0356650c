"""Many images in one FITS file: a cube, or one image in each of its extensions."""

from __future__ import annotations

import gzip
import io
import math
from collections import Counter
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import channels_last, hwc, plain_pixels
from amatch_widgets.images.decode import MAX_BANDS, MAX_BYTES
from amatch_widgets.images.description import header_facts
from amatch_widgets.images.hdu import (
    ImageHdu,
    check_size,
    image_hdus,
    image_shape,
    import_fits,
    masked,
    read_hdu,
    split_masks,
)
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids, sort_indices
from amatch_widgets.images.kept import KEPT_BYTES, Kept
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.place import as_place, name_of, open_place, size_of, spec_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.unreadable import UnreadableError, in_words, plain_errors
from amatch_widgets.images.wcs import find_position

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = ["FitsSource"]

_MAX_UNPACKED = 2**30  # bytes of a file packed by gzip, which has to be in memory
_BLOCK_BYTES = KEPT_BYTES // 8  # of a compressed cube, unpacked at a time
_LISTED = 10  # HDUs in a message


class FitsSource:
    """The images of one FITS file.

    A cube, (N, H, W) or with channels (N, C, H, W) or (N, H, W, C), in one HDU; or many HDUs with one image
    each, of two axes, or of three where one is short enough for channels. Axes are named as in NumPy: N is
    the last axis of the header. Tables are left out. Compressed tiles, BSCALE, BZERO and BLANK are applied.

    Thread safety: all methods may be called from any thread. The file is opened for each reading and closed
    after it; only ``_kept``, which has its own lock, changes after the source is made.

    Parameters
    ----------
    path : path or URL
        A FITS file. One that is packed by gzip is unpacked into memory, up to 1 GB.
    hdu : int or str, optional
        Number or EXTNAME of the HDU with the cube. Default: the one HDU with images; if there are many, each
        is one image.
    mask : int or str, optional
        Number or EXTNAME of the HDU that tells which pixels are bad, those where it is not 0; they count as
        NaN. Of a cube it has a plane (H, W) or channels for each image; or one plane, (H, W), for all. Where
        each image has an HDU of its own, so has each mask, all of one EXTNAME, in the order of the images.
    name : str, optional
        Short name for people; default the name of the file.

    Attributes
    ----------
    ids : sequence of str
        Of a cube the padded position; else EXTNAME, where each HDU has one of its own, or the HDU's number.
    chunk : int
        How many images are unpacked together: 1 but for compressed cubes.

    Raises
    ------
    SourceError
        The file is no FITS file, damaged, has no image, or it is not clear what its images are.
    MissingExtraError
        astropy is not installed.
    """

    bands: tuple[str, ...] | None = None

    def __init__(
        self,
        path: str | os.PathLike[str] | Remote,
        *,
        hdu: int | str | None = None,
        mask: int | str | None = None,
        name: str | None = None,
    ) -> None:
        import_fits()
        self._path = as_place(path)
        self._hdu, self._mask = hdu, mask
        self.name = name or name_of(self._path).partition(".")[0] or name_of(self._path)
        try:
            with plain_errors():
                self._unpacked, self._size = _unpack(self._path)
                with self._open() as file:
                    hdus = list(image_hdus(file))
        except (UnreadableError, OSError) as exc:
            raise SourceError(
                f"{self._path!r} cannot be opened as a FITS file: {in_words(exc)}. Write it again, or check "
                "it with astropy.io.fits.info."
            ) from exc
        try:
            hdus, masks = (hdus, []) if mask is None else split_masks(hdus, mask)
            self._cube, self._images = _layout(hdus, hdu)
            self._masks = _fitting(masks, self._cube, len(self))
        except UnreadableError as exc:
            raise SourceError(f"{self._path!r} is no set of images: {exc}.") from exc
        self._kept = Kept()
        self.chunk = min(self._cube.tile[0], len(self)) if self._cube is not None and self._cube.tile else 1
        shapes = (
            [self._cube.shape[1:]] if self._cube is not None else [image_shape(h.shape) for h in self._images]
        )
        self.channels = _channels(shapes)
        self.ids: Sequence[str] = self._make_ids()

    def __len__(self) -> int:
        return self._cube.shape[0] if self._cube is not None else len(self._images)

    def __repr__(self) -> str:
        return f"FitsSource({self._path!r}, {len(self)} images)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the path; the file is opened again."""
        return partial(FitsSource, hdu=self._hdu, mask=self._mask, name=self.name), (self._path,)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image; see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, len(self))
        try:
            with plain_errors(), self._open() as file:
                return self._read(file, index)
        except (UnreadableError, OSError) as exc:
            raise ImageReadError(self.ids[index], in_words(exc)) from exc

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read many images in the order of the file; see `read_many` of the module `source`."""
        del min_side
        wanted = sort_indices(indices, len(self))
        try:
            file = self._open()
        except (UnreadableError, OSError) as exc:
            for index in wanted.tolist():
                yield index, ImageReadError(self.ids[index], in_words(exc))
            return
        with file:
            for index in wanted.tolist():
                try:
                    with plain_errors():
                        image = self._read(file, index)
                except (UnreadableError, OSError) as exc:
                    yield index, ImageReadError(self.ids[index], in_words(exc))
                else:
                    yield index, image

    def position(self, index: int) -> tuple[float, float] | None:
        """Return where on the sky the centre of an image is, by the WCS of its HDU.

        Returns
        -------
        (float, float) or None
            Right ascension and declination, ICRS, degrees; None without a celestial WCS, or where the file
            cannot be read. All images of a cube have that of the cube.
        """
        hdu = self._images[check_index(index, len(self))] if self._cube is None else self._cube
        try:
            with plain_errors(), self._open() as file:
                return find_position(file, hdu)
        except (UnreadableError, OSError):  # reading the image says why
            return None

    def describe(self, index: int) -> dict[str, str]:
        """Return some cards of the header of an image: object, filter, exposure and the like.

        Nothing of a file on a server, which it would take too long to ask.
        """
        if isinstance(self._path, Remote):
            return {}
        hdu = self._images[check_index(index, len(self))] if self._cube is None else self._cube
        try:
            with plain_errors(), self._open() as file:
                return header_facts(file, hdu)
        except (UnreadableError, OSError):  # reading the image says why
            return {}

    def fingerprint(self) -> str:
        """Return a hash of the ids, shapes and types; pixels are not looked at."""
        found = self._images if self._cube is None else [self._cube]
        kinds = " ".join(f"{h.shape} {h.bitpix} {h.scale} {h.zero} {h.blank}" for h in found)
        mask = "" if self._mask is None else f" {self._mask!r}"
        return hash_ids(self.ids if self._cube is None else (), f"fits {kinds}{mask}")

    def spec(self) -> dict[str, Any]:
        """Return the absolute path or URL, and HDU and mask if they were given."""
        given = {"hdu": self._hdu, "mask": self._mask}
        return {
            "kind": "fits",
            **spec_of(self._path),
            **{name: value for name, value in given.items() if value is not None},
        }

    def _open(self) -> IO[bytes]:
        """Open the file; UnreadableError if it is not the one that it was."""
        if self._unpacked is not None:
            return io.BytesIO(self._unpacked)
        file = open_place(self._path)
        if size_of(file) != self._size:
            file.close()
            raise UnreadableError("the file has changed since it was opened: open the source again")
        return file

    def _read(self, file: IO[bytes], index: int) -> NDArray[Any]:
        if self._cube is None:
            hdu = self._images[index]
            image = channels_last(read_hdu(file, hdu).reshape(image_shape(hdu.shape)))
        else:
            image = self._plane(file, self._cube, index)
        if not self._masks:
            return image
        mask = self._masks[index if self._cube is None else 0]
        is_of_all = self._cube is None or len(mask.shape) == 2  # noqa: PLR2004 - (H, W)
        return masked(image, read_hdu(file, mask) if is_of_all else self._plane(file, mask, index))

    def _plane(self, file: IO[bytes], cube: ImageHdu, index: int) -> NDArray[Any]:
        """Read one of a stack of images, as (H, W, C)."""
        if cube.tile is None:
            return channels_last(read_hdu(file, cube.plane(index)))
        return self._unpacked_plane(cube, index)

    def _unpacked_plane(self, cube: ImageHdu, index: int) -> NDArray[Any]:
        """Unpack some images of a compressed cube, as its tiles lie, and keep them."""
        n_bytes = math.prod(cube.shape[1:]) * abs(cube.bitpix) // 8
        size = max(1, _BLOCK_BYTES // n_bytes // self.chunk) * self.chunk
        first = index // size * size

        def load() -> tuple[NDArray[Any], int]:
            # A handle of its own: astropy closes it.
            with self._open() as file, import_fits().open(file, memmap=False) as hdus:
                images = plain_pixels(np.asarray(hdus[cube.number].section[first : first + size]))
            return images, images.nbytes

        images: NDArray[Any] = self._kept.get((cube.number, first), load)
        return np.array(channels_last(images[index - first]))  # of its own memory

    def _make_ids(self) -> Sequence[str]:
        if self._cube is not None:
            return NumberedIds(len(self))
        names = [hdu.name for hdu in self._images]
        if all(names) and len(set(names)) == len(names):
            return PackedIds(names)
        return PackedIds([str(hdu.number) for hdu in self._images])


def _unpack(place: Place) -> tuple[bytes | None, int]:
    """Return what is in a file packed by gzip, None for any other, and the size of the file, in bytes."""
    with open_place(place) as file:
        size = size_of(file)
        if file.read(2) != b"\x1f\x8b":
            return None, size
        file.seek(0)
        with gzip.open(file) as unpacked:
            content: bytes = unpacked.read(_MAX_UNPACKED + 1)
    if len(content) > _MAX_UNPACKED:
        raise UnreadableError(
            f"unpacked it is larger than {_MAX_UNPACKED / 1e9:.1f} GB. Unpack it with gunzip"
        )
    return content, size


def _layout(hdus: list[ImageHdu], wanted: int | str | None) -> tuple[ImageHdu | None, list[ImageHdu]]:
    """Find out what the images are: those of one cube, or the HDUs."""
    listed = ", ".join(f"{hdu.number} {hdu.name!r} {hdu.shape}" for hdu in hdus[:_LISTED])
    listed += ", ..." if len(hdus) > _LISTED else ""
    if not hdus:
        raise UnreadableError("no HDU of it has an image, at most tables")
    if wanted is not None:
        by_name = isinstance(wanted, str)
        found = [
            hdu
            for hdu in hdus
            if (hdu.name.upper() == str(wanted).upper() if by_name else hdu.number == wanted)
        ]
        if len(found) != 1:
            raise UnreadableError(
                f"hdu={wanted!r} is {len(found)} of its HDUs. Name one of {listed} by its number"
            )
        return _as_cube(found[0]), []
    if len(hdus) == 1:
        shape = hdus[0].shape
        is_colour = len(shape) == 3 and shape[2] in (3, 4) and shape[1] > 4  # noqa: PLR2004 - (H, W, C)
        is_bands = len(shape) == 3 and 1 < shape[0] <= MAX_BANDS  # noqa: PLR2004 - (C, H, W)
        if is_colour or is_bands:
            raise UnreadableError(
                f"its shape {shape} may be {shape[0]} images, or one with {shape[2 * is_colour]} channels. "
                f"Say hdu={hdus[0].number} for the former; for the latter open the folder that holds it"
            )
        return _as_cube(hdus[0]), []
    for hdu in hdus:
        try:
            image_shape(hdu.shape)
        except UnreadableError:
            raise UnreadableError(
                f"HDU {hdu.number} {hdu.name!r} has shape {hdu.shape}, and there are others. Say which one "
                f"has the images, hdu=...; there are {listed}"
            ) from None
    return None, hdus


def _fitting(masks: list[ImageHdu], cube: ImageHdu | None, n: int) -> list[ImageHdu]:
    """Return the masks of a file, if there are as many as it needs."""
    if not masks:
        return []
    if cube is None and len(masks) != n:
        raise UnreadableError(f"it has {len(masks)} masks named {masks[0].name!r} for {n} images")
    if cube is not None:
        shape = masks[0].shape
        if len(masks) > 1 or (len(shape) > 2 and shape[0] != n):  # noqa: PLR2004 - (H, W)
            raise UnreadableError(
                f"it has {len(masks)} masks, the first of shape {shape}, for a cube of shape {cube.shape}. "
                "One mask is needed, (H, W) or with a plane for each image; name it by its number"
            )
        check_size(masks[0] if len(shape) == 2 else masks[0].plane(0))  # noqa: PLR2004 - (H, W)
    return masks


def _as_cube(hdu: ImageHdu) -> ImageHdu:
    shape = hdu.shape
    is_single = len(shape) == 2 or math.prod(shape[:-2]) == 1  # noqa: PLR2004 - (H, W)
    if is_single:
        raise UnreadableError(
            f"HDU {hdu.number} has shape {shape}, a single image. Open the folder that holds the file"
        )
    if len(shape) > 4:  # noqa: PLR2004 - (N, C, H, W)
        raise UnreadableError(
            f"HDU {hdu.number} has shape {shape}. Allowed are (N, H, W), (N, C, H, W) and (N, H, W, C)"
        )
    check_size(hdu.plane(0))
    tile = [min(sides) for sides in zip(hdu.tile or (), shape, strict=False)]
    if math.prod(tile) * abs(hdu.bitpix) // 8 > MAX_BYTES:
        raise UnreadableError(
            f"its tiles of shape {tuple(tile)} do not fit into the memory. Compress each image by itself, "
            "tile_shape=(1, H, W)"
        )
    return hdu


def _channels(shapes: list[tuple[int, ...]]) -> int:
    """Return the channels as the model sees them: 3 where grey and colour are mixed, else the most common."""
    found = Counter(hwc(shape)[2] for shape in shapes)
    return 3 if set(found) == {1, 3} else found.most_common(1)[0][0]
