"""Which of the images a session has as its own: all, or a sample of very many."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import AmatchError, ConfigError
from amatch_widgets.images.joined import Subset, subset_from_spec
from amatch_widgets.images.sample import sample
from amatch_widgets.images.source import index_of
from amatch_widgets.labels.table import read_label_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

    from amatch_widgets.images.source import ImageSource

__all__ = ["is_outside", "notice_of_part", "own_ids_in", "own_images"]

# Images of which a session keeps vectors: 1 GB. At the rates in benchmarks/RESULTS.md (10,000 photographs in
# 74 s, 6,608 galaxies in 86 s) these are two to four hours of 2 cores.
_MOST = 1_000_000
_OF_MORE = 100_000


def own_images(
    source: ImageSource,
    found: Mapping[str, Any] | None,
    *,
    n: int | None,
    labels: str | Path | Mapping[str, str] | None,
    seed: int,
) -> ImageSource:
    """Return the images that a session embeds, shows and learns from.

    Parameters
    ----------
    source : ImageSource
        All that the user has.
    found : mapping, optional
        The manifest of a session that is continued; it keeps the images that it has.
    n : int, >= 1, optional
        How many there are to be. None: all up to a million; of more, 100,000.
    labels : path or mapping, optional
        The first labels; images that have one are among them.
    seed : int
        Of the draw.

    Returns
    -------
    ImageSource
        `source`, or a `Subset` of it.

    Raises
    ------
    ConfigError
        If `n` is not a whole number from 1 on.
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ConfigError(f"Session(sample={n!r}): allowed is a whole number from 1 on, or None.")
    if found is not None:
        return _as_it_was(source, found)
    wanted = n or (len(source) if len(source) <= _MOST else _OF_MORE)
    if wanted >= len(source):
        return source
    return sample(source, wanted, seed=seed, ids=_labelled(source, labels))


def is_outside(source: ImageSource, image_id: str) -> bool:
    """Whether a session's images are a sample, and an image is only among all."""
    return isinstance(source, Subset) and image_id not in source.ids and image_id in source.whole.ids


def own_ids_in(source: ImageSource, index: Container[str]) -> Callable[[str], Container[str]]:
    """Return a function that tells which images of an archive are the session's own, under the same ids.

    Parameters
    ----------
    source : ImageSource
        Of the session.
    index : container of str
        Its ids.

    Returns
    -------
    callable
        Takes the fingerprint of an archive. Its images are the session's own where that has a part of them.
    """
    whole = functools.cache(source.whole.fingerprint) if isinstance(source, Subset) else None
    return lambda fingerprint: index if whole is not None and whole() == fingerprint else ()


def notice_of_part(source: ImageSource) -> list[str]:
    """Say that a session has a part of its user's images; nothing where it has them all."""
    if not isinstance(source, Subset):
        return []
    of_all = f"{len(source):,} of the {len(source.whole):,} images of {source.name!r}"
    text = (
        f"This session learns from and shows {of_all}. “score other images”, or session.score(source), goes "
        "through all of them; they can then be looked at and labelled, too."
    )
    return [text]


def _as_it_was(source: ImageSource, found: Mapping[str, Any]) -> ImageSource:
    """Take the same part of the images again, if the session has a part of these."""
    spec, fingerprint = found.get("source"), found.get("fingerprint")
    if not isinstance(spec, Mapping) or spec.get("kind") != "subset":
        return source
    if source.fingerprint() != fingerprint:
        with contextlib.suppress(AmatchError, LookupError, TypeError):  # others: the manifest's check says so
            part = subset_from_spec(source, spec)
            if part.fingerprint() == fingerprint:
                return part
    return source


def _labelled(source: ImageSource, labels: str | Path | Mapping[str, str] | None) -> list[str]:
    if labels is None:
        return []
    index = index_of(source)
    if isinstance(labels, Mapping):
        return [
            image_id for image_id in labels if image_id in index
        ]  # others are refused when they are taken
    return list(read_label_csv(labels, index.keys(), store=source.name).labels)
