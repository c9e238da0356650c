"""The candidates that a sheet shows: the highest scores, each with its picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ConfigError, ImageReadError
from amatch_widgets.query.strategies import order

if TYPE_CHECKING:
    from amatch_widgets.labels import Label
    from amatch_widgets.session import Session

__all__ = ["Top", "top"]


@dataclass(frozen=True, slots=True)
class Top:
    """One candidate.

    Parameters
    ----------
    rank : int
        1 is the highest score.
    image_id : str
    score : float, in [0, 1]
    label : Label or None
        What was said about it.
    jpeg : bytes
        A small picture.
    """

    rank: int
    image_id: str
    score: float
    label: Label | None
    jpeg: bytes


def top(session: Session, n: int, side: int = 160) -> tuple[list[Top], dict[str, str]]:
    """Return the images with the highest scores.

    Parameters
    ----------
    session : Session
    n : int, >= 0
        How many.
    side : int
        Longer side of the pictures, in pixels.

    Returns
    -------
    list of Top
        In the order of their ranks; fewer where fewer have a score or can be read.
    dict of str to str
        Ids of those that could not be read, with the reason.

    Raises
    ------
    ConfigError
        If `n` is negative.
    """
    if n < 0:
        raise ConfigError(f"n is {n}; it must be 0 or more.")
    scores, ids = session.scores, session.source.ids
    found: list[Top] = []
    unreadable: dict[str, str] = {}
    for rank, index in enumerate(order(scores, "highest")[:n], start=1):
        if np.isnan(scores[index]):
            break  # they come last
        image_id = ids[index]
        try:
            jpeg = session.thumbnail(image_id, side)
        except ImageReadError as error:
            unreadable[image_id] = error.reason
        else:
            found.append(Top(rank, image_id, float(scores[index]), session.labels.get(image_id), jpeg))
    return found, unreadable
