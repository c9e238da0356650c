"""Where on the sky the images of FITS files lie."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from amatch_widgets.images.hdu import import_fits, read_header

if TYPE_CHECKING:
    from amatch_widgets.images.hdu import ImageHdu

__all__ = ["find_position"]

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
    import_fits()
    from astropy.wcs import WCS  # noqa: PLC0415 - an extra, and slow to import

    header = read_header(file, hdu.start, is_first=hdu.number == 0)
    # wcslib meets hostile headers with any exception, and a position is no more than a help.
    try:
        header["NAXIS"] = len(hdu.shape)  # a compressed image is a table in the file
        header.update({f"NAXIS{k + 1}": n for k, n in enumerate(reversed(hdu.shape))})
        if header.get("WCSAXES", 0) > _MAX_AXES or len(hdu.shape) > _MAX_AXES:
            return None
        if "A_ORDER" in header:  # astropy uses it without the suffix, too, but writes half a page about it
            for key in ("CTYPE1", "CTYPE2"):
                header[key] = str(header[key]).removesuffix("-SIP") + "-SIP"
        wcs = WCS(header, fix=False)
        wcs.wcs.fix()  # without a warning for each trifle
        axes = sorted((wcs.wcs.lng, wcs.wcs.lat))
        if axes[0] < 0:
            return None
        centre = [(tuple(reversed(hdu.shape))[axis] - 1) / 2 for axis in axes]
        sky = wcs.celestial.pixel_to_world(*centre).icrs
        return float(sky.ra.deg), float(sky.dec.deg)
    except Exception:  # noqa: BLE001 - as said above
        return None
