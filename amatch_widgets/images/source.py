"""What a set of images is, and the function that opens anything as one."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.catalogue import CatalogueSource, catalogue_from_spec
from amatch_widgets.images.dataset import DatasetSource, is_dataset
from amatch_widgets.images.files import SUFFIXES, FolderSource
from amatch_widgets.images.fits import FitsSource
from amatch_widgets.images.hdf5 import HDF5_SUFFIXES, HDF5Source, is_hdf5
from amatch_widgets.images.hdu import FITS_SUFFIXES
from amatch_widgets.images.host import is_url
from amatch_widgets.images.npy import NpySource
from amatch_widgets.images.packed import IdIndex
from amatch_widgets.images.parquet import ParquetSource
from amatch_widgets.images.place import as_place, place_of_spec
from amatch_widgets.images.remote import Remote, why_unreachable
from amatch_widgets.images.rowgroups import parquet_files
from amatch_widgets.images.table import TABLES
from amatch_widgets.images.zarr_store import ZarrSource, find_stores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "ArraySource",
    "CatalogueSource",
    "DatasetSource",
    "FitsSource",
    "FolderSource",
    "HDF5Source",
    "ImageSource",
    "NpySource",
    "ParquetSource",
    "ZarrSource",
    "index_of",
    "open_source",
    "positions_of",
    "read_many",
    "source_from_spec",
]

ALLOWED = (
    "a folder of JPEG, PNG, TIFF, FITS or .npy files, an HDF5 file, a Zarr store or a folder of them, a "
    ".parquet file or a folder of them, a FITS file of many images, a .npy file, a NumPy array (N, H, W) or "
    "(N, H, W, C), or a dataset that gives images by number, as torch's"
)
_LOCAL = ("file://", "local://")
_PARQUET = ("column", "ids_from", "shape")
_STORED = ("dataset", "axes", "ids_from")
_OF_PLACES = {
    "folder": ("mask",),
    "npy": ("ids",),
    "hdf5": _STORED,
    "zarr": _STORED,
    "parquet": _PARQUET,
    "fits": ("hdu", "mask"),
}


@runtime_checkable
class ImageSource(Protocol):
    """A set of images with stable ids that can be read one by one, from several threads at once.

    A source may have more than this: ``read_many(indices, *, min_side)`` where many together are
    read faster than one by one, see the function `read_many`; ``bands``, the names of its channels;
    ``position(index)``, the right ascension and declination of an image, ICRS, degrees, or None; and
    ``describe(index)``, a mapping of short names to texts that a person wants to see beside the image, which
    is asked for when the image is looked at closely, one by one, and should take no longer than reading it.
    Its ``ids`` may have ``position(image_id)``, which returns an index or None, in place of a dict of
    all ids in memory.
    """

    @property
    def name(self) -> str:
        """Short name for people, e.g. ``"cutouts"``."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the images as the model sees them: 3 for folders of colour images, C for arrays."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """Stable unique strings, one per image, in the order of the indices."""
        ...

    def __len__(self) -> int:
        """Count the images."""
        ...

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image.

        Parameters
        ----------
        index : int, in [0, len)
            Which image.
        min_side : int, optional
            A hint: the smaller side may be reduced while decoding, to no less than this, in pixels.

        Returns
        -------
        ndarray of uint8, uint16 or float32, shape (H, W, C)
            The pixels in the unit of the source. C may differ from `channels` (grey or RGBA files).

        Raises
        ------
        ImageReadError
            The image cannot be read; never anything else.
        IndexError
            There is no such index.
        """
        ...

    def fingerprint(self) -> str:
        """Return a short hex string that changes when the set of images changes; cheap."""
        ...

    def spec(self) -> dict[str, Any]:
        """Return what is needed to open the source again, JSON-able."""
        ...


def open_source(
    what: object,
    *,
    ids: Iterable[str] | None = None,
    ids_from: str | None = None,
    dataset: str | None = None,
    axes: str | None = None,
    column: str | None = None,
    shape: Iterable[int] | None = None,
    hdu: int | str | None = None,
    mask: int | str | None = None,
    name: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache_gb: float | None = None,
) -> ImageSource:
    """Open a set of images; of a table of objects, and the tiles they lie on, make a `CatalogueSource`.

    Parameters
    ----------
    what : path, URL, ndarray, torch Dataset or ImageSource
        A folder (recursive; JPEG, PNG, TIFF, FITS, ``.npy``), an HDF5 file, a Zarr store (a folder, or in a
        zip file) or a folder of such stores, a ``.parquet`` file or a folder of them, a FITS file with a cube
        or many images, a ``.npy`` file, an array of shape (N, H, W) or (N, H, W, C), a torch ``Dataset`` or
        another object that gives images by number (see `DatasetSource`), or any object that is an
        `ImageSource`, which is returned as it is. A folder with Zarr stores in it is one of stores; one with
        images is one of images, whatever else is in it, unless `column`, `ids_from` or `shape` is given.
        Behind a URL that fsspec knows (``s3://``, ``https://``, ``gs://``, ``memory://``, ...) lies the same;
        it is read through a cache on disk.
    ids : sequence of str, optional
        For arrays, ``.npy`` and datasets alone: one unique id per image.
    ids_from : str, optional
        For HDF5, Zarr and Parquet: the dataset or column of the ids. Default what fits. For a torch Dataset
        "item": the second entry of each item.
    dataset, axes : str, optional
        For HDF5 and Zarr: which dataset holds the images, and the order of its axes (``"NHWC"``, ``"NCHW"``,
        ``"NHW"``); see `HDF5Source` and `ZarrSource`.
    column : str, optional
        For Parquet: the column of the images.
    shape : tuple of int, optional
        For Parquet: the shape of one image, where its pixels are a list of numbers.
    hdu : int or str, optional
        For FITS: number or EXTNAME of the HDU with the cube; see `FitsSource`.
    mask : int or str, optional
        For a FITS file, and a folder of them: number or EXTNAME of the HDU that tells which pixels are bad,
        those where it is not 0; see `FitsSource`.
    name : str, optional
        Short name for people; default the name of the folder or file.
    storage_options : mapping of str to object, optional
        For URLs: options of fsspec, such as ``{"anon": True}``, or ``{"key": ..., "secret": ...,
        "endpoint_url": ...}``. Credentials are never written down; a session that needs them is opened again
        with `source`.
    cache_gb : float, optional
        For URLs: what may be kept on this disk of all that was read from elsewhere, in GB; default 4. It is
        in the user's cache folder, or the one that the environment variable AMATCH_CACHE names. 0 writes
        nothing.

    Returns
    -------
    ImageSource
        The images.

    Raises
    ------
    SourceError
        There is nothing to open, or an option does not apply; the message says what was found and what to
        do.
    MissingExtraError
        A library is missing; the message is the line to type.
    """
    given = {
        "ids": ids,
        "ids_from": ids_from,
        "dataset": dataset,
        "axes": axes,
        "column": column,
        "shape": shape,
        "hdu": hdu,
        "mask": mask,
        "name": name,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if is_url(what) or isinstance(what, Remote):
        return _open_url(what, options, storage_options, cache_gb)
    for option, value in (("storage_options", storage_options), ("cache_gb", cache_gb)):
        if value is not None:
            raise SourceError(f"{option}= is for URLs alone, such as 's3://bucket/folder'. Leave it out.")
    if isinstance(what, np.ndarray):
        return ArraySource(what, **{"name": "array", **_only(options, "an array", "ids", "name")})
    if isinstance(what, (str, os.PathLike)):
        return _open_path(Path(what).expanduser(), options)
    if isinstance(what, ImageSource):
        if options:
            raise SourceError(
                f"{what!r} is open already: {' and '.join(options)} cannot be changed. Leave them out."
            )
        return what
    if is_dataset(what):
        return DatasetSource(what, **_only(options, "a dataset", "ids", "ids_from", "name"))
    raise SourceError(
        f"Cannot take images from an object of type {type(what).__name__!r}. Pass {ALLOWED}"
        + ("; join images of equal size with numpy.stack." if isinstance(what, (list, tuple)) else ".")
    )


def source_from_spec(spec: Mapping[str, Any]) -> ImageSource:
    """Open a source again from what its `spec` method returned.

    Raises
    ------
    SourceError
        The spec is of an array in memory, of an unknown kind, or what it names is gone.
    """
    kind = spec.get("kind")
    if kind in _OF_PLACES:
        return _reopened(spec, {key: spec.get(key) for key in _OF_PLACES[kind]})
    if kind == "catalogue":
        return catalogue_from_spec(spec)
    if kind in {"joined", "subset"}:
        from amatch_widgets.images.joined import derived_from_spec  # noqa: PLC0415 - it needs this module

        return derived_from_spec(spec)
    if kind in {"array", "dataset"}:
        what = "an array" if kind == "array" else "a dataset"
        raise SourceError(
            f"The images were {what} in memory, which is not kept. Pass the {kind} again as source=."
        )
    raise SourceError(
        f"Unknown kind of source {kind!r}. Known are 'folder', 'npy', 'hdf5', 'zarr', 'parquet', 'fits', "
        "'catalogue', 'joined', 'subset', 'array' and 'dataset'."
    )


def index_of(source: ImageSource) -> Mapping[str, int]:
    """Map each id of a source to its index; build it once and keep it."""
    return positions_of(source.ids)


def positions_of(ids: Sequence[str]) -> Mapping[str, int]:
    """Map ids to their positions: by themselves where they know them, else in a dict of all."""
    if hasattr(ids, "position"):
        return IdIndex(ids)
    return {image_id: i for i, image_id in enumerate(ids)}


def read_many(
    source: ImageSource, indices: Sequence[int], *, min_side: int | None = None
) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
    """Read images in the order that is best for the source.

    Parameters
    ----------
    source : ImageSource
    indices : sequence of int, each in [0, len)
        Different from each other.
    min_side : int, optional
        As for `ImageSource.read`.

    Yields
    ------
    int
        Each of the indices, once.
    ndarray of uint8, uint16 or float32, shape (H, W, C), or ImageReadError
        The image, or why it cannot be read.
    """
    if hasattr(source, "read_many"):
        yield from source.read_many(indices, min_side=min_side)
        return
    for index in indices:
        try:
            yield index, source.read(index, min_side=min_side)
        except ImageReadError as error:
            yield index, error


def _reopened(spec: Mapping[str, Any], options: dict[str, Any]) -> ImageSource:
    withheld = spec.get("withheld")
    try:
        return open_source(place_of_spec(spec), **options)
    except SourceError as exc:
        if not withheld:
            raise
        raise SourceError(
            f"{exc} It was opened with credentials or options ({', '.join(withheld)}), which are not written "
            "down. Give the images again: source=am.open_source(URL, storage_options={...})."
        ) from exc


def _open_url(
    what: Any, options: dict[str, Any], storage_options: Mapping[str, Any] | None, cache_gb: float | None
) -> ImageSource:
    """Open what is behind a URL."""
    if isinstance(what, str) and what.lower().startswith(_LOCAL):
        return open_source(Path(what.partition("://")[2]), **options)
    place = (
        what if isinstance(what, Remote) else Remote(what, storage_options=storage_options, cache_gb=cache_gb)
    )
    try:
        return _open_remote(place, options)
    except SourceError:  # some of which are an OSError, too
        raise
    except OSError as exc:
        raise why_unreachable(place, exc) from exc


def _open_remote(place: Remote, options: dict[str, Any]) -> ImageSource:
    suffix = place.suffix.lower()
    is_known = suffix in {*HDF5_SUFFIXES, ".npy", ".parquet", *SUFFIXES}
    if not is_known and find_stores(place):
        return ZarrSource(place, **_only(options, "Zarr", *_STORED, "name"))
    if not is_known and place.is_folder():
        return _open_folder(place, options)
    place.version()  # what is not there, or may not be read, is said before its kind is
    return _open_file(place, options)


def _open_path(path: Path, options: dict[str, Any]) -> ImageSource:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as exc:
        above = next((str(p) for p in path.absolute().parents if p.is_dir()), "none")
        raise SourceError(
            f"There is no file or folder {str(path)!r}; the path exists up to {above!r}. "
            f"Check the spelling. Allowed is {ALLOWED}."
            + " A URL is given as text, not as a Path."
            * (re.match(r"\w{2,}:/", str(path)) is not None)
        ) from exc
    except (OSError, ValueError) as exc:  # no permission, name too long, NUL in it
        reason = getattr(exc, "strerror", None) or exc
        raise SourceError(f"Cannot look at {str(path)!r}: {reason}. Allowed is {ALLOWED}.") from exc
    if find_stores(str(path)):
        return ZarrSource(path, **_only(options, "Zarr", *_STORED, "name"))
    if stat.S_ISDIR(mode):
        return _open_folder(path, options)
    return _open_file(path, options)


def _open_file(path: Path | Remote, options: dict[str, Any]) -> ImageSource:
    """Open what is in one file, by its ending or its first bytes."""
    if is_hdf5(as_place(path)):
        return HDF5Source(path, **_only(options, "HDF5", *_STORED, "name"))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return NpySource(path, **_only(options, "a .npy file", "ids", "name"))
    if suffix == ".parquet":
        return ParquetSource(path, **_only(options, "Parquet", *_PARQUET, "name"))
    if path.name.lower().endswith(FITS_SUFFIXES):
        return FitsSource(path, **_only(options, "FITS", "hdu", "mask", "name"))
    if suffix in SUFFIXES:
        raise SourceError(
            f"{str(path)!r} is a single image. Open the folder that holds it: {str(path.parent)!r}."
        )
    ending = f"of type {suffix!r}" if suffix else "without an ending"
    table = " A table of objects is opened with its tiles by am.CatalogueSource." if suffix in TABLES else ""
    raise SourceError(f"{str(path)!r} is a file {ending}. Allowed is {ALLOWED}.{table}")


def _open_folder(path: Path | Remote, options: dict[str, Any]) -> ImageSource:
    """Open a folder of images; without any, or where a column is asked for, one of Parquet files."""
    if "ids" in options:
        raise SourceError("The ids of a folder are its file names; ids= is for arrays. Leave it out.")
    if not options.keys() & _PARQUET:
        try:
            return FolderSource(path, **_only(options, "a folder", "name", "mask", *_PARQUET))
        except SourceError:
            # The images are looked for first: there may be millions, and beside them a catalogue.
            if not parquet_files(as_place(path)):
                raise
    return ParquetSource(path, **_only(options, "a folder of Parquet files", *_PARQUET, "name"))


def _only(options: dict[str, Any], what: str, *allowed: str) -> dict[str, Any]:
    """Return the options if all of them apply to what is opened."""
    for option in options:
        if option not in allowed:
            names = ", ".join(f"{name}=" for name in allowed)
            raise SourceError(f"{option}= does not apply to {what}; allowed are {names}. Leave it out.")
    return options
