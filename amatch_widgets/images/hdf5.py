"""Images in one HDF5 file."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.decode import UnreadableError
from amatch_widgets.images.hdf5_file import (
    Handle,
    called,
    channels_of_first,
    datasets,
    image_of,
    is_group,
    listed,
    stack_of,
    why_not_open,
)
from amatch_widgets.images.ids import NumberedIds, check_index, hash_ids
from amatch_widgets.images.place import as_place, name_of, open_place, spec_of
from amatch_widgets.images.stack import Stack, bands_of, check_axes, read_rows
from amatch_widgets.images.stored_ids import (
    BY_POSITION,
    blocks_of,
    holds_ids,
    names_to_try,
    pack_ids,
    to_arrow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place
    from amatch_widgets.images.remote import Remote

__all__ = ["HDF5_SUFFIXES", "HDF5Source", "is_hdf5"]

HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5"})
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class HDF5Source:
    """Images in one HDF5 file: one dataset of all, or one dataset for each.

    The file is opened again in each process and kept open; h5py lets one thread read at a time.

    Parameters
    ----------
    path : path or URL
        The file.
    dataset : str, optional
        Which dataset: (N, H, W), (N, H, W, C) or (N, C, H, W) of numbers, or (N,) of encoded files (JPEG,
        PNG, TIFF) as bytes of variable length, opaque or fixed; or a group in which each dataset is one
        image, (H, W), (H, W, C), (C, H, W) or an encoded file (bytes,). Default the one that fits, or that
        named ``images``.
    axes : {"NHW", "NHWC", "NCHW"}, optional
        Default what the shape says: the axis of channels is the last or the second, at most 16 long and
        shorter than the two others.
    ids_from : str, optional
        The dataset of ids beside the images, of text or whole numbers; default the first of ``filenames``,
        ``ids``, ``id``, ``names``, ``object_id``, ... that has one for each image, else, or for
        ``"position"``, the images are numbered. In a group of single images the ids are their names.
    name : str, optional
        Short name for people; default the name of the file.

    Attributes
    ----------
    chunk : int
        How many images lie together and are best read by one `read_many`.
    bands : tuple of str, or None
        Names of the channels, from the attribute ``bands``, ``filters`` or ``channels`` of the dataset.

    Raises
    ------
    SourceError
        The file cannot be opened, or which images are meant cannot be told.
    MissingExtraError
        h5py is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Remote,
        *,
        dataset: str | None = None,
        axes: str | None = None,
        ids_from: str | None = None,
        name: str | None = None,
    ) -> None:
        self._path = as_place(path)
        self.name = name or os.path.splitext(name_of(self._path))[0]  # noqa: PTH122 - of any path
        self._options: dict[str, Any] = {
            "dataset": dataset,
            "axes": check_axes(axes),
            "ids_from": ids_from,
        }
        self._handle = Handle(self._path, dataset)
        self.ids: Sequence[str]
        self.bands: tuple[str, ...] | None
        self._stack: Stack | None
        found = self._handle.answer(self._look)
        if found is not None:
            self.ids = self._read_ids(found)

    def _look(self) -> Any:
        """Find out what the images are; return the dataset of ids that are still to be read, or None."""
        try:
            images = self._handle.images()
        except (OSError, RuntimeError) as exc:  # h5py raises both
            raise SourceError(why_not_open(self._path, exc)) from exc
        self._stack = None
        if is_group(images):
            self.ids = self._names(images)
            self.channels, self._looks, self.bands, self.chunk = (
                channels_of_first(images, self.ids),
                "",
                None,
                1,
            )
        else:
            self._stack = stack_of(images, self._options["axes"], called(images))
            self.ids = NumberedIds(len(images))
            self.channels, self.chunk = self._stack.channels, self._stack.shard
            self.bands = bands_of(images.attrs, self.channels)
            self._looks = f"{images.shape} {images.dtype.str}"
            return self._find_ids(images)
        return None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        ids = f"ids from {self._ids_from!r}" if self._ids_from else "numbered"
        return f"HDF5Source({self._path!r}, {self._handle.name!r}, {len(self)} images, {ids})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(HDF5Source, **self._options, name=self.name), (self._path,)

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image; see `ImageSource.read`. The hint `min_side` is used for encoded JPEG images."""
        index = check_index(index, len(self))
        try:
            if self._stack is None:
                return image_of(self._handle.read(self.ids[index]), min_side)
            return self._stack.image(self._rows(index, index + 1)[0], min_side=min_side)
        except UnreadableError as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc.__cause__

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read images, each chunk once, in the order of the file; see `source.read_many`."""
        if self._stack is None:
            for index in indices:
                try:
                    yield index, self.read(index, min_side=min_side)
                except ImageReadError as error:
                    yield index, error
            return
        for i, image in read_rows(self._stack, self._rows, indices, min_side=min_side):
            yield i, ImageReadError(self.ids[i], str(image)) if isinstance(image, UnreadableError) else image

    def fingerprint(self) -> str:
        """Return a hash of shape, dtype and ids; pixels are not looked at."""
        return hash_ids(() if isinstance(self.ids, NumberedIds) else self.ids, "hdf5", self._looks)

    def spec(self) -> dict[str, Any]:
        """Return the file's absolute path or URL and the options that were given."""
        given = {key: value for key, value in self._options.items() if value is not None}
        return {"kind": "hdf5", **spec_of(self._path), **given}

    def _rows(self, start: int, stop: int) -> Any:
        return self._handle.read(slice(start, stop))

    def _names(self, group: Any) -> Sequence[str]:
        if self._options["ids_from"] not in (None, BY_POSITION) or self._options["axes"]:
            raise SourceError(
                f"{called(group)} is a group with one dataset for each image: ids_from= and axes= do not "
                "apply. Leave them out."
            )
        self._ids_from: str | None = "names"
        # The names in Arrow: a group may hold a million.
        return pack_ids(to_arrow([np.array(list(group), object)], f"The names in {called(group)}"), "They")

    def _find_ids(self, images: Any) -> Any:
        wanted, n = self._options["ids_from"], len(images)
        beside = images.parent
        for name in names_to_try(wanted):
            array = beside.get(name)
            if array is None or is_group(array) or not holds_ids(array.shape, array.dtype.kind, n):
                continue
            self._ids_from = name
            return array
        if wanted not in (None, BY_POSITION):
            raise SourceError(
                f"ids_from={wanted!r} is no dataset of {n} texts or whole numbers beside {called(images)}. "
                f"Found are {listed(datasets(beside, depth=0))}. Number the images with "
                f"ids_from={BY_POSITION!r}."
            )
        self._ids_from = None
        return None

    def _read_ids(self, array: Any) -> Sequence[str]:
        """Read ids, of which there may be very many, each piece by itself."""
        where = self._handle.answer(lambda: called(array))
        try:
            ids = to_arrow(blocks_of(_Rows(self._handle, array), len(self), (array.chunks or (1,))[0]), where)
        except (OSError, RuntimeError) as exc:
            raise SourceError(f"{where} cannot be read: {exc}. Choose others with ids_from=.") from exc
        return pack_ids(ids, where)


class _Rows:
    """A dataset, of which rows are read through its `Handle`."""

    def __init__(self, handle: Handle, dataset: Any) -> None:
        self._handle, self._dataset = handle, dataset

    def __getitem__(self, rows: slice) -> Any:
        return self._handle.answer(lambda: self._dataset[rows])


def is_hdf5(place: Place) -> bool:
    """Say whether a file is meant to be HDF5, by its ending or its first bytes."""
    if os.path.splitext(name_of(place))[1].lower() in HDF5_SUFFIXES:  # noqa: PTH122 - of any path
        return True
    try:
        with open_place(place) as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:
        return False
