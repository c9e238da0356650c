"""Statistics of a network's feature maps, on their way through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .stages import block_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["map_statistics"]

_N_TAPS = 3  # last groups of blocks
_FLAT = 1e-12  # the least variance: the root of 0 has no gradient


def map_statistics(network: nn.Module, final: Callable[[], Tensor]) -> list[tuple[str, Tensor]]:
    """Run a network, and return the mean and the standard deviation of its maps over their positions.

    The maps are those that the last three groups of blocks put out and the final ones; of a network
    without groups, the final ones alone.

    Parameters
    ----------
    network : nn.Module
        A timm network.
    final : callable
        Runs it, and returns its final maps (timm's ``forward_features``).

    Returns
    -------
    list of (str, Tensor)
        Names such as "blocks.4.mean", and float32 of shape (n, channels). The last two are
        "final.mean" and "final.std"; of maps that are pooled already there is the mean alone.
    """
    seen: list[tuple[str, Tensor]] = []

    def tap(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim in (3, 4):  # not the tuples of some networks
                seen.append((name, output))

        return hook

    groups = block_groups(network)[-_N_TAPS:]
    hooks = [module.register_forward_hook(tap(name)) for name, module in groups]
    try:
        last = final()
    finally:
        for hook in hooks:
            hook.remove()
    order = str(getattr(network, "output_fmt", "NCHW"))
    return [
        (f"{name}.{statistic}", value)
        for name, maps in [*seen, ("final", last)]
        if name == "final" or maps is not last  # of a ResNet they are the last group's
        for statistic, value in _mean_and_std(maps, order).items()
    ]


def _mean_and_std(maps: Tensor, order: str) -> dict[str, Tensor]:
    """Return statistics over the positions of maps (n, C, H, W), (n, H, W, C) or (n, T, C)."""
    if maps.ndim == 2:  # noqa: PLR2004 (pooled already)
        return {"mean": maps.float()}
    over = 1 if maps.ndim == 3 else (1, 2) if order == "NHWC" else (2, 3)  # noqa: PLR2004
    variance, mean = torch.var_mean(maps.float(), over, correction=0)
    return {"mean": mean, "std": variance.clamp_min(_FLAT).sqrt()}
