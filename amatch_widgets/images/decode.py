"""Decoding of files of one image, which may be damaged or hostile."""

from __future__ import annotations

import logging
import math
import os
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from amatch_widgets.images.array import channels_last, hwc, plain_pixels, read_npy_header
from amatch_widgets.images.unreadable import UnreadableError, plain_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = [
    "MAX_BANDS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "UnreadableError",
    "decode",
    "model_channels",
    "pillow_pixels",
]

MAX_PIXELS = 200_000_000  # 0.6 GB as RGB: more is an attack or not a cutout
MAX_BANDS = 16  # of FITS and .npy: a first axis that is longer is one of many images
MAX_BYTES = 8 * MAX_PIXELS  # RGBA of 16 bits; the samples of a TIFF may be many, and of 8 bytes each

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_FITS, _GZIP, _NPY = b"SIMPLE  =", b"\x1f\x8b", b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# tifffile logs what it finds wrong in a file and raises as well. Without a handler Python would print the
# record to stderr of the notebook; handlers that the user has set still get it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def decode(file: IO[bytes], *, min_side: int | None = None, mask: int | str | None = None) -> NDArray[Any]:
    """Decode one JPEG, PNG, TIFF, FITS or .npy file, told apart by its first bytes.

    Parameters
    ----------
    file : binary file at its start
    min_side : int, optional
        A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as no side gets below this, in pixels.
    mask : int or str, optional
        Number or EXTNAME of the HDU of a FITS file that tells which pixels are bad; see `decode_fits`.

    Returns
    -------
    ndarray of uint8, uint16 or float32, shape (H, W, C)
        C is 1 (grey), 3 (RGB) or 4 (RGBA); as many as there are in a TIFF, in the first image of a FITS
        file, which may be packed by gzip, and in an array of two or three axes. May be read-only.

    Raises
    ------
    UnreadableError
        The file is no such image, damaged, or larger than `MAX_PIXELS` or `MAX_BYTES`, which is found out
        before it is decoded.
    OSError
        The disk failed, not the file.
    """
    head = file.read(32)
    file.seek(0)
    with plain_errors():
        if head.startswith(_JPEG):
            return _decode_jpeg(file, min_side)
        if head.startswith(_PNG):
            return _decode_png(file, head)
        if head.startswith(_TIFF):
            return _decode_tiff(file)
        if head.startswith((_FITS, _GZIP)):
            return _decode_fits(file, mask, is_packed=head.startswith(_GZIP))
        if head.startswith(_NPY):
            return _decode_npy(file)
    if not head:
        raise UnreadableError("the file is empty (0 bytes)")
    raise UnreadableError("its content is not JPEG, PNG, TIFF, FITS or .npy, whatever its name says")


def model_channels(image: NDArray[Any]) -> int:
    """Return the channels that suit a set of files of which this is the first that can be read.

    Parameters
    ----------
    image : ndarray of uint8, uint16 or float32, shape (H, W, C)

    Returns
    -------
    int
        3 for grey, RGB and RGBA, which come mixed and all become colour; else C.
    """
    n = image.shape[2]
    is_alpha = n == 4 and image.dtype.kind == "u"  # noqa: PLR2004 - else four bands; see Preprocess
    return 3 if n == 1 or is_alpha else n


def _decode_jpeg(file: IO[bytes], min_side: int | None) -> NDArray[Any]:
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - import amatch_widgets must be quick

    # The class and not Image.open: that one warns or fails by a size limit which is global to the process.
    image = JpegImageFile(file)
    _check_size(*image.size)
    if min_side is not None:
        image.draft(image.mode, (min_side, min_side))
    return pillow_pixels(image)


def _decode_png(file: IO[bytes], head: bytes) -> NDArray[Any]:
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - as above

    image = PngImageFile(file)
    _check_size(*image.size)
    if head[24] != 16:  # noqa: PLR2004 - the bit depth in IHDR, always the first chunk
        return pillow_pixels(image)
    # Pillow keeps 16-bit grey, but cuts 16-bit colour down to 8 bits: not to be mixed in one folder. So the
    # upper and the lower bytes are decoded one after the other, the latter as if the file were
    # little-endian. (imagecodecs decodes 16 bits at once, but each damaged file costs it a reference to
    # None, and after some ten thousands of them Python 3.11 dies.)
    tiles: Any = image.tile
    arranged = tiles[0][3]
    if arranged == "LA;16B":  # four bytes a pixel: read as 8-bit RGBA
        pairs = _raw_pixels(image, "RGBA").astype(np.uint16)
        return (pairs[..., ::2] << 8 | pairs[..., 1::2])[..., [0, 0, 0, 1]]
    upper = np.asarray(image).astype(np.uint16)
    if arranged == "I;16B":
        return upper[..., None]
    file.seek(0)
    return upper << 8 | _raw_pixels(
        PngImageFile(file), {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}[arranged]
    )


def _raw_pixels(image: ImageFile, arrangement: str) -> NDArray[np.uint8]:
    """Decode a file that is not loaded yet as if its bytes were arranged in another way."""
    # Pillow's own plugins do it like this; the tests of 16-bit files watch over it.
    tiles: Any = image.tile
    codec, extent, offset, _ = tiles[0]
    tiles[0] = (codec, extent, offset, arrangement)
    return np.asarray(image)


