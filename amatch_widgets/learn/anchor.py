"""Where a cycle's weights began, and the pull back towards it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["Anchor"]


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """The trained weights as they were when a cycle began, by name; see ``TrainConfig.l2_sp``."""

    cycle: int
    weights: dict[str, Tensor]

    @classmethod
    def at(cls, model: nn.Module, cycle: int) -> Self:
        """Keep what the weights that are trained are now."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return cls(cycle, {name: p.detach().clone() for name, p in trained.items()})

    @torch.no_grad()
    def pull(self, model: nn.Module, strength: float) -> None:
        """Add the gradient of ``strength / 2 * |weights - anchor|^2``; what has no gradient stays."""
        pairs = [(p, self.weights[name]) for name, p in model.named_parameters() if p.grad is not None]
        now, then = map(list, zip(*pairs, strict=True))
        torch._foreach_add_([p.grad for p in now], torch._foreach_sub(now, then), alpha=strength)  # noqa: SLF001 (as timm and torch.optim do: one kernel for all)
