"""The images in a FITS file: where they are, what their pixels are, and where on the sky they lie."""

from __future__ import annotations

import gzip
import io
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from amatch_widgets.errors import MissingExtraError
from amatch_widgets.images.array import channels_last, hwc, plain_pixels, unmasked
from amatch_widgets.images.decode import MAX_BANDS, MAX_BYTES, MAX_PIXELS
from amatch_widgets.images.unreadable import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "FITS_SUFFIXES",
    "KINDS",
    "ImageHdu",
    "check_size",
    "decode_fits",
    "image_hdus",
    "image_shape",
    "import_fits",
    "masked",
    "open_fits",
    "read_hdu",
    "read_header",
    "scaled",
    "split_masks",
]

FITS_SUFFIXES = (".fits", ".fit", ".fz", ".fits.gz", ".fit.gz")
_BLOCK = 2880  # bytes: headers and data are whole numbers of it
_LISTED = 10  # HDUs in a message
_MAX_HEADER = 4000  # blocks; those of real files have some tens
_END = b"END" + b" " * 77
KINDS = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}  # by BITPIX


@dataclass(frozen=True, slots=True)
class ImageHdu:
    """One image of a FITS file, or one stack of them, as its header describes it.

    Attributes
    ----------
    number : int
        Of the HDU; the primary one is 0.
    name : str
        EXTNAME, or "" where there is none.
    shape : tuple of int
        The slowest axis first as in NumPy, (..., H, W).
    bitpix : int
        The type of the numbers in the file: 8, 16, 32, 64, -32 or -64.
    scale, zero : float
        BSCALE and BZERO.
    blank : int, optional
        The number that stands for a missing pixel.
    tile : tuple of int, optional
        Shape of the tiles, if they are compressed.
    start, offset, n_bytes : int
        Where in the file its header begins, where its data do, and how long these are; in bytes.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    bitpix: int
    scale: float
    zero: float
    blank: int | None
    tile: tuple[int, ...] | None
    start: int
    offset: int
    n_bytes: int

    def plane(self, index: int) -> ImageHdu:
        """Return one image of a stack that is not compressed."""
        n_bytes = self.n_bytes // self.shape[0]
        return replace(self, shape=self.shape[1:], offset=self.offset + index * n_bytes, n_bytes=n_bytes)


def import_fits() -> Any:
    """Return the module astropy.io.fits.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        from astropy.io import fits  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError(
            "FITS files need astropy, which is not installed. Type: pip install 'amatch-widgets[fits]'"
        ) from exc
    return fits


