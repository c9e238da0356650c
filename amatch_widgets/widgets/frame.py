"""The frame of a dashboard, or of a part that stands alone: shared styles, and whether the kernel lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets
from traitlets import Instance

from amatch_widgets.widgets.messages import Messages
from amatch_widgets.widgets.view import Desk, View, handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.session import Session

__all__ = ["Frame"]


class Frame(View):
    """What every display of a session has once: styles, a heartbeat, and a banner when it stops.

    Around a part that stands alone it shows the messages too, and lets no plain key out, which in
    JupyterLab's command mode would cut and insert cells.

    Parameters
    ----------
    session : Session
        What is displayed.
    desk : Desk
        That of the dashboard or of the part.
    heard : callable
        Called, with ``desk.lock`` held, whenever the browser has asked whether the kernel is there.
    messages : Messages, optional
        Shown inside the frame; without them they are shown elsewhere.
    """

    template_file = (__file__, "frame.vue")

    messages = Instance(Messages, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    def __init__(
        self, session: Session, desk: Desk, heard: Callable[[], object], messages: Messages | None = None
    ) -> None:
        self._heard = heard
        super().__init__(session, desk)
        self.messages = messages

    @handler("Answering the browser")
    def vue_beat(self, _data: dict[str, Any]) -> None:
        """Tell the browser that the kernel is alive."""
        self.send({"method": "pulse", "args": []})
        self._heard()

    def close(self) -> None:
        """Take the frame off the screen."""
        if self.messages is not None:
            self.messages.close()
        super().close()
