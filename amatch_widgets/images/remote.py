"""Places behind a URL: what is there, and what may be said of them."""

from __future__ import annotations

import errno
import io
import os
import uuid
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from amatch_widgets.errors import SourceError
from amatch_widgets.images.blocks import RemoteFile, Version
from amatch_widgets.images.host import CACHE_GB, Host, Look, parse_url, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Remote", "remote_from_spec", "why_unreachable"]

_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}


class Remote:
    """A file or folder behind a URL, which need not exist. Never changes, and can be pickled.

    Users and queries of URLs, and options that may be credentials, are used and never shown: its text is
    without them.

    Parameters
    ----------
    url : str
        With a scheme that fsspec knows.
    storage_options : mapping of str to object, optional
        Options of fsspec for it, e.g. ``{"anon": True}``.
    cache_gb : float, >= 0
        What is kept on disk of all that was read from elsewhere, in GB (10^9 bytes), for all sources and
        processes of this user together; 0 writes nothing.

    Raises
    ------
    SourceError
        The scheme is unknown, or the options do not suit it.
    ConfigError
        `cache_gb` is below 0.
    MissingExtraError
        fsspec, or the library for this scheme, is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache_gb: float | None = None,
    ) -> None:
        parts = parse_url(url)
        self._base = f"{parts.scheme}://{parts.rest.rstrip('/')}"
        self._host = Host(parts, dict(storage_options or {}), CACHE_GB if cache_gb is None else cache_gb)

    def __str__(self) -> str:
        return self._base

    def __repr__(self) -> str:
        return repr(self._base)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._base == self._base

    def __hash__(self) -> int:
        return hash(self._base)

    def __lt__(self, other: Remote) -> bool:
        return self._base < other._base

    def __truediv__(self, name: str) -> Remote:
        """Return what is called so, with ``/`` between folders, in this folder."""
        if not name:
            return self
        return self._at(f"{self._base}/{quote(name) if self._host.is_web else name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        last = self._base.partition("://")[2].rpartition("/")[2]
        return unquote(last) if self._host.is_web else last

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that it is in."""
        above = self._base.rpartition("/")[0]
        return self if above.endswith("/") else self._at(above)

    @property
    def path(self) -> str:
        """As the file system calls it, with all that is secret."""
        return self._path()

    def spec(self) -> dict[str, Any]:
        """Return what may be written down of it: the URL, and the options that are no credentials.

        Returns
        -------
        dict of str to object
            JSON-able; ``withheld`` names what is not in it.
        """
        spec: dict[str, Any] = {"path": self._base}
        host = self._host
        if host.public:
            spec["storage_options"] = host.public
        if host.withheld:
            spec["withheld"] = host.withheld
        if host.cache_gb != CACHE_GB:
            spec["cache_gb"] = host.cache_gb
        return spec

    def stat(self) -> os.stat_result:
        """Return how large it is, as a path does; all else is 0."""
        return os.stat_result((0, 0, 0, 0, 0, 0, self.version().size, 0, 0, 0))

    def exists(self) -> bool:
        """Whether there is anything."""
        try:
            self._look()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def check(self) -> None:
        """Ask the server whether it is there now; FileNotFoundError or another OSError if it is not."""
        self._host.server.info(self._path())

    def is_folder(self) -> bool:
        """Whether it is a folder; False if there is nothing."""
        try:
            return self._look().is_folder
        except (FileNotFoundError, NotADirectoryError):
            return False

    def version(self) -> Version:
        """Return size and state of a file, as they are when it is asked first."""
        found = self._look()
        if found.is_folder:
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if found.version.size < 0:
            raise OSError(errno.EINVAL, "the server does not tell how long it is")
        return found.version

    def open(self, version: Version | None = None) -> io.BufferedReader:
        """Open a file to be read; OSError if that cannot be.

        Parameters
        ----------
        version : Version, optional
            Of `files`, which saves a question to the server.
        """
        return _Reader(RemoteFile(self._host.blocks, version or self.version()))

    def read(self, version: Version, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop` of a file; OSError if they cannot be read."""
        return self._host.blocks.read(version, start, stop)

    def read_whole(self, tag: str) -> bytes:
        """Return all of a file without asking for its size.

        Parameters
        ----------
        tag : str
            Changes when its content does.
        """
        return self._host.blocks.read_whole(self._path(), tag)

    def fetch(self) -> bytes:
        """Return all of a file as it is now, which is not kept; OSError if it cannot be read."""
        return self._host.server.read(self._path())

    def put(self, data: bytes) -> None:
        """Write a file, for what a session makes: it is there whole or not at all; OSError if it cannot be.

        Object stores take a file in one piece. Elsewhere it gets another name until it is whole.
        """
        path, is_store = self._path(), self._base.partition("://")[0] in _STORES

        def write(files: Any) -> None:
            if is_store:
                files.pipe_file(path, data)
                return
            files.makedirs(path.rpartition("/")[0], exist_ok=True)
            temporary = f"{path}.{uuid.uuid4().hex}.tmp"
            files.pipe_file(temporary, data)
            files.mv(temporary, path)

        self._host.server.ask(write)

    def listing(self) -> list[tuple[str, bool]]:
        """Return the names in a folder, sorted, and whether each is a folder."""
        path = self._path(is_folder=True)
        entries = self._host.server.ask(lambda files: files.ls(path, detail=True))
        self._host.server.forget()
        names = [(self._relative(entry["name"]), entry["type"] == "directory") for entry in entries]
        return sorted((name, is_folder) for name, is_folder in names if name and "/" not in name)

    def files(self) -> Iterator[tuple[str, Version]]:
        """Give all files below a folder: paths from here on, and states; an unknown size is -1."""
        path = self._path(is_folder=True)
        found = self._host.server.ask(lambda files: files.find(path, detail=True))
        self._host.server.forget()  # or it would keep all of it in memory
        for name, info in found.items():
            relative = self._relative(name)
            if relative and info.get("type") == "file" and not name.endswith("/"):
                yield relative, version_of(name, info)

    def _look(self) -> Look:
        return self._host.look(self._path())

    def _path(self, *, is_folder: bool = False) -> str:
        return self._host.path_of(self._base + "/" * (is_folder and self._host.is_web))

    def _relative(self, name: str) -> str:
        """Return the path of something from here on, as the file system calls it; "" if it is not below."""
        folder = self._host.path_of(self._base).partition("?")[0].rstrip("/") + "/"
        if not name.startswith(folder):
            return ""
        relative = name[len(folder) :].rstrip("/")
        if not self._host.is_web:
            return relative
        return "" if "?" in relative else unquote(relative)  # links to other orders of the same page

    def _at(self, base: str) -> Remote:
        other = Remote.__new__(Remote)
        other._base, other._host = base, self._host  # noqa: SLF001 - one of ours
        return other


class _Reader(io.BufferedReader):
    """A buffered file that knows its size."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        raw: Any = self.raw
        return int(raw.size)


def why_unreachable(place: Remote, exc: OSError) -> SourceError:
    """Return the error that says why there is nothing to open."""
    if isinstance(exc, FileNotFoundError):
        return SourceError(f"There is no file or folder {place!r}. Check the spelling.")
    if isinstance(exc, PermissionError):
        return SourceError(
            f"{place!r} cannot be read: {exc.strerror}. Give credentials, as storage_options={{'key': ..., "
            "'secret': ...} or in the way of your storage; or storage_options={'anon': True} for what is "
            "public."
        )
    return SourceError(f"{place!r} cannot be opened: {exc.strerror or exc}. Try again later.")


def remote_from_spec(spec: Mapping[str, Any]) -> Remote:
    """Return the place that a spec is of; see `Remote.spec`."""
    return Remote(spec["path"], storage_options=spec.get("storage_options"), cache_gb=spec.get("cache_gb"))
