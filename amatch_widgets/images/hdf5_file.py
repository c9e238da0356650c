"""What lies in an HDF5 file: finding the images in it, and reading parts of them."""

from __future__ import annotations

import importlib
import os
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from amatch_widgets.errors import MissingExtraError, SourceError
from amatch_widgets.images.decode import MAX_BYTES, UnreadableError
from amatch_widgets.images.hdf5_remote import HeldFile, ranges_of
from amatch_widgets.images.remote import Remote
from amatch_widgets.images.stack import Stack, encoded_stack, pixel_stack
from amatch_widgets.images.unreadable import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from amatch_widgets.images.place import Place

__all__ = [
    "Handle",
    "called",
    "channels_of_first",
    "datasets",
    "image_of",
    "is_group",
    "listed",
    "stack_of",
    "why_not_open",
]

T = TypeVar("T")

_MOST_OBJECTS = 1000  # looked at to find the images, in each group and in all
_SAMPLE = 16  # datasets of a group that are looked at before it is taken for one of single images
_LOCKED = 11  # EAGAIN: another process writes the file


class Handle:
    """What is open of a file: a dataset, or a group; opened again in each process.

    Thread safety: h5py has one lock for all; of two that open the file at once, one is closed unused. A file
    on a server is read in the way of `HeldFile`, in each process by another one.
    """

    def __init__(self, path: Place, name: str | None) -> None:
        self.path = path
        self.name = name or ""
        self._size = 0
        self._opened: tuple[int, Any, Any] | None = None
        self._held: tuple[int, HeldFile] | None = None

    def answer(self, question: Callable[[], T]) -> T:
        """Return what a question to h5py about this file returns; it may be asked more than once."""
        return self._remote(self.path).answer(question) if isinstance(self.path, Remote) else question()

    def images(self) -> Any:
        """Return the dataset or group, open in this process."""
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[2]
        if opened is not None:
            opened[1].close()  # or HDF5 would go on with the place in the file of the parent process
        if isinstance(self.path, Remote):
            file = _h5py().File(self._remote(self.path), "r")
            # HDF5 closes at the end what is open, when there is no Python any more to ask: a crash.
            weakref.finalize(self, file.close)
        else:
            file = _open_file(self.path)
        images = _choose(file, self.name)
        self._size = self._size or self._length()
        self.name = images.name
        self._opened = (os.getpid(), file, images)
        return images

    def read(self, what: str | slice) -> Any:
        """Read rows of the dataset, or a dataset of the group; raise UnreadableError for anything."""
        try:
            if isinstance(self.path, Remote) and isinstance(what, slice):
                ranges = self.answer(lambda: ranges_of(self.images(), what.start, what.stop))
                self._remote(self.path).fetch(ranges)
            values = self.answer(lambda: self._values(what))
            # HDF5 fills with zeros what a file has lost since it was opened, so that must be looked at.
            size = self._length()
        except UnreadableError:
            raise
        except FileNotFoundError as exc:
            raise UnreadableError("the file is gone since it was opened") from exc
        except MemoryError as exc:
            raise UnreadableError("there is not enough memory to read its part of the file") from exc
        except OSError as exc:
            if exc.errno is not None and isinstance(self.path, Remote):  # the network, not the file
                raise UnreadableError(in_words(exc)) from exc
            raise UnreadableError(f"its part of the file is damaged or cut off ({exc})") from exc
        # h5py meets damaged files with OSError, RuntimeError, KeyError, ValueError; one bad chunk must not
        # stop a run.
        except Exception as exc:
            raise UnreadableError(f"its part of the file is damaged or cut off ({exc})") from exc
        if size < self._size:
            raise UnreadableError(
                f"the file was cut off since it was opened, from {self._size} to {size} bytes"
            )
        return values

    def _values(self, what: str | slice) -> Any:
        found = self.images()[what]
        return found if isinstance(what, slice) else _checked(found)[()]

    def _remote(self, place: Remote) -> HeldFile:
        held = self._held
        if held is None or held[0] != os.getpid():
            self._held = held = (os.getpid(), HeldFile(place))
        return held[1]

    def _length(self) -> int:
        """Return the length of the file, in bytes; of one elsewhere 0: reading beyond its end is an error."""
        return 0 if isinstance(self.path, Remote) else os.stat(self.path).st_size  # noqa: PTH116 - no Path needed


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise MissingExtraError(
            "HDF5 files need h5py. Type: pip install 'amatch-widgets[hdf5]', then restart the kernel. "
            f"({error})"
        ) from error


