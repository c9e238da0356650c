"""The weak and the strong view: whole batches at once, on the device, own parameters per image.

Images come in as uint8 and leave as float32 in [0, 1]. All draws come from one CPU generator,
so that a seed gives the same views on every device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name everybody uses)

__all__ = ["strong_view", "to_float", "weak_view"]

_SHIFT = 0.125  # of the side, as in FixMatch
_N_OPERATIONS = 3

# Largest magnitudes, after FixMatch (Sohn et al. 2020, appendix D). Each image draws its own.
_ROTATE_RAD = math.pi / 6
_SHEAR = 0.3
_TRANSLATE = 0.3  # of the side
_FACTOR = 0.9  # brightness, contrast, colour and sharpness become 1 +- this
_GAMMA = 0.7  # exponents in exp(+-this)
_POSTERIZE_BITS = (4, 8)
_CUTOUT = 0.5  # of the side

_OPERATIONS = (
    "identity",
    "autocontrast",
    "brightness",
    "contrast",
    "colour",
    "sharpness",
    "gamma",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images of any shape to float32 in [0, 1]."""
    return images.to(torch.float32).div_(255)


def weak_view(
    images: Tensor, generator: torch.Generator, *, dihedral: bool, rows: Tensor | None = None
) -> Tensor:
    """Flip and shift each image at random.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, C, S, S)
    generator : torch.Generator
        On the CPU.
    dihedral : bool
        Draw from all 8 flips and quarter turns (images without an up, as cutouts of the sky)
        rather than from the horizontal flip alone.
    rows : Tensor of int64, shape (M,), optional
        On the CPU. Make the views of these images alone; they are the same as among all.

    Returns
    -------
    Tensor of float32, shape (N, C, S, S), or (M, C, S, S)
        In [0, 1], ``channels_last``; pixels shifted in are mirrored.
    """
    return _flip_and_shift(images, generator, dihedral=dihedral, rows=rows)


def strong_view(
    images: Tensor, generator: torch.Generator, *, dihedral: bool, rows: Tensor | None = None
) -> Tensor:
    """Make the weak view, then RandAugment (3 operations) and cutout.

    Every image draws its own operations and magnitudes (RandAugment, Cubuk et al. 2020;
    cutout, DeVries & Taylor 2017). The operations chosen are applied in one fixed order,
    first those on values, then the geometric ones as a single resampling, so that the whole
    batch goes through each kernel once.

    Parameters
    ----------
    images : Tensor of uint8, shape (N, C, S, S)
    generator : torch.Generator
        On the CPU.
    dihedral : bool
        As for `weak_view`.
    rows : Tensor of int64, shape (M,), optional
        As for `weak_view`.

    Returns
    -------
    Tensor of float32, shape (N, C, S, S), or (M, C, S, S)
        In [0, 1], ``channels_last``.
    """
    n, device = len(images), images.device
    chosen_rows = slice(None) if rows is None else rows
    x = _flip_and_shift(images, generator, dihedral=dihedral, rows=rows)
    chosen = torch.rand((n, len(_OPERATIONS)), generator=generator).argsort(1)[:, :_N_OPERATIONS]
    is_on = torch.zeros((n, len(_OPERATIONS)), dtype=torch.bool).scatter_(1, chosen, value=True)
    signed = torch.rand((n, len(_OPERATIONS)), generator=generator) * 2 - 1
    # 0 is neutral for every operation.
    strength = {
        name: values.view(-1, 1, 1, 1)
        for name, values in zip(_OPERATIONS, (signed * is_on)[chosen_rows].to(device).unbind(1), strict=True)
    }
    x = _change_values(x, strength)
    x = _move(x, {name: value.flatten() for name, value in strength.items()})
    half = torch.rand((n, 1), generator=generator) * (_CUTOUT / 2)
    centre = torch.rand((2, n, 1), generator=generator)
    x = _cut_out(x, half[chosen_rows].to(device), centre[:, chosen_rows].to(device))
    return x.contiguous(memory_format=torch.channels_last)


