"""Draw one galaxy of the synthetic sky: shapes, light, blur, noise and the stretch to eight bits.

Lengths are in half-widths of the image: the centre is (0, 0) and the edges are at -1 and 1, or at the reach
of a canvas that shows more around it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import ArrayLike, NDArray

__all__ = ["NOISE", "NORMAL_KINDS", "RARE_KINDS", "draw", "light_of"]

NORMAL_KINDS = ("elliptical", "disc", "spiral")
RARE_KINDS = ("merger", "ring", "lens")

PSF_SIGMA = 0.035  # 1.1 pixels at 64: a good night
NOISE = 0.022  # of the surface brightness that the stretch takes for bright
SOFTENING = 6.0  # where the asinh stretch turns from linear to logarithmic
WHITE = 2.2  # surface brightness that becomes 255

# Red, green, blue of old stars, of a young disc, of star-forming knots and of a source far behind.
OLD = np.array([1.25, 0.98, 0.62], np.float32)
DISC = np.array([0.95, 0.98, 0.98], np.float32)
YOUNG = np.array([0.72, 0.92, 1.30], np.float32)
FAR = np.array([0.65, 0.9, 1.25], np.float32)


class _Grid(NamedTuple):
    x: NDArray[np.float32]  # (1, S)
    y: NDArray[np.float32]  # (S, 1)
    psf: NDArray[np.float32]  # (T,), one half of the PSF along an axis, the middle first
    pixel: float


@lru_cache(maxsize=8)
def _grid(size: int, reach: float) -> _Grid:
    axis = (((np.arange(size, dtype=np.float32) + np.float32(0.5)) / size * 2 - 1) * reach).astype(np.float32)
    pixel = 2 * reach / size
    half = np.exp(-0.5 * (np.arange(0, 3.5 * PSF_SIGMA, pixel) / PSF_SIGMA) ** 2)
    return _Grid(axis[None], axis[:, None], (half / (2 * half.sum() - 1)).astype(np.float32), pixel)


def _blur(light: NDArray[np.float32], psf: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve the last axis with the PSF; nothing comes in from outside."""
    size = light.shape[-1]
    blurred: NDArray[np.float32] = light * psf[0]
    for shift, weight in enumerate(psf[1:], 1):
        part = light * weight
        blurred[..., shift:] += part[..., : size - shift]
        blurred[..., : size - shift] += part[..., shift:]
    return blurred


class _Shape(NamedTuple):
    at: NDArray[np.float64]  # (2,), x and y of the centre
    axis_ratio: float  # 1: round
    angle: float  # of the long axis to x, in radians


