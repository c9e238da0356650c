"""Messages to other programs on this desktop by SAMP: tables to TOPCAT, places on the sky to Aladin.

The Simple Application Messaging Protocol 1.3 of the Virtual Observatory, standard profile: a hub, which
most such programs bring along, writes its address and a secret into the file ``.samp`` in the home folder,
and takes calls by XML-RPC. Whoever only tells something need not be called back.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import xmlrpc.client  # the hub is a program of the user's own
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname
from xml.parsers.expat import ExpatError

from amatch_widgets.errors import StateError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Hub"]

_TIMEOUT_S = 5.0  # for each call: a hub answers at once or hangs
_NAME = "amatch-widgets"
_HOW = "Open TOPCAT, Aladin or another program with a SAMP hub on this machine, and try again."


class Hub:
    """The hub that runs on this machine, for the time of a ``with`` block.

    Raises
    ------
    StateError
        If none runs, or it does not answer.
    """

    def __init__(self) -> None:
        facts = _read_lock(_lock_file())
        url = facts["samp.hub.xmlrpc.url"].replace("\\", "")
        try:
            hub = xmlrpc.client.ServerProxy(url, transport=_Transport(), allow_none=True)
        except OSError as error:
            raise StateError(
                f"The SAMP hub has the address {url!r}, which is none of http. {_HOW}"
            ) from error
        self._proxy: Any = hub.samp.hub
        try:
            self._key = self._asked("register", facts["samp.secret"])["samp.private-key"]
        except (KeyError, TypeError) as error:
            raise StateError(f"The SAMP hub at {url!r} answered something else than a key. {_HOW}") from error

    def __enter__(self) -> Self:
        try:
            self._asked("declareMetadata", self._key, {"samp.name": _NAME})
        except StateError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(StateError):
            self._asked("unregister", self._key)

    def tell(self, message: str, values: dict[str, str], *, to: str | None = None) -> list[str]:
        """Tell something to the programs that care for it.

        Parameters
        ----------
        message : str
            The kind of message, e.g. "table.load.votable".
        values : dict
            Its parameters.
        to : str, optional
            Name of the only program to be told, in any case of letters.

        Returns
        -------
        list of str
            The names of the programs.

        Raises
        ------
        StateError
            If there is no such program, or none cares.
        """
        ids = sorted(self._asked("getSubscribedClients", self._key, message))
        names = {i: str(self._asked("getMetadata", self._key, i).get("samp.name", i)) for i in ids}
        chosen = {i: n for i, n in names.items() if to is None or n.casefold() == to.casefold()}
        if not chosen:
            there = ", ".join(map(repr, names.values())) or "none"
            who = "No program" if to is None else f"No program named {to!r}"
            raise StateError(
                f"{who} that takes {message!r} is connected to the SAMP hub; those that do: {there}. {_HOW}"
            )
        for client in chosen:
            self._asked("notify", self._key, client, {"samp.mtype": message, "samp.params": values})
        return list(chosen.values())

    def _asked(self, method: str, *values: Any) -> Any:
        try:
            return getattr(self._proxy, method)(*values)
        # OSError: nobody there any more, or too late; the others: the answer is none of a hub
        except (OSError, http.client.HTTPException, ExpatError, xmlrpc.client.Error) as error:
            raise StateError(f"The SAMP hub of this machine does not answer: {error}. {_HOW}") from error


class _Transport(xmlrpc.client.Transport):
    """A connection that waits a few seconds and no longer."""

    def make_connection(self, host: Any) -> Any:
        connection = super().make_connection(host)
        connection.timeout = _TIMEOUT_S
        return connection


def _lock_file() -> Path:
    given = os.environ.get("SAMP_HUB")
    if given is None:
        return Path.home() / ".samp"
    url = urlparse(given.removeprefix("std-lockurl:"))
    if not given.startswith("std-lockurl:") or url.scheme != "file":
        raise StateError(f"SAMP_HUB={given!r}: allowed is std-lockurl:file:///... of a hub on this machine.")
    return Path(url2pathname(unquote(url.path)))


def _read_lock(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise StateError(f"No SAMP hub runs here: {str(path)!r} cannot be read. {_HOW}") from error
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    if missing := {"samp.secret", "samp.hub.xmlrpc.url"} - facts.keys():
        raise StateError(f"{str(path)!r} names no SAMP hub: it lacks {', '.join(sorted(missing))}. {_HOW}")
    return facts