@contextmanager
def open_fits(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give what is in an open FITS file, which may be packed by gzip."""
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not is_packed:
        yield file
        return
    with gzip.open(file) as unpacked:
        yield cast("IO[bytes]", unpacked)


def image_hdus(file: IO[bytes]) -> Iterator[ImageHdu]:
    """Walk through a FITS file and give its images; of the data nothing is read.

    Parameters
    ----------
    file : binary file that can seek, at its start

    Yields
    ------
    ImageHdu
        Tables and HDUs without data are left out.

    Raises
    ------
    UnreadableError
        It is no FITS file, or cut off, or a header makes no sense. Astropy may raise anything else.
    """
    end = _end(file)
    number, start = 0, 0
    while (header := read_header(file, start, is_first=number == 0)) is not None:
        offset = file.tell()
        n_bytes, hdu = _describe(header, number, start, offset)
        if hdu is not None:
            if end is not None and offset + n_bytes > end:
                raise UnreadableError(
                    f"it is cut off: the pixels of HDU {number} go on to byte {offset + n_bytes}, the file "
                    f"ends at byte {end}"
                )
            yield hdu
        number, start = number + 1, offset + _whole_blocks(n_bytes)
        if end is None and start > MAX_BYTES:
            raise UnreadableError(f"unpacked it is larger than {MAX_BYTES / 1e9} GB. Unpack it with gunzip")


def read_hdu(file: IO[bytes], hdu: ImageHdu) -> NDArray[Any]:
    """Read the pixels of an HDU.

    Parameters
    ----------
    file : binary file that can seek
    hdu : ImageHdu
        Of this file.

    Returns
    -------
    ndarray of uint8, uint16 or float32, of the HDU's shape
        In the unit of the file (BUNIT): scaled, and NaN where there is no pixel.

    Raises
    ------
    UnreadableError
        It is cut off, or larger than `MAX_PIXELS` or `MAX_BYTES`, which is found out before.
    """
    check_size(hdu)
    if hdu.tile is not None:
        return _decompress(file, hdu)
    file.seek(hdu.offset)
    data = file.read(hdu.n_bytes)
    if len(data) < hdu.n_bytes:
        raise UnreadableError("it is cut off: parts of its pixels are missing")
    return scaled(np.frombuffer(data, KINDS[hdu.bitpix]).reshape(hdu.shape), hdu)


def check_size(hdu: ImageHdu) -> None:
    """Refuse an image whose pixels would not fit into the memory."""
    n_pixels = math.prod(hdu.shape)
    if hdu.shape[-1] * hdu.shape[-2] > MAX_PIXELS or n_pixels * abs(hdu.bitpix) // 8 > MAX_BYTES:
        sides = " x ".join(str(n) for n in reversed(hdu.shape))
        raise UnreadableError(
            f"it has {sides} pixels; more than {MAX_PIXELS // 10**6} million or {MAX_BYTES / 1e9} GB are not "
            "read. Cut it into smaller images"
        )


def decode_fits(file: IO[bytes], mask: int | str | None = None) -> NDArray[Any]:
    """Read the first image of a FITS file.

    Parameters
    ----------
    file : binary file that can seek, at its start
    mask : int or str, optional
        Number or EXTNAME of the HDU that tells which pixels are bad: those where it is not 0.

    Returns
    -------
    ndarray of uint8, uint16 or float32, shape (H, W, C)
        An image of three axes has channels, if its first or its last axis is short enough.

    Raises
    ------
    UnreadableError
        There is none, it is damaged, or a stack of images; in plain words.
    """
    hdus = image_hdus(file)
    masks: list[ImageHdu] = []
    if mask is not None:
        images, masks = split_masks(list(hdus), mask)
        hdus = iter(images)
    hdu = next(hdus, None)
    if hdu is None:
        raise UnreadableError("there is no image in it, at most tables")
    image = channels_last(read_hdu(file, hdu).reshape(image_shape(hdu.shape)))
    return masked(image, read_hdu(file, masks[0])) if masks else image


def split_masks(hdus: list[ImageHdu], mask: int | str) -> tuple[list[ImageHdu], list[ImageHdu]]:
    """Tell the images of a file from the masks, which are all the HDUs of a name, or that of a number.

    Raises
    ------
    UnreadableError
        There is no such HDU.
    """
    by_name = isinstance(mask, str)
    is_mask = [h.name.upper() == str(mask).upper() if by_name else h.number == mask for h in hdus]
    if not any(is_mask):
        there = ", ".join(f"{h.number} {h.name!r}" for h in hdus[:_LISTED]) or "none"
        raise UnreadableError(f"mask={mask!r} is none of its HDUs with pixels: {there}")
    pairs = list(zip(hdus, is_mask, strict=True))
    return [h for h, found in pairs if not found], [h for h, found in pairs if found]


def masked(image: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Take the data out of the pixels of an image that a mask calls bad.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)
    mask : ndarray, shape (H, W), (H, W, C) or (C, H, W), also with axes of length 1 before
        Bad where it is not 0.

    Returns
    -------
    ndarray of uint8 or float32, or as it was where no pixel is bad, shape (H, W, C)
        As of `unmasked`.

    Raises
    ------
    UnreadableError
        If the mask has another size, or all pixels are bad.
    """
    bad = channels_last(mask.reshape(image_shape(mask.shape))) != 0
    if bad.shape[:2] != image.shape[:2] or bad.shape[2] not in (1, image.shape[2]):
        raise UnreadableError(f"its mask has shape {mask.shape} and the image {image.shape}")
    try:
        return plain_pixels(unmasked(np.ma.array(image, mask=np.broadcast_to(bad, image.shape))))
    except ValueError as exc:
        raise UnreadableError(str(exc)) from exc


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one image without leading axes of length 1, as of radio maps.

    Raises
    ------
    UnreadableError
        It is that of many images.
    """
    while len(shape) > 2 and shape[0] == 1:  # noqa: PLR2004 - (H, W)
        shape = shape[1:]
    try:
        hwc(shape, limit=MAX_BANDS)
    except ValueError as exc:
        raise UnreadableError(f"{exc}; a file with many images is opened by itself, not in a folder") from exc
    return shape


def read_header(file: IO[bytes], start: int, *, is_first: bool) -> Any:
    """Read the header at a place of the file; None where no HDU begins."""
    fits = import_fits()
    file.seek(start)
    blocks: list[bytes] = []
    while not blocks or not _has_end(blocks[-1]):
        block = file.read(_BLOCK)
        if not blocks and not block.startswith(b"SIMPLE  =" if is_first else b"XTENSION="):
            if is_first:
                raise UnreadableError("its content is not FITS, whatever its name says")
            return None  # the end, or what the standard calls special records
        if len(block) < _BLOCK or len(blocks) > _MAX_HEADER:
            raise UnreadableError("it is cut off or damaged: a header of it has no end")
        blocks.append(block)
    return fits.Header.fromstring(b"".join(blocks))


def _has_end(block: bytes) -> bool:
    return any(block[i : i + 80] == _END for i in range(0, _BLOCK, 80))


def _describe(header: Any, number: int, start: int, offset: int) -> tuple[int, ImageHdu | None]:
    """Return the length of an HDU's data in bytes, and what image it is."""
    axes, bitpix = _axes(header, ""), header["BITPIX"]
    if bitpix not in KINDS:
        raise UnreadableError(f"BITPIX of HDU {number} is {bitpix!r}; allowed are {sorted(KINDS)}")
    has_groups = bool(axes) and axes[-1] == 0 and header.get("GROUPS") is True  # NAXIS1 = 0: no image
    size = math.prod(axes[:-1] if has_groups else axes) if axes else 0
    n_more, n_groups = header.get("PCOUNT", 0), header.get("GCOUNT", 1)
    if not all(type(n) is int and n >= 0 for n in (n_more, n_groups)):
        raise UnreadableError(f"PCOUNT or GCOUNT of HDU {number} is no whole number")
    n_bytes = abs(bitpix) // 8 * n_groups * (n_more + size) if axes else 0
    is_compressed = header.get("ZIMAGE") is True
    kind = "IMAGE" if number == 0 else str(header["XTENSION"]).strip()
    if not is_compressed and kind != "IMAGE":
        return n_bytes, None
    shape = _axes(header, "Z") if is_compressed else axes
    tile = tuple(header.get(f"ZTILE{k}", shape[-1] if k == 1 else 1) for k in range(len(shape), 0, -1))
    if len(shape) < 2 or 0 in shape:  # noqa: PLR2004 - (H, W)
        return n_bytes, None
    if is_compressed and header["ZBITPIX"] not in KINDS:
        raise UnreadableError(
            f"ZBITPIX of HDU {number} is {header['ZBITPIX']!r}; allowed are {sorted(KINDS)}"
        )
    if not all(type(n) is int and n > 0 for n in tile):
        raise UnreadableError(f"the tiles of HDU {number} have no size above 0: {tile}")
    blank = header.get("BLANK")
    return n_bytes, ImageHdu(
        number=number,
        name=_name(header),
        shape=shape,
        bitpix=header["ZBITPIX"] if is_compressed else bitpix,
        scale=float(header.get("BSCALE", 1)),
        zero=float(header.get("BZERO", 0)),
        blank=blank if type(blank) is int else None,
        tile=tile if is_compressed else None,
        start=start,
        offset=offset,
        n_bytes=n_bytes,
    )


def _axes(header: Any, prefix: str) -> tuple[int, ...]:
    """Return NAXISn of a header, the slowest axis first."""
    n = header[f"{prefix}NAXIS"]
    axes = tuple(header[f"{prefix}NAXIS{k}"] for k in range(n, 0, -1))
    if not all(type(axis) is int and axis >= 0 for axis in axes):
        raise UnreadableError(f"an axis has a length that is no whole number: {axes}")
    return axes


def _name(header: Any) -> str:
    try:
        return str(header.get("EXTNAME", "")).strip()
    except Exception:  # noqa: BLE001 - bytes that are no text: as good as no name
        return ""


def scaled(raw: NDArray[Any], hdu: ImageHdu) -> NDArray[Any]:
    """Bring numbers of the file, of any shape, to their values: those of `read_hdu`."""
    blank = hdu.blank if raw.dtype.kind in "iu" else None
    if blank is None and (hdu.scale, hdu.zero) == (1, 0):
        return plain_pixels(raw)
    if blank is None and (hdu.bitpix, hdu.scale, hdu.zero) == (16, 1, 2**15):  # how FITS writes uint16
        return (raw.astype(np.int32) + 2**15).astype(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        values = raw.astype(np.float64) * hdu.scale + hdu.zero
    if blank is not None:
        values[raw == blank] = np.nan
    return plain_pixels(values)


def _decompress(file: IO[bytes], hdu: ImageHdu) -> NDArray[Any]:
    """Read an image that is compressed in tiles."""
    fits = import_fits()
    file.seek(hdu.start)
    length = hdu.offset - hdu.start + hdu.n_bytes
    data = file.read(length)
    if len(data) < length:
        raise UnreadableError("it is cut off: parts of its pixels are missing")
    # A file of this HDU alone: astropy does not walk through all those before it, and threads share nothing.
    alone = fits.PrimaryHDU().header.tostring().encode() + data + bytes(_whole_blocks(length) - length)
    with fits.open(io.BytesIO(alone), memmap=False) as hdus:
        pixels = hdus[1].data
        if pixels is None or pixels.shape != hdu.shape:
            raise UnreadableError("it is damaged: its tiles are missing")
        return plain_pixels(np.asarray(pixels))


def _end(file: Any) -> int | None:
    """Return the length of a file; None if it is packed, and known only once it is all unpacked."""
    return None if isinstance(file, gzip.GzipFile) else int(file.seek(0, os.SEEK_END))


def _whole_blocks(n_bytes: int) -> int:
    return -(-n_bytes // _BLOCK) * _BLOCK
