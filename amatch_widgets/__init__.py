"""Find the few rare objects in a very large set of images, from a handful of labels.

::

    import amatch_widgets as am

    source = am.open_source("cutouts/")
    session = am.Session(source, labels="labels.csv", path="runs/mergers")
    session          # last line of a cell: the dashboard

    ipywidgets.HBox([am.Gallery(session), am.Plots(session)])   # or its parts, in a layout of your own

Everything is imported at first use, so that this import is quick and a script without a
notebook never loads the widgets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amatch_widgets import demo, errors, events
    from amatch_widgets.archive.scores import ArchiveScores
    from amatch_widgets.images.joined import JoinedSource, Subset
    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.images.render import Rendering
    from amatch_widgets.images.sample import sample
    from amatch_widgets.images.source import CatalogueSource, ImageSource, open_source
    from amatch_widgets.learn.config import TrainConfig
    from amatch_widgets.session import Filter, Session
    from amatch_widgets.widgets import Controls, Detail, Gallery, Plots, Preview

__all__ = [
    "ArchiveScores",
    "CatalogueSource",
    "Controls",
    "Detail",
    "Filter",
    "Gallery",
    "ImageSource",
    "JoinedSource",
    "Plots",
    "Preprocess",
    "Preview",
    "Rendering",
    "Session",
    "Subset",
    "TrainConfig",
    "demo",
    "errors",
    "events",
    "open_source",
    "sample",
]

_HOMES = {
    "ArchiveScores": "amatch_widgets.archive.scores",
    "CatalogueSource": "amatch_widgets.images.source",
    "Controls": "amatch_widgets.widgets",
    "Detail": "amatch_widgets.widgets",
    "Filter": "amatch_widgets.session",
    "Gallery": "amatch_widgets.widgets",
    "ImageSource": "amatch_widgets.images.source",
    "JoinedSource": "amatch_widgets.images.joined",
    "Plots": "amatch_widgets.widgets",
    "Preprocess": "amatch_widgets.images.preprocess",
    "Preview": "amatch_widgets.widgets",
    "Rendering": "amatch_widgets.images.render",
    "Session": "amatch_widgets.session",
    "Subset": "amatch_widgets.images.joined",
    "TrainConfig": "amatch_widgets.learn.config",
    "open_source": "amatch_widgets.images.source",
    "sample": "amatch_widgets.images.sample",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"amatch_widgets.{name}")
    raise AttributeError(f"module 'amatch_widgets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
