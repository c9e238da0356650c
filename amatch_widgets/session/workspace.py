"""The session folder: who holds it, what it is of, and where things lie in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from amatch_widgets.errors import SessionInUseError, WorkspaceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Workspace", "read_manifest"]

_FORMAT = 1
_KEPT_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"cycle=(\d+)-step=(\d+)\.safetensors")


class Workspace:
    """A session folder, held by this object alone until `close`.

    ::

        session.json                manifest: what the session is of, and its options
        labels.jsonl                a line per label, the most precious file
        checkpoints/cycle=0003-step=00000300.safetensors
        scores/cycle=0003/part-00000.parquet
        history.jsonl               step and cycle records
        evidence.jsonl              what labels said of the trained models
        session.lock, session.owner who holds the folder

    The lock is one of the operating system (flock), so it dies with its process: a stale one of
    a killed kernel does not bar the way.

    Parameters
    ----------
    path : Path
        Made if it does not exist.

    Raises
    ------
    SessionInUseError
        If another process, or another object of this one, holds the folder.
    WorkspaceError
        If it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            self._lock = FileLock(path / "session.lock", thread_local=False)  # close() may come on any thread
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise SessionInUseError(
                f"The session folder {str(path)!r} is in use by {self._owner()}. Close that session first "
                "(session.close(), or shut its kernel down), or choose another folder with path=."
            ) from error
        except OSError as error:
            raise WorkspaceError(
                f"The session folder {str(path)!r} cannot be used: {error.strerror or error}. "
                "Choose a folder that you can write to with path=."
            ) from error
        try:
            self._replace("session.owner", {"pid": os.getpid(), "host": socket.gethostname()})
        except WorkspaceError:
            self.close()
            raise

    def close(self) -> None:
        """Give the folder free; closing twice does no harm."""
        self._lock.release()

    def manifest(self) -> dict[str, Any] | None:
        """Return what `write_manifest` wrote, or None in a new folder.

        Raises
        ------
        WorkspaceError
            If the manifest is damaged or of a newer format.
        """
        return read_manifest(self.path)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replace the manifest, all or nothing."""
        self._replace("session.json", {"format": _FORMAT, **manifest})

    @property
    def labels(self) -> Path:
        """The journal of labels."""
        return self.path / "labels.jsonl"

    @property
    def history(self) -> Path:
        """The step and cycle records."""
        return self.path / "history.jsonl"

    def checkpoint(self, cycle: int, step: int) -> Path:
        """Return where the checkpoint of `step` lies, its folder made."""
        folder = self.path / "checkpoints"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"The folder {str(folder)!r} cannot be made: {error.strerror}. Free some space or give "
                "yourself the right to write there; the labels are safe."
            ) from error
        return folder / f"cycle={cycle:04d}-step={step:08d}.safetensors"

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted(p for p in (self.path / "checkpoints").glob("*") if _CHECKPOINT.fullmatch(p.name))

    def last_step(self) -> tuple[int, int]:
        """Return (cycle, step) of the last checkpoint; (0, 0) if there is none."""
        checkpoints = self.checkpoints()
        found = _CHECKPOINT.fullmatch(checkpoints[-1].name) if checkpoints else None
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def prune_checkpoints(self) -> None:
        """Remove all checkpoints but the last two, and what a killed process left half written."""
        left_over = (self.path / "checkpoints").glob(".*.tmp")
        for path in (*self.checkpoints()[:-_KEPT_CHECKPOINTS], *left_over):
            with contextlib.suppress(OSError):  # it costs space and no more; tried again next time
                path.unlink(missing_ok=True)

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / "session.owner").read_text("utf-8"))
            pid, host = owner["pid"], owner["host"]
        except (OSError, ValueError, KeyError, TypeError):
            return "another session"
        if (pid, host) == (os.getpid(), socket.gethostname()):
            return "another session of this kernel"
        return f"process {pid} on {host!r}"

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.path / f".{name}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / name)
        except OSError as error:
            raise WorkspaceError(
                f"{name} cannot be written in {str(self.path)!r}: {error.strerror or error}. "
                "Free some space, or choose another folder with path=."
            ) from error


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the session folder `path`, or None where there is none."""
    file = path / "session.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
        found = manifest["format"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"The manifest {str(file)!r} is damaged: {error}. Move it away and make the session again with "
            "the same source and path=: labels, scores and checkpoints are kept."
        ) from error
    if found != _FORMAT:
        raise WorkspaceError(
            f"{str(file)!r} has format {found!r}; this version reads {_FORMAT}. Update amatch-widgets."
        )
    return manifest
