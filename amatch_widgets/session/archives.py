"""The images that are not the session's own, but were scored in it: which there are, and where."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amatch_widgets.archive.parts import Parts
from amatch_widgets.errors import AmatchError, ConfigError, LabelError, WorkspaceError
from amatch_widgets.images.host import is_url
from amatch_widgets.images.remote import Remote, remote_from_spec
from amatch_widgets.session.archive import SEPARATOR, Archive

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

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
    mine : callable, optional
        See `Archive`.

    Attributes
    ----------
    notices : list of str
        What the user should know of the archives of last time, in plain words.

    Notes
    -----
    Thread safety: ``_lock`` guards ``_elsewhere`` and the file, and the making of ``_known``, which is
    replaced as a whole; all may be called from any thread.
    """

    def __init__(
        self,
        folder: Path,
        labels: LabelStore,
        is_taken: Callable[[str], bool],
        *,
        mine: Callable[[str], Container[str]] = lambda _: (),
    ) -> None:
        self._folder, self._labels, self._is_taken, self._mine = folder, labels, is_taken, mine
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

    def place_of(
        self,
        archive: ImageSource,
        path: str | Path | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Path | Remote:
        """Return the folder of an archive's scores: as named, or where they are, else in the session folder.

        Parameters
        ----------
        archive : ImageSource
        path : path or URL, optional
        storage_options : mapping of str to object, optional
            Of fsspec, for a URL.

        Raises
        ------
        ConfigError
            If there are options, and no URL.
        SourceError, MissingExtraError
            If it is no URL that can be opened.
        """
        if is_url(path):
            return Remote(str(path), storage_options=storage_options)
        if storage_options is not None:
            raise ConfigError(
                f"storage_options are for a URL, and path is {path!r}. Those of the images go to "
                "am.open_source(url, storage_options=...)."
            )
        if path is not None:
            return Path(path).expanduser().absolute()  # the working directory may change
        fingerprint = archive.fingerprint()
        for known in self.known().values():
            if known.fingerprint == fingerprint:
                return known.folder
        return self._folder.absolute() / self._new_name(archive, fingerprint)

    def scores(self) -> dict[str, ArchiveScores]:
        """Return the scores of all archives that have any, by name."""
        found = {}
        for name, archive in self.known().items():
            if any(archive.parts.done(cycle) for cycle in archive.parts.cycles()):
                found[name] = archive.scores
        return found

    def note(self, source: ImageSource, path: Path | Remote) -> Archive:
        """Take note of an archive that is being scored, so that the next kernel finds it too.

        Parameters
        ----------
        source : ImageSource
        path : Path, absolute, or Remote
            Where its scores are; `Parts` were made there.

        Raises
        ------
        WorkspaceError
            If it cannot be written down.
        """
        fingerprint, _ = Parts.open(path).source()  # to look through all ids again would take long
        with self._lock:
            found = next((a for a in self._known.values() if a.fingerprint == fingerprint), None)
            # Behind a URL it is made anew: the credentials may have changed.
            if found is not None and found.folder == path and isinstance(path, Path):
                found.use(source)
                return found
            is_here = path.parent == self._folder.absolute() and self._is_free(path.name)
            name = path.name if is_here else self._new_name(source, fingerprint)
            name = name if found is None else found.name
            archive = Archive(name, path, self._labels, source, mine=self._mine)
            elsewhere = {**self._elsewhere, name: path.spec() if isinstance(path, Remote) else str(path)}
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
        for name, folder in {**folders, **self._elsewhere}.items():
            try:
                place = remote_from_spec(folder) if isinstance(folder, dict) else Path(folder)
                self._known[name] = Archive(name, place, self._labels, mine=self._mine)
            except AmatchError as error:
                self.notices.append(_out_of_reach(name, folder, error))

    def _read(self) -> dict[str, str | dict[str, Any]]:
        try:
            found = json.loads((self._folder / _ELSEWHERE).read_text("utf-8"))
            return {str(name): folder for name, folder in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            _log.exception("%s cannot be read", self._folder / _ELSEWHERE)
            self.notices.append(
                f"Which archives lie outside the session folder cannot be read: {error}. Score them again "
                "with the same path=: it makes only what is missing."
            )
            return {}

    def _write(self, elsewhere: dict[str, str | dict[str, Any]]) -> None:
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


def _out_of_reach(name: str, folder: Path | str | dict[str, Any], error: AmatchError) -> str:
    said = f"The scores of the archive {name!r} cannot be looked at: {error} Its labels are kept."
    withheld = folder.get("withheld", []) if isinstance(folder, dict) else []
    if not withheld:
        return said
    return (
        f"{said} Its folder was given with {', '.join(map(str, withheld))}, which is not written down: score "
        "it again with the same path= and storage_options=; that makes only what is missing."
    )


class _Ids:
    def __init__(self, own: Container[str], archive_of: Callable[[str], Archive | None]) -> None:
        self._own, self._archive_of = own, archive_of

    def __contains__(self, image_id: object) -> bool:
        if image_id in self._own:
            return True
        return isinstance(image_id, str) and self._archive_of(image_id) is not None
