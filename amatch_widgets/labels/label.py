"""One line of the journal: what was said about an image."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import LabelError
from amatch_widgets.labels.split import SPLITS, TRAIN

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ANOMALY", "CLASSES", "NORMAL", "Label", "checked_id", "checked_label"]

ANOMALY, NORMAL = "anomaly", "normal"
CLASSES = (NORMAL, ANOMALY)  # the index of a class is its column in the model's output
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of the journal: what is said about an image since then, by whom and when.

    Parameters
    ----------
    image_id : str
        The image's id in its source.
    label : str or None
        "anomaly", "normal", or None where the label was taken back.
    tags : tuple of str
        Free words, e.g. ("merger",).
    note : str
        Free text.
    star : bool
        The image is worth remembering, whatever its label.
    by : str
        Who said it.
    time : str
        When, ISO 8601 in UTC.
    score : float or None
        The image's score when it was labelled, in [0, 1]; None if it had none.
    step : int or None
        The training step that the score came from.
    reason : str
        Why the image was shown, e.g. "top: rank 3".
    split : str
        "train", or "test" if the label is held out to measure with.
    action : int or None
        Number of the user's action; lines of one action are undone together. None: not to be undone.
    undoes : int or None
        The action that this one takes back.
    """

    image_id: str
    label: str | None
    tags: tuple[str, ...] = ()
    note: str = ""
    star: bool = False
    by: str = ""
    time: str = ""
    score: float | None = None
    step: int | None = None
    reason: str = ""
    split: str = TRAIN
    action: int | None = None
    undoes: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it leaves nothing to be known of the image."""
        return self.label is None and not (self.tags or self.note or self.star)

    def to_record(self) -> dict[str, Any]:
        """Return the JSON object that stands in the journal."""
        return {
            "id": self.image_id,
            "label": self.label,
            "split": self.split,
            "tags": list(self.tags),
            "note": self.note,
            "star": self.star,
            "by": self.by,
            "time": self.time,
            "score": self.score,
            "step": self.step,
            "reason": self.reason,
            "action": self.action,
            "undoes": self.undoes,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Label:
        """Read a journal object; fields that this version does not know are left aside.

        Parameters
        ----------
        record : mapping
            A parsed line.

        Returns
        -------
        Label
            What it says.

        Raises
        ------
        LabelError
            If a field is missing or has a value that makes no sense.
        """
        for field in ("id", "label"):
            if field not in record:
                raise LabelError(f"it has no {field!r}")
        split = record.get("split", TRAIN)
        if split not in SPLITS:
            raise LabelError(f"its split is {split!r} instead of 'train' or 'test'")
        score, tags = record.get("score"), record.get("tags") or ()
        if not isinstance(tags, list | tuple):
            raise LabelError(f"its tags are {tags!r} instead of a list")
        try:
            return cls(
                image_id=checked_id(record["id"]),
                label=checked_label(record["label"], "it"),
                tags=tuple(map(str, tags)),
                note=str(record.get("note") or ""),
                star=bool(record.get("star")),
                by=str(record.get("by") or ""),
                time=str(record.get("time") or ""),
                score=None if score is None else float(score),
                step=_whole(record.get("step")),
                reason=str(record.get("reason") or ""),
                split=split,
                action=_whole(record.get("action")),
                undoes=_whole(record.get("undoes")),
            )
        except (TypeError, ValueError) as error:
            raise LabelError(str(error)) from error


def checked_id(image_id: object) -> str:
    """Return an id, or say what is wrong with it."""
    if not isinstance(image_id, str) or not image_id:
        raise LabelError(f"An image id is {image_id!r}; it must be a string that is not empty.")
    if _SPLIT_PAIR.search(image_id):
        # JSON would join the two halves, and the id would come back as another one.
        raise LabelError(
            f"The image id {image_id!r} holds a split surrogate pair. Write it as one character."
        )
    return str(image_id)


def checked_label(label: object, what: str) -> str | None:
    """Return the label of `what`, or say what is wrong with it."""
    if label is None or (isinstance(label, str) and label in CLASSES):
        return None if label is None else str(label)
    near = difflib.get_close_matches(str(label).casefold(), CLASSES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise LabelError(
        f"Unknown label {label!r} of {what}. There are 'anomaly', 'normal' and None (no label).{hint}"
    )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
