"""What is known of an image beside its pixels, as short names and texts for people."""

from __future__ import annotations

import itertools
import logging
import re
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from amatch_widgets.errors import ImageReadError
from amatch_widgets.images.hdu import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from amatch_widgets.images.hdu import ImageHdu
    from amatch_widgets.images.source import ImageSource

__all__ = ["MOST_FACTS", "describe", "file_facts", "header_facts", "row_facts"]

MOST_FACTS = 24  # a table may have hundreds of columns, and nobody reads as many
_LONGEST = {"name": 60, "text": 300}  # characters
_CARDS = (
    "OBJECT",
    "TELESCOP",
    "INSTRUME",
    "FILTER",
    "EXPTIME",
    "DATE-OBS",
    "MJD-OBS",
    "BUNIT",
    "MAGZERO",
)
_MISSING = ("nan", "NaT", "--")  # as NumPy, pandas and astropy write that there is no value
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SPLIT = re.compile(r"[\ud800-\udfff]")
_log = logging.getLogger(__name__)


def describe(source: ImageSource, index: int) -> dict[str, str]:
    """Return what a source knows of an image, if it has ``describe(index)``; it raises nothing.

    Parameters
    ----------
    source : ImageSource
    index : int, in [0, len)

    Returns
    -------
    dict of str to str
        At most 24 names and texts, each on one line and of a length that can be shown.
    """
    find = getattr(source, "describe", None)
    if find is None:
        return {}
    try:
        facts: Mapping[object, object] = find(index)
        pairs = [(name, text) for name, text in facts.items() if text is not None]
        told = {_tidy(name, "name"): _tidy(text, "text") for name, text in pairs[: 10 * MOST_FACTS]}
    except ImageReadError:  # reading its pixels says why
        return {}
    except Exception:  # noqa: BLE001 - the method may be the user's, and what it tells is no more than a help
        _log.exception("Image %d of %r cannot be described", index, source)
        return {}
    return dict(itertools.islice(((name, text) for name, text in told.items() if name and text), MOST_FACTS))


def file_facts(path: Path) -> dict[str, str]:
    """Return the name of a file and when it was changed last (UTC); OSError if it is gone."""
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return {"File name": path.name, "File date": f"{changed:%Y-%m-%d %H:%M} UTC"}


def header_facts(file: IO[bytes], hdu: ImageHdu) -> dict[str, str]:
    """Return some cards of the header of an image, or else of the file: object, filter, exposure ...

    Parameters
    ----------
    file : binary file that can seek
    hdu : ImageHdu
        Of this file.

    Returns
    -------
    dict of str to str
        Keyword and value; those that are not there, or damaged, are left out.
    """
    headers = [read_header(file, hdu.start, is_first=hdu.number == 0)]
    if hdu.number:
        headers.append(read_header(file, 0, is_first=True))
    found = ((key, next((v for h in headers if (v := _card(h, key)) is not None), None)) for key in _CARDS)
    return {key: _in_text(value) for key, value in found if value is not None}


def row_facts(row: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Write the values of a table's row that are numbers, texts, dates or truth values."""
    texts = {
        name: _in_text(value)
        for name, value in row.items()
        if name not in leave_out and value is not None and not _is_nested(value)
    }
    return {name: text for name, text in texts.items() if text not in _MISSING}


def _in_text(value: Any) -> str:
    """Write a number with as many digits as it is known to, anything else as it is."""
    value = value.item() if hasattr(value, "item") and not hasattr(value, "mask") else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, set)) or getattr(value, "ndim", 0) > 0


def _card(header: Any, key: str) -> Any:
    try:
        value = header.get(key)
        return value if isinstance(value, (str, int, float)) and str(value).strip() else None
    except Exception:  # noqa: BLE001 - a card that is damaged raises anything
        return None


def _tidy(text: object, kind: str) -> str:
    """Bring a text to one line that can be sent and shown."""
    line = _SPLIT.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub(" ", str(text)[:10_000])).strip()
    longest = _LONGEST[kind]
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