class _Canvas:
    """Light in three bands, shape (3, S, S) float32, and the ways to add to it."""

    def __init__(self, size: int, rng: Generator, reach: float = 1) -> None:
        self.grid = _grid(size, reach)
        self.rng = rng
        self.light = np.zeros((3, size, size), np.float32)

    def add(self, brightness: NDArray[np.float32], colour: NDArray[np.float32]) -> None:
        self.light += brightness * colour[:, None, None]

    def ellipse(self, shape: _Shape) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return coordinates along and across the long axis, the latter stretched to make it a circle."""
        x0, y0 = shape.at.astype(np.float32)
        dx, dy = self.grid.x - x0, self.grid.y - y0
        cos, sin = np.float32(np.cos(shape.angle)), np.float32(np.sin(shape.angle))
        return dx * cos + dy * sin, (dy * cos - dx * sin) * np.float32(1 / shape.axis_ratio)

    def radius(self, along: NDArray[np.float32], across: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.sqrt(along * along + across * across + np.float32((0.5 * self.grid.pixel) ** 2))

    def sersic(
        self,
        shape: _Shape,
        effective: float,
        index: float,
        level: float,
        colour: NDArray[np.float32],
    ) -> None:
        """Add a Sersic profile with surface brightness `level` at its effective radius."""
        r = self.radius(*self.ellipse(shape))
        b = 2 * index - 1 / 3
        self.add(np.float32(level) * np.exp(-b * ((r / effective) ** np.float32(1 / index) - 1)), colour)

    def spots(self, x: ArrayLike, y: ArrayLike, sigma: ArrayLike, peak: ArrayLike, colour: ArrayLike) -> None:
        """Add round Gaussians; all but `colour`, (3,) or (N, 3), of shape (N,)."""
        x, y, sigma, peak = (np.asarray(v, np.float32).reshape(-1, 1) for v in (x, y, sigma, peak))
        gx = np.exp(-0.5 * ((self.grid.x - x) / sigma) ** 2) * peak
        gy = np.exp(-0.5 * ((self.grid.y.T - y) / sigma) ** 2)
        colour = np.broadcast_to(np.asarray(colour, np.float32), (len(gx), 3))
        # A Gaussian is a product of two. Few at a time: a large product wakes all threads of the BLAS, and
        # where they compete with training or other readers that takes a hundred times as long.
        step = max(1, 2**18 // gx.shape[1] ** 2)
        for part in (slice(i, i + step) for i in range(0, len(gx), step)):
            self.light += (gy[part].T[None] * colour[part].T[:, None, :]) @ gx[part]

    def finish(self) -> NDArray[np.uint8]:
        """Blur, add noise and stretch; (S, S, 3)."""
        light = _blur(_blur(self.light, self.grid.psf).swapaxes(1, 2), self.grid.psf).swapaxes(1, 2)
        sigma = np.float32(NOISE) * np.sqrt(1 + 4 * light)  # sky, and photons of the object itself
        light += sigma * self.rng.standard_normal(light.shape, np.float32)
        # One factor per pixel for all bands keeps the colours (Lupton et al. 2004).
        mean = np.maximum(light.mean(0), np.float32(1e-4))
        light *= np.arcsinh(SOFTENING * mean) * np.float32(235 / np.arcsinh(SOFTENING * WHITE)) / mean
        image: NDArray[np.uint8] = np.clip(light + np.float32(12), 0, 255).astype(np.uint8)
        return image.transpose(1, 2, 0).copy()


def draw(kind: str, rng: Generator, size: int) -> NDArray[np.uint8]:
    """Draw one object of a kind.

    Parameters
    ----------
    kind : str
        One of `NORMAL_KINDS` or `RARE_KINDS`.
    rng : numpy.random.Generator
        Decides everything else.
    size : int
        Side, in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        Red, green, blue.
    """
    canvas = _Canvas(size, rng)
    _draw_all(canvas, kind)
    return canvas.finish()


def light_of(kind: str, rng: Generator, size: int, reach: float) -> NDArray[np.float32]:
    """Draw the light alone of one object and what lies around it: no blur, no noise and no stretch.

    Parameters
    ----------
    kind, rng
        As for `draw`, which begins with the same object.
    size : int
        Side, in pixels.
    reach : float, > 0
        How far the edges are from the centre, in half-widths of an image of `draw`.

    Returns
    -------
    ndarray of float32, shape (3, size, size), >= 0
        Surface brightness in red, green and blue; `NOISE` is that of the sky of `draw`.
    """
    canvas = _Canvas(size, rng, reach)
    _draw_all(canvas, kind)
    return canvas.light


def _draw_all(c: _Canvas, kind: str) -> None:
    _field(c)
    at = c.rng.normal(0, 0.03, 2)
    _DRAW[kind](c, at, float(10 ** c.rng.uniform(-0.35, 0.25)))
    if kind in NORMAL_KINDS and c.rng.random() < 0.2:  # noqa: PLR2004 - by chance on the same line of sight
        _companion(c)


def _field(c: _Canvas) -> None:
    """Add stars and small galaxies all over the image."""
    n = c.rng.poisson(7)
    if not n:
        return
    x, y = c.rng.uniform(-1.05, 1.05, (2, n))
    sigma = c.rng.uniform(0.01, 0.06, n)
    peak = 0.05 * c.rng.pareto(1.3, n).clip(0.5, 25) / (1 + sigma / 0.03)
    tint = c.rng.uniform(0, 1, (n, 1))
    c.spots(x, y, sigma, peak, tint * OLD + (1 - tint) * YOUNG)


def _companion(c: _Canvas) -> None:
    angle, distance = c.rng.uniform(0, 2 * np.pi), c.rng.uniform(0.4, 0.9)
    at = distance * np.array([np.cos(angle), np.sin(angle)])
    tint = c.rng.uniform()
    c.sersic(
        _Shape(at, c.rng.uniform(0.4, 1), c.rng.uniform(0, np.pi)),
        c.rng.uniform(0.05, 0.12),
        c.rng.uniform(1, 3),
        c.rng.uniform(0.08, 0.25),
        (tint * OLD + (1 - tint) * DISC).astype(np.float32),
    )


def _elliptical(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    c.sersic(
        _Shape(at, c.rng.uniform(0.55, 1), c.rng.uniform(0, np.pi)),
        c.rng.uniform(0.1, 0.26),
        c.rng.uniform(2.5, 5),
        0.22 * level,
        OLD,
    )


def _disc(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    angle, q = c.rng.uniform(0, np.pi), c.rng.uniform(0.14, 0.85)
    size = c.rng.uniform(0.24, 0.42)
    tint = c.rng.uniform(0, 0.7)
    c.sersic(
        _Shape(at, q, angle),
        size,
        1,
        0.15 * level / q**0.4,
        (tint * OLD + (1 - tint) * DISC).astype(np.float32),
    )
    c.sersic(_Shape(at, min(1, q + 0.3), angle), size * 0.2, 2.5, c.rng.uniform(0.1, 0.6) * level, OLD)
    if q < 0.3 and c.rng.random() < 0.6:  # noqa: PLR2004 - seen from the side, dust cuts the disc in two
        along, across = c.ellipse(_Shape(at, 1, angle))
        lane = np.exp(-0.5 * (across / np.float32(0.03)) ** 2 - 0.5 * (along / np.float32(size)) ** 2)
        c.light *= 1 - lane * np.array([0.4, 0.55, 0.7], np.float32)[:, None, None]


def _spiral(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    angle, q = c.rng.uniform(0, np.pi), c.rng.uniform(0.5, 1)
    size = c.rng.uniform(0.3, 0.46)
    n_arms = int(c.rng.choice([2, 2, 2, 3, 4]))
    wind = c.rng.choice([-1, 1]) / np.tan(np.radians(c.rng.uniform(14, 32)))
    start = c.rng.uniform(0, 2 * np.pi)
    along, across = c.ellipse(_Shape(at, q, angle))
    r = c.radius(along, across)
    disc = np.exp(-1.68 * (r / np.float32(size) - 1))
    phase = n_arms * (np.arctan2(across, along) - np.float32(wind) * np.log(r / np.float32(size)) - start)
    arms = np.exp(np.float32(c.rng.uniform(1.2, 2.5)) * (np.cos(phase) - 1))
    arms *= np.clip((r / np.float32(size) - np.float32(0.2)) / np.float32(0.5), 0, 1)
    contrast = np.float32(c.rng.uniform(0.8, 1.8))
    c.add(np.float32(0.11 * level) * disc * (1 - np.float32(0.35) * contrast / 2), DISC)
    c.add(np.float32(0.16 * level) * contrast * disc * arms, YOUNG)
    c.sersic(_Shape(at, 0.9, angle), size * c.rng.uniform(0.18, 0.3), 1.8, 0.45 * level, OLD)
    if c.rng.random() < 0.35:  # noqa: PLR2004 - about a third has a bar
        c.sersic(_Shape(at, 0.3, c.rng.uniform(0, np.pi)), size * 0.55, 0.6, 0.25 * level, OLD)
    n = int(c.rng.integers(4, 14))
    knot_r = size * c.rng.uniform(0.5, 1.7, n)
    turn = wind * np.log(knot_r / size) + start + 2 * np.pi / n_arms * c.rng.integers(0, n_arms, n)
    turn += c.rng.normal(0, 0.12, n)
    _knots(c, _Shape(at, q, angle), knot_r, turn, 0.3 * level * np.exp(-1.68 * (knot_r / size - 1)))


def _knots(
    c: _Canvas,
    shape: _Shape,
    r: NDArray[np.float64],
    turn: NDArray[np.float64],
    level: NDArray[np.float64],
) -> None:
    """Add star-forming knots at polar coordinates in the plane of an inclined disc."""
    at, q, angle = shape
    u, v = r * np.cos(turn), q * r * np.sin(turn)
    x = at[0] + u * np.cos(angle) - v * np.sin(angle)
    y = at[1] + u * np.sin(angle) + v * np.cos(angle)
    c.spots(x, y, c.rng.uniform(0.012, 0.03, len(r)), level * c.rng.uniform(0.3, 1.2, len(r)), YOUNG)


def _merger(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    towards, distance = c.rng.uniform(0, 2 * np.pi), c.rng.uniform(0.2, 0.42)
    offset = 0.5 * distance * np.array([np.cos(towards), np.sin(towards)])
    turn = c.rng.choice([-1, 1])
    for side, share in ((1, 1.0), (-1, c.rng.uniform(0.45, 1.0))):
        nucleus = at + side * offset
        tint = c.rng.uniform(0.2, 0.9)
        colour = (tint * OLD + (1 - tint) * YOUNG).astype(np.float32)
        shape = _Shape(nucleus, c.rng.uniform(0.45, 0.9), c.rng.uniform(0, np.pi))
        c.sersic(shape, c.rng.uniform(0.1, 0.2), c.rng.uniform(1, 2.5), 0.3 * level * share, colour)
        # A tail leaves away from the other galaxy and bends all one way, as the two orbit each other.
        length, bend = c.rng.uniform(0.5, 1.1), turn * c.rng.uniform(0.8, 2.6)
        t = np.linspace(0.05, 1, 40)
        heading = towards + (0 if side > 0 else np.pi) - turn * 0.5 + bend * t
        x = nucleus[0] + length * np.cumsum(np.cos(heading)) / len(t)
        y = nucleus[1] + length * np.cumsum(np.sin(heading)) / len(t)
        glow = c.rng.uniform(0.016, 0.04) * level * share * (1 - t) ** 0.7 * length
        c.spots(x, y, 0.04 + 0.06 * t, glow, 0.4 * OLD + 0.6 * YOUNG)
    t = c.rng.normal(0, 0.45, 9)  # a bridge, patchy, and new stars where the gas meets
    x, y = at[:, None] + offset[:, None] * t + c.rng.normal(0, 0.05, (2, 9))
    c.spots(x, y, c.rng.uniform(0.02, 0.09, 9), 0.12 * level * c.rng.uniform(0.2, 1, 9), YOUNG)


def _ring(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    angle, q = c.rng.uniform(0, np.pi), c.rng.uniform(0.5, 1)
    size, width = c.rng.uniform(0.32, 0.58), c.rng.uniform(0.045, 0.09)
    along, across = c.ellipse(_Shape(at, q, angle))
    r = c.radius(along, across)
    around = np.arctan2(across, along)
    uneven = 1 + np.float32(c.rng.uniform(0.1, 0.5)) * np.cos(around - c.rng.uniform(0, 2 * np.pi))
    ring = np.exp(-0.5 * ((r - np.float32(size)) / np.float32(width)) ** 2)
    c.add(np.float32(0.24 * level) * ring * uneven.astype(np.float32), (0.4 * DISC + 0.6 * YOUNG))
    c.add(np.float32(0.05 * level) * np.exp(-((r / np.float32(size)) ** 4)), DISC)
    core = at + c.rng.normal(0, 0.05, 2)  # a ring made by a collision is not centred on its core
    c.sersic(_Shape(core, c.rng.uniform(0.7, 1), angle), c.rng.uniform(0.06, 0.11), 2, 0.4 * level, OLD)
    n = int(c.rng.integers(5, 14))
    turn = c.rng.uniform(0, 2 * np.pi, n)
    _knots(c, _Shape(at, q, angle), size + c.rng.normal(0, width / 2, n), turn, np.full(n, 0.3 * level))


def _lens(c: _Canvas, at: NDArray[np.float64], level: float) -> None:
    q, angle = c.rng.uniform(0.7, 1), c.rng.uniform(0, np.pi)
    c.sersic(_Shape(at, q, angle), c.rng.uniform(0.1, 0.18), c.rng.uniform(3, 4.5), 0.22 * level, OLD)
    # Rays are traced back: a singular isothermal sphere with shear bends each by the Einstein radius.
    einstein, shear = c.rng.uniform(0.3, 0.52), c.rng.uniform(0, 0.12)
    along, across = c.ellipse(_Shape(at, 1, angle))
    r = c.radius(along, across)
    pull = 1 - np.float32(einstein) / r
    source_u, source_v = along * (pull - np.float32(shear)), across * (pull + np.float32(shear))
    offset, towards = einstein * c.rng.uniform(0.2, 0.85), c.rng.uniform(0, 2 * np.pi)
    du = source_u - np.float32(offset * np.cos(towards))
    dv = source_v - np.float32(offset * np.sin(towards))
    blob = np.exp(-0.5 * (du * du + dv * dv) / np.float32(c.rng.uniform(0.035, 0.065) ** 2))
    c.add(np.float32(c.rng.uniform(0.2, 0.36) * level) * blob, FAR)


_DRAW: dict[str, Callable[[_Canvas, NDArray[np.float64], float], None]] = {
    "elliptical": _elliptical,
    "disc": _disc,
    "spiral": _spiral,
    "merger": _merger,
    "ring": _ring,
    "lens": _lens,
}
