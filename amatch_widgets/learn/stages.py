"""The groups of blocks that a network is made of, and keeping the first of them as they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .backbone import Classifier

__all__ = ["block_groups", "freeze_stages", "in_bfloat16"]

_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def block_groups(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the groups of blocks of a timm network, first to last, with their names.

    Parameters
    ----------
    network : nn.Module
        With `blocks` (EfficientNet, MobileNet, ViT), `stages` (ConvNeXt) or `layer1` to `layer4`
        (ResNet).

    Returns
    -------
    list of (str, nn.Module)
        Empty for a network that has none of these.
    """
    for name in ("blocks", "stages"):
        groups = getattr(network, name, None)
        if isinstance(groups, nn.Sequential | nn.ModuleList):
            return [(f"{name}.{child}", module) for child, module in groups.named_children()]
    layers = [(name, getattr(network, name, None)) for name in _LAYERS]
    return [(name, module) for name, module in layers if isinstance(module, nn.Module)]


def freeze_stages(model: Classifier, n: int) -> list[nn.Module]:
    """Switch off the gradient of the stem and of the first `n` groups of blocks.

    Nothing before them asks for a gradient either, so autograd runs them as under ``no_grad``.

    Parameters
    ----------
    model : Classifier
    n : int, >= 0
        0 freezes nothing, the stem neither.

    Returns
    -------
    list of nn.Module
        What is frozen; to be kept in evaluation mode, so that its statistics stay, too.

    Raises
    ------
    ConfigError
        If the network has fewer groups.
    """
    if not n:
        return []
    network: nn.Module = model.network
    groups = block_groups(network)
    if n > len(groups):
        found = ", ".join(name for name, _ in groups) or "none that are known"
        raise ConfigError(
            f"TrainConfig(frozen_stages={n}): {type(network).__name__} has {len(groups)} groups of blocks "
            f"({found}). Allowed is a whole number from 0 (train all of it) to {len(groups)}."
        )
    first = groups[0][0].partition(".")[0]
    names = [name for name, _ in network.named_children()]
    stem = [getattr(network, name) for name in names[: names.index(first)]]
    frozen = [*stem, *(module for _, module in groups[:n])]
    for module in frozen:
        module.requires_grad_(False)
    for parameter in network.parameters(recurse=False):  # such as the positions of a ViT
        parameter.requires_grad_(False)
    return frozen


@contextlib.contextmanager
def in_bfloat16(frozen: Sequence[nn.Module]) -> Iterator[None]:
    """Let the frozen part of a network compute in bfloat16 on a CPU, and give float32 to what learns.

    Parameters
    ----------
    frozen : sequence of nn.Module
        As `freeze_stages` returns them. None of them has a gradient, so that only rounding changes.
    """

    def begin(*_: object) -> None:
        torch.set_autocast_dtype("cpu", torch.bfloat16)
        torch.set_autocast_enabled("cpu", True)

    def end(_module: nn.Module, _inputs: object, maps: Tensor) -> Tensor:
        torch.set_autocast_enabled("cpu", False)
        return maps.float()

    handles = []
    if frozen:
        handles = [frozen[0].register_forward_pre_hook(begin), frozen[-1].register_forward_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        torch.set_autocast_enabled("cpu", False)  # a pass may have broken off
