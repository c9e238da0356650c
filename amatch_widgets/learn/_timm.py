"""timm, imported so that it works where torchvision's compiled operators do not load.

timm imports torchvision. The default torchvision wheel is a CUDA build; beside a CPU-only
torch its import dies with ``operator torchvision::nms does not exist``. None of its compiled
operators is used here, and declaring the two schemas that it trips over is enough. All of
this package gets timm from here.
"""

from __future__ import annotations

import sys

import torch

__all__ = ["ModelEmaV3", "adapt_input_conv", "timm"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare_missing_operators() -> torch.library.Library | None:
    try:
        import torchvision  # noqa: F401, PLC0415 (to see whether it can be imported)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
        return library
    return None


_library = _declare_missing_operators()  # the declaration lasts as long as this object

import timm  # noqa: E402
from timm.models import adapt_input_conv  # noqa: E402
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]  # noqa: E402
