"""Errors of a dashboard in a file: what a thread or a callback logs shows up nowhere in a notebook."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["keep_log"]

_PACKAGE = logging.getLogger("amatch_widgets")
# Without any handler, logging would write to stderr, which in Jupyter is the output of whichever
# cell ran last.
_PACKAGE.addHandler(logging.NullHandler())

_lock = threading.Lock()
_kept: dict[Path, tuple[logging.Handler, int]] = {}  # guarded by _lock


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Do nothing: a full disk is told in the message area, and must not fail the logging too."""


def keep_log(path: Path) -> Callable[[], None]:
    """Append the package's warnings and errors, with their tracebacks, to a file from now on.

    Parameters
    ----------
    path : Path
        Made with the first line; several dashboards of a session share it.

    Returns
    -------
    callable
        Ends it, once all that share the file have ended; calling it twice does no harm.
    """
    path = path.resolve()
    with _lock:
        handler, users = _kept.get(path, (None, 0))
        if handler is None:
            handler = _File(path, encoding="utf-8", delay=True)
            handler.setLevel(logging.WARNING)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            _PACKAGE.addHandler(handler)
        _kept[path] = (handler, users + 1)
    is_open = [True]

    def end() -> None:
        with _lock:
            if not is_open:
                return
            is_open.clear()
            handler, users = _kept.pop(path)
            if users > 1:
                _kept[path] = (handler, users - 1)
                return
        _PACKAGE.removeHandler(handler)
        handler.close()

    return end
