"""Folders of image files."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.decode import UnreadableError, decode, model_channels
from amatch_widgets.images.description import file_facts, header_facts
from amatch_widgets.images.hdu import FITS_SUFFIXES, image_hdus, import_fits, open_fits
from amatch_widgets.images.ids import check_index, hash_ids
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.place import as_place, name_of, spec_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.remote_files import RemoteFiles
from amatch_widgets.images.unreadable import plain_errors
from amatch_widgets.images.wcs import find_position

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = ["SUFFIXES", "FolderSource"]

_COLOUR = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
SUFFIXES = frozenset({*_COLOUR, ".npy", *FITS_SUFFIXES})
_TRIED = 16  # files of which the first readable one tells the channels
_BLOCK = 2**17  # names that are Python objects at a time, beside those of one folder
# No file ending looks like these: it begins with ".", or is "without ending".
_OURS = ("image", "folder", "link", "broken", "hidden")
_ESCAPED = re.compile(r"[\udc80-\udcff]|\\udc[89a-f][0-9a-f]")


class FolderSource:
    r"""All JPEG, PNG, TIFF, FITS and .npy files under a folder, one image each.

    Of a FITS file the first HDU with an image is taken. An image of two axes is grey; one of three has
    channels, if its first or its last axis is at most 16 long.

    Hidden files and folders are left out. Links are followed, each folder is listed once, so that a loop of
    links ends. The files are found when the source is made and opened when they are read.

    Parameters
    ----------
    path : path or URL
        The folder.
    name : str, optional
        Short name for people; default the folder's name.
    mask : int or str, optional
        Number or EXTNAME of the HDU of each FITS file that tells which pixels are bad, those where it is not
        0; they count as NaN.

    Attributes
    ----------
    ids : sequence of str
        Paths relative to the folder with ``/`` between the parts, sorted. Bytes of a name that are no UTF-8
        are written as ``\udcXX``, so that each id is valid text.
    skipped : dict of str to str
        Folders and files under the folder that could not be looked at, with the reason.
    channels : int
        3; where all files are FITS or .npy those of the first that can be read, if they are not grey.

    Raises
    ------
    SourceError
        The folder is missing, cannot be listed, or holds no image file.
    MissingExtraError
        There are FITS files, and astropy is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str] | Remote, *, name: str | None = None, mask: int | str | None = None
    ) -> None:
        self._root = as_place(path)
        self.name = name or _to_id(name_of(self._root)) or str(self._root)
        self._states: RemoteFiles | None = None
        self.skipped: dict[str, str]
        names = _Names()
        if isinstance(self._root, Remote):
            self._states = RemoteFiles(self._root, SUFFIXES, _to_id, names.add)
            self.skipped, others = {}, self._states.others
        else:
            self.skipped, others = _find(self._root, names)
        if not len(names):
            raise SourceError(_nothing_found(self._root, self.skipped, others))
        if names.has_fits:
            import_fits()
        elif mask is not None:
            raise SourceError(
                f"mask={mask!r} is of FITS files, and there is none in {self._root!r}. Leave it out."
            )
        self._mask = mask
        # Files on a server have this order already, and their states are found by their place in it.
        self.ids: Sequence[str] = PackedIds(names.sorted_ids())
        self._odd = names.odd
        self.channels = 3 if names.has_colour else self._count_channels()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"FolderSource({self._root!r}, {len(self)} images)"

    def path_of(self, index: int) -> Path | Remote:
        """Return the file of one image."""
        relative = self._relative(index)
        return self._root / relative if isinstance(self._root, Remote) else Path(self._root, relative)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one file; see `ImageSource.read`.

        Pixels stay as they are stored: a rotation asked for by EXIF is not applied. Palette and CMYK files
        become RGB; of a file with several pages the first is read.
        """
        index = check_index(index, len(self))
        try:
            with self._opened(index) as file:
                return decode(file, min_side=min_side, mask=self._mask)
        except UnreadableError as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc.__cause__
        except OSError as exc:
            raise ImageReadError(self.ids[index], _plain(exc)) from exc

    def position(self, index: int) -> tuple[float, float] | None:
        """Return where on the sky the centre of an image is, by the WCS of its FITS file.

        Returns
        -------
        (float, float) or None
            Right ascension and declination, ICRS, degrees; None for other files, for those without a
            celestial WCS, and for those that cannot be read.
        """
        if not self._relative(index).lower().endswith(FITS_SUFFIXES):
            return None
        try:
            with plain_errors(), self._opened(index) as packed, open_fits(packed) as file:
                hdu = next(image_hdus(file), None)
                return None if hdu is None else find_position(file, hdu)
        except (UnreadableError, OSError):  # reading the image says why
            return None

    def describe(self, index: int) -> dict[str, str]:
        """Return name and date of the file, and of a FITS file some cards of its header.

        Of files on a server the name alone: to ask for more would take too long.
        """
        path = self.path_of(index)
        if isinstance(path, Remote):
            return {"File name": path.name}
        try:
            facts = file_facts(path)
            if path.name.lower().endswith(FITS_SUFFIXES):
                with plain_errors(), path.open("rb") as packed, open_fits(packed) as file:
                    hdu = next(image_hdus(file), None)
                    facts |= {} if hdu is None else header_facts(file, hdu)
        except (UnreadableError, OSError):  # reading the image says why
            return {}
        return facts

    def fingerprint(self) -> str:
        """Return a hash of all ids; the files are not opened."""
        return hash_ids(self.ids, "folder" if self._mask is None else f"folder {self._mask!r}")

    def spec(self) -> dict[str, Any]:
        """Return the folder's absolute path or URL, and the mask if it was given."""
        spec: dict[str, Any] = {"kind": "folder", **spec_of(self._root)}
        return spec if self._mask is None else {**spec, "mask": self._mask}

    def _relative(self, index: int) -> str:
        image_id = self.ids[check_index(index, len(self))]
        return self._odd.get(image_id, image_id)

    def _opened(self, index: int) -> IO[bytes]:
        relative = self._relative(index)
        if self._states is not None:
            return self._states.open(index, relative)
        return Path(str(self._root), relative).open("rb")

    def _count_channels(self) -> int:
        for index in range(min(len(self), _TRIED)):
            with contextlib.suppress(ImageReadError):  # it will be listed when its turn comes
                return model_channels(self.read(index))
        return 3


