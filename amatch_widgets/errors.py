"""Every error that amatch_widgets raises on purpose.

The tree::

    AmatchError
    ├── SourceError (ValueError)        a set of images that cannot be opened
    │   └── ImageReadError (OSError)    one image that cannot be read; carries ``image_id``
    ├── LabelError (ValueError)         a label, class name or label file that makes no sense
    │   └── JournalError                a journal of labels that cannot be replayed or written
    ├── ScoreError (ValueError)         a file of scores that makes no sense
    ├── ConfigError (ValueError)        an option out of its range
    ├── WeightsError (RuntimeError)     no pretrained weights, or weights that do not fit
    ├── StateError (RuntimeError)       a call that the present state does not allow
    │   ├── NotTrainedError             scores or a model were asked for before there are any
    │   ├── SessionInUseError           another process or object holds the session folder
    │   └── TooFewLabelsError           training needs labels that are not there yet
    ├── WorkspaceError (OSError)        the session folder cannot be written or is damaged
    └── MissingExtraError (ImportError) an optional dependency; the message is the pip line to type

A message says what was found, what is allowed and what to do.
"""

from __future__ import annotations

__all__ = [
    "AmatchError",
    "ConfigError",
    "ImageReadError",
    "JournalError",
    "LabelError",
    "MissingExtraError",
    "NotTrainedError",
    "ScoreError",
    "SessionInUseError",
    "SourceError",
    "StateError",
    "TooFewLabelsError",
    "WeightsError",
    "WorkspaceError",
]


class AmatchError(Exception):
    """Base of all errors of this package."""


class SourceError(AmatchError, ValueError):
    """A set of images cannot be opened."""


class ImageReadError(SourceError, OSError):
    """One image cannot be read.

    Parameters
    ----------
    image_id : str
        The image's id in its source.
    reason : str
        What is wrong with it, in plain words.
    """

    def __init__(self, image_id: str, reason: str) -> None:
        super().__init__(f"Image {image_id!r} cannot be read: {reason}")
        self.image_id = image_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageReadError], tuple[str, str]]:
        """Pickle by the two arguments, so that the error survives a process pool."""
        return type(self), (self.image_id, self.reason)


class LabelError(AmatchError, ValueError):
    """A label, a class name or a label file makes no sense."""


class JournalError(LabelError):
    """The journal of labels cannot be replayed or written."""


class ScoreError(AmatchError, ValueError):
    """A file of scores makes no sense."""


class ConfigError(AmatchError, ValueError):
    """An option is out of its range."""


class WeightsError(AmatchError, RuntimeError):
    """Pretrained weights are missing or do not fit the model."""


class StateError(AmatchError, RuntimeError):
    """The present state does not allow this call."""


class NotTrainedError(StateError):
    """Scores or a model were asked for before there are any."""


class SessionInUseError(StateError):
    """Another process, or another object of this one, holds the session folder."""


class TooFewLabelsError(StateError):
    """Training needs labels that are not there yet."""


class WorkspaceError(AmatchError, OSError):
    """The session folder cannot be written, or what is in it is damaged."""


class MissingExtraError(AmatchError, ImportError):
    """An optional dependency is missing; the message is the pip line to type."""
