"""What answers behind a URL, through fsspec: patience with it, and its errors in plain words."""

from __future__ import annotations

import errno
import importlib
import os
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

from amatch_widgets.errors import MissingExtraError, SourceError
from amatch_widgets.images.secret import hide_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Server"]

T = TypeVar("T")

_WAITS_S = (0.3, 2.0)  # before it is asked again
_PATIENCE_S = 60.0  # for one answer of at most 16 MB
# Where a server has not answered so often in a row, it is not the images: for a while it is not asked again,
# as there may be a million of them.
_N_GONE, _GONE_S = 3, 5.0
_EXTRA = {"s3", "s3a", "http", "https"}  # schemes that the extra is for
_CREDENTIALS = re.compile("Credential|Unauthorized|TokenRetrieval|Authentication")
_STATUSES = {
    401: (errno.EACCES, "access is denied"),
    403: (errno.EACCES, "access is denied"),
    404: (errno.ENOENT, "it is not there"),
    410: (errno.ENOENT, "it is not there"),
    408: (errno.EIO, "the server does not answer in time"),
    416: (errno.EINVAL, "the file has changed on the server: open the source again"),
    429: (errno.EIO, "the server is asked too often"),
}
_KINDS = (
    (FileNotFoundError, errno.ENOENT, "it is not there"),
    (IsADirectoryError, errno.EISDIR, "it is a folder"),
    (NotADirectoryError, errno.ENOTDIR, "it is no folder"),
    (NotImplementedError, errno.EINVAL, "its server or library cannot do this"),
)


class Server:
    """A file system of fsspec, opened anew in each process.

    Thread safety: fsspec's file systems may be asked by any thread. ``_opened`` and ``_gone_until`` are each
    replaced as a whole, and of two threads that open the file system at once, fsspec gives both the same.
    ``_n_gone`` need not be exact.

    Parameters
    ----------
    url : str
        Of anything on it, with all that is secret.
    options : mapping of str to object
        Of the file system (fsspec's ``storage_options``).
    secret : mapping of str to object
        Those of them that no message may show.

    Raises
    ------
    SourceError
        The scheme is unknown, or the options do not suit it.
    MissingExtraError
        fsspec, or the library for this scheme, is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any], secret: Mapping[str, Any]) -> None:
        self._url, self._options, self._secret = url, dict(options), dict(secret)
        self._gone_until, self._n_gone = (0.0, ""), 0
        self._opened: tuple[int, Any] | None = None
        self._files().invalidate_cache()  # a listing that another source of this process asked for

    def ask(self, what: Callable[[Any], T]) -> T:
        """Return what a call of the file system returns, asking again if the server does not answer.

        Parameters
        ----------
        what : callable
            Takes the file system.

        Raises
        ------
        FileNotFoundError, PermissionError
            It answers that.
        OSError
            It does not answer, or makes no sense; with a reason in plain words, and without secrets.
        """
        for wait_s in (*_WAITS_S, None):
            until, reason = self._gone_until
            if time.monotonic() < until:
                raise OSError(errno.EIO, reason)
            try:
                found = what(self._files())
            except SourceError:
                raise
            except Exception as exc:  # noqa: BLE001 - what libraries raise: aiohttp, botocore, paramiko, ...
                error = self._in_words(exc)
                if error.errno != errno.EIO:
                    self._n_gone = 0
                    raise error from None  # what the libraries say has URLs with signatures in it
                if wait_s is None:
                    self._n_gone += 1
                    if self._n_gone >= _N_GONE:
                        self._gone_until = (time.monotonic() + _GONE_S, str(error.strerror))
                    raise error from None
                time.sleep(wait_s)
            else:
                self._n_gone = 0
                return found
        raise AssertionError

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return bytes `start` to before `stop` of a file, or all of it; more where it cannot do less."""
        return self.ask(lambda files: bytes(files.cat_file(path, start=start, end=stop, **_patience(files))))

    def info(self, path: str) -> dict[str, Any]:
        """Return what the file system says of a file or folder."""
        return self.ask(lambda files: dict(files.info(path, **_patience(files))))

    def path_of(self, url: str) -> str:
        """Return how the file system calls what is at a URL."""
        return str(self._files()._strip_protocol(url))  # noqa: SLF001 - how fsspec itself does it

    def forget(self) -> None:
        """Drop the listings that the file system keeps."""
        self._files().invalidate_cache()

    def _files(self) -> Any:
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            # After a fork the old one's thread, which it reads in, is not there.
            self._opened = opened = (os.getpid(), _file_system(self._url, self._options, self._secret))
        return opened[1]

    def _in_words(self, exc: BaseException) -> OSError:
        """Say what an error of any library means; the subclass of OSError follows from its number."""
        chain = list(_chain(exc))
        for one in chain:
            if (found := _answered(one)) is not None:
                return OSError(*found)
        # The last: fsspec says "not found" of web servers that do not answer at all. But it may also have
        # looked in vain in a dict of its own.
        if any(isinstance(one, TimeoutError) for one in chain):
            return OSError(errno.EIO, "the server does not answer in time")
        last = next((one for one in reversed(chain) if not isinstance(one, LookupError)), exc)
        for kind, number, text in _KINDS:
            if isinstance(last, kind):
                return OSError(number, text)
        text = hide_secrets(" ".join(str(last).split()), self._secret)
        return OSError(errno.EIO, f"the server does not answer ({text or type(last).__name__})")


