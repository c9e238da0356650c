"""Open the images of last time again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amatch_widgets import demo
from amatch_widgets.images.source import source_from_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amatch_widgets.images.source import ImageSource

__all__ = ["reopen"]


def reopen(spec: Mapping[str, Any]) -> ImageSource:
    """Open a source again from what its `spec` method returned, a demo's too; see `source_from_spec`."""
    if spec.get("kind") == "demo":
        return demo.DemoSource(**{key: value for key, value in spec.items() if key != "kind"})
    return source_from_spec(spec)
