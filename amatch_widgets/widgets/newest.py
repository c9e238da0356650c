"""Do slow things in the background, and only those that are still wanted."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Newest"]

_log = logging.getLogger(__name__)


class Newest:
    """Do jobs one after the other on a thread; of each kind only the newest that is not begun yet.

    The thread lives as long as there are jobs, so that what is left behind holds nothing back.

    Thread safety: all attributes are guarded by ``_lock``, which is not held while a job runs.

    Parameters
    ----------
    name : str
        Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: dict[str, Callable[[], None]] = {}
        self._is_running = self._is_closed = False

    def do(self, kind: str, job: Callable[[], None]) -> None:
        """Do `job` after those that wait already, in place of one of the same kind."""
        with self._lock:
            if self._is_closed:
                return
            self._jobs.pop(kind, None)
            self._jobs[kind] = job
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def clear(self) -> None:
        """Forget all jobs but the one in hand."""
        with self._lock:
            self._jobs.clear()

    def close(self) -> None:
        """Begin no job any more; safe to call twice."""
        with self._lock:
            self._is_closed = True
            self._jobs.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._is_running = False
                    return
                job = self._jobs.pop(next(iter(self._jobs)))
            try:
                job()
            except Exception:  # noqa: BLE001 (a border: the next job has nothing to do with it)
                _log.exception("%s failed", self._name)
            del job  # or this thread would keep what it holds