def _open_file(path: str) -> Any:
    h5py = _h5py()
    try:
        return h5py.File(path, "r")
    except OSError as exc:
        # A volume without locks, as NFS may be: we only read, and need none. Not at once without: the file
        # may be open in this process already, and HDF5 wants the same then.
        if "unable to lock" not in str(exc) or exc.errno == _LOCKED:
            raise
        return h5py.File(path, "r", locking=False)


def why_not_open(path: Place, exc: Exception) -> str:
    """Say in plain words why a file cannot be opened."""
    if getattr(exc, "errno", None) == _LOCKED:
        return f"{path!r} is being written by another process. Wait until it is closed, then open it again."
    return (
        f"{path!r} cannot be opened as HDF5: {exc}. It may be cut off or no HDF5 file; check it with h5ls, "
        "or copy it again."
    )


def _choose(file: Any, name: str) -> Any:
    """Find the dataset or group of images in an open file."""
    if name:
        images = file.get(name)
        if images is None:
            raise SourceError(
                f"There is no dataset {name!r} in {file.filename!r}. Found are {listed(datasets(file))}."
            )
        return images
    found = datasets(file)
    named = [d for d in found if d.name.rsplit("/", 1)[-1] == "images"]
    fitting = named if len(named) == 1 else [d for d in found if _is_stack(d)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        groups = {d.parent.name: d.parent for d in found}
        folders = [group for group in groups.values() if _is_folder(group)]
        if len(folders) == 1:
            return folders[0]
    which = "None of them holds images" if not fitting else "Several of them may hold the images"
    if not found:
        raise SourceError(
            f"{file.filename!r} holds no dataset: there is no image in it. Check what wrote it."
        )
    raise SourceError(
        f"{file.filename!r} holds {listed(found)}. {which}: say which by dataset='NAME'. Wanted are numbers "
        "(N, H, W), (N, H, W, C) or (N, C, H, W), encoded files (N,), or a group with a dataset for each."
    )


def datasets(group: Any, depth: int = 4) -> list[Any]:
    """List the datasets under a group, without links to other files or places; not more than a thousand."""
    h5py = _h5py()
    found: list[Any] = []
    seen = {group}
    level = [group]
    for _ in range(depth + 1):
        below = []
        for parent, name in [(above, name) for above in level for name in islice(above, _MOST_OBJECTS)]:
            try:
                if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
                    continue
                item = parent[name]
            except (OSError, RuntimeError, KeyError, ValueError):  # it is damaged; the others may be good
                continue
            if item in seen:  # by another name, or above: links may make a loop
                continue
            seen.add(item)
            if isinstance(item, h5py.Group):
                below.append(item)
            elif isinstance(item, h5py.Dataset):
                found.append(item)
            if len(seen) > _MOST_OBJECTS:
                return found
        level = below
    return found


def stack_of(dataset: Any, axes: str | None, what: str) -> Stack:
    """Say how the images lie in a dataset; raise SourceError if they cannot be read."""
    if dataset.shape is None:
        raise SourceError(f"{what} is empty (a null dataspace). Check what wrote it.")
    if dataset.is_virtual:
        raise SourceError(
            f"{what} is virtual: what is missing in its source files would be read as empty images. Open the "
            "files it is made of, or copy it into a plain dataset."
        )
    _check_filters(dataset, what)
    kind = _encoded(dataset)
    if kind is None:
        return pixel_stack(dataset.shape, dataset.dtype, what=what, axes=axes, chunks=dataset.chunks)
    if axes is not None:
        raise SourceError(f"{what} holds encoded files: axes= does not apply. Leave it out.")
    if len(dataset.shape) != 1 or not dataset.shape[0]:
        raise SourceError(f"{what} has shape {dataset.shape}. Encoded files have to be of shape (N,), N > 0.")
    if kind == "variable":
        return encoded_stack(len(dataset))
    chunk = dataset.chunks[0] if dataset.chunks else None
    return encoded_stack(len(dataset), chunk=chunk, row_bytes=dataset.dtype.itemsize)


def _encoded(dataset: Any) -> str | None:
    """Tell how a dataset holds encoded files: "variable" or "fixed" length; None if it does not."""
    variable = _h5py().check_vlen_dtype(dataset.dtype)
    if variable is not None and np.dtype(variable) in (np.uint8, np.int8):
        return "variable"
    is_bytes = dataset.dtype.kind == "V" and dataset.dtype.fields is None and dataset.dtype.subdtype is None
    return "fixed" if is_bytes or dataset.dtype.kind == "S" else None


def _check_filters(dataset: Any, what: str) -> None:
    h5py, created = _h5py(), dataset.id.get_create_plist()
    for i in range(created.get_nfilters()):
        code, _, _, name = created.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            raise SourceError(
                f"{what} is compressed by filter {code} ({name.decode(errors='replace')!r}), which is not "
                "installed. Type: pip install hdf5plugin, and import hdf5plugin before the file is opened."
            )


def _is_stack(dataset: Any) -> bool:
    kind = _encoded(dataset)
    if kind is not None:  # fixed bytes may be ids just as well, so they count only if named
        return len(dataset.shape or ()) == 1 and (kind == "variable" or dataset.dtype.kind == "V")
    try:
        pixel_stack(dataset.shape or (), dataset.dtype, what="")
    except SourceError:
        return len(dataset.shape or ()) == 4 and dataset.dtype.kind in "biuf"  # noqa: PLR2004 - all but its axes
    return True


def is_group(item: Any) -> bool:
    """Say whether what lies under a name is a group, not a dataset."""
    return not hasattr(item, "dtype")


def _is_folder(group: Any) -> bool:
    """Say whether each dataset of a group seems to be one image."""
    sample = list(islice(group, _SAMPLE))
    items = [group.get(name) for name in sample]
    return len(sample) > 1 and all(item is not None and not is_group(item) and _fits(item) for item in items)


def _fits(dataset: Any) -> bool:
    try:
        _checked(dataset)
    except UnreadableError:
        return False
    return True


def _checked(dataset: Any) -> Any:
    """Return a dataset that may be one image; raise UnreadableError if it is not."""
    shape = getattr(dataset, "shape", None) or ()
    try:
        if not _is_bytes(dataset):
            pixel_stack((1, *shape), dataset.dtype, what="it")
        elif dataset.size > MAX_BYTES:
            raise UnreadableError(f"it has {dataset.size} bytes; more than {MAX_BYTES} are not decoded")
    except (AttributeError, SourceError) as exc:
        raise UnreadableError(f"it is no image: {exc}") from exc
    return dataset


def _is_bytes(item: Any) -> bool:
    return item.dtype == np.uint8 and len(item.shape) == 1 and item.size > 0


def image_of(values: Any, min_side: int | None) -> NDArray[Any]:
    """Make an image, shape (H, W, C), of the dataset of a single one; UnreadableError if it cannot be."""
    if _is_bytes(values):
        return encoded_stack(1).image(values, min_side=min_side)
    return pixel_stack((1, *values.shape), values.dtype, what="it").image(values)


def channels_of_first(group: Any, names: Sequence[str]) -> int:
    """Return the channels of the first image of a group of single images."""
    if not len(names):
        raise SourceError(f"{called(group)} is empty: there is no image in it. Choose another with dataset=.")
    try:
        first = _checked(group.get(names[0]))
    except UnreadableError as exc:
        raise SourceError(
            f"{names[0]!r} in {called(group)}: {exc} Choose with dataset= a dataset of all images, or a "
            "group with one dataset for each image."
        ) from exc
    return 3 if _is_bytes(first) else pixel_stack((1, *first.shape), first.dtype, what="").channels


def called(item: Any) -> str:
    """Name a dataset or group and its file, for messages."""
    return f"{item.name!r} of {item.file.filename!r}"


def listed(datasets: list[Any]) -> str:
    """List datasets with shape and dtype, for messages."""
    some = [f"{d.name!r} {d.shape} {d.dtype}" for d in datasets[:8]]
    more = f" and {len(datasets) - 8} more" if len(datasets) > 8 else ""  # noqa: PLR2004 - as shown
    return (", ".join(some) or "no datasets") + more
