"""A part of the dashboard, which can also stand alone in a layout of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import ipywidgets
from traitlets import Instance

from amatch_widgets.widgets.frame import Frame
from amatch_widgets.widgets.live import Live
from amatch_widgets.widgets.messages import Messages
from amatch_widgets.widgets.view import Desk, View

if TYPE_CHECKING:
    from amatch_widgets.session import Session

__all__ = ["Part"]


class Part(View):
    """A view of a session, inside a dashboard or alone.

    One without a desk stands alone: it has a frame of its own with styles, messages and heartbeat,
    and is kept up to date from the first time a browser has shown it.

    Parameters
    ----------
    session : Session
        What it shows.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one the part stands alone.
    """

    frame = Instance(Frame, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    _room: ClassVar[dict[str, str]] = {"width": "100%", "min_width": "0"}  # where it stands alone

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._live: Live | None = None
        is_alone = desk is None
        desk = Desk() if desk is None else desk
        super().__init__(session, desk)
        if is_alone:
            self._live = Live(self)
            self.frame = Frame(session, desk, self._live.hear, Messages(session, desk))
            for name, value in self._room.items():
                setattr(self.layout, name, value)

    @property
    def is_alone(self) -> bool:
        """Whether it stands in no dashboard."""
        return self._live is not None

    def forget_images(self) -> None:
        """Free what can be made again, while no browser shows the part."""

    def close(self) -> None:
        """End what keeps the part up to date, and take it off the screen."""
        live, self._live = getattr(self, "_live", None), None
        if live is not None:
            live.close()
        if self.frame is not None:
            self.frame.close()
        super().close()
