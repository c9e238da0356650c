"""Ids of images: unique strings that stay the same from one day to the next."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.images.packed import PackedIds

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NumberedIds", "check_ids", "check_index", "hash_ids", "sort_indices"]


class NumberedIds(Sequence[str]):
    """The ids ``"000" ... "999"``, made when asked for, so that a hundred million cost nothing.

    Parameters
    ----------
    n : int
        How many there are.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._width = len(str(max(n - 1, 0)))

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [f"{i:0{self._width}d}" for i in range(self._n)[index]]
        return f"{range(self._n)[index]:0{self._width}d}"

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, str)
            and len(value) == self._width
            and value.isascii()
            and value.isdigit()
            and int(value) < self._n
        )

    def position(self, image_id: str) -> int | None:
        """Return the position of an id; None if it is not there."""
        return int(image_id) if image_id in self else None

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of an id; ValueError if it is not there."""
        found = self.position(value)
        if found is None or not start <= found < (self._n if stop is None else stop):
            raise ValueError(f"{value!r} is no id here")
        return found

    def contain(self, text: str) -> NDArray[np.bool_]:
        """Say of each id whether it contains a text; bool, shape (N,). No id is made for it."""
        found = np.full(self._n, not text)
        n_digits = len(text)
        if text.isascii() and text.isdigit():
            numbers = np.arange(self._n)
            for n_behind in range(self._width - n_digits + 1):
                found |= numbers // 10**n_behind % 10**n_digits == int(text)
        return found

    def __repr__(self) -> str:
        return f"NumberedIds({self._n})"


def hash_ids(ids: Iterable[str], *more: str) -> str:
    """Return 16 hex digits that depend on all ids, their order, and `more`."""
    digest = hashlib.blake2b(digest_size=8)
    for text in more:
        digest.update(text.encode() + b"\xff")  # 0xff never occurs in UTF-8, so no two lists look the same
    if isinstance(ids, PackedIds):
        for block in ids.encoded(b"\xff"):
            digest.update(block)
    else:
        for text in ids:
            digest.update(text.encode() + b"\xff")
    return digest.hexdigest()


def check_index(index: int, n: int) -> int:
    """Return `index` as an int in [0, n); raise IndexError for all others, negative ones too."""
    index = operator.index(index)
    if not 0 <= index < n:
        raise IndexError(f"Image index {index} is out of range: there are {n} images, 0 to {n - 1}.")
    return index


def sort_indices(indices: Sequence[int], n: int) -> NDArray[np.int64]:
    """Return indices in ascending order, int64; raise IndexError if one is not in [0, n)."""
    found = np.sort(np.fromiter(indices, np.int64, len(indices)))
    if len(found):
        check_index(found[0], n)
        check_index(found[-1], n)
    return found


def check_ids(ids: Iterable[str], n: int) -> tuple[str, ...]:
    """Return `ids` as a tuple of `n` unique strings; raise SourceError if they are not."""
    given = (ids,) if isinstance(ids, str) else tuple(ids)
    for image_id in given:
        if not isinstance(image_id, str):
            raise SourceError(f"The id {image_id!r} is no string. Make strings of the ids, e.g. str(id).")
        try:
            image_id.encode()
        except UnicodeEncodeError as exc:
            raise SourceError(f"The id {image_id!r} is no valid text. Take the surrogates out.") from exc
    if len(given) != n:
        raise SourceError(f"{len(given)} ids were given for {n} images. Give one id per image.")
    if len(set(given)) != n:
        seen: set[str] = set()
        twice = next(i for i in given if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise SourceError(f"The id {twice!r} is given more than once. Each image needs an id of its own.")
    return given
