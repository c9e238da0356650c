"""Turn series of numbers into the coordinates of a small SVG chart.

Plain dictionaries of numbers and short texts come out; one constant template draws them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HEIGHT", "WIDTH", "Axis", "at_most", "curve", "nice_ticks"]

# The chart's own units; the browser scales it to the width there is.
WIDTH, HEIGHT = 360, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 8, 30
_MOST_POINTS = 500


def nice_ticks(low: float, high: float, n: int = 4) -> list[float]:
    """Choose round numbers that cover a range.

    Parameters
    ----------
    low, high : float
        The range; `high` must be above `low`.
    n : int
        About how many steps are wanted.

    Returns
    -------
    list of float
        Multiples of 1, 2 or 5 times a power of ten, from at or above `low` to at or below `high`.
    """
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def at_most(n: int, values: Sequence[float]) -> list[int]:
    """Choose at most `n` positions that keep a curve's shape.

    Parameters
    ----------
    n : int
        The most positions wanted; at least 4.
    values : sequence of float
        The curve.

    Returns
    -------
    list of int
        Increasing; the first, the last, and the lowest and highest of each stretch between.
    """
    if len(values) <= n:
        return list(range(len(values)))
    chosen = {0, len(values) - 1}
    stretches = (n - 2) // 2
    for k in range(stretches):
        stretch = range(len(values) * k // stretches, len(values) * (k + 1) // stretches)
        chosen.add(min(stretch, key=values.__getitem__))
        chosen.add(max(stretch, key=values.__getitem__))
    return sorted(chosen)


@dataclass(frozen=True)
class Axis:
    """A linear axis: which range it shows and where in the chart it lies.

    Parameters
    ----------
    low, high : float
        The range of the data; widened to something above zero where it is a single value.
    start, end : float
        Where `low` and `high` are drawn, in the chart's units.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def x(cls, low: float, high: float) -> Axis:
        """Lay an axis along the bottom."""
        return cls(low, high if high > low else low + 1, _LEFT, WIDTH - _RIGHT)

    @classmethod
    def y(cls, low: float, high: float, *, room: float = 0) -> Axis:
        """Lay an axis along the left side, upwards; above it, some `room` is left."""
        return cls(low, high if high > low else low + 1, HEIGHT - _BOTTOM, _TOP + room)

    def __call__(self, value: float) -> float:
        """Give the place of `value`, in the chart's units, to a tenth."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, n: int = 4, *, percent: bool = False, whole: bool = False) -> list[list[Any]]:
        """Give the place and the text of each tick.

        Parameters
        ----------
        n : int
            About how many.
        percent : bool
            Write shares of 1 as percentages.
        whole : bool
            Only whole numbers, for what is counted.

        Returns
        -------
        list of [float, str]
            Place along the axis and text.
        """
        values = nice_ticks(self.low, self.high, n)
        if whole:
            values = sorted({float(round(v)) for v in values if self.low <= round(v) <= self.high})
        texts = [f"{100 * v:.6g} %" if percent else f"{v:,.6g}" for v in values]
        return [[self(v), text] for v, text in zip(values, texts, strict=True)]


def curve(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Write a curve as the points of an SVG polyline.

    Parameters
    ----------
    x, y : Axis
        The chart's axes.
    xs, ys : sequence of float, same length
        The data; what is not finite is left out.

    Returns
    -------
    str
        At most 500 points, ``"x,y x,y ..."``.
    """
    finite = [k for k, value in enumerate(ys) if math.isfinite(value)]
    kept = at_most(_MOST_POINTS, [ys[k] for k in finite])
    return " ".join(f"{x(xs[finite[k]])},{y(ys[finite[k]])}" for k in kept)
