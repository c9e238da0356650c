"""What a checkpoint says of itself; apart, so that reading it needs no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from amatch_widgets.errors import WorkspaceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "damaged", "read_details"]

FORMAT = 3  # of the checkpoints that are written


def read_details(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote beside the tensors.

    Raises
    ------
    WorkspaceError
        If the file is missing, damaged or of a newer format.
    """
    try:
        with safe_open(path, framework="np") as file:
            details: dict[str, Any] = json.loads((file.metadata() or {})["amatch"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    found = details.get("format") if isinstance(details, dict) else details
    if found not in range(1, FORMAT + 1):
        raise damaged(path, f"its format is {found!r}, this version reads 1 to {FORMAT}")
    return details


def damaged(path: Path, why: object) -> WorkspaceError:
    """Return the error that says so of a checkpoint, and what to do."""
    return WorkspaceError(
        f"The checkpoint {str(path)!r} cannot be used: {why}. Move it away to go on from an older one "
        "or from the start; the labels are safe."
    )
