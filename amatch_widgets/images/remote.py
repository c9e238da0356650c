"""Places behind a URL: what is there, and what may be said of them."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from amatch_widgets.errors import ConfigError, SourceError
from amatch_widgets.images.blocks import Blocks, RemoteFile, Version
from amatch_widgets.images.disk_cache import DiskCache, cache_folder
from amatch_widgets.images.secret import hide_secrets, part_options
from amatch_widgets.images.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CACHE_GB", "Remote", "is_url", "remote_from_spec", "why_unreachable"]

CACHE_GB = 4.0  # of a home folder that may have 10 GB
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(?:([^/@]*)@)?(.*)", re.DOTALL)
_BEGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
_WEB = {"http", "https"}
_LOOKS = 2**16  # files of which is remembered what they are
_TAGS = ("ETag", "etag", "md5Hash", "md5", "checksum", "generation", "Last-Modified")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class _Url(NamedTuple):
    scheme: str
    user: str | None
    rest: str
    query: str
    """With its question mark, or empty."""


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
        parts = _parse(url)
        self._base = f"{parts.scheme}://{parts.rest.rstrip('/')}"
        self._root = _Root(parts, dict(storage_options or {}), CACHE_GB if cache_gb is None else cache_gb)

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
        return self._at(f"{self._base}/{quote(name) if self._root.is_web else name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        last = self._base.partition("://")[2].rpartition("/")[2]
        return unquote(last) if self._root.is_web else last

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
        root = self._root
        if root.public:
            spec["storage_options"] = root.public
        if root.withheld:
            spec["withheld"] = root.withheld
        if root.cache_gb != CACHE_GB:
            spec["cache_gb"] = root.cache_gb
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
        self._root.server.info(self._path())

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
        return _Reader(RemoteFile(self._root.blocks, version or self.version()), self._base)

    def read_whole(self, tag: str) -> bytes:
        """Return all of a file without asking for its size.

        Parameters
        ----------
        tag : str
            Changes when its content does.
        """
        return self._root.blocks.read_whole(self._path(), tag)

    def listing(self) -> list[tuple[str, bool]]:
        """Return the names in a folder, sorted, and whether each is a folder."""
        path = self._path(is_folder=True)
        entries = self._root.server.ask(lambda files: files.ls(path, detail=True))
        self._root.server.forget()
        names = [(self._relative(entry["name"]), entry["type"] == "directory") for entry in entries]
        return sorted((name, is_folder) for name, is_folder in names if name and "/" not in name)

    def files(self) -> Iterator[tuple[str, Version]]:
        """Give all files below a folder: paths from here on, and states; an unknown size is -1."""
        path = self._path(is_folder=True)
        found = self._root.server.ask(lambda files: files.find(path, detail=True))
        self._root.server.forget()  # or it would keep all of it in memory
        for name, info in found.items():
            relative = self._relative(name)
            if relative and info.get("type") == "file" and not name.endswith("/"):
                yield relative, _version(name, info)

    def _look(self) -> _Look:
        return self._root.look(self._path())

    def _path(self, *, is_folder: bool = False) -> str:
        return self._root.path_of(self._base + "/" * (is_folder and self._root.is_web))

    def _relative(self, name: str) -> str:
        """Return the path of something from here on, as the file system calls it; "" if it is not below."""
        folder = self._root.path_of(self._base).partition("?")[0].rstrip("/") + "/"
        if not name.startswith(folder):
            return ""
        relative = name[len(folder) :].rstrip("/")
        if not self._root.is_web:
            return relative
        return "" if "?" in relative else unquote(relative)  # links to other orders of the same page

    def _at(self, base: str) -> Remote:
        other = Remote.__new__(Remote)
        other._base, other._root = base, self._root  # noqa: SLF001 - one of ours
        return other


class _Root:
    """What all places of one server share: connection, cache, and what was found out about files."""

    def __init__(self, url: _Url, options: dict[str, Any], cache_gb: float) -> None:
        if not cache_gb >= 0:
            raise ConfigError(f"cache_gb={cache_gb!r}: allowed is 0 or more, in GB.")
        self._url, self._options, self.cache_gb = url, options, cache_gb
        self.is_web = url.scheme in _WEB
        self.public, secret = part_options(options)
        self.withheld = sorted([*secret, *["user"] * (url.user is not None), *["query"] * bool(url.query)])
        self.server = Server(self._secret_url(url.rest), options, secret)
        folder = cache_folder()
        limit = int(cache_gb * 1e9)
        is_far = url.scheme != "memory"
        cache = (
            DiskCache(folder / "amatch_widgets" / "remote", limit) if folder and limit and is_far else None
        )
        # Some file systems have no host in their paths.
        where = [url.scheme, url.user, url.rest.partition("/")[0], url.query, self.public]
        self.blocks = Blocks(self.server, cache, json.dumps(where, sort_keys=True))
        self.look = lru_cache(_LOOKS)(self._look)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Root, (self._url, self._options, self.cache_gb)

    def _look(self, path: str) -> _Look:
        info = self.server.info(path)
        # A web server knows no folders: it shows a page with what is in them.
        is_page = self.is_web and info.get("mimetype") == "text/html"
        return _Look(is_page or info["type"] == "directory", _version(path, info))

    def path_of(self, base: str) -> str:
        """Return how the file system calls what is at a URL without secrets."""
        return self.server.path_of(self._secret_url(base.partition("://")[2]))

    def _secret_url(self, rest: str) -> str:
        user = "" if self._url.user is None else f"{self._url.user}@"
        return f"{self._url.scheme}://{user}{rest}{self._url.query}"


class _Look(NamedTuple):
    is_folder: bool
    version: Version


class _Reader(io.BufferedReader):
    """A buffered file that knows its size and its URL, by which h5py calls it."""

    def __init__(self, raw: RemoteFile, url: str) -> None:
        super().__init__(raw)
        self._url = url

    def __repr__(self) -> str:
        return self._url

    @property
    def size(self) -> int:
        """Bytes of the file."""
        raw: Any = self.raw
        return int(raw.size)


def is_url(what: object) -> bool:
    """Say whether something is a URL, and not a path."""
    return isinstance(what, str) and _BEGIN.match(what) is not None


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


def _parse(url: str) -> _Url:
    if "::" in url.partition("?")[0]:
        raise SourceError(
            f"{hide_secrets(url)!r} is a chain of URLs, which is not taken. Give that of a file or folder."
        )
    match = _URL.fullmatch(url)
    if match is None:
        raise SourceError(f"{hide_secrets(url)!r} is no URL. Wanted is one like 's3://bucket/folder'.")
    scheme, user, rest = match[1].lower(), match[2], match[3]
    if scheme not in _WEB:  # a "?" may be in the name of a file
        return _Url(scheme, user, rest, "")
    rest, mark, query = rest.partition("?")
    return _Url(scheme, user, rest, mark + query)


def _version(path: str, info: Mapping[str, Any]) -> Version:
    """Return the state of a file; the size is -1 where the server does not say it."""
    size = info.get("size")
    return Version(path, -1 if size is None else int(size), _tag(info))


def _tag(info: Mapping[str, Any]) -> str:
    """Return a text that changes with a file, of what the server says of it."""
    said = [str(info[key]) for key in _TAGS if info.get(key)]
    times = [info[key] for key in _TIMES if info.get(key)]
    # The same time is said in several time zones.
    said += [f"{t.timestamp():.6f}" if hasattr(t, "timestamp") else str(t) for t in times]
    return " ".join(said)
