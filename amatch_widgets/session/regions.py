"""A shortlist as regions for DS9: a point on the sky for each image, with its label in colour and text."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from amatch_widgets.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from amatch_widgets.session.provenance import Provenance

__all__ = ["to_regions"]

_COLOURS = {"anomaly": "#e89a0c", "normal": "#3f83d1"}  # as in the gallery
_NO_LABEL = "white"
# A text stands in braces, and nothing in it can be escaped: what would end it, begin another line or mean
# something to the Tcl that DS9 is written in.
_SPECIAL = re.compile(r'[{}\[\]\\;$"%]')


def to_regions(table: pd.DataFrame, provenance: Provenance) -> bytes:
    """Write the images that have a position as a region file of DS9, ICRS.

    Each is a point with the text "id: label" and a tag for its label and for each of its own. Braces,
    brackets, the backslash, ``;``, ``$``, ``"``, ``%`` and what cannot be printed are written as in URLs,
    ``%7B``.

    Raises
    ------
    ConfigError
        If no image has a position.
    """
    lines = ["# Region file format: DS9 version 4.1"]
    lines += [f"# {name}: {_plain(str(value))}" for name, value in provenance.to_dict().items()]
    lines += ['global font="helvetica 10 normal" edit=0 move=0 delete=1', "icrs"]
    n_head = len(lines)
    for image_id, label, words, ra, dec in zip(
        *(table[name].tolist() for name in ("id", "label", "tags", "ra", "dec")), strict=True
    ):
        if math.isfinite(ra):
            tags = [tag for tag in (label, *words.split(";")) if tag]
            text = f"{image_id}: {label}" if label else image_id
            lines.append(
                f"point({ra:.7f},{dec:.7f}) # point=circle color={_COLOURS.get(label, _NO_LABEL)} "
                + " ".join([f"text={{{_plain(text)}}}", *(f"tag={{{_plain(tag)}}}" for tag in tags)])
            )
    if len(lines) == n_head:
        raise ConfigError(
            f"None of the {len(table)} images has a position on the sky that its source knows, and a region "
            "file holds nothing else. Write a .csv, .parquet, .vot or .fits."
        )
    return "\n".join([*lines, ""]).encode()


def _plain(text: str) -> str:
    """Return a text that can stand in braces, on one line."""
    kept = (c if c.isprintable() else _as_in_urls(c) for c in _SPECIAL.sub(lambda c: _as_in_urls(c[0]), text))
    return "".join(kept)


def _as_in_urls(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
