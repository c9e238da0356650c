"""FITS: files of many images and of one, scaled and compressed, damaged and hostile, and the sky."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from amatch_widgets.errors import ImageReadError, MissingExtraError, SourceError
from amatch_widgets.images import fits as module
from amatch_widgets.images import hdu as hdus
from amatch_widgets.images.decode import UnreadableError, decode
from amatch_widgets.images.files import FolderSource
from amatch_widgets.images.fits import FitsSource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.images.source import open_source, source_from_spec
from amatch_widgets.images.testing import SourceContract, UnreadableImageContract
from amatch_widgets.images.wcs import find_position

RNG = np.random.default_rng(0)
CUBE = RNG.normal(100, 20, (40, 24, 30)).astype(np.float32)
TAN = {
    "CTYPE1": "RA---TAN",
    "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 5.0,
    "CRPIX2": 4.5,
    "CDELT1": -1e-4,
    "CDELT2": 1e-4,
}


def write(path, *images, primary=None, **options):
    """Write images as HDUs after a primary one; an HDU is written as it is."""
    found = [image if isinstance(image, fits.hdu.base._BaseHDU) else fits.ImageHDU(image) for image in images]
    fits.HDUList([fits.PrimaryHDU(primary), *found]).writeto(path, **options)
    return path


def cards(**values):
    header = fits.Header()
    header.update({key.replace("_", "-"): value for key, value in values.items()})
    return header


def as_bytes(*images, **options):
    buffer = io.BytesIO()
    write(buffer, *images, **options)
    return buffer.getvalue()


def compressed(image, **options):
    options = {"compression_type": "GZIP_1", "quantize_level": 0, **options}
    return fits.CompImageHDU(image, **options)


class TestCube(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "cube.fits", primary=CUBE))


class TestCubeWithChannels(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "cube.fits", CUBE.reshape(5, 8, 24, 30).astype(np.uint16)))


class TestPackedCube(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "cube.fits.gz").write_bytes(gzip.compress(as_bytes(CUBE)))
        return open_source(tmp_path / "cube.fits.gz")


class TestCompressedCube(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        return open_source(write(tmp_path / "cube.fits.fz", compressed(CUBE, tile_shape=(3, 24, 30))))


class TestExtensions(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(9.0))])
        images = [fits.ImageHDU(CUBE[i, : 10 + i], name=f"obj {i}") for i in range(3)]
        return open_source(write(tmp_path / "many.fits", images[0], table, *images[1:], compressed(CUBE[9])))


class TestFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path):
        write(tmp_path / "a.fits", primary=CUBE[0])
        write(tmp_path / "b.FIT", CUBE[:3])
        write(tmp_path / "c.fits.fz", compressed(CUBE[1]))
        (tmp_path / "d.fits.gz").write_bytes(gzip.compress(as_bytes(CUBE[2])))
        np.save(tmp_path / "e.npy", CUBE[3])
        Image.fromarray(CUBE[4].astype(np.uint8)).save(tmp_path / "f.png")
        return open_source(tmp_path)


class TestFolderWithADamagedFile(UnreadableImageContract):
    @pytest.fixture(
        params=["empty", "nonsense", "cut off", "no image", "many images", "packed and cut off", "npy"]
    )
    def damaged(self, request, tmp_path):
        data = as_bytes(CUBE[0])
        damaged = {
            "empty": b"",
            "nonsense": b"SIMPLE  = " + b"x" * 9999,
            "cut off": data[:6000],
            "no image": as_bytes(),
            "many images": as_bytes(CUBE),
            "packed and cut off": gzip.compress(data)[:-500],
            "npy": b"\x93NUMPY\x01\x00",
        }[request.param]
        (tmp_path / "a.fits").write_bytes(damaged)
        write(tmp_path / "b.fits", CUBE[1])
        return open_source(tmp_path)


class TestDamagedTile(UnreadableImageContract):
    @pytest.fixture
    def damaged(self, tmp_path):
        path = write(tmp_path / "many.fits", compressed(CUBE[0]), compressed(CUBE[1]))
        with path.open("rb") as file:
            first = next(hdus.image_hdus(file))
        data = bytearray(path.read_bytes())
        data[first.offset + 24 * 8 : first.offset + 24 * 8 + 2000] = bytes(2000)
        path.write_bytes(data)
        return open_source(path)


def test_a_cube_gives_its_planes(tmp_path):
    source = open_source(write(tmp_path / "cube.fits", CUBE))
    assert (len(source), source.channels, source.chunk, source.name) == (40, 1, 1, "cube")
    assert source.ids[7] == "07"
    for i in (0, 7, 39):
        np.testing.assert_array_equal(source.read(i)[..., 0], CUBE[i])
        assert source.read(i).dtype.isnative


@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 3, 24, 30), (1, 2, 0)), ((5, 24, 30, 3), (0, 1, 2)), ((5, 1, 24, 30), (1, 2, 0))]
)
def test_channels_of_a_cube_are_the_short_axis(tmp_path, shape, axes):
    images = RNG.normal(size=shape).astype(np.float32)
    source = open_source(write(tmp_path / "cube.fits", images))
    assert (len(source), source.channels) == (5, min(shape[1:]))
    np.testing.assert_array_equal(source.read(4), images[4].transpose(axes))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("u1", np.uint8),
        ("i1", np.float32),
        ("i2", np.float32),
        ("u2", np.uint16),
        ("i4", np.float32),
        ("u4", np.float32),
        ("f4", np.float32),
        ("f8", np.float32),
    ],
)
@pytest.mark.parametrize("make", [fits.ImageHDU, fits.CompImageHDU, None])
def test_every_type_keeps_its_values(tmp_path, dtype, expected, make):
    images = RNG.integers(0, 120, (20, 8, 9)).astype(dtype)
    options = {"compression_type": "GZIP_1", "quantize_level": 0} if make is fits.CompImageHDU else {}
    images_hdu = fits.ImageHDU(images) if make is None else make(images, **options)
    path = write(tmp_path / "cube.fits", images_hdu)
    if make is None:
        path.write_bytes(gzip.compress(path.read_bytes()))
    source = open_source(path)
    image = source.read(13)
    assert image.dtype == expected
    np.testing.assert_array_equal(image[..., 0], images[13].astype(expected))


def test_integers_of_64_bits_become_real_numbers():  # FITS has no compressed tiles of them
    image = decode(io.BytesIO(as_bytes(np.arange(72).reshape(8, 9) * 10**9)))
    assert image.dtype == np.float32
    assert image[7, 8, 0] == np.float32(71e9)


@pytest.mark.parametrize(("dtype", "bitpix"), [("u1", 8), (">i2", 16), (">i4", 32), (">f4", -32)])
def test_scale_and_zero_are_applied(dtype, bitpix):
    raw = np.arange(72).reshape(8, 9).astype(dtype)
    image_hdu = fits.ImageHDU(raw)
    image_hdu.header["BSCALE"], image_hdu.header["BZERO"] = 0.5, -3.0
    data = as_bytes()
    data += (
        fits.ImageHDU(raw)
        .header.tostring()
        .encode()
        .replace(b"GCOUNT  =                    1", b"BSCALE  =                  0.5")
        .replace(b"PCOUNT  =                    0", b"BZERO   =                 -3.0")
    )
    data += raw.tobytes() + bytes(2880 - raw.nbytes)
    image = decode(io.BytesIO(data))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[..., 0], raw.astype(np.float32) * 0.5 - 3)
    with fits.open(io.BytesIO(data)) as theirs:
        assert theirs[1].header["BITPIX"] == bitpix
        np.testing.assert_array_equal(image[..., 0], theirs[1].data)


@pytest.mark.parametrize("make", [fits.ImageHDU, fits.CompImageHDU])
def test_a_blank_pixel_is_nan(make):
    raw = np.arange(72, dtype=np.int16).reshape(8, 9)
    image = decode(io.BytesIO(as_bytes(make(raw, header=cards(BLANK=5)))))
    assert np.flatnonzero(np.isnan(image)).tolist() == [5]
    assert image[0, 4, 0] == 4


@pytest.mark.parametrize("make", [fits.ImageHDU, fits.CompImageHDU])
def test_nan_stays_nan(make):
    raw = CUBE[0].copy()
    raw[3, 4] = np.nan
    image = decode(io.BytesIO(as_bytes(make(raw))))
    assert np.argwhere(np.isnan(image)).tolist() == [[3, 4, 0]]


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_every_compression_is_unpacked(compression):
    raw = RNG.integers(0, 1000, (32, 40)).astype(np.int16)
    tile_shape = (32, 40) if compression == "HCOMPRESS_1" else None
    data = as_bytes(fits.CompImageHDU(raw, compression_type=compression, tile_shape=tile_shape))
    np.testing.assert_array_equal(decode(io.BytesIO(data))[..., 0], raw)


def test_the_first_hdu_with_an_image_is_taken_of_a_file_in_a_folder():
    table = fits.BinTableHDU.from_columns([fits.Column("x", "PD()", array=np.array([[1.0], [2, 3]], object))])
    image = decode(io.BytesIO(as_bytes(table, fits.ImageHDU(), CUBE[5], CUBE[6])))
    np.testing.assert_array_equal(image[..., 0], CUBE[5])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((24, 30), (24, 30, 1)),
        ((1, 1, 24, 30), (24, 30, 1)),
        ((3, 24, 30), (24, 30, 3)),
        ((24, 30, 3), (24, 30, 3)),
        ((1, 5, 24, 30), (24, 30, 5)),
        ((16, 24, 30), (24, 30, 16)),
    ],
)
def test_the_axes_of_a_single_image(shape, expected):
    image = RNG.normal(size=shape).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, image.reshape([n for n in shape if n > 1]))
    axes = (0, 1, 2) if image.shape[-1] < 16 else (1, 2, 0)
    wanted = image.reshape((1, *shape)[-3:] if len(shape) < 4 else shape[1:]).transpose(axes)
    for data in (as_bytes(image), buffer.getvalue()):
        found = decode(io.BytesIO(data))
        assert found.shape == expected
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<i4", "f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_of_one_image_are_read(dtype, order):
    image = np.asarray(RNG.integers(0, 2, (8, 9)).astype(dtype), order=order)
    buffer = io.BytesIO()
    np.save(buffer, image)
    buffer.seek(0)
    np.testing.assert_array_equal(decode(buffer)[..., 0], image.astype("u1") * (255 if dtype == "?" else 1))


def npy(shape, data=b"", dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy((8, 9), bytes(100)), "it is cut off: parts of its pixels are missing"),
        (npy((10**6, 10**6)), "more than 200 million are not decoded"),
        (npy((50, 24, 30)), r"its shape is \(50, 24, 30\); one image is \(H, W\).*at most 16 channels"),
        (npy((7,)), r"its shape is \(7,\)"),
        (npy((0, 5)), "it has no pixel"),
        (npy((8, 9), dtype="|O"), "no real numbers"),
        (npy((8, 9), dtype="<c8"), "no real numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff", "it is damaged or cut off"),
    ],
)
def test_a_bad_npy_file_says_what_is_wrong(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        decode(io.BytesIO(data))


def header(shape, bitpix=-32, **more):
    """Write a primary header that no library would: its data are missing."""
    values = {"SIMPLE": True, "BITPIX": bitpix, "NAXIS": len(shape)}
    values |= {f"NAXIS{k + 1}": n for k, n in enumerate(reversed(shape))}
    found = fits.Header()
    found.update({**values, **more})
    return found.tostring().encode()


def compressed_header(shape, bitpix=16, tile=None, n_bytes=16):
    found = fits.Header()
    found.update({
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": 1, "PCOUNT": n_bytes,
        "GCOUNT": 1, "TFIELDS": 1, "TTYPE1": "COMPRESSED_DATA", "TFORM1": "1PB(8)", "ZIMAGE": True,
        "ZCMPTYPE": "GZIP_1", "ZBITPIX": bitpix, "ZNAXIS": len(shape),
    })  # fmt: skip
    found.update({f"ZNAXIS{k + 1}": n for k, n in enumerate(reversed(shape))})
    found.update({f"ZTILE{k + 1}": n for k, n in enumerate(reversed(tile or shape))})
    return as_bytes() + found.tostring().encode() + bytes(2880)


HOSTILE = [
    (header((10**6, 10**6)), "it is cut off: the pixels of HDU 0 go on to byte 4000000002880, the file ends"),
    (header((2**62, 2**62)), "it is cut off"),
    (header((10**9, 10**9), 8), "it is cut off"),
    (
        gzip.compress(header((20_000, 20_000))),
        "20000 x 20000 pixels; more than 200 million or 1.6 GB are not",
    ),
    (gzip.compress(header((2**62, 2**62))), "more than 200 million"),
    (
        gzip.compress(header((10_000, 10_000)) + bytes(10**6)),
        "it is cut off: parts of its pixels are missing",
    ),
    (compressed_header((10**6, 10**6)), "1000000 x 1000000 pixels; more than 200 million"),
    (compressed_header((100, 100)), "it is damaged or cut off"),
    (compressed_header((100, 100), tile=(10**9, 10**9)), "it is damaged or cut off"),
    (compressed_header((100, 100), tile=(0, 10)), r"the tiles of HDU 1 have no size above 0"),
    (compressed_header((100, 100), bitpix=7), "ZBITPIX of HDU 1 is 7; allowed are"),
    (header((8, 9), 7), "BITPIX of HDU 0 is 7; allowed are"),
    (header((8, -9)), "an axis has a length that is no whole number"),
    (header((8, 9), PCOUNT=-99), "PCOUNT or GCOUNT of HDU 0 is no whole number"),
    (header((8, 9)).replace(b"NAXIS1  =                    9", b"NAXIS1  =                  9x9"), "damaged"),
    (header((8, 9)).replace(b"NAXIS   =                    2", b"NAXIS   =         2000000000"), "damaged"),
    (header((8, 9)).replace(b"END", b"ENE"), "a header of it has no end"),
    (header((8, 9))[:1000], "a header of it has no end"),
    (gzip.compress(as_bytes(CUBE[0]))[:400], "damaged or cut off"),
    (b"\x1f\x8b" + b"no gzip" * 10, "damaged or cut off"),
    (gzip.compress(b"no fits" * 1000), "its content is not FITS, whatever its name says"),
    (as_bytes(), "there is no image in it, at most tables"),
    (as_bytes(CUBE), r"its shape is \(40, 24, 30\).*a file with many images is opened by itself"),
]


@pytest.mark.parametrize(("data", "reason"), HOSTILE)
def test_a_hostile_file_says_what_is_wrong_and_takes_no_memory(data, reason):
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match=reason):
            decode(io.BytesIO(data))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # How long a packed file is, shows when it is unpacked: up to the limit there has to be room for it.
    assert most < (5e8 if data.startswith(b"\x1f\x8b") else 5e6)


@pytest.mark.parametrize(("data", "reason"), [case for case in HOSTILE if case[0] != as_bytes(CUBE)])
def test_a_hostile_file_of_many_images_is_a_source_error(tmp_path, data, reason):
    (tmp_path / "x.fits").write_bytes(data)
    with pytest.raises(SourceError, match=r"x.fits' (cannot be opened as a FITS file|is no set of images): "):
        open_source(tmp_path / "x.fits")


def test_any_damaged_byte_is_a_read_error_or_nothing(tmp_path):
    path = write(tmp_path / "many.fits", CUBE[0], compressed(CUBE[1]), CUBE[:3])
    data, rng, outcomes = path.read_bytes(), np.random.default_rng(0), set()
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 20):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            source = open_source(path)
        except SourceError:
            outcomes.add("refused")
            continue
        outcomes |= {type(image) for _, image in source.read_many(range(len(source)))}
        source.position(0)
    assert outcomes == {"refused", np.ndarray, ImageReadError}


def test_ids_are_the_names_of_the_extensions_where_each_has_one_of_its_own(tmp_path):
    named = [fits.ImageHDU(CUBE[i], name=name) for i, name in enumerate("BA")]
    assert list(open_source(write(tmp_path / "1.fits", *named)).ids) == ["B", "A"]
    assert list(open_source(write(tmp_path / "2.fits", *named, CUBE[3])).ids) == ["1", "2", "3"]
    assert list(open_source(write(tmp_path / "3.fits", *named, named[0])).ids) == ["1", "2", "3"]
    assert list(open_source(write(tmp_path / "4.fits", *named, primary=CUBE[4])).ids) == ["0", "1", "2"]


def test_a_name_that_is_no_text_is_no_name(tmp_path):
    path = write(tmp_path / "1.fits", fits.ImageHDU(CUBE[0], name="ODD"), fits.ImageHDU(CUBE[1], name="B"))
    path.write_bytes(path.read_bytes().replace(b"'ODD ", b"'\xff\xfe< "))
    source = open_source(path)
    assert list(source.ids) == ["1", "2"]
    np.testing.assert_array_equal(source.read(0)[..., 0], CUBE[0])


def test_extensions_may_have_sizes_and_channels_of_their_own(tmp_path):
    source = open_source(write(tmp_path / "many.fits", CUBE[0], CUBE[:3], CUBE[1, :10]))
    assert [source.read(i).shape for i in range(3)] == [(24, 30, 1), (24, 30, 3), (10, 30, 1)]
    assert source.channels == 3
    assert open_source(write(tmp_path / "2.fits", CUBE[:5], CUBE[5:10])).channels == 5


@pytest.mark.parametrize(
    ("images", "hdu", "message"),
    [
        ([CUBE[0]], None, r"HDU 1 has shape \(24, 30\), a single image. Open the folder that holds the file"),
        ([CUBE[:1]], None, "a single image"),
        (
            [CUBE[:5]],
            None,
            r"may be 5 images, or one with 5 channels. Say hdu=1 for the",
        ),
        ([RNG.normal(size=(24, 30, 3))], None, "may be 24 images, or one with 3 channels"),
        (
            [CUBE, CUBE],
            None,
            r"there are others. Say which one has the images, hdu=...; there are 1 '' ",
        ),
        ([CUBE.reshape(2, 2, 10, 24, 30)], None, r"Allowed are \(N, H, W\), \(N, C, H, W\)"),
        ([], None, "no HDU of it has an image, at most tables"),
        ([CUBE, CUBE], 7, r"hdu=7 is 0 of its HDUs. Name one of 1 '' \(40"),
        ([CUBE, CUBE], "SCI", "hdu='SCI' is 0 of its HDUs"),
        ([CUBE[0], CUBE], 1, "a single image"),
    ],
)
def test_a_file_that_is_not_clear_says_what_to_do(tmp_path, images, hdu, message):
    with pytest.raises(SourceError, match=message):
        open_source(write(tmp_path / "x.fits", *images), hdu=hdu)


@pytest.mark.parametrize("hdu", [2, "sci", "SCI"])
def test_the_hdu_of_the_cube_is_chosen_by_number_or_name(tmp_path, hdu):
    path = write(
        tmp_path / "x.fits", CUBE, fits.ImageHDU(CUBE[:5] + 1, name="SCI"), fits.ImageHDU(CUBE, name="ERR")
    )
    source = open_source(path, hdu=hdu)
    assert len(source) == 5
    np.testing.assert_array_equal(source.read(4)[..., 0], CUBE[4] + 1)
    again = source_from_spec(json.loads(json.dumps(source.spec())))
    assert again.fingerprint() == source.fingerprint()
    assert again.spec() == source.spec()


@pytest.mark.parametrize("extra", [b"", bytes(2880), b"special records" * 300])
def test_what_comes_after_the_last_hdu_is_left_alone(tmp_path, extra):
    path = write(tmp_path / "cube.fits", CUBE)
    data = path.read_bytes()
    with path.open("rb") as file:
        (cube,) = hdus.image_hdus(file)
    path.write_bytes(data + extra)
    assert len(open_source(path)) == 40
    path.write_bytes(data[: cube.offset + cube.n_bytes])  # padding is often forgotten
    np.testing.assert_array_equal(open_source(path).read(39)[..., 0], CUBE[39])


def test_a_cube_that_is_cut_off_is_refused(tmp_path):
    path = write(tmp_path / "cube.fits", CUBE)
    path.write_bytes(path.read_bytes()[:-9999])
    with pytest.raises(
        SourceError, match=r"cannot be opened as a FITS file: it is cut off: the pixels of HDU 1"
    ):
        open_source(path)


@pytest.mark.parametrize("change", ["gone", "cut off", "replaced"])
def test_a_file_that_changes_while_it_is_open_is_an_image_read_error(tmp_path, change):
    path = write(tmp_path / "cube.fits", CUBE)
    source = open_source(path)
    if change == "gone":
        path.unlink()
    elif change == "cut off":
        path.write_bytes(path.read_bytes()[:-9999])
    else:
        write(path, CUBE, CUBE, overwrite=True)
    reason = "the file is gone" if change == "gone" else "the file has changed since it was opened"
    with pytest.raises(ImageReadError, match=reason):
        source.read(3)
    found = dict(source.read_many([3, 0]))
    assert sorted(found) == [0, 3]
    assert all(isinstance(error, ImageReadError) and reason in error.reason for error in found.values())
    assert source.position(0) is None


def test_a_volume_that_fails_while_many_are_read_is_an_error_for_each_image(tmp_path, monkeypatch):
    source = open_source(write(tmp_path / "cube.fits", CUBE))
    original, done = module.read_hdu, []

    def fail(file, hdu):
        done.append(hdu)
        if len(done) > 2:
            raise OSError(116, "Stale file handle")
        return original(file, hdu)

    monkeypatch.setattr(module, "read_hdu", fail)
    found = [image for _, image in source.read_many(range(5))]
    assert [isinstance(image, np.ndarray) for image in found] == [True, True, False, False, False]
    assert found[4].reason == "Stale file handle"


def test_each_tile_of_a_compressed_cube_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 5 * 24 * 30 * 4)
    source = open_source(write(tmp_path / "cube.fits", compressed(CUBE, tile_shape=(4, 24, 30))))
    assert source.chunk == 4
    asked = []
    original = fits.hdu.compressed.section.CompImageSection.__getitem__

    def note(self, index):
        asked.append((index.start, index.stop))
        return original(self, index)

    monkeypatch.setattr(fits.hdu.compressed.section.CompImageSection, "__getitem__", note)
    for i, image in source.read_many(np.random.default_rng(1).permutation(40)):
        assert isinstance(image, np.ndarray), image
        np.testing.assert_array_equal(image[..., 0], CUBE[i])
    assert asked == [(i, i + 4) for i in range(0, 40, 4)]


def test_tiles_that_do_not_fit_into_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 24 * 30 * 4 * 39)
    path = write(tmp_path / "cube.fits", compressed(CUBE, tile_shape=(40, 24, 30)))
    with pytest.raises(
        SourceError, match=r"tiles of shape \(40, 24, 30\) do not fit.*tile_shape=\(1, H, W\)"
    ):
        open_source(path)


def test_a_packed_file_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_UNPACKED", 10_000)
    (tmp_path / "cube.fits.gz").write_bytes(gzip.compress(as_bytes(CUBE)))
    with pytest.raises(SourceError, match="Unpack it with gunzip"):
        open_source(tmp_path / "cube.fits.gz")


def test_it_is_pickled_by_its_path(tmp_path):
    assert len(pickle.dumps(open_source(write(tmp_path / "cube.fits", CUBE)))) < 1000


def test_the_fingerprint_changes_with_number_type_scale_and_names(tmp_path):
    files = [
        [CUBE],
        [CUBE[:39]],
        [CUBE.astype(np.uint16)],
        [CUBE.astype(np.int16)],
        [CUBE[0], CUBE[1]],
        [fits.ImageHDU(CUBE[i], name=name) for i, name in enumerate("AB")],
        [fits.ImageHDU(CUBE[i], name=name) for i, name in enumerate("BA")],
    ]
    found = {open_source(write(tmp_path / f"{i}.fits", *f)).fingerprint() for i, f in enumerate(files)}
    assert len(found) == len(files)


def test_ten_thousand_extensions_are_opened_in_seconds(tmp_path):
    one = as_bytes(CUBE[0])[2880:]
    (tmp_path / "many.fits").write_bytes(as_bytes() + one * 2000)
    source = open_source(tmp_path / "many.fits")
    assert source.ids[-1] == "2000"
    np.testing.assert_array_equal(source.read(1999)[..., 0], CUBE[0])


# The sky.


def position(image=None, make=fits.ImageHDU, **changes):
    found = cards(**{**TAN, **changes})
    with io.BytesIO(
        as_bytes(make(np.zeros((8, 9), np.int16) if image is None else image, header=found))
    ) as file:
        return find_position(file, next(hdus.image_hdus(file)))


@pytest.mark.parametrize("make", [fits.ImageHDU, fits.CompImageHDU])
def test_the_position_is_that_of_the_centre(make):
    assert position(make=make) == pytest.approx((150, 2), abs=1e-9)
    ra, dec = position(make=make, CRPIX1=1.0, CRPIX2=1.0)
    assert ra == pytest.approx(150 - 4e-4 / np.cos(np.radians(2)), abs=1e-7)
    assert dec == pytest.approx(2 + 3.5e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"MJD_OBS": 58000.0}, (150, 2)),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 2.0, "CRVAL2": 150.0}, (150, 2)),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 0.0, "CRVAL2": 90.0}, (192.8595, 27.1283)),
        ({"CRVAL1": 370.0}, (10, 2)),
        ({"A_ORDER": 2, "A_2_0": 1e-9, "B_ORDER": 2, "B_2_0": 1e-9}, (150, 2)),
    ],
)
def test_every_frame_becomes_icrs_without_a_word(changes, expected, capfd):
    assert position(**changes) == pytest.approx(expected, abs=1e-3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CTYPE1": "RA---XYZ"},
        {"CTYPE1": "LINEAR"},
        {"CDELT1": 0.0},
        {"WCSAXES": 30_000},
        {"CRVAL1": "abc"},
    ],
)
def test_without_a_celestial_wcs_that_makes_sense_there_is_no_position(changes):
    assert position(**changes) is None


def test_images_of_a_cube_and_of_bands_have_the_position_of_their_hdu(tmp_path):
    cube = fits.ImageHDU(np.zeros((40, 8, 9), np.float32), header=cards(**TAN))
    assert open_source(write(tmp_path / "cube.fits", cube)).position(7) == pytest.approx((150, 2))
    bands = fits.ImageHDU(np.zeros((3, 8, 9), np.float32), header=cards(**TAN))
    source = open_source(write(tmp_path / "many.fits", bands, np.zeros((8, 9))))
    assert source.position(0) == pytest.approx((150, 2))
    assert source.position(1) is None


def test_a_folder_gives_the_position_of_its_fits_files(tmp_path):
    image = fits.ImageHDU(np.zeros((8, 9), np.float32), header=cards(**TAN))
    write(tmp_path / "a.fits", image)
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress(as_bytes(image)))
    (tmp_path / "c.fits").write_bytes(b"SIMPLE  = nonsense")
    np.save(tmp_path / "d.npy", np.zeros((8, 9)))
    source = open_source(tmp_path)
    (tmp_path / "e.fits").touch()
    assert [source.position(i) for i in range(2)] == [pytest.approx((150, 2))] * 2
    assert [source.position(i) for i in range(2, 4)] == [None, None]
    (tmp_path / "a.fits").unlink()
    assert source.position(0) is None


# Folders.


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        ({"a.fits": CUBE[0]}, 3),
        ({"a.fits": CUBE[:5], "b.fits": CUBE[0]}, 5),
        ({"a.npy": CUBE[:2]}, 2),
        ({"a.fits": CUBE[:4]}, 4),
        ({"a.fits": CUBE[:4].astype(np.uint16)}, 3),
        ({"a.fits": CUBE, "b.fits": CUBE[:5]}, 5),
        ({"a.fits": CUBE}, 3),
        ({"a.fits": CUBE[:5], "b.png": None}, 3),
    ],
)
def test_a_folder_has_the_channels_of_its_first_readable_file(tmp_path, images, channels):
    for name, image in images.items():
        if name.endswith(".png"):
            Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / name)
        elif name.endswith(".npy"):
            np.save(tmp_path / name, image)
        else:
            write(tmp_path / name, image)
    assert FolderSource(tmp_path).channels == channels


def test_a_mixed_folder_is_prepared_as_one(tmp_path):
    write(tmp_path / "a.fits", CUBE[0])
    write(tmp_path / "b.fits", CUBE[:3])
    np.save(tmp_path / "c.npy", CUBE[1])
    Image.fromarray(CUBE[4].astype(np.uint8)).save(tmp_path / "d.png")
    source = open_source(tmp_path)
    prepare = Preprocess(size=16, channels=source.channels)
    assert [prepare(source.read(i)).shape for i in range(4)] == [(16, 16, 3)] * 4


@pytest.fixture
def without_astropy(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "astropy"]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_astropy")
def test_without_astropy_opening_says_what_to_type(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"")
    for what in (tmp_path, tmp_path / "a.fits"):
        with pytest.raises(MissingExtraError, match=r"need astropy.*pip install 'amatch-widgets\[fits\]'"):
            open_source(what)


@pytest.mark.usefixtures("without_astropy")
def test_without_astropy_all_else_is_read_as_before(tmp_path):
    Image.fromarray(CUBE[4].astype(np.uint8)).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", CUBE[1])
    (tmp_path / "c.png").write_bytes(b"SIMPLE  =  a FITS file by another name")
    source = open_source(tmp_path)
    assert [source.read(i).shape for i in range(2)] == [(24, 30, 1)] * 2
    with pytest.raises(ImageReadError, match=r"'c.png' cannot be read: FITS files need astropy.*pip install"):
        source.read(2)


def test_a_single_fits_file_is_no_source_by_itself(tmp_path):
    assert isinstance(open_source(write(tmp_path / "cube.fit", CUBE)), FitsSource)
    with pytest.raises(
        SourceError, match=r"x.fits' is no set of images: HDU 0.*a single image. Open the folder"
    ):
        open_source(write(tmp_path / "x.fits", primary=CUBE[0]))
