"""The images that are not the session's own, but were scored in it: which there are, and where."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from amatch_widgets.archive.parts import Parts
from amatch_widgets.errors import LabelError, WorkspaceError
from amatch_widgets.session.archive import SEPARATOR, Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from amatch_widgets.archive.scores import ArchiveScores
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import Label, LabelStore

__all__ = ["Archives"]

_log = logging.getLogger(__name__)
_ELSEWHERE = "elsewhere.json"  # which archives have their scores outside the session folder, and where


class Archives:
    """The archives of a session, found again by the next kernel.

    Parameters
    ----------
    folder : Path
        Where the scores lie, each archive's in a folder of its own, unless its user names another.
    labels : LabelStore
    is_taken : callable
        Takes a text; whether it occurs in an id of the session's own images.

    Attributes
    ----------
    notices : list of str
        What the user should know of the archives of last time, in plain words.

    Notes
    -----
    Thread safety: ``_lock`` guards ``_elsewhere`` and the file, and the making of ``_known``, which is
    replaced as a whole; all may be called from any thread.
    """

    def __init__(self, folder: Path, labels: LabelStore, is_taken: Callable[[str], bool]) -> None:
        self._folder, self._labels, self._is_taken = folder, labels, is_taken
        self._lock = threading.Lock()
        self._known: dict[str, Archive] = {}
        self.notices: list[str] = []
        self._elsewhere = self._read()
        self._find_known()

    def known(self) -> dict[str, Archive]:
        """Return the archives that were ever scored, by name, in the order in which they were."""
        return dict(self._known)

    def of(self, image_id: str) -> Archive | None:
        """Return the archive that an image belongs to by its name; None for the session's own."""
        name, separator, _ = image_id.partition(SEPARATOR)
        return self._known.get(name) if separator else None

    def named(self, name: str) -> Archive:
        """Return an archive by its name, or by its title where no other has it.

        Raises
        ------
        LabelError
            If there is none.
        """
        known = self.known()
        found = [known[name]] if name in known else [a for a in known.values() if a.title == name]
        if len(found) != 1:
            there = ", ".join(map(repr, known)) or "none yet: session.score(images) makes one"
            raise LabelError(f"{name!r} names {len(found)} archives of this session. There are {there}.")
        return found[0]

    def lines(self) -> dict[str, Label]:
        """Return what is said of the images of all archives, by their names in the session."""
        known = self._known
        if not known:
            return {}
        said = {**self._labels.unlabelled(), **self._labels.current()}
        return {i: line for i, line in said.items() if i.partition(SEPARATOR)[0] in known and SEPARATOR in i}

    def with_own(self, own: Container[str]) -> Container[str]:
        """Return all ids that labels may be for: these, and whatever may be an image of an archive."""
        return _Ids(own, self.of)

    def path_of(self, archive: ImageSource) -> Path:
        """Return the folder of an archive's scores: where they are, else one in the session folder."""
        fingerprint = archive.fingerprint()
        for known in self.known().values():
            if known.fingerprint == fingerprint:
                return known.folder
        return self._folder / self._new_name(archive, fingerprint)

    def scores(self) -> dict[str, ArchiveScores]:
        """Return the scores of all archives that have any, by name."""
        found = {}
        for name, archive in self.known().items():
            if any(archive.parts.done(cycle) for cycle in archive.parts.cycles()):
                found[name] = archive.scores
        return found

    def note(self, source: ImageSource, path: Path) -> Archive:
        """Take note of an archive that is being scored, so that the next kernel finds it too.

        Parameters
        ----------
        source : ImageSource
        path : Path
            Where its scores are; `Parts` were made there.

        Raises
        ------
        WorkspaceError
            If it cannot be written down.
        """
        path = path.absolute()  # the working directory may change
        fingerprint, _ = Parts.open(path).source()  # to look through all ids again would take long
        with self._lock:
            found = next((a for a in self._known.values() if a.fingerprint == fingerprint), None)
            if found is not None and found.folder == path:
                found.use(source)
                return found
            is_here = path.parent == self._folder and self._is_free(path.name)
            name = path.name if is_here else self._new_name(source, fingerprint)
            name = name if found is None else found.name
            archive = Archive(name, path, self._labels, source)
            elsewhere = {**self._elsewhere, name: str(path)}
            if is_here and name == path.name:
                del elsewhere[name]
            if elsewhere != self._elsewhere:
                self._write(elsewhere)
            self._elsewhere, self._known = elsewhere, {**self._known, name: archive}
        return archive

    def _new_name(self, archive: ImageSource, fingerprint: str) -> str:
        """Make a name with which no id of the session's own images begins."""
        slug = re.sub(r"[^\w.-]+", "-", archive.name).strip("-.") or "archive"
        name = f"{slug}-{fingerprint[:8]}"
        while not self._is_free(name):
            slug += "-"
            name = f"{slug}-{fingerprint[:8]}"
        return name

    def _is_free(self, name: str) -> bool:
        """Whether no id of the session's own images may be taken for one of an archive of this name."""
        return SEPARATOR not in name and not self._is_taken(name + SEPARATOR)

    def _find_known(self) -> None:
        """Find the archives of last time; one that is out of reach must not bar the way to the labels."""
        folders = {}
        if self._folder.is_dir():
            here = (path for path in sorted(self._folder.iterdir()) if (path / "archive.json").exists())
            folders = {path.name: path for path in here if self._is_free(path.name)}
        folders |= {name: Path(folder) for name, folder in self._elsewhere.items()}
        for name, folder in folders.items():
            try:
                self._known[name] = Archive(name, folder, self._labels)
            except WorkspaceError as error:
                self.notices.append(
                    f"The scores of the archive {name!r} cannot be looked at: {error} Its labels are kept."
                )

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads((self._folder / _ELSEWHERE).read_text("utf-8"))
            return {str(name): str(folder) for name, folder in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            _log.exception("%s cannot be read", self._folder / _ELSEWHERE)
            self.notices.append(
                f"Which archives lie outside the session folder cannot be read: {error}. Score them again "
                "with the same path=: it makes only what is missing."
            )
            return {}

    def _write(self, elsewhere: dict[str, str]) -> None:
        file = self._folder / _ELSEWHERE
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            self._folder.mkdir(exist_ok=True)
            with temporary.open("w", encoding="utf-8") as lines:
                json.dump(elsewhere, lines, indent=1)
                lines.flush()
                os.fsync(lines.fileno())
            temporary.replace(file)
        except OSError as error:
            raise WorkspaceError(
                f"{str(file)!r} cannot be written: {error.strerror or error}. Free some space, then score "
                "again."
            ) from error


class _Ids:
    def __init__(self, own: Container[str], archive_of: Callable[[str], Archive | None]) -> None:
        self._own, self._archive_of = own, archive_of

    def __contains__(self, image_id: object) -> bool:
        if image_id in self._own:
            return True
        return isinstance(image_id, str) and self._archive_of(image_id) is not None
