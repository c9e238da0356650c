"""The orders in which the images of an archive are looked at, by their scores and what was said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.archive.order import Chosen, Picked, Row, named
from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from amatch_widgets.archive.order import Order
    from amatch_widgets.archive.scores import ArchiveScores
    from amatch_widgets.labels import Label
    from amatch_widgets.session.archive import Archive
    from amatch_widgets.session.selection import Filter, Show

__all__ = ["ORDERS", "make_order"]

ORDERS = ("highest", "lowest", "uncertain", "random", "rising", "recent")
_RISING = 2_000  # of the highest, among which those that have risen are looked for
_SAID = ("labelled", "anomaly", "normal", "starred")


def make_order(archive: Archive, how: str, show: Show, only: Filter, seed: int) -> Order:
    """List the images of an archive as they are scored now; see `Archive.order`."""
    if how not in ORDERS:
        raise ConfigError(f"Unknown order {how!r} of an archive: allowed are {', '.join(map(repr, ORDERS))}.")
    if how == "recent" and show not in _SAID:
        show = "labelled"
    if show in _SAID or only.tag:
        return Chosen(_sorted(_said(archive, show, only), how, seed))
    scores, lines = archive.scores, archive.lines() if show == "unlabelled" else {}
    left_out = archive.positions(i for i, line in lines.items() if line.label is not None)
    if how == "rising" and show != "problem":
        return _risen(scores, only, list(left_out.values()))
    return scores.scan(
        "problem" if show == "problem" else how,
        least=only.least,
        most=only.most,
        contains=only.contains,
        left_out=list(left_out.values()),
        seed=seed,
    )


def _said(archive: Archive, show: str, only: Filter) -> list[Row]:
    """Return the images of which something is said and that pass a filter, the latest first."""
    text = only.contains.casefold()
    wanted = [
        i
        for i, line in reversed(archive.lines().items())
        if _shows(line, show)
        and (not only.tag or only.tag in line.tags)
        and text in archive.own_id(i).casefold()
    ]
    indices = archive.positions(wanted)
    scores = archive.scores.of(indices.values())
    rows = [Row(indices[i], archive.own_id(i), scores.get(indices[i])) for i in wanted if i in indices]
    if (only.least, only.most) != (0, 1):
        rows = [row for row in rows if row.score is not None and only.least <= row.score <= only.most]
    return rows


def _shows(line: Label, show: str) -> bool:
    if show == "starred":
        return line.star
    if show in ("anomaly", "normal"):
        return line.label == show
    return show != "unlabelled" if line.label is not None else show in ("all", "unlabelled")


def _sorted(rows: list[Row], how: str, seed: int) -> list[Row]:
    """Sort a few rows, which come with the latest label first."""
    if how == "random":
        return [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]
    signs: dict[str, Any] = {
        "highest": lambda score: -score,
        "lowest": lambda score: score,
        "uncertain": lambda score: abs(score - 0.5),
    }
    if how not in signs:
        return rows
    return sorted(rows, key=lambda r: (r.score is None, signs[how](r.score or 0.0), r.index))


def _risen(scores: ArchiveScores, only: Filter, left_out: list[int]) -> Order:
    """Return which of the highest have gained most ranks, and pass a filter."""
    found, before = scores.risen(_RISING)
    gain = np.log(before / np.arange(1, len(found) + 1))
    found = found.take(np.argsort(-gain, kind="stable"))  # what had no score before comes last
    score = found.scores.astype(np.float64)
    is_in = (score >= only.least) & (score <= only.most) & ~np.isin(found.indices, left_out)
    found = found.take(is_in)
    if not only.contains:
        return Picked(scores.now(), found.indices, found.scores)
    text = only.contains.casefold()
    rows = named(scores.now(), found.indices, found.scores)
    return Chosen([row for row in rows if text in row.id.casefold()])
