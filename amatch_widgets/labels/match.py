"""Which image a name in somebody's table means."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

__all__ = ["NUMBERED", "WIDTHS", "Matcher", "misfits"]

# How AnomalyMatch 2 names an image of a Zarr store without names: the store or its batch, and the number.
NUMBERED = r"(?s)^(.+)__image_([0-9]{6,})$"  # as Arrow understands it too
WIDTHS = range(1, 10)  # of our own numbers, which have as many digits as the largest of their store
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}$")


class Matcher:
    """Find the image that a name in a table means.

    Parameters
    ----------
    ids : collection of str
    store : str
        Name of the Zarr store that the images are in, or "".
    without_endings : bool
        A name may be a bare file name without its ending, as in the tables of Astronomaly.
    """

    def __init__(self, ids: Collection[str], *, store: str = "", without_endings: bool = False) -> None:
        self._ids = ids if isinstance(ids, Mapping | AbstractSet) else dict.fromkeys(ids)
        self._store, self._without_endings = store, without_endings
        self._by_basename: dict[str, list[str]] | None = None

    def find(self, name: str) -> list[str]:
        """Return the ids that `name` may mean: none, one, or several."""
        for exact in (name, name.strip()):
            if exact in self._ids:
                return [exact]
        for image_id in self._numbered(name.strip()):
            if image_id in self._ids:
                return [image_id]
        if self._by_basename is None:  # most tables never come here
            self._by_basename = {}
            for image_id in self._ids:
                self._by_basename.setdefault(self._told(image_id.rpartition("/")[2]), []).append(image_id)
        plain = name.strip().replace("\\", "/").removeprefix("./")
        if self._without_endings:
            return self._by_basename.get(plain, [])
        same_basename = self._by_basename.get(plain.rpartition("/")[2], [])
        if plain in same_basename:
            return [plain]
        inside = [i for i in same_basename if plain.endswith("/" + i)]  # the name says more than the id
        longest = max(inside, key=len, default="")
        if "/" in longest:
            return [longest]
        # A bare file name says too little when images in several folders have it.
        return same_basename if longest else [i for i in same_basename if i.endswith("/" + plain)]

    def _numbered(self, name: str) -> list[str]:
        """Return the ids that an image without a name may have: in a folder of stores, or in this one."""
        found = re.fullmatch(NUMBERED, name)
        if found is None:
            return []
        numbers = [f"{int(found[2]):0{width}d}" for width in WIDTHS]
        of_store = numbers if found[1] == self._store else []
        return [*(f"{found[1]}/{number}" for number in numbers), *of_store]

    def _told(self, basename: str) -> str:
        return _ENDING.sub("", basename) if self._without_endings else basename


def misfits(unknown: Collection[str], ambiguous: Collection[str]) -> str:
    """Say in plain words which names of a table fit no image, or several; "" if all fit one."""
    return "; ".join(
        f"{len(names)} of its ids fit{'s' if len(names) == 1 else ''} {what}, "
        f"the first is {next(iter(names))!r}"
        for names, what in ((unknown, "no image"), (ambiguous, "several images"))
        if names
    )