def _file_system(url: str, options: Mapping[str, Any], secret: Mapping[str, Any]) -> Any:
    scheme = url.partition("://")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        core = importlib.import_module("fsspec.core")
    except ImportError as exc:
        raise MissingExtraError(_wanted(scheme, "fsspec")) from exc
    try:
        files, _ = core.url_to_fs(url, **{**_defaults(scheme), **options})
    except ImportError as exc:
        if scheme in _EXTRA:
            raise MissingExtraError(_wanted(scheme, "s3fs or aiohttp")) from exc
        raise MissingExtraError(
            f"{scheme}:// needs a library that is not installed: {exc}. Then restart the kernel."
        ) from exc
    except ValueError as exc:
        if scheme not in fsspec.available_protocols():
            known = ", ".join(sorted(fsspec.available_protocols()))
            raise SourceError(
                f"Unknown kind of URL {scheme + '://'!r} in {hide_secrets(url)!r}. fsspec knows {known}."
            ) from exc
        raise SourceError(
            f"{hide_secrets(url)!r} cannot be opened: {hide_secrets(str(exc), secret)}"
        ) from exc
    except Exception as exc:  # each library says in its own way that options do not suit it
        raise SourceError(
            f"{hide_secrets(url)!r} cannot be opened with storage_options={sorted(options)}: "
            f"{type(exc).__name__}: {hide_secrets(str(exc), secret)}. See the documentation of fsspec for "
            f"the options of {scheme}://."
        ) from exc
    return files


def _defaults(scheme: str) -> dict[str, Any]:
    """Return options for how long to wait; those of the libraries are minutes."""
    if scheme in {"s3", "s3a"}:
        retries = {"max_attempts": 2, "mode": "standard"}
        return {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": retries}}
    return {}


def _patience(files: Any) -> dict[str, Any]:
    return {"timeout": _PATIENCE_S} if getattr(files, "async_impl", False) else {}


def _wanted(scheme: str, library: str) -> str:
    return (
        f"{scheme}:// needs {library}. Type: pip install 'amatch-widgets[remote]', then restart the kernel."
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = exc
    while one is not None:
        yield one
        one = one.__cause__


def _answered(exc: BaseException) -> tuple[int, str] | None:
    """Return number and text of what a server answered; None if it did not answer."""
    if isinstance(exc, PermissionError):
        return errno.EACCES, "access is denied"
    if _CREDENTIALS.search(type(exc).__name__):
        return errno.EACCES, "there are no credentials for it, or they are not valid"
    answer = getattr(exc, "response", None)  # of botocore
    status = getattr(exc, "status", None)  # of aiohttp
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if not isinstance(status, int) or status < 400:  # noqa: PLR2004 - of HTTP: not an error
        return None
    if status in _STATUSES:
        return _STATUSES[status]
    is_broken = status >= 500  # noqa: PLR2004 - as above: the server's fault
    what = "failed" if is_broken else "refuses to send it"
    return errno.EIO if is_broken else errno.EINVAL, f"the server {what} (status {status})"
