"""How a user likes to see the images, and the user's name, kept in the session folder for the next time."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.render import Rendering

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LONGEST_NAME", "PAGE_SIZES", "TILE_SIZES", "Habits"]

_log = logging.getLogger(__name__)
_PLAIN = Rendering()
LONGEST_NAME = 60  # characters; more is a paste by mistake
PAGE_SIZES = (24, 48, 96)
# Width of a tile in the browser, px, and the longer side of the thumbnails it gets.
TILE_SIZES = {"small": (80, 128), "medium": (108, 128), "large": (180, 192)}


@dataclass(frozen=True)
class Habits:
    """What stays chosen when the kernel or the notebook is gone; none of it matters to a result.

    Parameters
    ----------
    per_page : int
        Tiles a page, one of `PAGE_SIZES`.
    tile_size : str
        One of `TILE_SIZES`.
    rendering : Rendering
    annotator : str
        The name beside the labels.

    Raises
    ------
    ConfigError
        If a value is none of those.
    """

    per_page: int = 48
    tile_size: str = "medium"
    rendering: Rendering = _PLAIN
    annotator: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.annotator, str) or len(self.annotator) > LONGEST_NAME:
            raise ConfigError(f"An annotator is {self.annotator!r}; allowed are {LONGEST_NAME} characters.")
        if self.per_page not in PAGE_SIZES or self.tile_size not in TILE_SIZES:
            raise ConfigError(f"There are no pages of {self.per_page!r} tiles of size {self.tile_size!r}.")

    @classmethod
    def read(cls, path: Path) -> Habits:
        """Return what was kept in a file; the defaults where there is none, or none that makes sense."""
        try:
            kept = json.loads(path.read_text("utf-8"))
            rendering = Rendering.from_dict(kept["rendering"])
            return cls(kept["per_page"], kept["tile_size"], rendering, kept.get("annotator", ""))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            _log.exception("How the images were shown could not be read from %s", path)
            return cls()

    def write(self, path: Path) -> None:
        """Keep them in a file; where it cannot be written, it is as if they had not been kept."""
        kept = {
            "per_page": self.per_page,
            "tile_size": self.tile_size,
            "rendering": self.rendering.to_dict(),
            "annotator": self.annotator,
        }
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            temporary.write_text(json.dumps(kept, indent=1), "utf-8")
            temporary.replace(path)
        except OSError:
            _log.exception("How the images are shown could not be kept in %s", path)
