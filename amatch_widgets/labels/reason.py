"""Why an image was labelled, where nobody looked at it for that: the label was known before."""

from __future__ import annotations

__all__ = ["AT_THE_START", "from_table", "same_as", "was_looked_at"]

AT_THE_START = "given at the start"
_FROM = "from "
_SAME_AS = "same as "


def from_table(name: str) -> str:
    """Return the reason of labels that come from the table `name`."""
    return f"{_FROM}{name}"


def same_as(image_id: str) -> str:
    """Return the reason of a label that an image shares with one that looks the same."""
    return f"{_SAME_AS}{image_id}"


def was_looked_at(reason: str) -> bool:
    """Tell whether a label with this reason was given by a person who looked, not known before."""
    return reason != AT_THE_START and not reason.startswith((_FROM, _SAME_AS))