def pillow_pixels(image: Image) -> NDArray[Any]:
    """Return the pixels of a Pillow image of 8 bits or less as grey, RGB or RGBA, uint8, shape (H, W, C)."""
    target = {"1": "L", "L": "L", "LA": "RGBA", "PA": "RGBA", "RGBA": "RGBA"}.get(image.mode, "RGB")
    if image.mode == "P" and "transparency" in image.info:
        target = "RGBA"
    pixels = np.asarray(image if image.mode == target else image.convert(target))
    return pixels if pixels.ndim == 3 else pixels[..., None]  # noqa: PLR2004 - (H, W, C)


def _decode_tiff(file: IO[bytes]) -> NDArray[Any]:
    import tifffile  # noqa: PLC0415 - import amatch_widgets must be quick

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        sizes = (page.imagewidth, page.imagelength, page.imagedepth, page.samplesperpixel, *page.chunks)
        # A damaged tag may be a tuple of a million numbers, or missing, which makes it 0.
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UnreadableError("it is damaged: its size is no number above 0")
        _check_size(page.imagewidth, page.imagelength * page.imagedepth)
        _check_segments(page, file.seek(0, os.SEEK_END))
        pixels = page.asarray(maxworkers=1)  # the caller has its own threads
        if not pixels.size or pixels.shape != page.shape or pixels.dtype.kind not in "biuf":
            raise UnreadableError(f"it is damaged, or its pixels are no real numbers ({page.dtype})")
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            return np.moveaxis(page.colormap[:, pixels] >> 8, 0, -1).astype(np.uint8)
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        elif page.axes not in ("YX", "YXS"):
            raise UnreadableError(
                f"its axes are {page.axes!r}; allowed are images (YX) with samples (YXS, SYX)"
            )
        alpha = bool(page.extrasamples)
        inverse = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        cmyk = page.photometric == tifffile.PHOTOMETRIC.SEPARATED
    pixels = plain_pixels(np.ascontiguousarray(pixels))
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]  # noqa: PLR2004 - (H, W, C)
    if pixels.dtype != np.float32:
        white = np.iinfo(pixels.dtype).max
        if inverse:
            pixels = white - pixels
        if cmyk and pixels.shape[2] >= 4:  # noqa: PLR2004 - C, M, Y, K
            ink = pixels[..., :4].astype(np.float32) / white
            pixels = ((1 - ink[..., :3]) * (1 - ink[..., 3:]) * white + 0.5).astype(pixels.dtype)
    return _grey_alpha_to_rgba(pixels) if alpha else pixels


def _decode_fits(file: IO[bytes], mask: int | str | None, *, is_packed: bool) -> NDArray[Any]:
    import gzip  # noqa: PLC0415 - seldom needed

    from amatch_widgets.images.hdu import decode_fits  # noqa: PLC0415 - it imports this module

    if not is_packed:
        return decode_fits(file, mask)
    with gzip.open(file) as unpacked:
        return decode_fits(cast("IO[bytes]", unpacked), mask)


def _decode_npy(file: IO[bytes]) -> NDArray[Any]:
    shape, is_fortran, dtype = read_npy_header(file)
    if dtype.kind not in "biuf":
        raise UnreadableError(f"its pixels are no real numbers ({dtype})")
    if 0 in shape:
        raise UnreadableError(f"its shape is {shape}: it has no pixel")
    hwc(shape, limit=MAX_BANDS)
    _check_size(math.prod(shape), 1)
    n_bytes = math.prod(shape) * dtype.itemsize
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise UnreadableError("it is cut off: parts of its pixels are missing")
    image = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return channels_last(plain_pixels(image))


def _check_segments(page: Any, end: int) -> None:
    """Refuse a TIFF page of which pixels are missing: tifffile would fill the gap with zeros."""
    offsets, counts = page.dataoffsets, page.databytecounts
    if page.nbytes > MAX_BYTES:
        raise UnreadableError(
            f"decoded it would take {page.nbytes / 1e9:.1f} GB; the limit is {MAX_BYTES / 1e9} GB. "
            "Cut it into smaller images"
        )
    if math.prod(page.chunks) > MAX_BYTES // 2:
        raise UnreadableError("it is damaged: one of its tiles would be larger than any image")
    is_whole = len(offsets) == len(counts) == math.prod(page.chunked) and all(offsets) and all(counts)
    if page.compression == 1 and page.bitspersample % 8 == 0:
        is_whole = is_whole and sum(counts) >= page.nbytes
    if not is_whole:
        raise UnreadableError("it is damaged: parts of its pixels are missing")
    last = max(offset + count for offset, count in zip(offsets, counts, strict=True))
    if last > end:
        raise UnreadableError(f"it is cut off: its pixels go on to byte {last}, the file ends at byte {end}")


def _grey_alpha_to_rgba(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 2:  # noqa: PLR2004 - (H, W)
        return pixels[..., None]
    return pixels[..., [0, 0, 0, 1]] if pixels.shape[2] == 2 else pixels  # noqa: PLR2004 - grey and alpha


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableError(
            f"it has {width} x {height} pixels; more than {MAX_PIXELS // 10**6} million are not decoded. "
            "Cut it into smaller images"
        )
