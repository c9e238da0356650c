"""Several image sources as one, and a part of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, SourceError
from amatch_widgets.images.description import describe
from amatch_widgets.images.ids import check_index, hash_ids, sort_indices
from amatch_widgets.images.joined_ids import JoinedIds, are_told_apart
from amatch_widgets.images.packed import PackedIds
from amatch_widgets.images.source import ImageSource, open_source, read_many, source_from_spec
from amatch_widgets.images.stored_ids import to_arrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["JoinedSource", "Subset", "derived_from_spec", "subset_from_spec"]

_BLOCK = 2**17  # ids made Python objects at a time


class JoinedSource:
    """Several sources as one, one after the other.

    Parameters
    ----------
    sources : mapping of str to source, or sequence of sources
        Open, or what `open_source` opens. Without a mapping each goes by its own name.
    ids : iterable of str, optional
        One unique id for each image of all sources; default the name of its source and its id there:
        ``"north/0017"``.
    name : str, optional
        Short name for people; default the names of the sources.

    Attributes
    ----------
    channels : int
        The same in all sources.
    bands : tuple of str, or None
        Names of the channels; None where a source does not say.
    chunk : int
        How many images lie together and are best read by one `read_many`: the most of all sources.
    skipped : dict of str to str
        What could not be looked at in each source, with the reason.

    Raises
    ------
    SourceError
        There is no source, one cannot be opened, two have the same name, or their channels differ.
    """

    def __init__(
        self,
        sources: Mapping[str, object] | Iterable[object],
        *,
        ids: Iterable[str] | None = None,
        name: str | None = None,
    ) -> None:
        self._sources = _named(sources)
        self._starts = np.cumsum([0, *map(len, self._sources.values())])
        self.channels, self.bands = _same_channels(self._sources)
        self.name = name or _short(list(self._sources))
        self.chunk = max(int(getattr(source, "chunk", 1)) for source in self._sources.values())
        self.skipped = {
            f"{key}/{what}": reason
            for key, source in self._sources.items()
            for what, reason in getattr(source, "skipped", {}).items()
        }
        self._has_own_ids = ids is not None
        self.ids: Sequence[str] = self._join_ids() if ids is None else _checked(ids, len(self))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        parts = ", ".join(f"{key!r}: {len(source)}" for key, source in self._sources.items())
        return f"JoinedSource({len(self)} images of {len(self._sources)} sources, {parts})"

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image; see `ImageSource.read`."""
        source, own = self._find(index)
        try:
            return source.read(own, min_side=min_side)
        except ImageReadError as exc:
            raise ImageReadError(self.ids[index], exc.reason) from exc

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read images, source after source, each as is best for it; see `source.read_many`."""
        ordered = sort_indices(indices, len(self))
        ends = np.searchsorted(ordered, self._starts)
        for number, source in enumerate(self._sources.values()):
            first = int(self._starts[number])
            own = ordered[ends[number] : ends[number + 1]] - first
            if not len(own):
                continue
            for i, found in read_many(source, own.tolist(), min_side=min_side):
                index = first + i
                if isinstance(found, ImageReadError):
                    yield index, _with_cause(ImageReadError(self.ids[index], found.reason), found)
                else:
                    yield index, found

    def position(self, index: int) -> tuple[float, float] | None:
        """Return the right ascension and declination, ICRS, degrees; None if its source says none."""
        source, own = self._find(index)
        return _position(source, own)

    def describe(self, index: int) -> dict[str, str]:
        """Return the name of its source, and what that knows of the image."""
        source, own = self._find(index)
        name = next(key for key, one in self._sources.items() if one is source)
        return {"Source": name, **describe(source, own)}

    def fingerprint(self) -> str:
        """Return a hash of the fingerprints and names of the sources, and of ids that were given."""
        parts = [f"{key}\n{source.fingerprint()}" for key, source in self._sources.items()]
        return hash_ids(self.ids if self._has_own_ids else (), "joined", *parts)

    def spec(self) -> dict[str, Any]:
        """Return the specs of the sources in their order, and the ids that were given."""
        spec: dict[str, Any] = {
            "kind": "joined",
            "sources": [[key, source.spec()] for key, source in self._sources.items()],
        }
        if self._has_own_ids:
            spec["ids"] = list(self.ids)
        return spec

    def _find(self, index: int) -> tuple[ImageSource, int]:
        index = check_index(index, len(self))
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        return list(self._sources.values())[number], index - int(self._starts[number])

    def _join_ids(self) -> Sequence[str]:
        ids = JoinedIds({key: source.ids for key, source in self._sources.items()})
        if are_told_apart(list(self._sources)):
            return ids
        return PackedIds(to_arrow(ids.blocks(0, len(ids)), "The ids of the sources"))


class Subset:
    """Some images of a source, under their own ids.

    Parameters
    ----------
    source : source
        Open, or what `open_source` opens.
    indices : array of int64, shape (N,)
        Which images, different from each other; their order is that of the subset. (The indices of ids are
        in `index_of`.)
    name : str, optional
        Short name for people; default the name of the source.

    Attributes
    ----------
    whole : ImageSource
        The source.
    channels, bands
        As of the source.
    chunk : int
        How many images lie together: those that are wanted of most of its chunks.

    Raises
    ------
    SourceError
        The indices are none, or one is given twice.
    IndexError
        An index is out of range.
    """

    def __init__(self, source: object, indices: ArrayLike, *, name: str | None = None) -> None:
        self.whole = open_source(source)
        self._indices = _checked_indices(indices, len(self.whole))
        self.name = name or self.whole.name
        self.channels = self.whole.channels
        self.bands: tuple[str, ...] | None = getattr(self.whole, "bands", None)
        chunks = self._indices // max(1, int(getattr(self.whole, "chunk", 1)))
        self.chunk = int(np.median(np.unique(chunks, return_counts=True)[1]))
        self.ids: Sequence[str] = _picked(self.whole.ids, self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __repr__(self) -> str:
        return f"Subset({len(self)} images of {self.whole!r})"

    def read(self, index: int, *, min_side: int | None = None) -> NDArray[Any]:
        """Read one image; see `ImageSource.read`."""
        return self.whole.read(self._own(index), min_side=min_side)

    def read_many(
        self, indices: Sequence[int], *, min_side: int | None = None
    ) -> Iterator[tuple[int, NDArray[Any] | ImageReadError]]:
        """Read images as is best for the source; see `source.read_many`."""
        wanted = sort_indices(indices, len(self))
        theirs = self._indices[wanted]
        order = np.argsort(theirs)
        wanted, theirs = wanted[order], theirs[order]
        for i, found in read_many(self.whole, theirs.tolist(), min_side=min_side):
            yield int(wanted[np.searchsorted(theirs, i)]), found

    def position(self, index: int) -> tuple[float, float] | None:
        """Return the right ascension and declination, ICRS, degrees; None if the source says none."""
        return _position(self.whole, self._own(index))

    def describe(self, index: int) -> dict[str, str]:
        """Return what the source knows of the image."""
        return describe(self.whole, self._own(index))

    def fingerprint(self) -> str:
        """Return a hash of the fingerprint of the source and of the indices."""
        digest = hashlib.blake2b(self._indices.astype("<i8").data, digest_size=8).hexdigest()
        return hash_ids((), "subset", self.whole.fingerprint(), digest)

    def spec(self) -> dict[str, Any]:
        """Return the spec of the source and the indices; of a range, where it begins and ends."""
        first, step = int(self._indices[0]), int(self._indices[1] - self._indices[0]) if len(self) > 1 else 1
        if np.array_equal(self._indices, first + step * np.arange(len(self))):
            indices: dict[str, Any] = {"first": first, "step": step, "n": len(self)}
        else:
            indices = {"each": self._indices.tolist()}
        return {"kind": "subset", "source": self.whole.spec(), "indices": indices}

    def _own(self, index: int) -> int:
        return int(self._indices[check_index(index, len(self))])


def derived_from_spec(spec: Mapping[str, Any]) -> ImageSource:
    """Open a joined source or a subset again from what its `spec` method returned."""
    if spec["kind"] == "joined":
        sources = {key: source_from_spec(part) for key, part in spec["sources"]}
        return JoinedSource(sources, ids=spec.get("ids"))
    return subset_from_spec(source_from_spec(spec["source"]), spec)


def subset_from_spec(whole: ImageSource, spec: Mapping[str, Any]) -> Subset:
    """Take those images of a source again of which the `spec` of a subset tells."""
    indices = spec["indices"]
    each = indices.get("each")
    if each is None:
        each = indices["first"] + indices["step"] * np.arange(indices["n"])
    return Subset(whole, each)


def _named(sources: Mapping[str, object] | Iterable[object]) -> dict[str, ImageSource]:
    """Open sources, and give each its name."""
    if isinstance(sources, Mapping):
        pairs = [(key, open_source(what)) for key, what in sources.items()]
    elif isinstance(sources, str | np.ndarray | ImageSource):
        raise SourceError(
            f"Cannot join {type(sources).__name__!r} alone. Pass several: JoinedSource({{'north': ..., "
            "'south': ...}), or a list of sources."
        )
    else:
        pairs = [(source.name, source) for source in map(open_source, sources)]
    if not pairs:
        raise SourceError("There is no source to join. Pass at least one.")
    named: dict[str, ImageSource] = {}
    for key, source in pairs:
        if not isinstance(key, str) or not key:
            raise SourceError(f"The name {key!r} of a source is no text. Name it, e.g. 'north'.")
        if key in named:
            raise SourceError(
                f"Two sources have the name {key!r}, and their ids begin with it. Give each its own: "
                "JoinedSource({'north': ..., 'south': ...})."
            )
        named[key] = source
    return named


def _same_channels(sources: Mapping[str, ImageSource]) -> tuple[int, tuple[str, ...] | None]:
    """Return channels and bands that all sources have."""
    (first, one), *others = sources.items()
    known: tuple[str, tuple[str, ...]] | None = None
    for key, source in sources.items():
        bands = getattr(source, "bands", None)
        if bands is None:
            continue
        if known is not None and tuple(bands) != known[1]:
            raise SourceError(
                f"The sources have different bands: {known[0]!r} has {', '.join(known[1])}, and {key!r} has "
                f"{', '.join(bands)}. Open them with the same bands in the same order."
            )
        known = known or (key, tuple(bands))
    for key, source in others:
        if source.channels != one.channels:
            raise SourceError(
                f"The sources have different channels: {first!r} has {one.channels}, and {key!r} has "
                f"{source.channels}. Join sources with the same number of them."
            )
    is_said = known is not None and all(getattr(s, "bands", None) is not None for s in sources.values())
    return one.channels, known[1] if known is not None and is_said else None


def _short(names: Sequence[str]) -> str:
    return " + ".join(names) if len(names) <= 3 else f"{names[0]} + {len(names) - 1} more"  # noqa: PLR2004


def _checked(ids: Iterable[str], n: int) -> PackedIds:
    packed = PackedIds([ids] if isinstance(ids, str) else ids)
    if len(packed) != n:
        raise SourceError(f"{len(packed)} ids were given for {n} images. Give one id for each image.")
    return packed


def _checked_indices(indices: ArrayLike, n: int) -> NDArray[np.int64]:
    given = np.asarray(indices)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        raise SourceError(
            f"The indices are of shape {given.shape} and dtype {given.dtype}. Wanted is a list of at least "
            "one whole number, e.g. np.flatnonzero(mask)."
        )
    checked = given.astype(np.int64)  # a copy: the caller's may change
    ordered = sort_indices(checked, n)  # type: ignore[arg-type]  # an array of them does
    twice = np.flatnonzero(np.diff(ordered) == 0)
    if len(twice):
        raise SourceError(f"The index {ordered[twice[0]]} is given more than once. Give each one once.")
    return checked


def _picked(ids: Sequence[str], indices: NDArray[np.int64]) -> PackedIds:
    if isinstance(ids, PackedIds):
        return ids.take(indices)

    def blocks() -> Iterator[list[str]]:
        for start in range(0, len(indices), _BLOCK):
            yield [ids[i] for i in indices[start : start + _BLOCK].tolist()]

    return PackedIds(to_arrow(blocks(), "The ids of the source"))


def _position(source: ImageSource, index: int) -> tuple[float, float] | None:
    find = getattr(source, "position", None)
    found: tuple[float, float] | None = None if find is None else find(index)
    return found


def _with_cause(error: ImageReadError, cause: ImageReadError) -> ImageReadError:
    error.__cause__ = cause.__cause__
    return error
