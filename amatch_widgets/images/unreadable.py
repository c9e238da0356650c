"""Why something cannot be read, in plain words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from amatch_widgets.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UnreadableError", "in_words", "plain_errors"]


class UnreadableError(Exception):
    """A reason, in plain words, on its way to an ImageReadError."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Make an UnreadableError of all that decoders raise; an error of the disk stays as it is."""
    try:
        yield
    except (UnreadableError, SourceError):
        raise
    except MissingExtraError as exc:
        raise UnreadableError(str(exc)) from exc
    except MemoryError as exc:
        raise UnreadableError("there is not enough memory to decode it") from exc
    # Decoders meet hostile bytes with any exception there is (SyntaxError, struct.error, KeyError, ...), and
    # one bad file must not stop a run.
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno is not None:  # the disk, not the file
            raise
        first = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise UnreadableError(f"it is damaged or cut off ({first})") from exc


def in_words(exc: BaseException) -> str:
    """Say why a file that was there when the source was opened cannot be read."""
    if isinstance(exc, FileNotFoundError):
        return "the file is gone since it was opened"
    if isinstance(exc, PermissionError):
        return "you have no permission to read it"
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)
