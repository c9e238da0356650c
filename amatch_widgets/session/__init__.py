"""The session: what a user holds, what it runs, and what it keeps on disk."""

from __future__ import annotations

from amatch_widgets.session.session import Filter, Session, Show

__all__ = ["Filter", "Session", "Show"]
