"""Where on the sky the images of FITS files lie."""

from __future__ import annotations

import importlib
import threading
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.images.hdu import import_fits, read_header

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from amatch_widgets.images.hdu import ImageHdu

__all__ = ["Projection", "find_position", "find_projection"]

_MAX_AXES = 9  # wcslib makes a matrix of them


def find_position(file: IO[bytes], hdu: ImageHdu) -> tuple[float, float] | None:
    """Find where on the sky the centre of an image is; only headers are read.

    Parameters
    ----------
    file : binary file that can seek
    hdu : ImageHdu
        Of this file.

    Returns
    -------
    (float, float) or None
        Right ascension and declination, ICRS, degrees; None without a celestial WCS that makes sense.
    """
    header = read_header(file, hdu.start, is_first=hdu.number == 0)
    # wcslib meets hostile headers with any exception, and a position is no more than a help.
    try:
        wcs, axes = _celestial(header, hdu.shape)
        centre = [(tuple(reversed(hdu.shape))[axis] - 1) / 2 for axis in axes]
        sky = wcs.pixel_to_world(*centre).icrs
        return float(sky.ra.deg), float(sky.dec.deg)
    except Exception:  # noqa: BLE001 - as said above
        return None


def find_projection(file: IO[bytes], hdu: ImageHdu) -> Projection | None:
    """Find the way between the pixels of an image and the sky; only headers are read.

    Parameters
    ----------
    file : binary file that can seek
    hdu : ImageHdu
        Of this file.

    Returns
    -------
    Projection or None
        None without a celestial WCS of the last two axes that makes sense.
    """
    header = read_header(file, hdu.start, is_first=hdu.number == 0)
    # As above: who wants pixels alone needs none of it.
    try:
        wcs, axes = _celestial(header, hdu.shape)
        wcs.wcs.set()
        frame = _module("astropy.wcs.utils").wcs_to_celestial_frame(wcs)
    except Exception:  # noqa: BLE001 - as said above
        return None
    return Projection(wcs, None if frame.name == "icrs" else frame) if axes == [0, 1] else None


class Projection:
    """The celestial WCS of an image; `find_projection` makes it.

    Thread safety: ``_lock`` guards the WCS, which astropy lets one thread use at a time.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Of two axes, both celestial.
    frame : frame of astropy.coordinates, or None
        Of its positions; None is ICRS.
    """

    def __init__(self, wcs: Any, frame: Any) -> None:
        self._wcs, self._frame = wcs, frame
        self._lock = threading.Lock()

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Say where on the sky pixels lie.

        Parameters
        ----------
        x, y : array of float64
            Counted from 0: (0, 0) is the centre of the first pixel.

        Returns
        -------
        ra, dec : ndarray of float64, of the same shape
            ICRS, degrees; NaN where the projection has no sky.
        """
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        with self._lock:
            world = self._wcs.all_pix2world(x.ravel(), y.ravel(), 0)
        ra, dec = world[self._wcs.wcs.lng], world[self._wcs.wcs.lat]
        if self._frame is not None:
            ra, dec = _transformed(ra, dec, self._frame, None)
        return ra.reshape(x.shape), dec.reshape(x.shape)

    def to_pixels(self, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Say on which pixels places on the sky lie: the inverse of `to_sky`."""
        lon, lat = np.asarray(ra, np.float64), np.asarray(dec, np.float64)
        shape = lon.shape
        if self._frame is not None:
            lon, lat = _transformed(lon, lat, None, self._frame)
        world = [lon.ravel(), lat.ravel()] if self._wcs.wcs.lng == 0 else [lat.ravel(), lon.ravel()]
        with self._lock:
            if self._wcs.has_distortion:  # found step by step; what lies far away need not converge
                x, y = self._wcs.all_world2pix(*world, 0, quiet=True)
            else:
                x, y = self._wcs.wcs_world2pix(*world, 0)
        return x.reshape(shape), y.reshape(shape)


def _celestial(header: Any, shape: tuple[int, ...]) -> tuple[Any, list[int]]:
    """Return the celestial WCS of an image, and which axes it is of, 0 the fastest; raise anything."""
    import_fits()
    header["NAXIS"] = len(shape)  # a compressed image is a table in the file
    header.update({f"NAXIS{k + 1}": n for k, n in enumerate(reversed(shape))})
    if header.get("WCSAXES", 0) > _MAX_AXES or len(shape) > _MAX_AXES:
        raise ValueError("too many axes")
    if "A_ORDER" in header:  # astropy uses it without the suffix, too, but writes half a page about it
        for key in ("CTYPE1", "CTYPE2"):
            header[key] = str(header[key]).removesuffix("-SIP") + "-SIP"
    wcs = _module("astropy.wcs").WCS(header, fix=False)
    wcs.wcs.fix()  # without a warning for each trifle
    axes = sorted((wcs.wcs.lng, wcs.wcs.lat))
    if axes[0] < 0:
        raise ValueError("no celestial axes")
    return wcs.celestial, axes


def _module(name: str) -> Any:
    return importlib.import_module(name)  # of an extra, and slow to import


def _transformed(lon: Any, lat: Any, source: Any, target: Any) -> tuple[Any, Any]:
    """Change the frame of positions in degrees; None is ICRS."""
    coordinates = _module("astropy.coordinates")
    icrs = coordinates.ICRS()  # a frame without positions is false
    sky = coordinates.SkyCoord(lon, lat, unit="deg", frame=icrs if source is None else source)
    moved = sky.transform_to(icrs if target is None else target).spherical
    return moved.lon.deg, moved.lat.deg