def _flip_and_shift(
    images: Tensor, generator: torch.Generator, *, dihedral: bool, rows: Tensor | None
) -> Tensor:
    n, channels, side, _ = images.shape
    flips = torch.rand((3, n, 1), generator=generator) < 0.5  # noqa: PLR2004
    flips[1:] &= dihedral
    most = int(side * _SHIFT)
    shifts = torch.randint(-most, most + 1, (2, n, 1), generator=generator)
    if rows is not None:
        images, flips, shifts = images[rows.to(images.device)], flips[:, rows], shifts[:, rows]
    # The small draws go to the device, not the large indices that follow from them.
    flip_x, flip_y, turn = flips.to(images.device).unbind()
    shift_x, shift_y = shifts.to(images.device).unbind()
    pixel = torch.arange(side, device=images.device)
    x = _mirror(torch.where(flip_x, side - 1 - pixel, pixel) + shift_x, side)
    y = _mirror(torch.where(flip_y, side - 1 - pixel, pixel) + shift_y, side)
    straight = y[:, :, None] * side + x[:, None, :]
    source = torch.where(turn[:, :, None], straight.transpose(1, 2), straight)  # (N, S, S)
    index = source.reshape(-1, 1, side * side).expand(-1, channels, -1)
    moved = images.reshape(-1, channels, side * side).gather(2, index).view(-1, channels, side, side)
    return to_float(moved).contiguous(memory_format=torch.channels_last)


def _mirror(index: Tensor, side: int) -> Tensor:
    """Reflect indices that lie outside [0, side)."""
    index = index.abs()
    return torch.where(index >= side, 2 * (side - 1) - index, index)


def _change_values(x: Tensor, strength: dict[str, Tensor]) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = (x - low) / (high - low).clamp_min(1 / 255)
    x = torch.where(strength["autocontrast"] != 0, stretched, x)
    x = x * (1 + _FACTOR * strength["brightness"])
    x = _blend(x.mean((1, 2, 3), keepdim=True), x, strength["contrast"])
    x = _blend(x.mean(1, keepdim=True), x, strength["colour"])
    x = _blend(F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False), x, strength["sharpness"])
    x = x.clamp(0, 1)
    x = torch.where(strength["gamma"] != 0, x.clamp_min(1e-4) ** (_GAMMA * strength["gamma"]).exp(), x)
    fewest, most = _POSTERIZE_BITS
    levels = 2 ** (most - (most - fewest) * strength["posterize"].abs()).round() - 1
    x = torch.where(strength["posterize"] != 0, (x * levels).round() / levels, x)
    return torch.where(x > 1 - strength["solarize"].abs(), 1 - x, x)


def _blend(base: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    return base + (x - base) * (1 + _FACTOR * strength)


def _move(x: Tensor, strength: dict[str, Tensor]) -> Tensor:
    angle = strength["rotate"] * _ROTATE_RAD
    shear_x, shear_y = strength["shear_x"] * _SHEAR, strength["shear_y"] * _SHEAR
    cos, sin = angle.cos(), angle.sin()
    # rotation @ shear; grid coordinates run from -1 to 1, hence the 2 in the translation
    rows = [
        torch.stack([cos - sin * shear_y, cos * shear_x - sin, 2 * _TRANSLATE * strength["translate_x"]], 1),
        torch.stack([sin + cos * shear_y, sin * shear_x + cos, 2 * _TRANSLATE * strength["translate_y"]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _cut_out(x: Tensor, half: Tensor, centre: Tensor) -> Tensor:
    """Put a square of the image's mean colour over a part of each image; lengths are in sides."""
    side = x.shape[3]
    pixel = torch.arange(side, device=x.device)
    columns, rows = ((pixel - middle * side).abs() < half * side for middle in centre)
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(hole, x.mean((2, 3), keepdim=True), x)
