"""A file of JSON lines that is good to have, and never in the way."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["JsonLines"]

_log = logging.getLogger(__name__)


class JsonLines:
    """Lines that are appended to a file, and replayed by the next kernel.

    A line that cannot be read is skipped, and one that was torn costs no other. A disk that is
    full stops nothing: what could not be written is written with the next lines. Some of it may
    then be in the file twice.

    Thread safety: none; its owner sees to it that there is one caller at a time.

    Parameters
    ----------
    path : Path
        Need not exist. Its stem names it in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten = ""
        self._is_torn = False  # the last line lacks its end: the kernel was killed while it was written

    def replay(self, take: Callable[[Any], None]) -> None:
        """Hand over what each line holds, in their order.

        Parameters
        ----------
        take : callable
            Takes what JSON made of a line. Where it raises what a line of another shape would, the
            line is skipped, so it must change nothing before.
        """
        try:
            text = self._path.read_text("utf-8", "replace")
        except FileNotFoundError:
            return
        except OSError:
            _log.exception("The %s cannot be read from %s", self._path.stem, self._path)
            return
        self._is_torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                take(json.loads(line))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                _log.warning("A line of %s cannot be read and is skipped", self._path)

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write a line for each entry."""
        self._unwritten += "".join(json.dumps(entry) + "\n" for entry in entries)
        if not self._unwritten:
            return
        text, self._is_torn = ("\n" if self._is_torn else "") + self._unwritten, True  # until it is whole
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
            self._unwritten, self._is_torn = "", False
        except OSError:
            _log.exception("The %s cannot be written to %s", self._path.stem, self._path)
