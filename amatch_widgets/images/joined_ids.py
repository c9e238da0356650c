"""Ids of several sources as one sequence, made when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from amatch_widgets.images.packed import IdIndex
from amatch_widgets.images.source import positions_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JoinedIds", "are_told_apart"]

_BLOCK = 2**17  # ids made Python objects at a time


def are_told_apart(names: Sequence[str]) -> bool:
    """Whether no id after one of these names can be the same as one after another.

    So it is unless a name and a slash begin another name: ``"a/b/c"`` may be c in a/b, or b/c in a.
    """
    ends = sorted(f"{name}/" for name in names)
    return not any(after.startswith(before) for before, after in itertools.pairwise(ends))


class JoinedIds(Sequence[str]):
    """The ids of several sources, each after the name of its source: ``"north/0017"``.

    Parameters
    ----------
    parts : mapping of str to sequence of str
        The unique ids of each source, by its name; the names `are_told_apart`.
    """

    def __init__(self, parts: Mapping[str, Sequence[str]]) -> None:
        self._parts = dict(parts)
        self._starts = np.cumsum([0, *map(len, parts.values())])
        self._places = {name: positions_of(ids) for name, ids in parts.items()}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            return [i for block in self.blocks(start, stop) for i in block]
        index = range(len(self))[index]
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        name, ids = list(self._parts.items())[number]
        return f"{name}/{ids[index - int(self._starts[number])]}"

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks(0, len(self)):
            yield from block

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self.position(value) is not None

    def __repr__(self) -> str:
        return f"JoinedIds({len(self):,} of {len(self._parts)} sources)"

    def position(self, image_id: str) -> int | None:
        """Return the position of an id; None if it is not there."""
        for (name, places), start in zip(self._places.items(), self._starts, strict=False):
            if image_id.startswith(f"{name}/"):
                found = places.get(image_id[len(name) + 1 :])
                return None if found is None else int(start) + found
        return None

    def positions(self, ids: Any) -> NDArray[np.int64]:
        """Return the positions of many ids, a list or an Arrow array of N texts; -1 for those not there."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        wanted = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.large_string())
        found = np.full(len(wanted), -1, np.int64)
        for (name, places), start in zip(self._places.items(), self._starts, strict=False):
            is_here = pc.starts_with(wanted, f"{name}/")
            own = pc.utf8_slice_codeunits(wanted.filter(is_here), len(name) + 1)
            if isinstance(places, IdIndex):
                at = places.positions(own)
            else:
                at = np.fromiter((places.get(i, -1) for i in own.to_pylist()), np.int64, len(own))
            found[np.asarray(is_here.to_numpy(zero_copy_only=False), bool)] = np.where(at < 0, -1, at + start)
        return found

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of an id; ValueError if it is not there."""
        found = self.position(value) if isinstance(value, str) else None
        if found is None or not start <= found < (len(self) if stop is None else stop):
            raise ValueError(f"{value!r} is no id here")
        return found

    def contain(self, text: str) -> NDArray[np.bool_]:
        """Say of each id whether it contains a text, upper and lower case alike; bool, shape (N,)."""
        import pyarrow as pa  # noqa: PLC0415 - import amatch_widgets must be quick
        import pyarrow.compute as pc  # noqa: PLC0415 - as above

        found = np.empty(len(self), bool)
        done = 0
        for block in self.blocks(0, len(self)):
            part = pc.match_substring(pa.array(block, pa.large_string()), text, ignore_case=True)
            found[done : done + len(block)] = part.to_numpy(zero_copy_only=False)
            done += len(block)
        return found

    def blocks(self, start: int, stop: int) -> Iterator[list[str]]:
        """Give the ids from `start` to `stop`, in lists of ids of the same source."""
        for (name, ids), first in zip(self._parts.items(), self._starts.tolist(), strict=False):
            begin, end = max(start - first, 0), min(stop - first, len(ids))
            for k in range(begin, end, _BLOCK):
                yield [f"{name}/{image_id}" for image_id in ids[k : min(k + _BLOCK, end)]]
