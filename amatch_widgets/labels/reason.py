"""Why an image was labelled, where nobody looked at it for that: the label was known before."""

from __future__ import annotations

__all__ = ["AT_THE_START", "from_table", "merged_from", "same_as", "was_looked_at", "was_merged"]

AT_THE_START = "given at the start"
_FROM = "from "
_MERGED = "merged from "
_SAME_AS = "same as "


def from_table(name: str) -> str:
    """Return the reason of labels that come from the table `name`."""
    return f"{_FROM}{name}"


def same_as(image_id: str) -> str:
    """Return the reason of a label that an image shares with one that looks the same."""
    return f"{_SAME_AS}{image_id}"


def merged_from(name: str, reason: str) -> str:
    """Return the reason of a label that was given for `reason` in the session `name`, and merged."""
    return f"{_MERGED}{name}" + (f": {reason}" if reason and not was_merged(reason) else "")


def was_merged(reason: str) -> bool:
    """Tell whether a label with this reason was merged from another session."""
    return reason.startswith(_MERGED)


def was_looked_at(reason: str) -> bool:
    """Tell whether a label with this reason was given by a person who looked, in this session.

    Not so for labels that were known before, nor for those of another session: that one's ranking,
    and not this one's, had brought the image up. Nor for one that looks the same as another.
    """
    return reason != AT_THE_START and not reason.startswith((_FROM, _MERGED, _SAME_AS))
