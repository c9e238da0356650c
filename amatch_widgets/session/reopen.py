"""Open the images of last time again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amatch_widgets import demo
from amatch_widgets.images.joined import subset_from_spec
from amatch_widgets.images.source import source_from_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amatch_widgets.images.source import ImageSource

__all__ = ["reopen"]


def reopen(spec: Mapping[str, Any]) -> ImageSource:
    """Open a source again from what its `spec` method returned; see `source_from_spec`.

    Unlike that it knows a demo, too, and a part of one.
    """
    if spec.get("kind") == "demo":
        return demo.DemoSource(**{key: value for key, value in spec.items() if key != "kind"})
    if spec.get("kind") == "subset":
        return subset_from_spec(reopen(spec["source"]), spec)
    return source_from_spec(spec)
