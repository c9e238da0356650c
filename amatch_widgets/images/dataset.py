"""A torch ``Dataset``, or any other object that gives images by number, as a source."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.array import plain_pixels, unmasked
from amatch_widgets.images.decode import model_channels, pillow_pixels
from amatch_widgets.images.ids import NumberedIds, check_ids, check_index, hash_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["DatasetSource", "is_dataset"]

_TRIED = 16  # items of which the first readable one tells the channels
_DEEP = {"I": np.int32, "F": np.float32, "I;16": np.uint16, "I;16B": np.uint16, "I;16L": np.uint16}
_WANTED = "a PIL image, an array (H, W) or (H, W, C), a tensor (C, H, W), or a tuple that begins with one"


class DatasetSource:
    """The images of an object that has ``len()`` and gives an item for each number.

    An item is a PIL image, an array of shape (H, W) or (H, W, C), a tensor of shape (H, W) or (C, H, W), or a
    tuple or list whose first entry is one of these, as the pairs of image and class that a torch ``Dataset``
    gives. What makes a random view of an image should be left out of its transforms: each time the same
    image is read it should be the same. Items are asked for one at a time, whatever the threads: what is
    made for the workers of a ``DataLoader`` need not be safe for threads.

    Parameters
    ----------
    dataset : object
        It is kept, not copied; a process that is forked or started from a pickle has its own.
    ids : sequence of str, optional
        One unique id per image; default the zero-padded number (``"000"``, ``"001"``, ...).
    ids_from : {"item"}, optional
        The ids are the second entries of the items, which have to be unique strings; all items are read for
        it. One that cannot be read has its number for an id.
    name : str, optional
        Short name for people; default the name of its class.

    Raises
    ------
    SourceError
        There is no item, none of the first 16 can be read as an image, there is no access by number, or the
        ids do not fit.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        ids: Iterable[str] | None = None,
        ids_from: Literal["item"] | None = None,
        name: str | None = None,
    ) -> None:
        kind = type(dataset).__name__
        if any(base.__name__ == "IterableDataset" for base in type(dataset).__mro__):
            raise SourceError(
                f"The {kind} gives its images in an order of its own, and the images that matter have to be "
                "read again by number. Pass a dataset with __getitem__, or write its images to a folder."
            )
        if ids_from not in (None, "item") or (ids_from and ids is not None):
            raise SourceError(f"ids_from={ids_from!r} of a dataset: allowed is 'item', without ids=.")
        self._dataset = dataset
        self._n = _count(dataset, kind)
        self._lock, self._pid = threading.Lock(), os.getpid()
        self.name = name or kind
        self.ids: Sequence[str] = NumberedIds(self._n)
        self.channels = self._count_channels(kind)
        if ids_from:
            ids = self._named()
        self._own_ids = None if ids is None else check_ids(ids, self._n)
        self.ids = self._own_ids or self.ids

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"DatasetSource({self.name!r}, {self._n} images)"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._pid = threading.Lock(), os.getpid()

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image as (H, W, C); see `ImageSource.read`. The hint `min_side` is not used."""
        del min_side
        index = check_index(index, self._n)
        return self._image(index, self._item(index))

    def fingerprint(self) -> str:
        """Return a hash of class, number and ids; no item is looked at."""
        kind = type(self._dataset)
        return hash_ids(self._own_ids or (), f"{kind.__module__}.{kind.__qualname__} {self._n}")

    def spec(self) -> dict[str, Any]:
        """Say what it is; an object in memory cannot be opened again."""
        return {"kind": "dataset"}

    def _item(self, index: int) -> Any:
        if self._pid != os.getpid():  # forked: nobody may be left there to release the lock
            self._lock, self._pid = threading.Lock(), os.getpid()
        try:
            with self._lock:
                return self._dataset[index]
        except Exception as exc:  # the user's code raises whatever it likes, and must not stop a run
            first = next(iter(str(exc).splitlines()), "")
            reason = f"the dataset says {type(exc).__name__}: {first}" if first else type(exc).__name__
            raise ImageReadError(self.ids[index], reason) from exc

    def _image(self, index: int, item: Any) -> NDArray[Any]:
        if isinstance(item, tuple | list) and item:
            item = item[0]
        try:
            return _pixels(item)
        except (TypeError, ValueError) as exc:
            raise ImageReadError(self.ids[index], str(exc)) from exc

    def _named(self) -> list[str]:
        found = []
        for index in range(self._n):
            try:
                item = self._item(index)
            except ImageReadError:  # it will be listed when its turn comes
                found.append(self.ids[index])
                continue
            if not isinstance(item, tuple | list) or len(item) < 2 or not isinstance(item[1], str):  # noqa: PLR2004
                raise SourceError(
                    f"ids_from='item', and item {index} of the {type(self._dataset).__name__} has no string "
                    "for its second entry. Pass the ids with ids=, or leave it out: images are numbered then."
                )
            found.append(item[1])
        return found

    def _count_channels(self, kind: str) -> int:
        first: ImageReadError | None = None
        for index in range(min(self._n, _TRIED)):
            try:
                item = self._item(index)
                image = self._image(index, item)
            except ImageReadError as exc:
                first = first or exc
            else:
                one = item[0] if isinstance(item, tuple | list) else item
                return model_channels(image) if hasattr(one, "convert") else image.shape[2]
        assert first is not None  # there is at least one item
        raise SourceError(
            f"None of the first items of the {kind} is an image; item 0: {first.reason}. Wanted is {_WANTED}."
        ) from first


def is_dataset(what: object) -> bool:
    """Tell whether something may give images by number."""
    if isinstance(what, str | bytes | bytearray | memoryview | list | tuple | Mapping | set | frozenset):
        return False
    kind = type(what)
    return (hasattr(kind, "__len__") and hasattr(kind, "__getitem__")) or any(
        base.__name__ == "IterableDataset" for base in kind.__mro__
    )


def _count(dataset: Any, kind: str) -> int:
    try:
        n = len(dataset)
    except Exception as exc:  # as in _item
        raise SourceError(f"The {kind} does not say how many images it has: {exc}") from exc
    if not n:
        raise SourceError(f"The {kind} is empty: at least one image is needed.")
    return n


def _pixels(item: Any) -> NDArray[Any]:
    """Bring an image of any of the kinds wanted to (H, W, C); TypeError or ValueError in plain words."""
    if hasattr(item, "detach") and hasattr(item, "cpu"):  # a tensor; torch need not be there
        tensor = item.detach().cpu()
        is_narrow = str(tensor.dtype) in ("torch.bfloat16", "torch.float16")
        image = np.asarray(tensor.float() if is_narrow else tensor)
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image  # noqa: PLR2004 - (C, H, W)
    elif hasattr(item, "convert") and hasattr(item, "getbands"):  # of PIL
        image = np.asarray(item, _DEEP[item.mode]) if item.mode in _DEEP else pillow_pixels(item)
    elif isinstance(item, np.ndarray):
        image = item
    else:
        raise TypeError(f"it is of type {type(item).__name__!r}; wanted is {_WANTED}")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"its shape is {image.shape}; wanted is {_WANTED}")
    if image.dtype.kind not in "biuf":
        raise ValueError(f"its pixels are no real numbers ({image.dtype})")
    image = image if image.ndim == 3 else image[..., None]  # noqa: PLR2004 - (H, W, C)
    return plain_pixels(unmasked(image))
