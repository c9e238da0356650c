"""Checkpoints: everything a training needs to go on, in one ``.safetensors`` file.

Tensors are named ``model.*``, ``average.*``, ``momentum.*`` and ``anchor.*``; the rest is JSON in the
file's metadata. Nothing is pickled. There is no random state to keep: every draw of a training is a
function of its seed and step. Format 2 had no anchor, and format 1 ``momentum.<number>``, counted
over matrices and then vectors; both are still read.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amatch_widgets.errors import WorkspaceError

from .anchor import Anchor
from .details import FORMAT, damaged, read_details

if TYPE_CHECKING:
    from pathlib import Path

    from .trainer import Trainer

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(path: Path, trainer: Trainer, details: dict[str, Any]) -> None:
    """Write a checkpoint under a temporary name, then give it its own.

    Parameters
    ----------
    path : Path
        Its folder exists.
    trainer : Trainer
    details : dict
        JSON-able; comes back from `read_details` with "step", "cycle", "end", "begun", "backbone",
        "channels", "vectors" (None, or what `VectorShape` takes) and "anchored" (None, or the anchor's
        cycle) added.

    Raises
    ------
    WorkspaceError
        If it cannot be written; an older file of that name is then untouched.
    """
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in trainer.average.state_dict().items()}
    tensors |= {f"momentum.{name}": value for name, value in _momentum(trainer).items()}
    if trainer.anchor is not None:
        tensors |= {f"anchor.{name}": value for name, value in trainer.anchor.weights.items()}
    record = {
        **details,
        "format": FORMAT,
        "step": trainer.step,
        "cycle": trainer.cycle,
        "end": trainer.end,
        "begun": trainer.begun,
        "backbone": trainer.config.backbone,
        "channels": trainer.channels,
        "vectors": asdict(trainer.shape) if trainer.shape else None,
        "anchored": trainer.anchor.cycle if trainer.anchor else None,
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        # contiguous: safetensors refuses channels_last
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={"amatch": json.dumps(record)},
        )
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WorkspaceError(
            f"The model cannot be saved to {str(path)!r}: {getattr(error, 'strerror', None) or error}. "
            "It is still in memory, and the labels are safe. Free some space, then train or score again."
        ) from error


def load_checkpoint(path: Path, trainer: Trainer) -> None:
    """Put the weights, their average, the optimiser and the counts of a checkpoint into `trainer`.

    Raises
    ------
    WorkspaceError
        If the file is damaged or of another backbone.
    """
    details = read_details(path)
    found = details.get("backbone"), details.get("channels")
    if found != (trainer.config.backbone, trainer.channels):
        raise damaged(
            path,
            f"it holds {found[0]!r} for {found[1]} channels instead of "
            f"{trainer.config.backbone!r} for {trainer.channels}",
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "momentum": {}, "anchor": {}}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part, _, rest = name.partition(".")
                parts[part][rest] = file.get_tensor(name)
        trainer.model.load_state_dict(parts["model"])
        trainer.average.load_state_dict(parts["average"])
        _load_momentum(trainer, parts["momentum"], has_numbers=details["format"] == 1)
        _load_anchor(trainer, parts["anchor"], details.get("anchored"))
        trainer.step, trainer.cycle = details["step"], details["cycle"]
        trainer.end = details.get("end") or trainer.step  # older files do not say
        trainer.begun = details.get("begun") or 0
    except (OSError, SafetensorError, LookupError, RuntimeError, ValueError) as error:
        raise damaged(path, error) from error


def _momentum(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.optimiser.state
    found = {
        name: state[p].get("momentum_buffer") for name, p in trainer.model.named_parameters() if p in state
    }
    return {name: value for name, value in found.items() if value is not None}


def _load_momentum(trainer: Trainer, momentum: dict[str, Tensor], *, has_numbers: bool) -> None:
    parameters = dict(trainer.model.named_parameters())
    if has_numbers:
        order = sorted(parameters, key=lambda name: parameters[name].ndim <= 1)
        momentum = {order[int(number)]: value for number, value in momentum.items()}
    for name, value in momentum.items():
        parameter = parameters[name]
        if not parameter.requires_grad:  # frozen since then
            continue
        if value.shape != parameter.shape:
            raise ValueError(f"momentum.{name} has the shape {tuple(value.shape)}")
        trainer.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(value)


def _load_anchor(trainer: Trainer, weights: dict[str, Tensor], cycle: int | None) -> None:
    """Take the anchor of the cycle that was under way; one that lacks something begins with the next."""
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    if cycle is None or any(name not in weights for name in trained):
        trainer.anchor = None
        return
    kept = {name: torch.empty_like(p).copy_(weights[name]) for name, p in trained.items()}
    trainer.anchor = Anchor(cycle, kept)
