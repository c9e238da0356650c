"""The file under the labels: append-only JSON lines, on disk when the call returns.

One write and one fsync per call. A crash can tear only the last line, which is cut away;
anything else that cannot be read stops with an error that names the line, because a journal
read halfway would lose labels silently.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Journal"]

_log = logging.getLogger(__name__)
_BOM = b"\xef\xbb\xbf"  # left by some editors
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
_SHOWN = 3  # ids named in an error


class Journal:
    """An append-only file of JSON objects, one per line.

    The file is read once, at the start, and opened for writing at the first `append`.

    Parameters
    ----------
    path : Path
        The file; it and its folder are made at the first `append`.

    Raises
    ------
    JournalError
        If the file cannot be read, or a line that is not the last is damaged.

    Notes
    -----
    Thread safety: none of its own; the `LabelStore` that owns it calls it under its writing lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notice = ""  # what was cut away, in plain words
        self.records: list[tuple[int, dict[str, Any]]] = []  # (line number from 1, object)
        self._file: int | None = None
        self._end = 0  # bytes of the file that hold complete lines
        self._must_cut = False  # there is something behind _end that is to be cut away
        self._needs_newline = False  # the last line is complete but for its line end
        self._replay()

    def damaged(self, line: int, why: str) -> JournalError:
        """Describe a line that cannot be used.

        Parameters
        ----------
        line : int
            Its number, from 1.
        why : str
            What is wrong with it.

        Returns
        -------
        JournalError
            To be raised by the caller.
        """
        return JournalError(
            f"Line {line} of the label journal {str(self.path)!r} is damaged: {why}. "
            f"Nothing was changed. Copy the file, then repair or delete line {line} in a text editor "
            "and open it again."
        )

    def append(self, records: list[dict[str, Any]]) -> None:
        """Write `records` behind the last line, all or none; they are on disk on return.

        Parameters
        ----------
        records : list of dict
            JSON objects, one line each.

        Raises
        ------
        JournalError
            If they could not be written. The file then holds what it held before.
        """
        # ASCII: a lone surrogate in a file name stays readable, and no cut byte can split a character
        data = b"".join(json.dumps(r, separators=(",", ":")).encode("ascii") + b"\n" for r in records)
        if self._needs_newline:
            data = b"\n" + data
        try:
            file = self._ready_file()
            self._write(file, data)
        except OSError as error:
            raise JournalError(_not_kept(records, self.path, error)) from error
        self._end += len(data)
        self._needs_newline = False

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _replay(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(
                f"The label journal {str(self.path)!r} cannot be read: {error.strerror or error}. "
                "Make it a readable file, or give the session another folder."
            ) from error
        *lines, tail = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            self._read_line(number, line)
        self._end = len(data)
        if not tail.strip():
            self._needs_newline = bool(tail)
            return
        # The start of an object is never an object itself: a tail that parses lacks its line end only.
        try:
            self._read_line(len(lines) + 1, tail)
            self._needs_newline = True
        except JournalError:
            self._end -= len(tail)
            self._must_cut = True
            self.notice = (
                f"The last line ({len(lines) + 1}) of {self.path.name} was cut short while it was written, "
                "so it is left out; all earlier labels are there."
            )
            _log.warning("%s Its bytes: %r", self.notice, tail)

    def _read_line(self, number: int, line: bytes) -> None:
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line.strip():
            return
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self.damaged(number, f"it is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise self.damaged(number, f"it holds {type(record).__name__} instead of an object")
        self.records.append((number, record))

    def _ready_file(self) -> int:
        """Open the file if need be, and make sure that it ends where the known lines end."""
        if self._file is None:
            is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, _APPEND, 0o666)
            if is_new:
                _sync_folder(self.path.parent)
        if self._must_cut:
            os.ftruncate(self._file, self._end)
            self._must_cut = False
        status = os.fstat(self._file)
        try:
            is_same = os.path.samestat(status, os.stat(self.path))  # noqa: PTH116 (samestat's counterpart)
        except FileNotFoundError:
            is_same = False
        if not is_same or status.st_size != self._end:
            # Writing on would put the label into a file that nobody will read, or behind a foreign line.
            raise OSError("the file was moved, deleted or changed by another program")
        return self._file

    def _write(self, file: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:  # one write, but for a disk that fills up on the way
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except BaseException:  # an interrupt leaves half a line behind, too
            self._must_cut = True
            with contextlib.suppress(OSError):  # tried again before the next append
                os.ftruncate(file, self._end)
                self._must_cut = False
            raise


def _not_kept(records: list[dict[str, Any]], path: Path, error: OSError) -> str:
    names = ", ".join(repr(r.get("id")) for r in records[:_SHOWN])
    more = f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else ""
    return (
        f"NOT kept: the label of {names}{more} could not be written to {str(path)!r}: "
        f"{error.strerror or error}. All earlier labels are safe. "
        "Free some space or make the file writable, then label again."
    )


def _sync_folder(folder: Path) -> None:
    """Make the new file's name itself survive a power cut."""
    with contextlib.suppress(OSError):  # some network file systems refuse it; the file is synced anyway
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
