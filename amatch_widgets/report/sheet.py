"""The contact sheet: the highest scores as pictures, each with its rank, its score and its label."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from amatch_widgets.errors import ConfigError
from amatch_widgets.report._canvas import DIM, MARKS, new_figure, styled
from amatch_widgets.report.top import top

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from amatch_widgets.report.top import Top
    from amatch_widgets.session import Session

__all__ = ["sheet_figure"]

# In the side of an image: the words above all images, those below each one, and a line at the end.
_HEAD, _STEP, _LINE = 0.42, 1.24, 0.2
_SIDE_IN = 0.9
_NAMED = 5  # unreadable images


@styled()
def sheet_figure(session: Session, n: int = 50, columns: int = 10) -> Figure:
    """Draw the images with the highest scores, each with rank, score and the mark of its label.

    Parameters
    ----------
    session : Session
    n : int, >= 1
        How many.
    columns : int, >= 1
        Images in a row.

    Returns
    -------
    Figure
        Images that cannot be read are left out and named below.

    Raises
    ------
    ConfigError
        If `n` or `columns` is below 1.
    """
    if n < 1 or columns < 1:
        raise ConfigError(f"sheet_figure(n={n!r}, columns={columns!r}): both must be at least 1.")
    shown, unreadable = top(session, n)
    columns = max(4, min(columns, len(shown)))  # room for the line above
    rows = max(1, -(-len(shown) // columns))
    notes = textwrap.wrap(_left_out(unreadable), 14 * columns)
    height = _HEAD + _STEP * rows + _LINE * len(notes)  # in images
    figure = new_figure(_SIDE_IN * columns, _SIDE_IN * height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.06, columns + 0.06), ylim=(height, 0))
    axes.axis("off")
    if not shown:
        said = "none of them can be read" if unreadable else "nothing is scored yet"
        axes.text(columns / 2, height / 2, said, ha="center", va="center", color=DIM)
    else:
        axes.text(
            0.05,
            0.22,
            f"The highest {len(shown) + len(unreadable):,} of {len(session.source):,} images",
            va="center",
        )
        _key(axes, columns)
    for place, item in enumerate(shown):
        _tile(axes, place % columns, _HEAD + _STEP * (place // columns), item)
    for line, text in enumerate(notes):
        axes.text(
            0.05,
            height - _LINE * (len(notes) - line - 0.5),
            text,
            color=DIM,
            fontsize=7,
            va="center",
            parse_math=False,
        )
    return figure


def _tile(axes: Axes, left: float, top_at: float, item: Top) -> None:
    """Draw an image with what is known of it below."""
    picture = np.asarray(Image.open(io.BytesIO(item.jpeg)).convert("RGB"))
    height, width = np.array(picture.shape[:2]) / max(picture.shape[:2]) * 0.94
    x, y = left + (1 - width) / 2, top_at + (0.94 - height) / 2
    axes.imshow(picture, extent=(x, x + width, y + height, y), aspect="auto", zorder=1)
    below: dict[str, Any] = {"y": top_at + 1.04, "va": "center", "fontsize": 7}
    axes.text(left + 0.04, s=f"{item.rank}", weight="bold", **below)
    axes.text(left + 0.96, s=f"{item.score:.3f}", ha="right", color=DIM, **below)
    if item.label is not None:
        colour, mark = MARKS[str(item.label.label)]
        axes.plot(left + 0.13, top_at + 0.1, mark, color=colour, ms=6.5, mec="white", mew=0.9, zorder=3)


def _key(axes: Axes, columns: int) -> None:
    """Say at the top right which mark means what."""
    for place, (kind, (colour, mark)) in enumerate(MARKS.items()):
        x = columns - 1.75 + 0.95 * place
        axes.plot(x, 0.22, mark, color=colour, ms=5.5, mec="none")
        axes.text(x + 0.1, 0.22, kind, va="center", fontsize=8)


def _left_out(unreadable: Mapping[str, str]) -> str:
    """Name the images that cannot be read, in letters that the font has."""
    if not unreadable:
        return ""
    names = [_plain(image_id) for image_id in list(unreadable)[:_NAMED]]
    more = f" and {len(unreadable) - _NAMED:,} more" if len(unreadable) > _NAMED else ""
    return f"Left out, as they cannot be read: {', '.join(names)}{more}."


def _plain(text: str) -> str:
    latin = text.encode("latin-1", "backslashreplace").decode("latin-1")
    return "".join(c if c.isprintable() else "?" for c in latin)
