"""One image seen closely: its picture, parts of it at full resolution, and what is known of it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import AmatchError, ImageReadError
from amatch_widgets.images.preprocess import shrink
from amatch_widgets.images.render import Rendering, bounds_of, encode_picture, render
from amatch_widgets.widgets.view import in_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from amatch_widgets.images.stretch import Bounds
    from amatch_widgets.labels import Label
    from amatch_widgets.session import Session
    from amatch_widgets.session.pictures import Pictures

__all__ = [
    "MAX_SIDE",
    "Closeup",
    "in_bytes",
    "known_rows",
    "label_row",
    "nearest_labelled",
    "sky_links",
    "standing_rows",
]

_log = logging.getLogger(__name__)
MAX_SIDE = 2048  # px of a picture that is sent: at most some MB, also of an image of a hundred million px
_FIELD_DEG = 0.05  # 3 arcmin: an object and its surroundings
_KB = 1000


class Closeup:
    """One image, read in full once, from which pictures are made as often as wanted.

    An image of more than `MAX_SIDE` pixels on a side is shown reduced, and in parts.

    Parameters
    ----------
    pictures : Pictures
        Reads it.
    image_id : str

    Raises
    ------
    ImageReadError
        If it cannot be read.

    Attributes
    ----------
    image_id : str
    shape : tuple of int
        Height, width, and channels as they are in the file.
    dtype : str
    """

    def __init__(self, pictures: Pictures, image_id: str) -> None:
        pixels = pictures.pixels(image_id)
        self.image_id = image_id
        self.shape: tuple[int, ...] = pixels.shape
        self.dtype = str(pixels.dtype)
        self._pixels: NDArray[Any] = pictures.whole(pixels)
        self._model = pictures.image
        self._bounds: tuple[Rendering, Bounds] | None = None

    @property
    def n_channels(self) -> int:
        """How many channels there are to choose from: alpha is none."""
        return int(self._pixels.shape[2])

    @property
    def colours(self) -> str:
        """What the channels are shown as, all together."""
        mixture = self._model.mixture
        return mixture or ("First 3 (RGB)" if self.n_channels > 3 else "All (RGB)")  # noqa: PLR2004 - a screen's

    def picture(self, rendering: Rendering) -> tuple[bytes, int]:
        """Make the picture of the whole image, and say how many pixels wide it is.

        Raises
        ------
        ImageReadError
            If it cannot be rendered so.
        """
        height, width = self.shape[:2]
        drawn = self._drawn(rendering, (0, 0, width, height))
        return encode_picture(drawn), drawn.shape[1]

    def part(self, rendering: Rendering, window: tuple[int, int, int, int]) -> bytes:
        """Make the picture of a part within the limits of the whole.

        Parameters
        ----------
        rendering : Rendering
        window : (int, int, int, int)
            Left, top, width and height of the part, inside the image, px.

        Returns
        -------
        bytes
            PNG or JPEG, reduced only where the part has more than `MAX_SIDE` pixels on a side.

        Raises
        ------
        ImageReadError
            If it cannot be rendered so.
        """
        return encode_picture(self._drawn(rendering, window))

    def _drawn(self, rendering: Rendering, window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        left, top, width, height = window
        try:
            if self._bounds is None or self._bounds[0] != rendering:
                self._bounds = rendering, bounds_of(self._pixels, rendering, self._model)
            part = self._pixels[top : top + height, left : left + width]
            return shrink(render(part, rendering, self._model, bounds=self._bounds[1]), MAX_SIDE)
        except ValueError as error:  # in plain words
            raise ImageReadError(self.image_id, str(error)) from error

    def rows(self, n_bytes: int | None) -> list[list[str]]:
        """Say what the image is, as rows of a name and a value."""
        height, width, channels = self.shape
        kind = f"{channels} {'channel' if channels == 1 else 'channels'}, {self.dtype}"
        rows = [["Size", f"{width:,} x {height:,} px"], ["Pixels", kind]]
        return rows if n_bytes is None else [*rows, ["File", in_bytes(n_bytes)]]


def known_rows(pictures: Pictures, image_id: str) -> list[list[str]]:
    """Say where on the sky an image is and what its source knows of it, as rows of a name and a value."""
    try:
        position = pictures.position(image_id)
    except Exception:  # noqa: BLE001 (a border: the method is the user's)
        _log.exception("No position of %r", image_id)
        position = None
    rows = [] if position is None else [["RA, Dec", f"{position[0]:.6f}, {position[1]:+.6f} deg (ICRS)"]]
    return [*rows, *(list(pair) for pair in pictures.describe(image_id).items())]


def standing_rows(session: Session, image_id: str) -> list[list[str]]:
    """Say how an image stands in the ranking, as rows of a name and a value."""
    score, rank = session.standing(image_id)
    ranked_by = session.ranked_by
    archive = session.archive_of(image_id)
    if archive is not None:
        return [["Score", "none" if score is None else f"{score:.3f}"], ["Archive", archive.title]]
    if ranked_by is None or score is None or rank is None:
        return [["Score", "none yet"]]
    model = {
        "novelty": "novelty: no anomaly is labelled yet",
        "instant": "your labels (instant tier)",
        "deep": f"the {session.scores_model}",
        "both": f"your labels and the {session.scores_model}",
    }.get(ranked_by, ranked_by)
    rows = [["Rank", f"{rank:,} of {len(session.source):,}"], ["Ranked by", model]]
    # Novelty is an order only; its number would be taken for a score.
    return rows if ranked_by == "novelty" else [["Score", f"{score:.3f}"], *rows]


def nearest_labelled(session: Session, image_id: str, k: int) -> tuple[list[dict[str, str]], str]:
    """Find the `k` labelled images most like one: id, label and cosine; or say why there are none."""
    labels = {i: line.label for i, line in session.own_labels.current().items()}
    labels.pop(image_id, None)
    if not labels:
        return [], "No other image is labelled yet."
    try:
        found = session.similar(image_id, k, among=labels)
    except AmatchError as error:
        if session.job == "embed":
            return [], "The embeddings are being made; then the nearest labelled images are shown here."
        return [], str(error)
    except Exception as error:  # noqa: BLE001 (a border: the image itself can still be seen)
        _log.exception("No neighbours of %r", image_id)
        return [], in_words(error)
    rows = [
        {
            "id": c.image_id,
            "label": labels[c.image_id] or "",
            "cosine": c.reason.removeprefix("similar: cosine "),
        }
        for c in found
    ]
    return rows, "" if rows else "None of the labelled images has an embedding."


def label_row(line: Label) -> dict[str, str]:
    """Say one line of an image's label history in words."""
    more = [line.reason, *([f"score then {line.score:.3f}"] if line.score is not None else [])]
    return {
        "label": line.label or "",
        "time": _local(line.time),
        "by": line.by,
        "more": "; ".join(part for part in [*more, ", ".join(line.tags), line.note] if part),
    }


def sky_links(ra_deg: float, dec_deg: float) -> list[list[str]]:
    """Give links to sky viewers, as pairs of a name and an https address made of numbers alone."""
    target = f"{ra_deg:.6f}%20{dec_deg:.6f}"
    return [
        ["ESASky", f"https://sky.esa.int/esasky/?target={target}&fov={_FIELD_DEG}&cooframe=J2000&sci=true"],
        ["Aladin Lite", f"https://aladin.cds.unistra.fr/AladinLite/?target={target}&fov={_FIELD_DEG}"],
    ]


def in_bytes(n: int) -> str:
    """Write a number of bytes for people, e.g. ``"31.2 kB"``."""
    size, units = float(n), ["B", "kB", "MB", "GB"]
    while size >= _KB and len(units) > 1:
        size, units = size / _KB, units[1:]
    return f"{n} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _local(time: str) -> str:
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:  # a journal may hold any text
        return time
