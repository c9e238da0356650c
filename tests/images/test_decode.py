"""JPEG, PNG and TIFF in all their kinds, and damaged and hostile files."""

from __future__ import annotations

import io
import struct
import time
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from amatch_widgets.images import decode as module
from amatch_widgets.images.decode import UnreadableError, decode

RGB = np.random.default_rng(0).integers(0, 256, (16, 20, 3)).astype(np.uint8)
RGB16 = np.random.default_rng(1).integers(0, 65536, (16, 20, 3)).astype(np.uint16)
RGBA = np.dstack([RGB, RGB[..., 0]])
RGBA16 = np.dstack([RGB16, RGB16[..., 0]])
FLOAT = RGB.astype(np.float32) / 7
SMOOTH = np.indices((160, 240)).sum(0).astype(np.float32)[..., None] * np.array([0.5, 0.3, 0.1], np.float32)


def pillow(image, kind, **options):
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(image, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def png16(image, *, interlace=False):
    """Write a 16-bit PNG by hand, all rows unfiltered: neither Pillow nor libpng writes all kinds."""
    height, width, channels = image.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
    rows = b""
    for top, left, down, right in passes:
        part = image[top::down, left::right].astype(">u2")
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlace))
    return png_of(header, zlib.compress(rows))


def png_of(header, data):
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def read(data, **options):
    return decode(io.BytesIO(data), **options)


LOSSLESS = {
    "png grey": (pillow(RGB[..., 0], "PNG"), RGB[..., :1]),
    "png rgb": (pillow(RGB, "PNG"), RGB),
    "png rgba": (pillow(RGBA, "PNG"), RGBA),
    "png grey alpha": (pillow(Image.fromarray(RGB[..., :2].copy(), "LA"), "PNG"), RGB[..., [0, 0, 0, 1]]),
    "png 16 grey": (png16(RGB16[..., :1]), RGB16[..., :1]),
    "png 16 rgb": (png16(RGB16), RGB16),
    "png 16 rgba": (png16(RGBA16), RGBA16),
    "png 16 grey alpha": (png16(RGB16[..., :2]), RGB16[..., [0, 0, 0, 1]]),
    "png 16 rgb interlaced": (png16(RGB16, interlace=True), RGB16),
    "png 16 rgb of libpng": (imagecodecs.png_encode(RGB16), RGB16),
    "png 16 rgba of libpng": (imagecodecs.png_encode(RGBA16), RGBA16),
    "tiff grey": (tiff(RGB[..., 0]), RGB[..., :1]),
    "tiff rgb": (tiff(RGB), RGB),
    "tiff rgba": (tiff(RGBA), RGBA),
    "tiff grey alpha": (tiff(RGB[..., :2], photometric=1, extrasamples=[2]), RGB[..., [0, 0, 0, 1]]),
    "tiff 16 grey": (tiff(RGB16[..., 0]), RGB16[..., :1]),
    "tiff 16 rgb": (tiff(RGB16), RGB16),
    "tiff 16 rgba": (tiff(RGBA16), RGBA16),
    "tiff big-endian": (tiff(RGB16, byteorder=">"), RGB16),
    "tiff big": (tiff(RGB, bigtiff=True), RGB),
    "tiff float": (tiff(FLOAT, photometric="rgb"), FLOAT),
    "tiff double": (tiff(FLOAT.astype(np.float64), photometric="rgb"), FLOAT),
    "tiff signed": (tiff(RGB[..., 0].astype(np.int16)), RGB[..., :1].astype(np.float32)),
    "tiff planes": (tiff(np.moveaxis(RGB, 2, 0), planarconfig="separate", photometric="rgb"), RGB),
    "tiff tiles": (tiff(RGB, tile=(16, 16)), RGB),
    "tiff deflate": (tiff(RGB16, compression="zlib", predictor=True), RGB16),
    "tiff lzw": (tiff(RGB, compression="lzw"), RGB),
    "tiff zstd": (tiff(RGB, compression="zstd"), RGB),
    "tiff strips": (tiff(RGB, rowsperstrip=3), RGB),
    "tiff first of two pages": (tiff(np.stack([RGB[..., 0], RGB[..., 1]])), RGB[..., :1]),
    "tiff white is zero": (tiff(255 - RGB[..., 0], photometric="miniswhite"), RGB[..., :1]),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_gives_its_pixels(kind):
    data, expected = LOSSLESS[kind]
    pixels = read(data)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)


