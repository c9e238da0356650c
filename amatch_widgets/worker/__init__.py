"""The background thread that works off jobs."""

from __future__ import annotations

from amatch_widgets.worker.state import Command, State, transition
from amatch_widgets.worker.worker import Worker, plain_text

__all__ = ["Command", "State", "Worker", "plain_text", "transition"]
