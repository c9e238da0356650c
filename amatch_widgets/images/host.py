"""What all places on one server share: the connection, the cache, and what is known of files."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from amatch_widgets.errors import ConfigError, SourceError
from amatch_widgets.images.blocks import Blocks, Version
from amatch_widgets.images.disk_cache import DiskCache, cache_folder
from amatch_widgets.images.secret import hide_secrets, part_options
from amatch_widgets.images.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CACHE_GB", "Host", "Look", "Url", "is_url", "parse_url", "version_of"]

CACHE_GB = 4.0  # of a home folder that may have 10 GB
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(?:([^/@]*)@)?(.*)", re.DOTALL)
_BEGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
_WEB = {"http", "https"}
_LOOKS = 2**16  # files of which is remembered what they are
_TAGS = ("ETag", "etag", "md5Hash", "md5", "checksum", "generation", "Last-Modified")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class Url(NamedTuple):
    """The parts of a URL, of which user and query may be secret."""

    scheme: str
    user: str | None
    rest: str
    """Host and path."""
    query: str
    """With its question mark, or empty."""


class Look(NamedTuple):
    """What was found at a place."""

    is_folder: bool
    version: Version


class Host:
    """What all places of one server share; see `Remote`.

    Thread safety: nothing changes but what `functools.lru_cache`, ``server`` and ``blocks`` guard themselves.

    Parameters
    ----------
    url : Url
        Of anything there.
    options : dict of str to object
        Of fsspec.
    cache_gb : float, >= 0

    Attributes
    ----------
    is_web : bool
        Whether names are quoted in URLs, and folders are pages of links.
    public : dict of str to object
        The options that may be written down.
    withheld : list of str
        The names of the others, and of parts of the URL that may not be.
    look : callable
        Returns the `Look` of a path, as it was when it was asked first.
    """

    def __init__(self, url: Url, options: dict[str, Any], cache_gb: float) -> None:
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
        return Host, (self._url, self._options, self.cache_gb)

    def _look(self, path: str) -> Look:
        info = self.server.info(path)
        # A web server knows no folders: it shows a page with what is in them.
        is_page = self.is_web and info.get("mimetype") == "text/html"
        return Look(is_page or info["type"] == "directory", version_of(path, info))

    def path_of(self, base: str) -> str:
        """Return how the file system calls what is at a URL without secrets."""
        return self.server.path_of(self._secret_url(base.partition("://")[2]))

    def _secret_url(self, rest: str) -> str:
        user = "" if self._url.user is None else f"{self._url.user}@"
        return f"{self._url.scheme}://{user}{rest}{self._url.query}"


def is_url(what: object) -> bool:
    """Say whether something is a URL, and not a path."""
    return isinstance(what, str) and _BEGIN.match(what) is not None


def parse_url(url: str) -> Url:
    """Part a URL; SourceError if it is none that can be opened."""
    if "::" in url.partition("?")[0]:
        raise SourceError(
            f"{hide_secrets(url)!r} is a chain of URLs, which is not taken. Give that of a file or folder."
        )
    match = _URL.fullmatch(url)
    if match is None:
        raise SourceError(f"{hide_secrets(url)!r} is no URL. Wanted is one like 's3://bucket/folder'.")
    scheme, user, rest = match[1].lower(), match[2], match[3]
    if scheme not in _WEB:  # a "?" may be in the name of a file
        return Url(scheme, user, rest, "")
    rest, mark, query = rest.partition("?")
    return Url(scheme, user, rest, mark + query)


def version_of(path: str, info: Mapping[str, Any]) -> Version:
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
