"""Fold BatchNorm into the convolutions before it, for networks that learn no more."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fold_batch_norm"]

_TOLERANCE = 1e-3  # of the largest output; folding is exact but for rounding (about 1e-6)


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy a network with each BatchNorm that follows a convolution folded into it.

    Which follows which is seen in a pass over `example`, as the order in which a network names its
    parts is not always that in which it uses them. What timm's BatchNorm does besides (activation,
    dropout) stays.

    Parameters
    ----------
    network : nn.Module
        A timm network; not changed.
    example : Tensor of float32, shape (N, C, H, W)
        Any input of the size to come, on the network's device.

    Returns
    -------
    nn.Module
        In evaluation mode and without gradients. Its outputs are those of `network` in evaluation
        mode, up to rounding; where that is not so for `example`, as in networks that compute their
        filters, nothing is folded.
    """
    plain = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    pairs, wanted = _pairs(plain, example)
    if not pairs:
        return plain
    folded = copy.deepcopy(plain)
    for conv_name, norm_name in pairs:
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]  # in timm's order
        rest = [module for module in rest if not isinstance(module, nn.Identity)]
        _replace(folded, conv_name, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        _replace(folded, norm_name, rest[0] if len(rest) == 1 else nn.Sequential(*rest))
    folded.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = _features(folded, example)
    is_same = (found - wanted).abs().max() <= _TOLERANCE * wanted.abs().max()
    return folded if is_same else plain


def _pairs(network: nn.Module, example: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Return the names of (convolution, BatchNorm) where one feeds the other, and the features."""
    made: dict[int, tuple[str, Tensor, int]] = {}  # by a tensor's id, which holds while the tensor does
    pairs: list[tuple[str, str]] = []
    calls: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> Callable[..., None]:
        is_conv = isinstance(module, nn.Conv2d)

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            if is_conv:
                made[id(output)] = (name, output, output._version)  # noqa: SLF001 (no other way)
            elif id(inputs[0]) in made:
                conv, tensor, version = made[id(inputs[0])]
                if tensor._version == version:  # noqa: SLF001 (not changed in place in between)
                    pairs.append((conv, name))

        return hook

    handles = [
        module.register_forward_hook(watch(name, module))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        features = _features(network, example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(calls[name] == 1 for name in pair)], features


def _features(network: Any, x: Tensor) -> Tensor:
    features: Tensor = network.forward_features(x)
    return features


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