LOSSY = {
    "jpeg rgb": (pillow(SMOOTH.astype(np.uint8), "JPEG"), SMOOTH),
    "jpeg grey": (pillow(SMOOTH[..., 0].astype(np.uint8), "JPEG"), SMOOTH[..., :1]),
    "jpeg progressive": (pillow(SMOOTH.astype(np.uint8), "JPEG", progressive=True), SMOOTH),
    "jpeg cmyk": (pillow(Image.fromarray(SMOOTH.astype(np.uint8)).convert("CMYK"), "JPEG"), SMOOTH),
    "tiff jpeg": (tiff(SMOOTH.astype(np.uint8), compression="jpeg"), SMOOTH),
    "tiff cmyk": (pillow(Image.fromarray(SMOOTH.astype(np.uint8)).convert("CMYK"), "TIFF"), SMOOTH),
    "tiff palette": (pillow(Image.fromarray(SMOOTH.astype(np.uint8)).quantize(256), "TIFF"), SMOOTH),
    "png palette": (pillow(Image.fromarray(SMOOTH.astype(np.uint8)).quantize(256), "PNG"), SMOOTH),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_a_lossy_file_gives_nearly_its_pixels(kind):
    data, expected = LOSSY[kind]
    pixels = read(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 4


def test_a_palette_with_transparency_becomes_rgba():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert read(pillow(palette, "PNG", transparency=b"\x00\x80")).tolist() == [
        [[10, 20, 30, 0], [40, 50, 60, 128]]
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_bit_a_pixel_becomes_black_and_white(kind):
    image = Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], np.uint8)).convert("1", dither=0)
    assert read(pillow(image, kind))[..., 0].tolist() == [[0, 255, 255], [255, 0, 0]]


def test_the_rotation_asked_for_by_exif_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read(pillow(RGB, "JPEG", exif=exif)).shape == (16, 20, 3)


@pytest.mark.parametrize(
    ("min_side", "shape"), [(160, (160, 240)), (80, (80, 120)), (41, (80, 120)), (1, (20, 30))]
)
def test_a_jpeg_is_decoded_smaller_but_not_below_the_hint(min_side, shape):
    data, image = LOSSY["jpeg rgb"]
    pixels = read(data, min_side=min_side)
    assert pixels.shape == (*shape, 3)
    assert abs(pixels.mean() - image.mean()) < 3