class _Names:
    """The names of very many files, as ids, in a few pieces of memory.

    Attributes
    ----------
    odd : dict of str to str
        Id to path, of the files whose paths are no valid text.
    has_fits, has_colour : bool
        Whether there is a file of such a type.
    """

    def __init__(self) -> None:
        self.odd: dict[str, str] = {}
        self.has_fits = self.has_colour = False
        self._blocks: list[pa.LargeStringArray] = []
        self._waiting: list[str] = []

    def __len__(self) -> int:
        return sum(map(len, self._blocks)) + len(self._waiting)

    def add(self, files: list[str]) -> None:
        """Add the paths of one folder's files."""
        ids = [_to_id(relative) for relative in files]
        self.odd |= {image_id: path for image_id, path in zip(ids, files, strict=True) if image_id != path}
        self.has_fits = self.has_fits or any(name.lower().endswith(FITS_SUFFIXES) for name in files)
        self.has_colour = self.has_colour or any(name.lower().endswith(_COLOUR) for name in files)
        self._waiting += ids
        if len(self._waiting) >= _BLOCK:
            self._pack()

    def sorted_ids(self) -> pa.LargeStringArray:
        """Return all ids, sorted, and forget them."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        self._pack()
        found = pa.concat_arrays(self._blocks)
        self._blocks.clear()
        return found.take(pc.sort_indices(found))  # UTF-8 sorts as its text does

    def _pack(self) -> None:
        import pyarrow as pa  # noqa: PLC0415 - as above

        self._blocks.append(pa.array(self._waiting, pa.large_string()))
        self._waiting.clear()


def _find(root: str, names: _Names) -> tuple[dict[str, str], Counter[str]]:
    """Find the image files under `root`, what could not be looked at, and how many files of other types."""
    skipped: dict[str, str] = {}
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    folders = [""]
    links: list[str] = []
    while folders or links:
        # Real folders first: what is there both by itself and by a link gets the id without the link.
        if not folders:
            links.sort(reverse=True)
        prefix = folders.pop() if folders else links.pop()
        try:
            at = os.path.join(root, prefix)  # noqa: PTH118 - Path objects cost more than the listing itself
            info = os.stat(at)  # noqa: PTH116 - as above
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(at) as entries:
                listing = [(entry.name, _kind(entry)) for entry in entries]
        except OSError as exc:
            if not prefix:
                raise SourceError(
                    f"The folder {root!r} cannot be listed: {exc.strerror}. Check path and permissions."
                ) from exc
            skipped[_to_id(prefix)] = _plain(exc)
            continue
        names.add([prefix + name for name, kind in listing if kind == "image"])
        folders += [prefix + name + "/" for name, kind in listing if kind == "folder"]
        links += [prefix + name + "/" for name, kind in listing if kind == "link"]
        broken = [prefix + name for name, kind in listing if kind == "broken"]
        skipped |= {_to_id(relative): "it is a broken link or no ordinary file" for relative in broken}
        others.update(kind for _, kind in listing if kind not in _OURS)
    return skipped, others


def _kind(entry: os.DirEntry[str]) -> str:
    """Return one of `_OURS`, or the ending of a file of another type."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir():
        return "link" if entry.is_symlink() else "folder"
    stem, suffix = os.path.splitext(entry.name.lower())  # noqa: PTH122 - quicker than a Path
    if suffix == ".gz":
        suffix = os.path.splitext(stem)[1] + suffix  # noqa: PTH122 - as above
    if suffix not in SUFFIXES:
        return suffix or "without ending"
    return "image" if entry.is_file() else "broken"


def _to_id(relative: str) -> str:
    """Write a path as valid text; no two paths give the same."""
    if _ESCAPED.search(relative) is None:
        return relative
    return relative.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()


def _nothing_found(root: Place, skipped: dict[str, str], others: Counter[str]) -> str:
    wanted = (
        "Wanted are files that end in .jpg, .jpeg, .png, .tif, .tiff, .fits, .fit, .fits.gz, .fz or .npy, "
        "in it or in its subfolders."
    )
    if others:
        types = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
        found = f"The folder {root!r} holds no image; found were other files: {types}."
    elif skipped:
        found = f"The folder {root!r} holds no image that can be looked at."
    else:
        found = f"The folder {root!r} is empty."
    for what, reason in list(skipped.items())[:3]:
        found += f" Skipped {what!r}: {reason}."
    return f"{found} {wanted}"


def _plain(exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return "the file is gone since the folder was opened"
    if isinstance(exc, PermissionError):
        return "you have no permission to read it"
    return exc.strerror or str(exc)
