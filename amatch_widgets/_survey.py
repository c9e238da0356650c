"""Draw the tiles of a made-up survey: galaxies of the synthetic sky in four bands, each on its own pixels.

All is drawn on the fine pixels of VIS. The near infrared sums 3 x 3 of them, blurred a little more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets._sky import NOISE, light_of
from amatch_widgets.images.table import import_astropy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = ["BANDS", "PER_TILE", "tile_of", "write_tile"]

PIXEL = 0.1 / 3600  # of VIS, degrees
FACTOR = 3  # pixels of VIS along a pixel of the near infrared
FIELD = 64  # pixels of VIS along an image of `draw`, 6.4 arcsec
STAMP = 112  # drawn around an object: more than the field, so that its light ends before the stamp does
TAPER = 12  # pixels along which it fades out there
CELL, ROW = 80, 12  # pixels from object to object; objects in a row
JITTER = 8  # pixels that an object may be off the middle of its cell
BORDER = 32  # pixels around all cells
SIDE = ROW * CELL + 2 * BORDER
NIR_BORDER = 20  # the near infrared begins a little further in; what is left are whole pixels of it
NIR_SIDE = (SIDE - 2 * NIR_BORDER) // FACTOR
PER_TILE = ROW * ROW
HOLE = slice((BORDER - NIR_BORDER) // FACTOR, (BORDER + CELL - NIR_BORDER) // FACTOR + 1)

FLUX = 70.0  # nJy in a pixel of VIS for a surface brightness of 1: galaxies of magnitude 19 to 23
ZEROPOINT = 31.4  # AB magnitude of 1 nJy
ORIGIN = (150.0, 2.0)  # RA and Dec of the middle of the first tile, degrees
PITCH = 0.03  # from tile to tile, degrees: they do not overlap
TILES_IN_A_ROW = 8
DEAD_COLUMNS = 3

_PLACES, _NOISE = 2**40 + 2, 2**40 + 3  # streams of random numbers, beside those of demo.py


@dataclass(frozen=True, slots=True)
class _Band:
    mix: tuple[float, float, float]  # of red, green and blue light
    blur: float  # sigma of the PSF, pixels of VIS
    is_fine: bool = False


BANDS = {
    "VIS": _Band((0.2, 0.4, 0.4), 1.1, is_fine=True),
    "Y": _Band((0.6, 0.4, 0.0), 1.8),
    "J": _Band((1.0, 0.2, -0.1), 1.9),
    "H": _Band((1.4, 0.0, -0.3), 2.0),  # redder than red: no object is blue enough to become negative
}


def tile_of(number: int) -> str:
    """Return the name of a tile by its number, counted from 0."""
    return f"T{number:02d}"


def write_tile(folder: Path, files: dict[str, str], number: int, kinds: Sequence[str], seed: int) -> Any:
    """Write one tile in all bands.

    Parameters
    ----------
    folder : Path
        Where to.
    files : dict of str to str
        File name for each of `BANDS`, with ``{tile}`` in the place of the tile's name.
    number : int, >= 0
        Of the tile.
    kinds : sequence of str
        What its objects are, at most `PER_TILE`; the first has no data in the near infrared.
    seed : int, >= 0
        Of the survey.

    Returns
    -------
    dict of str to ndarray, each of shape (len(kinds),)
        The columns ra and dec (ICRS, degrees) and mag_vis (AB, in a square of 6.4 arcsec) of the objects.
    """
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - import amatch_widgets must be quick

    fits = import_astropy("astropy.io.fits", "Made-up surveys")
    corner = _corners(len(kinds), np.random.default_rng([seed, _PLACES, number]))
    light, flux = _drawn(kinds, corner, seed, first=number * PER_TILE)
    for k, (name, band) in enumerate(BANDS.items()):
        rng = np.random.default_rng([seed, _NOISE, number, k])
        pixels = _observed(gaussian_filter(light[k], band.blur), band, rng)
        hdu = fits.PrimaryHDU(pixels, _header(fits, number, band))
        hdu.header["FILTER"], hdu.header["BUNIT"] = name, "nJy"
        hdu.writeto(folder / files[name].format(tile=tile_of(number)), overwrite=True)
    middle = corner + (STAMP - 1) / 2
    wcs = import_astropy("astropy.wcs", "Made-up surveys").WCS(_header(fits, number, BANDS["VIS"]))
    ra, dec = wcs.wcs_pix2world(middle[:, 0], middle[:, 1], 0)
    return {"ra": ra, "dec": dec, "mag_vis": ZEROPOINT - 2.5 * np.log10(flux)}


def _corners(n: int, rng: Generator) -> NDArray[np.int64]:
    """Place stamps on a tile, shape (n, 2): first column and row of each, pixels of VIS from 0."""
    cells = np.stack([np.arange(n) % ROW, np.arange(n) // ROW], axis=1)
    jitter = rng.integers(-JITTER, JITTER + 1, (n, 2))
    return BORDER + cells * CELL + (CELL - STAMP) // 2 + jitter


def _drawn(
    kinds: Sequence[str], corner: NDArray[np.int64], seed: int, first: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Draw all objects: surface brightness (bands, SIDE, SIDE), and the flux of each in VIS, nJy."""
    light = np.zeros((len(BANDS), SIDE, SIDE), np.float32)
    mix = np.array([band.mix for band in BANDS.values()], np.float32)
    fade = np.clip((np.arange(STAMP // 2) + 0.5) / TAPER, 0, 1)
    fade = (np.concatenate([fade, fade[::-1]]) ** 2).astype(np.float32)
    flux = np.zeros(len(kinds))
    inner = slice((STAMP - FIELD) // 2, (STAMP + FIELD) // 2)
    for k, kind in enumerate(kinds):
        colours = light_of(kind, np.random.default_rng([seed, first + k]), STAMP, STAMP / FIELD)
        stamp = np.einsum("bc,cyx->byx", mix, colours * fade * fade[:, None])
        x, y = corner[k]
        light[:, y : y + STAMP, x : x + STAMP] += stamp
        flux[k] = FLUX * stamp[0, inner, inner].sum(dtype=np.float64)
    return light, flux


def _observed(light: NDArray[np.float32], band: _Band, rng: Generator) -> NDArray[np.float32]:
    """Bring blurred light to the pixels of a band, with noise and gaps; nJy."""
    area = 1
    if not band.is_fine:
        area = FACTOR**2
        inner = slice(NIR_BORDER, NIR_BORDER + NIR_SIDE * FACTOR)
        light = light[inner, inner].reshape(NIR_SIDE, FACTOR, NIR_SIDE, FACTOR).mean(axis=(1, 3))
    # The noise of a pixel that sums `area` others is larger by the root of it.
    sigma = np.float32(NOISE / math.sqrt(area)) * np.sqrt(1 + 4 * light)
    pixels: NDArray[np.float32] = np.float32(FLUX * area) * (
        light + sigma * rng.standard_normal(light.shape, np.float32)
    )
    pixels[:, rng.integers(0, len(pixels), DEAD_COLUMNS)] = np.nan
    if not band.is_fine:
        pixels[HOLE, HOLE] = np.nan
    return pixels


def _header(fits: Any, number: int, band: _Band) -> Any:
    """Write the WCS of a tile, TAN around its middle, north up and east to the left."""
    row, column = divmod(number, TILES_IN_A_ROW)
    dec = ORIGIN[1] + PITCH * row
    ra = ORIGIN[0] + PITCH * column / math.cos(math.radians(dec))
    middle, pixel = (SIDE + 1) / 2, PIXEL
    if not band.is_fine:
        middle, pixel = (NIR_SIDE + 1) / 2, PIXEL * FACTOR
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": middle,
        "CRPIX2": middle,
        "CD1_1": -pixel,
        "CD2_2": pixel,
        "RADESYS": "ICRS",
    }
    return fits.Header(list(cards.items()))