def test_an_image_is_known_by_its_content_and_not_by_its_name(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(LOSSLESS["png rgb"][0])
    with path.open("rb") as file:
        np.testing.assert_array_equal(decode(file), RGB)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"\0" * 5000, "its content is not JPEG, PNG, TIFF, FITS or .npy, whatever its name says"),
        (b"<html>404 not found</html>", "its content is not JPEG, PNG, TIFF, FITS"),
        (pillow(RGB, "GIF"), "its content is not JPEG, PNG, TIFF, FITS"),
        (b"\xff\xd8\xff", "it is damaged or cut off"),
        (b"\x89PNG\r\n\x1a\n", "it is damaged or cut off"),
        (b"II*\0", "it is damaged or cut off"),
        (LOSSY["jpeg rgb"][0][:1500], "it is damaged or cut off"),
        (LOSSLESS["png rgb"][0][:500], "it is damaged or cut off"),
        (LOSSLESS["png 16 rgb"][0][:500], "it is damaged or cut off"),
        (LOSSLESS["tiff rgb"][0][:-99], r"it is cut off: its pixels go on to byte \d+, the file ends at"),
        (LOSSLESS["tiff deflate"][0][:-100], "it is cut off: its pixels go on to byte"),
        (LOSSLESS["tiff deflate"][0][:100], "it is damaged or cut off"),
    ],
)  # fmt: skip
def test_a_bad_file_says_what_is_wrong_with_it(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        read(data)


def with_size(kind, side):
    """Write `side` x `side` into the header of a small file: as a bomb it needs no more."""
    if kind == "png":
        return png_of(struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), zlib.compress(bytes(100)))
    if kind == "jpeg":
        data = bytearray(LOSSY["jpeg rgb"][0])
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
        return bytes(data)
    buffer = io.BytesIO(LOSSLESS["tiff deflate"][0])
    with tifffile.TiffFile(buffer, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[tag].overwrite(side, dtype="I")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("min_side", [None, 64])
def test_a_bomb_is_refused_before_it_is_decoded(kind, min_side, monkeypatch):
    monkeypatch.setattr(module, "pillow_pixels", None)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    with pytest.raises(UnreadableError, match="it has 30000 x 30000 pixels; more than 200 million"):
        read(with_size(kind, 30_000), min_side=min_side)


def test_a_large_image_below_the_limit_is_read_without_a_warning():
    rows = zlib.compress(bytes(1251) * 9_500, 1)
    data = png_of(struct.pack(">IIBBBBB", 10_000, 9_500, 1, 0, 0, 0, 0), rows)
    assert read(data).shape == (9_500, 10_000, 1)  # Pillow itself warns above 89 million pixels


def test_a_tiff_of_which_parts_are_missing_is_not_filled_up():
    with pytest.raises(UnreadableError, match="it is damaged: parts of its pixels are missing"):
        read(with_size("tiff", 5_000))


def test_a_tiff_with_too_many_bytes_is_refused_before_it_is_decoded(monkeypatch):
    buffer = io.BytesIO(tiff(FLOAT, photometric="rgb", compression="zlib"))
    with tifffile.TiffFile(buffer, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages.first.tags[tag].overwrite(13_000, dtype="I")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    with pytest.raises(UnreadableError, match=r"decoded it would take 2.0 GB; the limit is 1.6 GB. Cut it"):
        read(buffer.getvalue())


def test_a_tiff_of_complex_numbers_is_refused():
    with pytest.raises(UnreadableError, match=r"its pixels are no real numbers \(complex64\)"):
        read(tiff(FLOAT[..., 0].astype(np.complex64)))


def test_a_decoder_out_of_memory_says_so(monkeypatch):
    def fail(_image):
        raise MemoryError

    monkeypatch.setattr(module, "pillow_pixels", fail)
    with pytest.raises(UnreadableError, match="there is not enough memory to decode it"):
        read(LOSSLESS["png rgb"][0])


FILES = [data for data, _ in LOSSLESS.values()] + [
    pillow(RGB, "JPEG"),
    pillow(RGB, "JPEG", progressive=True),
    tiff(RGB, compression="jpeg"),
    pillow(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    pillow(Image.fromarray(RGB).quantize(256), "TIFF"),
]


@settings(derandomize=True, deadline=None, max_examples=600)
@given(st.sampled_from(FILES), st.data())
def test_a_file_damaged_anywhere_is_an_image_or_an_unreadable_one(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        # Half of the bytes changed are in the header, where they do the most harm.
        at = draw.draw(st.integers(0, min(300, len(data) - 1)) | st.integers(0, len(data) - 1))
        damaged[at] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.just(len(data)) | st.integers(0, len(data)))
    start = time.monotonic()
    try:
        pixels = read(bytes(damaged[:cut]))
    except UnreadableError as exc:
        reason = str(exc)
    else:
        reason = "an image"
        assert pixels.ndim == 3
        assert 0 not in pixels.shape
        assert pixels.dtype in (np.uint8, np.uint16, np.float32)
    assert reason
    assert time.monotonic() - start < 20  # none of them makes it decode gigabytes
